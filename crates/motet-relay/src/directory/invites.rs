//! Codes with which accounts join a shared space.

use std::time::Duration;

use super::audit::{Action, Actor, By};
use super::sql::{self, OptionalExtension, Sql, params};
use motet_proto::SpaceId;

use super::{Directory, DirectoryError, Result, composed, hash, later, now_ms, secret, spaces::has_account};
use crate::limits;
use crate::sharing::{Invite, Role};

/// What a code begins with, so that people know one.
const CODE_PREFIX: &str = "motet-join-";

impl Directory {
    /// Makes a code with which an account joins a space: one account, or any number. It is shown once and stands nowhere. `by`: its owner.
    ///
    /// # Errors
    /// [`DirectoryError::NoSpace`], also of a space of somebody else; [`DirectoryError::TooManyInvites`], [`DirectoryError::Random`],
    /// [`DirectoryError::File`].
    pub fn create_invite(
        &self,
        space: SpaceId,
        by: &str,
        role: Role,
        expires_after: Duration,
        is_reusable: bool,
    ) -> Result<String> {
        self.create_invite_by(space, by, (role, expires_after, is_reusable), By(Actor::Account))
    }

    pub(super) fn create_invite_by(
        &self,
        space: SpaceId,
        owner: &str,
        (role, expires_after, is_reusable): (Role, Duration, bool),
        by: By,
    ) -> Result<String> {
        let owner = &*composed(owner);
        let code = secret::<16>(CODE_PREFIX)?;
        let now = now_ms();
        let expires_at = later(now, expires_after.min(limits::INVITE_LONGEST));
        self.attempt(|conn| {
            conn.execute("DELETE FROM invite WHERE expires_at <= ?", [now])?;
            let id = space.as_bytes();
            if owner_of(conn, space)?.is_none_or(|found| found != owner) {
                return Ok(Err(DirectoryError::NoSpace(space.to_string())));
            }
            let sql = "SELECT COUNT(*) FROM invite WHERE space = ?";
            if conn.query_row(sql, [id], |row| row.get::<i64>(0))? >= limits::INVITES_PER_SPACE {
                return Ok(Err(DirectoryError::TooManyInvites));
            }
            let sql =
                "INSERT INTO invite (hash, space, may_write, made_by, created_at, expires_at, is_reusable)
                       VALUES (?, ?, ?, ?, ?, ?, ?)";
            let row = params![hash(&code), id, role >= Role::Writer, owner, now, expires_at, is_reusable];
            conn.execute(sql, row)?;
            by.note(conn, owner, Action::InviteCreated, &space.to_string()).map(Ok)
        })??;
        Ok(code)
    }

    /// What a code is for, without using it.
    ///
    /// # Errors
    /// [`DirectoryError::NoInvite`], [`DirectoryError::File`].
    pub fn invite(&self, code: &str) -> Result<Invite> {
        let found = self.read(|conn| find(conn, code, now_ms()))?;
        found.ok_or(DirectoryError::NoInvite)
    }

    /// Has an account join the space that a code is for. The same account again changes nothing, and does not use the code again; one that may do
    /// more already keeps that.
    ///
    /// # Errors
    /// [`DirectoryError::NoInvite`], [`DirectoryError::NoAccount`], [`DirectoryError::TooManyMembers`], [`DirectoryError::File`].
    pub fn join(&self, code: &str, account: &str) -> Result<Invite> {
        self.join_by(code, account, By(Actor::Account))
    }

