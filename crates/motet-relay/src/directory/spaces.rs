//! Spaces that accounts share, and who may do what with them.

use std::collections::HashMap;

use super::audit::{Action, Actor, By};
use super::sql::{self, NONE, OptionalExtension, Sql, params};
use motet_proto::SpaceId;

use super::invites::drop_invites;
use super::{Directory, DirectoryError, Result, check_name, composed, hex, now_ms};
use crate::access::Role;

/// A space that accounts share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedSpace {
    /// Its id, which devices open a file with.
    pub id: SpaceId,
    /// What its owner calls it.
    pub name: String,
    /// The account that it belongs to, and counts for.
    pub owner: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
    /// The others, by name.
    pub members: Vec<(String, Role)>,
}

/// A shared space, for whoever has to decide who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownSpace {
    pub(super) name: String,
    pub(super) owner: String,
    /// The account under which its log is kept.
    pub(super) log_of: String,
    created_at: i64,
    pub(super) members: HashMap<String, Role>,
}

impl Directory {
    /// Makes a space that an account shares, and returns its id. The same account has each name once.
    ///
    /// # Errors
    /// [`DirectoryError::BadName`], [`DirectoryError::NoAccount`], [`DirectoryError::SpaceExists`], [`DirectoryError::Random`],
    /// [`DirectoryError::File`].
    pub fn create_space(&self, name: &str, owner: &str) -> Result<SpaceId> {
        self.create_space_by(name, owner, By(Actor::Operator))
    }

