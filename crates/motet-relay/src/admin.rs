//! Accounts, sign-in keys and devices on the command line. They are of use while the relay runs, and while it does not.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use motet_relay::access::Role;
use motet_relay::config::Limits;
use motet_relay::directory::{Device, Directory, DirectoryError};
use motet_relay::export::{Exported, Source};
use motet_relay::limits;
use motet_relay::store::postgres::PostgresStore;
use motet_relay::store::sqlite::ReadOnly;
use motet_relay::terminal::complain;
use serde_json::json;

/// What is done to the accounts of a relay.
#[derive(Subcommand)]
pub(crate) enum Admin {
    /// Accounts, whose devices share what they write.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Keys with which devices sign in to an account.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Lists what was done to accounts, their devices and shared spaces, and who has done it, the latest first.
    Audit {
        /// Only of this account, and of spaces that it is or was a member of.
        #[arg(long)]
        account: Option<String>,
        /// Only records with a lower number.
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        /// At most so many.
        #[arg(long, value_name = "COUNT", default_value_t = limits::AUDIT_PAGE)]
        most: usize,
        /// Prints one JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Devices that have signed in.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Who people are at other services, whose identity tokens the configuration accepts.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Spaces that accounts share.
    #[command(subcommand)]
    Space(SpaceCommand),
    /// The console: pages that a relay serves with --console.
    #[cfg(feature = "console")]
    #[command(subcommand)]
    Console(ConsoleCommand),
}

#[cfg(feature = "console")]
#[derive(Subcommand)]
pub(crate) enum ConsoleCommand {
    /// Makes a link that signs a browser in to the console, and prints it: good once, for ten minutes.
    #[command(group(clap::ArgGroup::new("whose").required(true)))]
    Link {
        /// For the holder of this account.
        #[arg(long, group = "whose")]
        account: Option<String>,
        /// For the operator of the relay.
        #[arg(long, group = "whose")]
        operator: bool,
        /// Address of the relay, as browsers reach it.
        #[arg(long, env = "MOTET_RELAY_URL", value_name = "URL", default_value = "http://127.0.0.1:8787")]
        url: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum IdentityCommand {
    /// Lets whoever is this at another service sign devices in to an account.
    Link {
        /// The account.
        #[arg(long)]
        account: String,
        /// The address of the service, as its tokens name it (`iss`).
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// Its number or name for this person (`sub`); what a refused sign-in says.
        subject: String,
    },
    /// Lists the identities.
    List {
        /// Prints one JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Lets nobody sign in with an identity any more. Devices that have stay signed in.
    Unlink {
        /// The address of the service.
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// Its number or name for this person.
        subject: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum SpaceCommand {
    /// Makes a space that an account shares, and prints its id. Its log counts for that account.
    Create {
        /// What people call it.
        name: String,
        /// The account that it belongs to.
        #[arg(long)]
        owner: String,
    },
    /// Lists the shared spaces and their members.
    List {
        /// Prints one JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Lets an account read a space, or also write to it; or changes which of them.
    Add {
        /// Its name, its id, or the beginning of that.
        space: String,
        /// The account.
        account: String,
        /// What it may do.
        #[arg(long, value_enum, default_value_t = MemberRole::Writer)]
        role: MemberRole,
    },
    /// Takes a space from an account. What its devices have stays on them.
    Remove {
        /// Its name, its id, or the beginning of that.
        space: String,
        /// The account.
        account: String,
    },
    /// Ends the sharing of a space for everybody. Its log stays.
    Delete {
        /// Its name, its id, or the beginning of that.
        space: String,
    },
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MemberRole {
    /// Read.
    Reader,
    /// Read and write.
    Writer,
}

#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Adds an account. From the first one on, only devices of accounts and known tokens are served.
    Add {
        /// 1 to 64 characters. Its logs are kept under this name, so it does not change.
        name: String,
    },
    /// Lists the accounts, with what they have stored as of the last minute.
    List {
        /// Prints one JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Removes an account and signs its devices out. Its logs stay, for an account that is added under the same name.
    Remove {
        /// Which.
        name: String,
        /// Even if devices are signed in.
        #[arg(long)]
        sign_out: bool,
    },
    /// Has an account erased by a relay that runs: its devices are signed out, its shared spaces end, and everything that the relay has of it leaves.
    /// What its devices have stays on them.
    Erase {
        /// Which.
        name: String,
        /// After how long: `12h`, `7d`. Until then `account keep` takes it back, and so does the account itself.
        #[arg(long, value_name = "TIME", default_value = "7d", value_parser = time)]
        after: Duration,
        /// At once; it cannot be taken back.
        #[arg(long, conflicts_with = "after")]
        now: bool,
    },
    /// Keeps an account that was to be erased.
    Keep {
        /// Which.
        name: String,
    },
    /// Writes everything that the relay has of an account into a folder, for its holder: `account.json`, and the entries of its logs, one on
    /// each line of `SPACE.jsonl`. The relay may run meanwhile.
    Export {
        /// Which.
        name: String,
        /// Where to; created, and empty so far.
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a sign-in key and prints it: the only time that it is shown.
    Create {
        /// The account that devices sign in to.
        #[arg(long)]
        account: String,
        /// How long it is good: `30m`, `12h`, `7d`; `never` until it is revoked.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
        expires: Lifetime,
        /// Any number of devices may sign in with it, and not just one.
        #[arg(long)]
        reusable: bool,
    },
    /// Lists the sign-in keys, by their ids and not as themselves.
    List {
        /// Prints one JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Lets nobody sign in with a key any more.
    Revoke {
        /// Its id, as `key list` prints it.
        id: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum DeviceCommand {
    /// Lists the devices.
    List {
        /// Only those of this account.
        #[arg(long)]
        account: Option<String>,
        /// Prints one JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Signs a device out: its sessions end within seconds. What it has not sent stays on it.
    Revoke {
        /// Its id, or the beginning of it.
        id: String,
        /// Only of this account; without it of all that the device has signed in to.
        #[arg(long)]
        account: Option<String>,
    },
    /// Gives a device another name.
    Rename {
        /// Its id, or the beginning of it.
        id: String,
        /// The name.
        name: String,
        /// Only in this account.
        #[arg(long)]
        account: Option<String>,
    },
}

/// How long a key is good; `None` for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime(Option<Duration>);

/// Does what a command says, and returns what it prints.
pub(crate) fn run(
    data: &Path,
    database: Option<&str>,
    command: &Admin,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let directory = open(data, database, matches!(command, Admin::Account(AccountCommand::Add { .. })))?;
    if let Admin::Account(AccountCommand::Export { name, folder }) = command {
        return export(directory, (data, database), name, folder);
    }
    Ok(administer(&directory, data, database, command)?)
}

fn open(data: &Path, database: Option<&str>, may_be_made: bool) -> Result<Directory, DirectoryError> {
    match (database, may_be_made) {
        (Some(url), _) => Directory::connect(url),
        (None, true) => Directory::open(data),
        // Whoever has mistaken the folder gets none made there.
        (None, false) => {
            Directory::open_existing(data)?.ok_or_else(|| DirectoryError::NoAccounts(data.to_owned()))
        }
    }
}

fn export(
    directory: Directory,
    (data, database): (&Path, Option<&str>),
    name: &str,
    folder: &Path,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let runtime = motet_relay::runtime()?;
    let Exported { logs, entries, .. } = runtime.block_on(async {
        let source: Box<dyn Source> = match database {
            Some(url) => Box::new(PostgresStore::open(url, 1, &Limits::default()).await?),
            None => Box::new(ReadOnly::open(data)?),
        };
        Ok::<_, Box<dyn std::error::Error>>(
            motet_relay::export::export(Arc::new(directory), &*source, name, folder).await?,
        )
    })?;
    Ok(vec![format!("{}: account.json, and {logs} logs with {entries} entries", folder.display())])
}

fn administer(
    directory: &Directory,
    data: &Path,
    database: Option<&str>,
    command: &Admin,
) -> Result<Vec<String>, DirectoryError> {
    // Of a database the address has a password: it is in a variable of whoever reads this, or in what was typed.
    let place = match database {
        Some(_) => String::new(),
        None => format!(" --data \"{}\"", data.display()),
    };
    Ok(match command {
        Admin::Account(command) => account(directory, &place, command)?,
        Admin::Audit { account, before, most, json } => {
            let records = directory.audit(account.as_deref(), *before, *most)?;
            let columns = ["number", "when", "account", "by", "action", "of", "member"];
            list(*json, &columns, records, |record| {
                let cells = [&record.account, &record.actor, &record.action, &record.subject, &record.member];
                let front = [record.number.to_string(), utc(record.at)];
                (record.to_json(), front.into_iter().chain(cells.into_iter().cloned()).collect())
            })
        }
        Admin::Key(command) => key(directory, command)?,
        Admin::Device(command) => device(directory, command)?,
        Admin::Identity(command) => identity(directory, command)?,
        Admin::Space(command) => space(directory, command)?,
        #[cfg(feature = "console")]
        Admin::Console(ConsoleCommand::Link { account, url, .. }) => {
            let link = directory.create_console_link(account.as_deref(), None)?;
            vec![format!("{}/console/link/{link}", url.trim_end_matches('/'))]
        }
    })
}

fn account(
    directory: &Directory,
    place: &str,
    command: &AccountCommand,
) -> Result<Vec<String>, DirectoryError> {
    Ok(match command {
        AccountCommand::Add { name } => {
            directory.add_account(name)?;
            vec![format!(
                "added; a device signs in with what this prints: motet-relay{place} key create --account \"{name}\""
            )]
        }
        AccountCommand::List { json } => {
            let stored = directory.stored(None).unwrap_or_else(|error| {
                complain(&format!("what accounts have stored is not known: {error}"));
                HashMap::new()
            });
            let columns = ["account", "devices", "stored", "documents", "last seen", "added", "erased"];
            list(*json, &columns, directory.accounts()?, |account| {
                let has = stored.get(&account.name).copied().unwrap_or_default();
                (
                    json!({
                        "name": account.name, "created_at": account.created_at, "devices": account.devices,
                        "last_seen_at": account.last_seen_at, "stored_bytes": has.bytes,
                        "documents": has.documents, "erase_at": account.erase_at,
                    }),
                    vec![
                        account.name.clone(),
                        account.devices.to_string(),
                        size(has.bytes),
                        has.documents.to_string(),
                        account.last_seen_at.map_or_else(|| "never".into(), utc),
                        utc(account.created_at),
                        account.erase_at.map_or_else(|| "no".into(), utc),
                    ],
                )
            })
        }
        AccountCommand::Erase { name, after, now } => {
            let at = directory.erase_account(name, if *now { Duration::ZERO } else { *after })?;
            vec![match now {
                true => {
                    "its devices are signed out and its logs leave within seconds, once the relay runs".into()
                }
                false => format!(
                    "it is erased {}; motet-relay{place} account keep \"{name}\" takes that back",
                    utc(at)
                ),
            }]
        }
        AccountCommand::Keep { name } => {
            directory.keep_account(name)?;
            vec!["it is kept".into()]
        }
        AccountCommand::Export { .. } => Vec::new(),
        AccountCommand::Remove { name, sign_out } => {
            let devices = directory.devices(Some(name))?;
            let devices = devices.iter().filter(|device| device.revoked_at.is_none()).count() as u64;
            if devices > 0 && !sign_out {
                return Err(DirectoryError::InUse { name: name.clone(), devices });
            }
            let devices = directory.remove_account(name)?;
            vec![format!("removed; {devices} device(s) signed out, and its logs are still there")]
        }
    })
}

fn key(directory: &Directory, command: &KeyCommand) -> Result<Vec<String>, DirectoryError> {
    Ok(match command {
        KeyCommand::Create { account, expires, reusable } => {
            let key = directory.create_key(account, expires.0, *reusable)?;
            if let Some(made) = directory.keys()?.first() {
                // For a person; what is piped on is the key alone.
                let until = made
                    .expires_at
                    .map_or_else(|| "until it is revoked".into(), |at| format!("until {}", utc(at)));
                complain(&format!(
                    "{}, {until}; on the device: motet login --relay URL --key-file -",
                    good_for(made)
                ));
            }
            vec![key]
        }
        KeyCommand::List { json } => {
            list(*json, &["id", "account", "good for", "used", "until"], directory.keys()?, |key| {
                let state = match key.expires_at {
                    _ if !key.is_reusable && key.used > 0 => "used up".into(),
                    Some(at) if at <= now_ms() => format!("expired {}", utc(at)),
                    Some(at) => utc(at),
                    None => "it is revoked".into(),
                };
                (
                    json!({
                        "id": key.id, "account": key.account, "created_at": key.created_at,
                        "expires_at": key.expires_at, "reusable": key.is_reusable, "used": key.used,
                    }),
                    vec![
                        key.id.clone(),
                        key.account.clone(),
                        good_for(key).into(),
                        key.used.to_string(),
                        state,
                    ],
                )
            })
        }
        KeyCommand::Revoke { id } => {
            directory.revoke_key(id)?;
            vec!["revoked; devices that have signed in with it stay signed in".into()]
        }
    })
}

fn good_for(key: &motet_relay::directory::SignInKey) -> &'static str {
    if key.is_reusable { "any number of devices" } else { "one device" }
}

fn device(directory: &Directory, command: &DeviceCommand) -> Result<Vec<String>, DirectoryError> {
    Ok(match command {
        DeviceCommand::List { account, json } => {
            let columns = ["id", "account", "name", "platform", "program", "signed in", "last seen"];
            list(*json, &columns, directory.devices(account.as_deref())?, |device| {
                let seen = match device.revoked_at {
                    Some(at) => format!("signed out {}", utc(at)),
                    None => utc(device.last_seen_at),
                };
                let id = device.id.to_string();
                (
                    json!({
                        "id": id, "account": device.account, "name": device.name,
                        "platform": device.platform, "version": device.version,
                        "registered_at": device.registered_at, "last_seen_at": device.last_seen_at,
                        "revoked_at": device.revoked_at,
                    }),
                    vec![
                        id[..8].to_owned(),
                        device.account.clone(),
                        device.name.clone(),
                        device.platform.clone(),
                        device.version.clone(),
                        utc(device.registered_at),
                        seen,
                    ],
                )
            })
        }
        DeviceCommand::Revoke { id, account } => {
            let of = |device: Device| {
                let Device { name, account, .. } = device;
                format!(
                    "{name} of {account} is signed out; a relay that runs ends its sessions within seconds"
                )
            };
            directory.revoke_device(id, account.as_deref())?.into_iter().map(of).collect()
        }
        DeviceCommand::Rename { id, name, account } => {
            let of = |device: Device| format!("{} of {} is called {name} now", device.id, device.account);
            directory.rename_device(id, account.as_deref(), name)?.into_iter().map(of).collect()
        }
    })
}

fn identity(directory: &Directory, command: &IdentityCommand) -> Result<Vec<String>, DirectoryError> {
    Ok(match command {
        IdentityCommand::Link { account, issuer, subject } => {
            directory.link_identity(issuer, subject, account)?;
            vec![format!("{subject} of {issuer} signs devices in to {account} now")]
        }
        IdentityCommand::List { json } => {
            let columns = ["account", "issuer", "subject", "shown", "linked", "last used"];
            list(*json, &columns, directory.identities()?, |identity| {
                (
                    json!({
                        "account": identity.account, "issuer": identity.issuer, "subject": identity.subject,
                        "shown": identity.shown, "linked_at": identity.linked_at,
                        "last_used_at": identity.last_used_at,
                    }),
                    vec![
                        identity.account.clone().unwrap_or_else(|| "nobody".into()),
                        identity.issuer.clone(),
                        identity.subject.clone(),
                        identity.shown.clone(),
                        utc(identity.linked_at),
                        identity.last_used_at.map_or_else(|| "never".into(), utc),
                    ],
                )
            })
        }
        IdentityCommand::Unlink { issuer, subject } => {
            let account = directory.unlink_identity(issuer, subject)?;
            vec![format!("nobody signs in to {account} with it any more; devices that have stay signed in")]
        }
    })
}

fn space(directory: &Directory, command: &SpaceCommand) -> Result<Vec<String>, DirectoryError> {
    Ok(match command {
        SpaceCommand::Create { name, owner } => vec![directory.create_space(name, owner)?.to_string()],
        SpaceCommand::List { json } => {
            list(*json, &["id", "name", "owner", "members"], directory.spaces()?, |space| {
                let members = space.members.iter().map(|(account, role)| (account.clone(), role.name()));
                let named: Vec<_> =
                    members.clone().map(|(account, role)| format!("{account} ({role})")).collect();
                let named = if named.is_empty() { "nobody else".into() } else { named.join(", ") };
                (
                    json!({
                        "id": space.id.to_string(), "name": space.name, "owner": space.owner,
                        "created_at": space.created_at, "members": members.collect::<BTreeMap<_, _>>(),
                    }),
                    vec![space.id.to_string(), space.name.clone(), space.owner.clone(), named],
                )
            })
        }
        SpaceCommand::Add { space, account, role } => {
            let role = match role {
                MemberRole::Reader => Role::Reader,
                MemberRole::Writer => Role::Writer,
            };
            directory.put_member(space, account, role)?;
            vec![format!("{account} is a {} of it now", role.name())]
        }
        SpaceCommand::Remove { space, account } => {
            directory.remove_member(space, account)?;
            vec![format!("{account} is no member of it any more; what its devices have stays on them")]
        }
        SpaceCommand::Delete { space } => {
            let space = directory.remove_space(space)?;
            vec![format!(
                "{} of {} is shared with nobody any more; its log is still there",
                space.name, space.owner
            )]
        }
    })
}

/// A table for people, or a JSON object for each row.
fn list<T>(
    json: bool,
    columns: &[&str],
    rows: Vec<T>,
    of: impl Fn(&T) -> (serde_json::Value, Vec<String>),
) -> Vec<String> {
    let rows: Vec<_> = rows.iter().map(of).collect();
    if json {
        return rows.into_iter().map(|(json, _)| json.to_string()).collect();
    }
    if rows.is_empty() {
        return vec!["none".into()];
    }
    let heads = columns.iter().map(ToString::to_string).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows.into_iter().map(|(_, row)| row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: Vec<String>| {
        let cells = row.into_iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().cloned().map(line).collect()
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, of)| bytes >= *of);
    unit.map_or_else(|| format!("{bytes} B"), |(name, of)| format!("{:.1} {name}", bytes as f64 / of as f64))
}

/// A time as people read it.
fn utc(ms: i64) -> String {
    let time =
        jiff::Timestamp::from_millisecond(ms).map(|time| time.strftime("%Y-%m-%d %H:%M UTC").to_string());
    time.unwrap_or_else(|_| "at an unknown time".into())
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    time(text).map(|time| Lifetime(Some(time))).map_err(|said| format!("{said}, or `never`"))
}

fn time(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let found = units.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let seconds = found.and_then(|(number, seconds)| number.parse::<u32>().ok()?.checked_mul(seconds));
    match seconds {
        Some(seconds @ 1..) => Ok(Duration::from_secs(seconds.into())),
        _ => Err("a number and its unit, as `30m`, `12h` or `7d`".into()),
    }
}
