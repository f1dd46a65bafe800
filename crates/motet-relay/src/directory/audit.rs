//! Who has done what to accounts, their devices and their spaces. Nothing that devices write is in it.

use motet_proto::DeviceId;

use super::sql::{self, Row, Sql, params};
use super::{Directory, Result, composed, now_ms};
use crate::limits;
use crate::own_account::AuditRecord;

/// Who has done something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Actor {
    /// Whoever runs the relay: its command line, or the operator's pages of the console.
    Operator,
    /// The holder of the account, without a device: in the console, or through a program that embeds the relay.
    Account,
    /// A device of an account.
    Device(DeviceId),
    /// The relay itself, because it was time.
    Relay,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::Operator => f.write_str("operator"),
            Actor::Account => f.write_str("account"),
            Actor::Device(device) => device.fmt(f),
            Actor::Relay => f.write_str("relay"),
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    AccountAdded,
    AccountRemoved,
    ErasureAsked,
    ErasureCancelled,
    AccountErased,
    LogsErased,
    KeyCreated,
    KeyRevoked,
    DeviceSignedIn,
    DeviceSignedOut,
    DeviceRenamed,
    IdentityLinked,
    IdentityUnlinked,
    SpaceCreated,
    SpaceRenamed,
    SpaceDeleted,
    MemberAdded,
    MemberChanged,
    MemberRemoved,
    MemberLeft,
    OwnerChanged,
    InviteCreated,
    InvitesRevoked,
    InviteUsed,
    ConsoleLinkCreated,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::AccountAdded => "account-added",
            Action::AccountRemoved => "account-removed",
            Action::ErasureAsked => "erasure-asked",
            Action::ErasureCancelled => "erasure-cancelled",
            Action::AccountErased => "account-erased",
            Action::LogsErased => "logs-erased",
            Action::KeyCreated => "key-created",
            Action::KeyRevoked => "key-revoked",
            Action::DeviceSignedIn => "device-signed-in",
            Action::DeviceSignedOut => "device-signed-out",
            Action::DeviceRenamed => "device-renamed",
            Action::IdentityLinked => "identity-linked",
            Action::IdentityUnlinked => "identity-unlinked",
            Action::SpaceCreated => "space-created",
            Action::SpaceRenamed => "space-renamed",
            Action::SpaceDeleted => "space-deleted",
            Action::MemberAdded => "member-added",
            Action::MemberChanged => "member-changed",
            Action::MemberRemoved => "member-removed",
            Action::MemberLeft => "member-left",
            Action::OwnerChanged => "owner-changed",
            Action::InviteCreated => "invite-created",
            Action::InvitesRevoked => "invites-revoked",
            Action::InviteUsed => "invite-used",
            Action::ConsoleLinkCreated => "console-link-created",
        }
    }
}

/// Who does something, while it is done.
#[derive(Clone, Copy)]
pub(super) struct By(pub(super) Actor);

impl By {
    /// Notes it in the transaction that does it.
    pub(super) fn note(
        self,
        conn: &Sql<'_>,
        account: &str,
        action: Action,
        subject: &str,
    ) -> sql::Result<()> {
        self.note_of(conn, account, action, subject, "")
    }

    /// The same of something that concerns another account as well.
    pub(super) fn note_of(
        self,
        conn: &Sql<'_>,
        account: &str,
        action: Action,
        subject: &str,
        member: &str,
    ) -> sql::Result<()> {
        let now = now_ms();
        let sql = "INSERT INTO audit (number, at, account, actor, action, subject, member)
                   SELECT COALESCE(MAX(number), 0) + 1, CAST(? AS bigint), ?, ?, ?, ?, ? FROM audit";
        conn.execute(sql, params![now, account, self.0.to_string(), action.name(), subject, member])?;
        let kept = i64::try_from(limits::AUDIT_KEPT.as_millis()).unwrap_or(i64::MAX);
        conn.execute("DELETE FROM audit WHERE at < ?", [now.saturating_sub(kept)])?;
        let sql = "DELETE FROM audit WHERE account = ?1 AND number <=
                     (SELECT number FROM audit WHERE account = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
        conn.execute(sql, params![account, limits::AUDIT_RECORDS_PER_ACCOUNT]).map(drop)
    }
}

impl Directory {
    /// What was done to an account, by its devices or to spaces that it is or was a member of, or to all: at most `most` records, the latest first, of
    /// those with a number below `before` if there is one. Records stay for [`AUDIT_KEPT`](limits::AUDIT_KEPT).
    ///
    /// # Errors
    /// [`DirectoryError::File`](super::DirectoryError::File).
    pub fn audit(&self, account: Option<&str>, before: Option<u64>, most: usize) -> Result<Vec<AuditRecord>> {
        let columns =
            "SELECT number, at, account, actor, action, subject, member FROM audit WHERE number < ?1";
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        match account.map(composed) {
            Some(account) => {
                let sql =
                    format!("{columns} AND (account = ?2 OR member = ?2) ORDER BY number DESC LIMIT ?3");
                self.rows(&sql, params![before, account, most], record)
            }
            None => {
                let sql = format!("{columns} ORDER BY number DESC LIMIT ?2");
                self.rows(&sql, params![before, most], record)
            }
        }
    }
}

fn record(row: &Row) -> sql::Result<AuditRecord> {
    Ok(AuditRecord {
        number: row.get::<i64>(0)?.unsigned_abs(),
        at: row.get(1)?,
        account: row.get(2)?,
        actor: row.get(3)?,
        action: row.get(4)?,
        subject: row.get(5)?,
        member: row.get(6)?,
    })
}
