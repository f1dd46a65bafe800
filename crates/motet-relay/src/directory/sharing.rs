//! What accounts ask of the spaces that they share, done: each request as the account may make it, and no other.

use super::audit::{Action, Actor, By};
use super::sql::{self, OptionalExtension, Sql, params};
use motet_proto::SpaceId;

use super::invites::{drop_invites, owner_of};
use super::spaces::drop_space;
use super::{Directory, DirectoryError, check_name, composed, now_ms};
use crate::access::{OfferedSpace, Role};
use crate::limits;
use crate::sharing::{SharingAnswer, SharingError, SharingRequest};

/// How many spaces an account shares as their owner.
const OWNED: &str = "SELECT COUNT(*) FROM shared_space WHERE owner = ?";

type Result<T> = std::result::Result<T, SharingError>;

impl Directory {
    /// Does what an account asks of the spaces that it shares.
    ///
    /// # Errors
    /// [`SharingError`]. Of spaces that it is no member of an account hears as of such that are not there.
    pub fn share(&self, account: &str, request: &SharingRequest) -> Result<SharingAnswer> {
        self.share_by(account, request, By(Actor::Account))
    }

    pub(super) fn share_by(&self, account: &str, request: &SharingRequest, by: By) -> Result<SharingAnswer> {
        use SharingRequest as Ask;
        match request {
            Ask::Create { name } => self.create_shared(account, name, by),
            Ask::Rename { space, name } => self.rename(account, *space, name, by),
            Ask::Delete { space } => {
                self.as_owner(account, *space, |conn| {
                    drop_space(conn, *space)?;
                    by.note(conn, &composed(account), Action::SpaceDeleted, &space.to_string())?;
                    Ok(None)
                })?;
                Ok(SharingAnswer::Done)
            }
            Ask::Members { space } => self.members_of(account, *space),
            Ask::SetRole { space, account: member, role } => {
                self.set_role(account, *space, (member, *role), by)
            }
            Ask::Remove { space, account: member } => {
                let mut reason = None;
                self.as_owner(account, *space, |conn| {
                    // Also if it has left a moment ago: it could come back with a code that others have not used up.
                    drop_invites(conn, *space)?;
                    reason = part(conn, *space, &composed(member), (by, Action::MemberRemoved))?;
                    Ok(None)
                })?;
                refused(reason).map(|()| SharingAnswer::Done)
            }
            Ask::Leave { space } => {
                self.look(account, *space)?;
                let left = (by, Action::MemberLeft);
                self.changed(|conn| Ok(refused(part(conn, *space, &composed(account), left)?)))?;
                Ok(SharingAnswer::Done)
            }
            Ask::Invite { space, role, expires_after, is_reusable } => {
                self.owned(account, *space)?;
                if *role == Role::Owner {
                    return Err(SharingError::Bad("who is invited reads, or writes as well".into()));
                }
                let after = expires_after.unwrap_or(limits::INVITE_LIFETIME);
                let code = self.create_invite_by(*space, account, (*role, after, *is_reusable), by);
                let code = code.map_err(of_directory)?;
                let expires_at = self.invite(&code).map_err(of_directory)?.expires_at;
                Ok(SharingAnswer::Code { code, expires_at })
            }
            Ask::RevokeInvites { space } => {
                self.owned(account, *space)?;
                self.revoke_invites_by(*space, account, by).map_err(of_directory)?;
                Ok(SharingAnswer::Done)
            }
            Ask::ShowInvite { code } => self.invite(code).map(SharingAnswer::Invite).map_err(of_directory),
            Ask::Join { code } => {
                let invite = self.join_by(code, account, by).map_err(of_directory)?;
                self.offered(account, invite.space)
            }
        }
    }

    fn create_shared(&self, account: &str, name: &str, by: By) -> Result<SharingAnswer> {
        let owned = self.rows(OWNED, [composed(account)], |row| row.get::<i64>(0)).map_err(of_directory)?;
        if owned.first().is_some_and(|owned| *owned >= limits::SHARED_SPACES_PER_ACCOUNT) {
            return Err(of_directory(DirectoryError::TooManySpaces));
        }
        let id = self.create_space_by(name, account, by).map_err(of_directory)?;
        self.offered(account, id)
    }

