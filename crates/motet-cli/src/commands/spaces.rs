//! `spaces` and `space …`: spaces that are shared with the account of this device.

use std::path::Path;
use std::time::Duration;

use motet::{SharedSpace, SpaceId, SpaceMember, SpaceRole, Spaces, SyncError};

use super::{open, relay};
use unicode_normalization::UnicodeNormalization;

use crate::args::{InvitedRole, Role, SpaceCommand};
use crate::error::CliError;
use crate::output::{GREEN, Output};

/// Shows which spaces are shared with the account.
pub(crate) fn list(db: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let (spaces, here) = spaces(db)?;
    let listed = spaces.list()?;
    if output.json {
        return output.json_line(&listed);
    }
    if listed.is_empty() {
        output.line("no space is shared with this account");
    }
    for space in listed {
        let here = if space.id == here { ", in this database" } else { "" };
        output.line(&format!("{}{here}", line(&space)));
    }
    Ok(())
}

/// Makes and changes them.
pub(crate) fn run(db: Option<&Path>, command: SpaceCommand, output: &Output) -> Result<(), CliError> {
    let (spaces, _) = spaces(db)?;
    let done = |text: &str| done(text, output);
    match command {
        SpaceCommand::Create { name } => tell(&spaces.create(&name)?, true, output),
        SpaceCommand::Rename { space, name } => {
            tell(&spaces.rename(find(&spaces, &space)?.id, &name)?, false, output)
        }
        SpaceCommand::Delete { space } => {
            let space = find(&spaces, &space)?;
            spaces.delete(space.id)?;
            done(&format!("{} is shared with nobody any more; what devices have stays on them", space.name))
        }
        SpaceCommand::Members { space } => members(&spaces.members(find(&spaces, &space)?.id)?, output),
        SpaceCommand::Role { space, account, role } => {
            let space = find(&spaces, &space)?;
            spaces.set_role(space.id, &account, role.into())?;
            done(&format!("{account} is {} of {} now", SpaceRole::from(role), space.name))
        }
        SpaceCommand::Remove { space, account } => {
            let space = find(&spaces, &space)?;
            spaces.remove(space.id, &account)?;
            done(&format!("{account} is no member of {} any more", space.name))
        }
        SpaceCommand::Leave { space } => {
            let space = find(&spaces, &space)?;
            spaces.leave(space.id)?;
            done(&format!("{} is not shared with this account any more; what is here stays", space.name))
        }
        SpaceCommand::Invite { space, role, expires, reusable } => {
            let space = find(&spaces, &space)?;
            let role = match role {
                InvitedRole::Reader => SpaceRole::Reader,
                InvitedRole::Writer => SpaceRole::Writer,
            };
            let invite = spaces.invite(space.id, role, expires.map(Duration::from_secs), reusable)?;
            if output.json {
                return output.json_line(&invite);
            }
            // For a person; what is piped on is the code alone.
            output.complain("shown this once; whoever has an account joins with: motet space join CODE");
            output.line(&invite.code);
            Ok(())
        }
        SpaceCommand::RevokeInvites { space } => {
            let space = find(&spaces, &space)?;
            spaces.revoke_invites(space.id)?;
            done(&format!("no code of {} is good any more", space.name))
        }
        SpaceCommand::Show { code } => tell(&spaces.invitation(&code)?, false, output),
        SpaceCommand::Join { code } => tell(&spaces.join(&code)?, true, output),
    }
}

fn spaces(db: Option<&Path>) -> Result<(Spaces, SpaceId), CliError> {
    let replica = open(db)?;
    let relay = relay(&replica)?.ok_or(SyncError::NotConnected)?;
    Ok((relay.spaces(), replica.space()))
}

/// By its id, the beginning of that, or its name.
fn find(spaces: &Spaces, named: &str) -> Result<SharedSpace, CliError> {
    let id = named.to_ascii_lowercase();
    let is_meant = |space: &SharedSpace| {
        space.name.nfc().eq(named.nfc()) || (!id.is_empty() && space.id.to_string().starts_with(&id))
    };
    let mut found = spaces.list()?;
    found.retain(is_meant);
    match found.len() {
        0 => Err(CliError::NoSpace(named.to_owned())),
        1 => Ok(found.remove(0)),
        _ => Err(CliError::Usage(format!(
            "{named:?} means more than one: give more of the id; motet spaces has them"
        ))),
    }
}

/// `is_new`: this account has not had it before, and needs a database for it.
fn tell(space: &SharedSpace, is_new: bool, output: &Output) -> Result<(), CliError> {
    if output.json {
        return output.json_line(space);
    }
    output.line(&line(space));
    if is_new {
        let id = space.id;
        output.line(&format!("a database for it: motet --db FILE init --device NAME --relay URL --space-id {id}; then motet --db FILE login"));
    }
    Ok(())
}

fn members(members: &[SpaceMember], output: &Output) -> Result<(), CliError> {
    if output.json {
        return output.json_line(&members);
    }
    for SpaceMember { account, role, .. } in members {
        output.line(&format!("{role}  {account}"));
    }
    Ok(())
}

fn line(space: &SharedSpace) -> String {
    format!("{}  {}  of {}, as {}", space.id, space.name, space.owner, space.role)
}

impl From<Role> for SpaceRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Reader => Self::Reader,
            Role::Writer => Self::Writer,
            Role::Owner => Self::Owner,
        }
    }
}

/// Says that something is done that has nothing else to say.
pub(crate) fn done(text: &str, output: &Output) -> Result<(), CliError> {
    if output.json {
        return output.json_line(&serde_json::json!({ "done": true }));
    }
    output.line(&format!("{} {text}", output.paint(GREEN, "✓")));
    Ok(())
}
