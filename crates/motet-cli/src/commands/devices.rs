//! `device …`, `identity …` and `console`: the account that this device has signed in to.

use std::path::Path;
use std::time::Duration;

use motet::{AccountDevice, AuditRecord, Relay, Replica, SyncError};

use super::account::Credential;
use super::spaces::done;
use super::{RELAY_URL, open, relay, token};
use crate::args::{AccountCommand, DeviceCommand, IdentityCommand};
use crate::error::CliError;
use crate::output::{Output, local_time};

/// Lists the devices of the account, and changes them.
pub(crate) fn device(db: Option<&Path>, command: DeviceCommand, output: &Output) -> Result<(), CliError> {
    let (_, relay) = signed_in(db)?;
    let account = relay.account();
    match command {
        DeviceCommand::List => {
            let mut found = account.devices()?;
            // When it was last seen is known to within some minutes, and this one is here.
            found.devices.sort_by_key(|device| !device.is_this_one);
            if output.json {
                return output.json_line(&found);
            }
            output.line(&format!("devices of {}", found.account));
            for device in found.devices {
                let AccountDevice { id, name, platform, .. } = &device;
                let seen = match device.is_this_one {
                    true => "this one".to_owned(),
                    false => format!("last seen {}", local_time(device.last_seen_at)),
                };
                let id = id.to_string();
                output.line(&format!("{}  {name}  {platform}  {seen}", &id[..8]));
            }
            Ok(())
        }
        DeviceCommand::Rename { device, name } => {
            let found = find(account.devices()?.devices, &device)?;
            account.rename_device(found.id, &name)?;
            done(&format!("{} is called {name} now", found.name), output)
        }
        DeviceCommand::SignOut { device } => {
            let found = find(account.devices()?.devices, &device)?;
            account.sign_out_device(found.id)?;
            done(&format!("{} is signed out; what it has not sent stays on it", found.name), output)
        }
    }
}

/// Lists the identities with which devices sign in to the account, and changes them.
pub(crate) fn identity(db: Option<&Path>, command: IdentityCommand, output: &Output) -> Result<(), CliError> {
    let (replica, relay) = signed_in(db)?;
    let account = relay.account();
    match command {
        IdentityCommand::List => {
            let found = account.identities()?;
            if output.json {
                return output.json_line(&found);
            }
            if found.is_empty() {
                output.line("devices sign in to this account with sign-in keys alone");
            }
            for identity in found {
                output.line(&format!("{}  {}  {}", identity.issuer, identity.subject, identity.shown));
            }
            Ok(())
        }
        IdentityCommand::Link { with, client_id, client_secret_file, identity_token_file } => {
            let credential = Credential {
                key: None,
                key_file: None,
                identity_token_file,
                with,
                client_id,
                client_secret_file,
            };
            let token = credential.read(&replica, &relay, token::link_nonce, output)?;
            account.link_identity(&token)?;
            done("devices sign in to this account with that identity as well", output)
        }
        IdentityCommand::Unlink { issuer, subject } => {
            account.unlink_identity(&issuer, &subject)?;
            done("no device signs in with it any more; those that have stay signed in", output)
        }
    }
}

/// Shows the account, has it erased, or keeps it.
pub(crate) fn account(db: Option<&Path>, command: AccountCommand, output: &Output) -> Result<(), CliError> {
    let (_, relay) = signed_in(db)?;
    let account = relay.account();
    match command {
        AccountCommand::Show => {
            let found = account.overview()?;
            if output.json {
                return output.json_line(&found);
            }
            let limits = found.limits;
            output.line(&found.account);
            output.line(&format!(
                "{} of at most {} bytes at the relay",
                found.stored_bytes, limits.stored_bytes
            ));
            output.line(&format!("{} of at most {} documents", found.documents, limits.documents));
            if let Some(at) = found.erase_at {
                output.line(&format!("it is erased {}; motet account keep takes that back", local_time(at)));
            }
            Ok(())
        }
        AccountCommand::Audit { before } => {
            let records = account.audit(before)?;
            if output.json {
                return output.json_line(&records);
            }
            for AuditRecord { number, at, actor, action, subject, member, .. } in records {
                // Of ids the beginning tells them apart.
                let short = |id: &str| id.chars().take(8).collect::<String>();
                let (at, actor, subject) = (local_time(at), short(&actor), short(&subject));
                output.line(format!("{number}  {at}  {actor:8}  {action}  {subject}  {member}").trim_end());
            }
            Ok(())
        }
        AccountCommand::Erase { days } => {
            let at = account.erase(Some(Duration::from_secs(u64::from(days) * 86_400)))?;
            let said = format!("it is erased {}; motet account keep takes that back", local_time(at));
            done(&said, output)
        }
        AccountCommand::Keep => {
            account.keep()?;
            done("it is kept", output)
        }
    }
}

/// Prints a link to the console of the relay.
pub(crate) fn console(db: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let (replica, relay) = signed_in(db)?;
    let made = relay.account().console_link()?;
    let url = replica.setting(RELAY_URL)?.ok_or(SyncError::NotConnected)?;
    let link = format!("{}{}", url.trim_end_matches('/'), made.path);
    if output.json {
        return output.json_line(&serde_json::json!({ "link": link, "expires_in": made.expires_in }));
    }
    output.line(&link);
    Ok(())
}

fn signed_in(db: Option<&Path>) -> Result<(Replica, Relay), CliError> {
    let replica = open(db)?;
    let relay = relay(&replica)?.ok_or(SyncError::NotConnected)?;
    Ok((replica, relay))
}

/// By the beginning of its id.
fn find(devices: Vec<AccountDevice>, named: &str) -> Result<AccountDevice, CliError> {
    let id = named.to_ascii_lowercase();
    let mut found = devices;
    found.retain(|device| !id.is_empty() && device.id.to_string().starts_with(&id));
    match found.len() {
        0 => Err(CliError::NoDevice(named.to_owned())),
        1 => Ok(found.remove(0)),
        _ => Err(CliError::Usage(format!("{named:?} means more than one device: give more of the id"))),
    }
}