    fn rename(&self, account: &str, space: SpaceId, name: &str, by: By) -> Result<SharingAnswer> {
        let name = &*composed(name);
        self.as_owner(account, space, |conn| {
            if let Err(error) = check_name(name) {
                return Ok(Some(of_directory(error)));
            }
            if is_taken(conn, account, name, space)? {
                return Ok(Some(of_directory(DirectoryError::SpaceExists(name.to_owned()))));
            }
            let sql = "UPDATE shared_space SET name = ? WHERE id = ?";
            conn.execute(sql, params![name, space.as_bytes()])?;
            by.note(conn, &composed(account), Action::SpaceRenamed, &space.to_string()).map(|()| None)
        })?;
        self.offered(account, space)
    }

    fn members_of(&self, account: &str, space: SpaceId) -> Result<SharingAnswer> {
        let owner = self.look(account, space)?.owner;
        let sql = "SELECT account, may_write FROM member WHERE space = ? ORDER BY account";
        let members = self.rows(sql, [space.as_bytes()], |row| {
            Ok((row.get(0)?, if row.get(1)? { Role::Writer } else { Role::Reader }))
        });
        let members = members.map_err(of_directory)?;
        Ok(SharingAnswer::Members(std::iter::once((owner, Role::Owner)).chain(members).collect()))
    }

    fn set_role(
        &self,
        account: &str,
        space: SpaceId,
        (member, role): (&str, Role),
        by: By,
    ) -> Result<SharingAnswer> {
        let (owner, member) = (&*composed(account), &*composed(member));
        self.as_owner(account, space, |conn| {
            if owner == member {
                let reason = "the owner stays one until another member takes it over";
                return Ok(Some(SharingError::Conflict(reason.into())));
            }
            let id = space.as_bytes();
            let sql = "SELECT 1 FROM member WHERE space = ? AND account = ?";
            if conn.query_row(sql, params![id, member], |_| Ok(())).optional()?.is_none() {
                return Ok(Some(of_directory(DirectoryError::NoMember(member.to_owned()))));
            }
            // With codes of before a member could do what it may not do any more, and others come whom a new owner does not know of.
            drop_invites(conn, space)?;
            let note = |action| by.note_of(conn, owner, action, &space.to_string(), member).map(|()| None);
            if role != Role::Owner {
                let sql = "UPDATE member SET may_write = ? WHERE space = ? AND account = ?";
                conn.execute(sql, params![role >= Role::Writer, id, member])?;
                return note(Action::MemberChanged);
            }
            let sql = "SELECT name FROM shared_space WHERE id = ?";
            let name: String = conn.query_row(sql, [id], |row| row.get(0))?;
            if is_taken(conn, member, &name, space)? {
                return Ok(Some(SharingError::Conflict(format!("{member:?} owns a space {name:?} already"))));
            }
            let owned: i64 = conn.query_row(OWNED, [member], |row| row.get(0))?;
            if owned >= limits::SHARED_SPACES_PER_ACCOUNT {
                return Ok(Some(SharingError::Conflict(format!(
                    "{member:?} owns as many spaces as one can"
                ))));
            }
            conn.execute("UPDATE shared_space SET owner = ? WHERE id = ?", params![member, id])?;
            conn.execute("DELETE FROM member WHERE space = ? AND account = ?", params![id, member])?;
            let sql = "INSERT INTO member (space, account, may_write, since) VALUES (?, ?, 1, ?)";
            conn.execute(sql, params![id, owner, now_ms()])?;
            note(Action::OwnerChanged)
        })?;
        Ok(SharingAnswer::Done)
    }

    /// What a space is for an account now.
    fn offered(&self, account: &str, space: SpaceId) -> Result<SharingAnswer> {
        self.look(account, space).map(SharingAnswer::Space)
    }