    pub(super) fn join_by(&self, code: &str, account: &str, by: By) -> Result<Invite> {
        let account = &*composed(account);
        let joined = self.attempt(|conn| {
            let now = now_ms();
            let Some(invite) = find_any(conn, code, now)? else { return Ok(Err(DirectoryError::NoInvite)) };
            if !has_account(conn, account)? {
                return Ok(Err(DirectoryError::NoAccount(account.to_owned())));
            }
            let (invite, used) = invite;
            let id = invite.space.as_bytes();
            let sql = "SELECT may_write FROM member WHERE space = ? AND account = ?";
            let has: Option<bool> = conn.query_row(sql, params![id, account], |row| row.get(0)).optional()?;
            let may_write = invite.role >= Role::Writer;
            if invite.owner == account || has.is_some_and(|has| has || !may_write) {
                return Ok(Ok(invite));
            }
            if used > 0 && !invite.is_reusable {
                return Ok(Err(DirectoryError::NoInvite));
            }
            let sql = "SELECT COUNT(*) FROM member WHERE space = ?";
            let members: i64 = conn.query_row(sql, [id], |row| row.get(0))?;
            if has.is_none() && members >= limits::MEMBERS_PER_SPACE {
                return Ok(Err(DirectoryError::TooManyMembers));
            }
            let sql = "INSERT INTO member (space, account, may_write, since) VALUES (?, ?, ?, ?)
                       ON CONFLICT (space, account) DO UPDATE
                       SET may_write = CASE WHEN excluded.may_write > 0 THEN 1 ELSE member.may_write END";
            conn.execute(sql, params![id, account, may_write, now])?;
            conn.execute("UPDATE invite SET used = used + 1 WHERE hash = ?", [hash(code.trim())])?;
            by.note_of(conn, &invite.owner, Action::InviteUsed, &invite.space.to_string(), account)?;
            Ok(Ok(invite))
        })??;
        self.reload_spaces()?;
        Ok(joined)
    }

    /// Makes all codes of a space worthless. Returns how many were good. `by`: its owner.
    ///
    /// # Errors
    /// [`DirectoryError::NoSpace`], [`DirectoryError::File`].
    pub fn revoke_invites(&self, space: SpaceId, by: &str) -> Result<u64> {
        self.revoke_invites_by(space, by, By(Actor::Account))
    }

    pub(super) fn revoke_invites_by(&self, space: SpaceId, owner: &str, by: By) -> Result<u64> {
        let owner = &*composed(owner);
        self.write(|conn| {
            if owner_of(conn, space)?.is_none_or(|found| found != owner) {
                return Ok(Err(DirectoryError::NoSpace(space.to_string())));
            }
            conn.execute("DELETE FROM invite WHERE expires_at <= ?", [now_ms()])?;
            let gone = conn.execute("DELETE FROM invite WHERE space = ?", [space.as_bytes()])?;
            by.note(conn, owner, Action::InvitesRevoked, &space.to_string())?;
            Ok(Ok(gone as u64))
        })?
    }
}

/// The account that owns a space that is shared.
pub(super) fn owner_of(conn: &Sql<'_>, space: SpaceId) -> sql::Result<Option<String>> {
    let sql = "SELECT owner FROM shared_space WHERE id = ?";
    conn.query_row(sql, [space.as_bytes()], |row| row.get(0)).optional()
}

/// Makes all codes of a space worthless.
pub(super) fn drop_invites(conn: &Sql<'_>, space: SpaceId) -> sql::Result<()> {
    conn.execute("DELETE FROM invite WHERE space = ?", [space.as_bytes()]).map(drop)
}

/// A code that somebody can still join with.
fn find(conn: &Sql<'_>, code: &str, now: i64) -> sql::Result<Option<Invite>> {
    let found = find_any(conn, code, now)?;
    Ok(found.filter(|(invite, used)| invite.is_reusable || *used == 0).map(|(invite, _)| invite))
}

/// A code that has not expired, and how many have joined with it.
fn find_any(conn: &Sql<'_>, code: &str, now: i64) -> sql::Result<Option<(Invite, i64)>> {
    let sql = "SELECT s.id, s.name, s.owner, i.may_write, i.expires_at, i.is_reusable, i.used
               FROM invite i JOIN shared_space s ON s.id = i.space
               WHERE i.hash = ? AND i.expires_at > ?";
    let found = conn.query_row(sql, params![hash(code.trim()), now], |row| {
        let space = SpaceId::from_slice(&row.get::<Vec<u8>>(0)?);
        let role = if row.get(3)? { Role::Writer } else { Role::Reader };
        let (name, owner, expires_at, is_reusable) = (row.get(1)?, row.get(2)?, row.get(4)?, row.get(5)?);
        let invite = space.map(|space| Invite { space, name, owner, role, expires_at, is_reusable });
        Ok(invite.zip(Some(row.get(6)?)))
    });
    Ok(found.optional()?.flatten())
}
