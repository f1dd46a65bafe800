//! The token for the relay, or the key of a device that has signed in: kept in the keyring of the system or in a file beside the database, so that no query and no backup of the
//! database hands it out.

use std::env::VarError;
use std::io::Read;
use std::path::Path;

use motet::secrets::{SecretError, SecretFiles, SecretStore, SystemKeyring};
use motet::{Relay, Replica, SignedIn};

use super::SIGNED_IN_AS;
use super::documents::input;
use crate::error::{CliError, file_error};
use crate::output::Output;

/// The environment variable that goes before what is kept.
const TOKEN_VARIABLE: &str = "MOTET_TOKEN";

/// The same for the sign-in key.
const KEY_VARIABLE: &str = "MOTET_SIGN_IN_KEY";

/// The setting that says where the token is kept, if not in the file.
const PLACE: &str = "token.place";
const IN_KEYRING: &str = "keyring";

/// The name of the token among the files beside the database. What `motet login` keeps stands in its place, as one or the other is good.
const TOKEN: &str = "token";

/// Where what signs in is kept, for the library.
struct Place {
    replica: Replica,
    output: Output,
}

impl SecretStore for Place {
    fn get(&self, name: &str) -> Result<Option<String>, SecretError> {
        match name {
            TOKEN => kept(&self.replica).map_err(secret_error),
            other => files(&self.replica).get(other),
        }
    }

    fn set(&self, name: &str, secret: &str) -> Result<(), SecretError> {
        match name {
            TOKEN => keep(&self.replica, secret, &self.output).map(drop).map_err(secret_error),
            // Only for the moment in which the relay is asked.
            other => files(&self.replica).set(other, secret),
        }
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        match name {
            TOKEN => forget(&self.replica, &self.output).map_err(secret_error),
            other => files(&self.replica).remove(other),
        }
    }
}

/// What was read once, for as long as this command runs.
struct Kept(String);

impl SecretStore for Kept {
    fn get(&self, _: &str) -> Result<Option<String>, SecretError> {
        Ok(Some(self.0.clone()))
    }

    fn set(&self, _: &str, _: &str) -> Result<(), SecretError> {
        Err(SecretError::Missing)
    }

    fn remove(&self, _: &str) -> Result<(), SecretError> {
        Err(SecretError::Missing)
    }
}

fn secret_error(error: CliError) -> SecretError {
    match error {
        CliError::Secret(error) => error,
        other => SecretError::App(Box::new(other)),
    }
}

/// What an identity token has to name that is for a replica's device.
pub(crate) fn nonce(replica: &Replica, relay: &Relay, output: &Output) -> Result<String, CliError> {
    let place = Place { replica: replica.clone(), output: output.clone() };
    Ok(replica.sign_in_nonce(relay, &place, TOKEN)?)
}

/// The same of one that is to be linked to the account of a replica's device.
pub(crate) fn link_nonce(replica: &Replica, relay: &Relay, output: &Output) -> Result<String, CliError> {
    let place = Place { replica: replica.clone(), output: output.clone() };
    Ok(replica.link_nonce(relay, &place, TOKEN)?)
}

/// Signs a replica's device in to its relay with a sign-in key or an identity token.
pub(crate) fn sign_in(
    replica: &Replica,
    relay: &Relay,
    key: &str,
    output: &Output,
) -> Result<SignedIn, CliError> {
    let place = Place { replica: replica.clone(), output: output.clone() };
    Ok(replica.sign_in(relay, key, &place, TOKEN)?)
}

/// A relay, with whatever signs a replica in to it.
pub(crate) fn signed_in(replica: &Replica, relay: Relay) -> Result<Relay, CliError> {
    Ok(match read(replica)? {
        // No token is JSON.
        Some(key) if key.starts_with('{') => relay.device_key_in(Kept(key), TOKEN),
        Some(token) => relay.token(&token),
        None => relay,
    })
}

/// Whether what is kept for a replica is the key of its device.
pub(crate) fn is_device_key(replica: &Replica) -> Result<bool, CliError> {
    Ok(read(replica)?.is_some_and(|kept| kept.starts_with('{')))
}

/// A sign-in key or an identity token from the command line, a file, or the environment.
pub(crate) fn credential(key: Option<String>, file: Option<&Path>) -> Result<String, CliError> {
    let key = match (key, file) {
        (Some(key), _) => Some(key),
        (None, Some(file)) => Some(from_file(file)?),
        (None, None) => variable(KEY_VARIABLE)?,
    };
    key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).ok_or_else(|| {
        CliError::Usage(format!(
            "a sign-in key is needed: --key-file FILE, {KEY_VARIABLE}, or --key KEY; or another service: --with NAME"
        ))
    })
}