    fn owned(&self, account: &str, space: SpaceId) -> Result<()> {
        match self.look(account, space)?.role {
            Role::Owner => Ok(()),
            _ => Err(SharingError::NotOwner),
        }
    }

    /// As the file says it: another program may have changed it a moment ago.
    fn look(&self, account: &str, space: SpaceId) -> Result<OfferedSpace> {
        let sql = "SELECT s.name, s.owner, s.owner = ?1, m.may_write FROM shared_space s
                   LEFT JOIN member m ON m.space = s.id AND m.account = ?1
                   WHERE s.id = ?2";
        let found = self.rows(sql, params![composed(account), space.as_bytes()], |row| {
            let role = match (row.get(2)?, row.get(3)?) {
                (true, _) => Some(Role::Owner),
                (false, Some(true)) => Some(Role::Writer),
                (false, Some(false)) => Some(Role::Reader),
                (false, None) => None,
            };
            let (name, owner) = (row.get(0)?, row.get(1)?);
            Ok(role.map(|role| OfferedSpace { id: space, name, owner, role }))
        });
        found.map_err(of_directory)?.pop().flatten().ok_or(SharingError::NoSpace)
    }

    /// Changes a space, if the account owns it as it is changed. `change` says why it is not.
    fn as_owner(
        &self,
        account: &str,
        space: SpaceId,
        change: impl FnOnce(&Sql<'_>) -> sql::Result<Option<SharingError>>,
    ) -> Result<()> {
        self.owned(account, space)?;
        self.changed(|conn| match owner_of(conn, space)? {
            Some(owner) if owner == composed(account) => Ok(refused(change(conn)?)),
            _ => Ok(Err(SharingError::NotOwner)),
        })
    }

    fn changed(&self, change: impl FnOnce(&Sql<'_>) -> sql::Result<Result<()>>) -> Result<()> {
        self.attempt(change).map_err(of_directory)??;
        self.reload_spaces().map_err(of_directory)
    }
}

/// Takes a space from an account.
fn part(
    conn: &Sql<'_>,
    space: SpaceId,
    account: &str,
    (by, action): (By, Action),
) -> sql::Result<Option<SharingError>> {
    let owner = owner_of(conn, space)?.unwrap_or_default();
    if owner == account {
        let reason = "the owner cannot leave: make another member the owner, or delete the space";
        return Ok(Some(SharingError::Conflict(reason.into())));
    }
    let sql = "DELETE FROM member WHERE space = ? AND account = ?";
    let gone = conn.execute(sql, params![space.as_bytes(), account])?;
    if gone > 0 {
        by.note_of(conn, &owner, action, &space.to_string(), account)?;
    }
    Ok((gone == 0).then(|| of_directory(DirectoryError::NoMember(account.to_owned()))))
}

fn refused(reason: Option<SharingError>) -> Result<()> {
    reason.map_or(Ok(()), Err)
}

/// Whether an account shares another space of this name.
fn is_taken(conn: &Sql<'_>, owner: &str, name: &str, but: SpaceId) -> sql::Result<bool> {
    let sql = "SELECT 1 FROM shared_space WHERE owner = ? AND name = ? AND id <> ?";
    conn.exists(sql, params![composed(owner), name, but.as_bytes()])
}

fn of_directory(error: DirectoryError) -> SharingError {
    match error {
        DirectoryError::NoSpace(_) => SharingError::NoSpace,
        DirectoryError::NoInvite => SharingError::NoInvite,
        // Of an account that only a file of tokens knows.
        DirectoryError::NoAccount(_) => SharingError::NotOffered,
        DirectoryError::BadName(_) => SharingError::Bad(error.to_string()),
        DirectoryError::NoMember(_)
        | DirectoryError::SpaceExists(_)
        | DirectoryError::IsOwner(_)
        | DirectoryError::TooManyInvites
        | DirectoryError::TooManyMembers
        | DirectoryError::TooManySpaces => SharingError::Conflict(error.to_string()),
        error => {
            tracing::error!(%error, "a shared space cannot be changed");
            SharingError::Unavailable
        }
    }
}
