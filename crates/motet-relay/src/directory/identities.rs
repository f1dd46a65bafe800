//! Who people are at other services, and which account that is here.

use super::sql::{self, NONE, OptionalExtension, Sql, params};

use super::audit::{Action, Actor, By};
use super::erasure::is_erasing;
use super::{Directory, DirectoryError, Result, composed, now_ms, spaces::has_account};
use crate::auth::RegisterError;
use crate::identity::Identity;
use crate::own_account::LinkedIdentity;

impl Directory {
    /// The identities that are linked to accounts, by account.
    ///
    /// # Errors
    /// [`DirectoryError::File`].
    pub fn identities(&self) -> Result<Vec<LinkedIdentity>> {
        let sql = "SELECT issuer, subject, account, shown, linked_at, last_used_at FROM identity
                   ORDER BY account NULLS FIRST, issuer, subject";
        self.rows(sql, NONE, |row| {
            Ok(LinkedIdentity {
                issuer: row.get(0)?,
                subject: row.get(1)?,
                account: row.get(2)?,
                shown: row.get(3)?,
                linked_at: row.get(4)?,
                last_used_at: row.get(5)?,
            })
        })
    }

    /// Lets whoever is this at another service sign devices in to an account, beside whatever else can. The same again changes nothing.
    ///
    /// # Errors
    /// [`DirectoryError::NoAccount`], [`DirectoryError::IdentityLinked`] if it is linked to another account, [`DirectoryError::File`].
    pub fn link_identity(&self, issuer: &str, subject: &str, account: &str) -> Result<()> {
        self.link(issuer, subject, "", account, By(Actor::Operator))
    }

    /// Lets nobody sign in with an identity any more. Devices that have stay signed in. Returns the account.
    ///
    /// # Errors
    /// [`DirectoryError::NoIdentity`], [`DirectoryError::File`].
    pub fn unlink_identity(&self, issuer: &str, subject: &str) -> Result<String> {
        let none = || DirectoryError::NoIdentity(subject.to_owned());
        self.attempt(|conn| match account_of(conn, issuer, subject)? {
            Some(Some(account)) => {
                let sql = "UPDATE identity SET account = NULL WHERE issuer = ? AND subject = ?";
                conn.execute(sql, [issuer, subject])?;
                By(Actor::Operator).note(conn, &account, Action::IdentityUnlinked, issuer)?;
                Ok(Ok(account))
            }
            _ => Ok(Err(none())),
        })?
    }

    /// The same as the account itself asks for it: of identities of others it hears as of such that are not there.
    pub(super) fn unlink_own(&self, issuer: &str, subject: &str, account: &str, by: By) -> Result<()> {
        let sql = "UPDATE identity SET account = NULL WHERE issuer = ? AND subject = ? AND account = ?";
        let gone = self.write(|conn| {
            let gone = conn.execute(sql, [issuer, subject, account])?;
            if gone > 0 {
                by.note(conn, account, Action::IdentityUnlinked, issuer)?;
            }
            Ok(gone)
        })?;
        if gone > 0 { Ok(()) } else { Err(DirectoryError::NoIdentity(subject.to_owned())) }
    }

    /// Links an identity that somebody has proven to have.
    pub(super) fn link(&self, issuer: &str, subject: &str, shown: &str, account: &str, by: By) -> Result<()> {
        let account = &*composed(account);
        self.write(|conn| {
            if !has_account(conn, account)? {
                return Ok(Err(DirectoryError::NoAccount(account.to_owned())));
            }
            match account_of(conn, issuer, subject)? {
                Some(Some(same)) if same == account => Ok(Ok(())),
                Some(Some(other)) => Ok(Err(DirectoryError::IdentityLinked(other))),
                _ => {
                    insert(conn, issuer, subject, shown, account, now_ms())?;
                    by.note(conn, account, Action::IdentityLinked, issuer).map(Ok)
                }
            }
        })?
    }
}

/// The account of an identity; a new one for whoever has none, where the issuer's people get one. `is_bound`: the device has documents of some
/// account, which is not the new one.
pub(super) fn account_for(
    conn: &Sql<'_>,
    identity: &Identity,
    is_bound: bool,
    now: i64,
) -> sql::Result<std::result::Result<String, RegisterError>> {
    let Identity { issuer, subject, shown, label, may_be_new } = identity;
    let found = account_of(conn, issuer, subject)?;
    if let Some(Some(account)) = found {
        return Ok(Ok(account));
    }
    // One that was unlinked is not new.
    if !may_be_new || found.is_some() {
        return Ok(Err(RegisterError::NoAccount { issuer: label.clone(), subject: subject.clone() }));
    }
    // Not the e-mail address: that may be somebody else's tomorrow.
    let hash =
        blake3::Hasher::new().update(issuer.as_bytes()).update(&[0]).update(subject.as_bytes()).finalize();
    let account = format!("{label}-{}", &hash.to_hex()[..16]);
    if has_account(conn, &account)? {
        // The operator has made it, or has unlinked the identity from it.
        return Ok(Err(RegisterError::NoAccount { issuer: label.clone(), subject: subject.clone() }));
    }
    if is_bound {
        return Ok(Err(RegisterError::OtherAccount(account)));
    }
    if is_erasing(conn, &account)? {
        return Ok(Err(RegisterError::Unavailable));
    }
    conn.execute("INSERT INTO account (name, created_at) VALUES (?, ?)", params![account, now])?;
    insert(conn, issuer, subject, shown, &account, now)?;
    By(Actor::Account).note(conn, &account, Action::AccountAdded, issuer)?;
    Ok(Ok(account))
}

/// Notes that a device has signed in with an identity, and what its token shows of it.
pub(super) fn note_used(conn: &Sql<'_>, identity: &Identity, now: i64) -> sql::Result<()> {
    let sql = "UPDATE identity SET last_used_at = ?, shown = ? WHERE issuer = ? AND subject = ?";
    conn.execute(sql, params![now, identity.shown, identity.issuer, identity.subject]).map(drop)
}

/// `None` if it was never linked.
fn account_of(conn: &Sql<'_>, issuer: &str, subject: &str) -> sql::Result<Option<Option<String>>> {
    let sql = "SELECT account FROM identity WHERE issuer = ? AND subject = ?";
    conn.query_row(sql, [issuer, subject], |row| row.get(0)).optional()
}

fn insert(
    conn: &Sql<'_>,
    issuer: &str,
    subject: &str,
    shown: &str,
    account: &str,
    now: i64,
) -> sql::Result<()> {
    let sql = "INSERT INTO identity (issuer, subject, account, shown, linked_at) VALUES (?, ?, ?, ?, ?)
               ON CONFLICT (issuer, subject) DO UPDATE SET account = excluded.account, linked_at = excluded.linked_at";
    conn.execute(sql, params![issuer, subject, account, shown, now]).map(drop)
}