/// What a command was told on its command line, or by the environment.
pub(crate) fn given(token: Option<String>, file: Option<&Path>) -> Result<Option<String>, CliError> {
    let token = match (token, file) {
        (Some(token), _) => Some(token),
        (None, Some(file)) => Some(from_file(file)?),
        (None, None) => from_environment()?,
    };
    Ok(token.map(|token| token.trim().to_owned()))
}

/// The token that is good for a replica's relay.
fn read(replica: &Replica) -> Result<Option<String>, CliError> {
    if let Some(token) = from_environment()? {
        return Ok(Some(token));
    }
    kept(replica)
}

/// The token that is kept for a replica: in the file beside the database, else in the keyring of the system.
pub(crate) fn kept(replica: &Replica) -> Result<Option<String>, CliError> {
    match files(replica).get(TOKEN)? {
        None if is_in_keyring(replica)? => {
            keyring().and_then(|keyring| keyring.get(&account(replica))).map_err(not_read)
        }
        token => Ok(token),
    }
}

/// Keeps a token: in the keyring of the system if there is one, else in a file for its owner's eyes only. Says whether it is in the keyring.
pub(crate) fn keep(replica: &Replica, token: &str, output: &Output) -> Result<bool, CliError> {
    match keyring().and_then(|keyring| keyring.set(&account(replica), token)) {
        Ok(()) => {
            replica.set_setting(PLACE, Some(IN_KEYRING))?;
            files(replica).remove(TOKEN)?;
            return Ok(true);
        }
        Err(SecretError::Missing) => {}
        Err(error) => output.complain(&format!("{error}; the token is kept in a file beside the database")),
    }
    // What the keyring had for it is not good any more.
    forget(replica, output)?;
    files(replica).set(TOKEN, token)?;
    Ok(false)
}

/// Forgets it: it is good only for the relay that it was given for. What the keyring does not remove is not read any more either.
pub(crate) fn forget(replica: &Replica, output: &Output) -> Result<(), CliError> {
    files(replica).remove(TOKEN)?;
    replica.set_setting(SIGNED_IN_AS, None)?;
    if is_in_keyring(replica)? {
        if let Err(error) = keyring().and_then(|keyring| keyring.remove(&account(replica))) {
            output.complain(&format!("{error}; a token that motet does not use any more is still there"));
        }
        replica.set_setting(PLACE, None)?;
    }
    Ok(())
}

/// Whether the keyring has the token of this replica. One that is locked asks for a password, so it is asked only then.
fn is_in_keyring(replica: &Replica) -> Result<bool, CliError> {
    Ok(replica.setting(PLACE)?.as_deref() == Some(IN_KEYRING))
}

/// The keyring of the system, if this build uses it. Asked here and not left to the feature of the library: beside tests that have it on, the
/// library has it in every build of the workspace.
fn keyring() -> Result<SystemKeyring, SecretError> {
    match cfg!(feature = "keyring") {
        true => Ok(SystemKeyring::new("motet")),
        false => Err(SecretError::Missing),
    }
}

fn files(replica: &Replica) -> SecretFiles {
    SecretFiles::beside(replica.path())
}

/// Under which name the keyring has a replica's token. A copy of the database is another device, and has none.
fn account(replica: &Replica) -> String {
    replica.device_id().to_string()
}

fn not_read(error: SecretError) -> CliError {
    CliError::Other(format!(
        "{error}, which has the token for the relay; MOTET_TOKEN goes before it, and `motet init` takes another"
    ))
}

/// Whether the environment has a token, whatever is kept.
pub(crate) fn is_in_environment() -> bool {
    std::env::var_os(TOKEN_VARIABLE).is_some_and(|token| !token.is_empty())
}

fn from_environment() -> Result<Option<String>, CliError> {
    variable(TOKEN_VARIABLE)
}

fn variable(name: &str) -> Result<Option<String>, CliError> {
    match std::env::var(name) {
        Ok(token) => Ok(Some(token).filter(|token| !token.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(CliError::Usage(format!("{name} holds bytes that no token has: it is not UTF-8")))
        }
    }
}

/// `-` is standard input.
pub(crate) fn from_file(path: &Path) -> Result<String, CliError> {
    let mut token = String::new();
    let read = input(path)?.take(motet::limits::SECRET_BYTES).read_to_string(&mut token);
    read.map(|_| token).map_err(|e| file_error(path, &e))
}