    pub(super) fn create_space_by(&self, name: &str, owner: &str, by: By) -> Result<SpaceId> {
        let (name, owner) = (&*composed(name), &*composed(owner));
        check_name(name)?;
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|e| DirectoryError::Random(e.to_string()))?;
        let id = SpaceId::shared(random);
        let made = self.write(|conn| {
            if !has_account(conn, owner)? {
                return Ok(Err(DirectoryError::NoAccount(owner.to_owned())));
            }
            let sql = "SELECT 1 FROM shared_space WHERE owner = ? AND name = ?";
            if conn.exists(sql, [owner, name])? {
                return Ok(Err(DirectoryError::SpaceExists(name.to_owned())));
            }
            let sql =
                "INSERT INTO shared_space (id, name, owner, log_of, created_at) VALUES (?1, ?2, ?3, ?3, ?4)";
            conn.execute(sql, params![id.as_bytes(), name, owner, now_ms()])?;
            by.note(conn, owner, Action::SpaceCreated, &id.to_string()).map(Ok)
        })?;
        made?;
        self.reload_spaces()?;
        Ok(id)
    }

    /// The spaces that are shared, by owner and name.
    ///
    /// # Errors
    /// [`DirectoryError::File`].
    pub fn spaces(&self) -> Result<Vec<SharedSpace>> {
        let known = self.read_spaces()?;
        let mut spaces: Vec<SharedSpace> = known
            .into_iter()
            .map(|(id, KnownSpace { name, owner, created_at, members, .. })| {
                let mut members: Vec<_> = members.into_iter().collect();
                members.sort_unstable();
                SharedSpace { id, name, owner, created_at, members }
            })
            .collect();
        spaces.sort_unstable_by(|a, b| (&a.owner, &a.name).cmp(&(&b.owner, &b.name)));
        Ok(spaces)
    }

    /// Lets an account read a space, or also write to it; or changes which of them. Codes to join it are void then.
    ///
    /// # Errors
    /// [`DirectoryError::NoSpace`], [`DirectoryError::NoAccount`], [`DirectoryError::IsOwner`], [`DirectoryError::File`].
    pub fn put_member(&self, space: &str, account: &str, role: Role) -> Result<()> {
        let (space, account) = (self.one_space(space)?, &*composed(account));
        if space.owner == account || role == Role::Owner {
            return Err(DirectoryError::IsOwner(account.to_owned()));
        }
        let put = self.write(|conn| {
            if !has_account(conn, account)? {
                return Ok(Err(DirectoryError::NoAccount(account.to_owned())));
            }
            let sql = "SELECT 1 FROM member WHERE space = ? AND account = ?";
            let is_member = conn.exists(sql, params![space.id.as_bytes(), account])?;
            let sql = "INSERT INTO member (space, account, may_write, since) VALUES (?, ?, ?, ?)
                       ON CONFLICT (space, account) DO UPDATE SET may_write = excluded.may_write";
            conn.execute(sql, params![space.id.as_bytes(), account, role == Role::Writer, now_ms()])?;
            // Who may do less now could do more with a code.
            drop_invites(conn, space.id)?;
            let action = if is_member { Action::MemberChanged } else { Action::MemberAdded };
            let (by, id) = (By(Actor::Operator), space.id.to_string());
            by.note_of(conn, &space.owner, action, &id, account).map(Ok)
        })?;
        put?;
        self.reload_spaces()
    }

    /// Takes a space from an account, and makes codes to join it void: open sessions end within [`TOKENS_LOOKED_AT_EVERY`](crate::limits::TOKENS_LOOKED_AT_EVERY). What its devices have
    /// stays on them.
    ///
    /// # Errors
    /// [`DirectoryError::NoSpace`], [`DirectoryError::NoMember`], [`DirectoryError::File`].
    pub fn remove_member(&self, space: &str, account: &str) -> Result<()> {
        let (space, account) = (self.one_space(space)?, &*composed(account));
        let sql = "DELETE FROM member WHERE space = ? AND account = ?";
        let removed = self.write(|conn| {
            // Who is out could come back with a code that others have not used up.
            drop_invites(conn, space.id)?;
            let removed = conn.execute(sql, params![space.id.as_bytes(), account])?;
            if removed > 0 {
                let (by, id) = (By(Actor::Operator), space.id.to_string());
                by.note_of(conn, &space.owner, Action::MemberRemoved, &id, account)?;
            }
            Ok(removed)
        })?;
        self.reload_spaces()?;
        if removed > 0 { Ok(()) } else { Err(DirectoryError::NoMember(account.to_owned())) }
    }

    /// Ends the sharing of a space for all, its owner too. Its log stays on the relay, and nobody reads it any more.
    ///
    /// # Errors
    /// [`DirectoryError::NoSpace`], [`DirectoryError::File`].
    pub fn remove_space(&self, space: &str) -> Result<SharedSpace> {
        let space = self.one_space(space)?;
        self.write(|conn| {
            drop_space(conn, space.id)?;
            By(Actor::Operator).note(conn, &space.owner, Action::SpaceDeleted, &space.id.to_string())
        })?;
        self.reload_spaces()?;
        Ok(space)
    }

    /// All shared spaces.
    pub(super) fn read_spaces(&self) -> Result<HashMap<SpaceId, KnownSpace>> {
        let sql = "SELECT id, name, owner, created_at, log_of FROM shared_space";
        let rows = self.rows(sql, NONE, |row| {
            let space = KnownSpace {
                name: row.get(1)?,
                owner: row.get(2)?,
                created_at: row.get(3)?,
                log_of: row.get(4)?,
                members: HashMap::new(),
            };
            Ok((row.get::<Vec<u8>>(0)?, space))
        })?;
        let mut spaces: HashMap<SpaceId, KnownSpace> =
            rows.into_iter().filter_map(|(id, space)| Some((SpaceId::from_slice(&id)?, space))).collect();
        let members = self.rows("SELECT space, account, may_write FROM member", NONE, |row| {
            let role = if row.get(2)? { Role::Writer } else { Role::Reader };
            Ok((row.get::<Vec<u8>>(0)?, row.get(1)?, role))
        })?;
        for (id, account, role) in members {
            if let Some(space) = SpaceId::from_slice(&id).and_then(|id| spaces.get_mut(&id)) {
                space.members.insert(account, role);
            }
        }
        Ok(spaces)
    }

    /// By the beginning of its id, or by its name.
    fn one_space(&self, named: &str) -> Result<SharedSpace> {
        let id = named.to_ascii_lowercase();
        let is_meant = |space: &SharedSpace| {
            space.name == composed(named) || (!id.is_empty() && hex(space.id.as_bytes()).starts_with(&id))
        };
        let found: Vec<_> = self.spaces()?.into_iter().filter(is_meant).collect();
        let [space] = &found[..] else {
            return Err(match found.is_empty() {
                true => DirectoryError::NoSpace(named.to_owned()),
                false => DirectoryError::Ambiguous(named.to_owned()),
            });
        };
        Ok(space.clone())
    }
}

/// Ends the sharing of a space.
pub(super) fn drop_space(conn: &Sql<'_>, space: SpaceId) -> sql::Result<()> {
    let id = space.as_bytes();
    conn.execute("DELETE FROM member WHERE space = ?", [id])?;
    drop_invites(conn, space)?;
    conn.execute("DELETE FROM shared_space WHERE id = ?", [id]).map(drop)
}

pub(super) fn has_account(conn: &Sql<'_>, name: &str) -> sql::Result<bool> {
    let found = conn.query_row("SELECT 1 FROM account WHERE name = ?", [name], |_| Ok(()));
    Ok(found.optional()?.is_some())
}
