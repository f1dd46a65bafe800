//! `login`, `sign-out` and `clear-local`.

use std::path::{Path, PathBuf};

use motet::{Relay, Removed, Replica, SignOut, SyncError};

use super::device_flow::{self, ClientId};
use super::{RELAY_URL, SIGNED_IN_AS, open, relay, token};
use crate::error::CliError;
use crate::output::{GREEN, Output};

/// Signs this device in with a sign-in key or an identity token.
pub(crate) fn login(
    db: Option<&Path>,
    url: Option<String>,
    credential: Credential,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    let (url, relay) = chosen(&replica, url)?;
    let credential = credential.read(&replica, &relay, token::nonce, output)?;
    let signed_in = token::sign_in(&replica, &relay, &credential, output)?;
    replica.use_relay(&relay)?;
    replica.set_setting(RELAY_URL, Some(&url))?;
    replica.set_setting(SIGNED_IN_AS, Some(&signed_in.account))?;
    if token::is_in_environment() {
        output.complain("MOTET_TOKEN is set, and goes before the key that was just made");
    }
    if output.json {
        let device = replica.device_id().to_string();
        let told = serde_json::json!({ "account": signed_in.account, "relay": url, "device_id": device });
        return output.json_line(&told);
    }
    output.line(&format!("{} signed in as {} at {url}", output.paint(GREEN, "✓"), signed_in.account));
    Ok(())
}

/// Prints what an identity token has to name.
pub(crate) fn nonce(db: Option<&Path>, url: Option<String>, output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    let (_, relay) = chosen(&replica, url)?;
    let nonce = token::nonce(&replica, &relay, output)?;
    if output.json {
        return output.json_line(&serde_json::json!({ "nonce": nonce }));
    }
    output.line(&nonce);
    Ok(())
}

/// The relay that a command names, or the one that is known.
fn chosen(replica: &Replica, url: Option<String>) -> Result<(String, Relay), CliError> {
    let url = match url.map(|url| url.trim().to_owned()) {
        Some(url) => url,
        None => replica
            .setting(RELAY_URL)?
            .ok_or_else(|| CliError::Usage("which relay? give --relay URL".into()))?,
    };
    let relay = Relay::new(&url);
    relay.check().map_err(|e| CliError::Usage(e.to_string()))?;
    Ok((url, relay))
}

/// With what a device signs in, as it is given.
pub(crate) struct Credential {
    pub(crate) key: Option<String>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) identity_token_file: Option<PathBuf>,
    /// What the relay calls a service.
    pub(crate) with: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) client_secret_file: Option<PathBuf>,
}

impl Credential {
    /// `nonce`: what a token of a service has to name.
    pub(crate) fn read(
        self,
        replica: &Replica,
        relay: &Relay,
        nonce: fn(&Replica, &Relay, &Output) -> Result<String, CliError>,
        output: &Output,
    ) -> Result<String, CliError> {
        let Self { key, key_file, identity_token_file, with, client_id, client_secret_file } = self;
        if let Some(name) = with {
            let methods = relay.sign_in_methods()?;
            let names = || methods.issuers.iter().map(|known| &*known.name).collect::<Vec<_>>().join(", ");
            let issuer = methods.issuers.iter().find(|known| known.name == name).ok_or_else(|| {
                CliError::Usage(match names() {
                    none if none.is_empty() => {
                        format!("the relay accepts nobody's identity tokens, not those of {name:?} either")
                    }
                    names => {
                        format!("the relay does not accept identity tokens of {name:?}; it does of {names}")
                    }
                })
            })?;
            let secret = client_secret_file.map(|file| token::from_file(&file)).transpose()?;
            let client = ClientId { id: client_id, secret: secret.map(|secret| secret.trim().to_owned()) };
            let nonce = nonce(replica, relay, output)?;
            return device_flow::token(issuer, client, &nonce, output);
        }
        if key.is_some() {
            output.complain(
                "a sign-in key on a command line is seen by others on this machine; use --key-file FILE, or MOTET_SIGN_IN_KEY",
            );
        }
        let is_token = identity_token_file.is_some();
        let credential = token::credential(key, key_file.or(identity_token_file).as_deref())?;
        if is_token && credential.split('.').count() != 3 {
            return Err(CliError::Usage(
                "what --identity-token-file has is no identity token; a sign-in key is for --key-file".into(),
            ));
        }
        Ok(credential)
    }
}

/// What becomes of what is here.
pub(crate) fn sign_out(
    db: Option<&Path>,
    wipe: bool,
    unsent: bool,
    release: bool,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    let how = match (wipe, unsent) {
        (false, _) => SignOut::Keep,
        (true, false) => SignOut::Wipe,
        (true, true) => SignOut::WipeUnsent,
    };
    let at_relay = match relay(&replica)? {
        Some(relay) if token::is_device_key(&replica)? => Some(relay),
        _ => None,
    };
    // First: whoever is signed out must not be signed in again by what is left of a command that was killed.
    let token = token::kept(&replica)?;
    token::forget(&replica, output)?;
    let signed_out = replica
        .sign_out(how)
        .and_then(|removed| if release { replica.release_account().map(|()| removed) } else { Ok(removed) });
    if let (Err(_), Some(token)) = (&signed_out, token) {
        token::keep(&replica, &token, output)?;
    }
    let removed = signed_out?;
    if let Some(Err(error)) = at_relay.map(|relay| relay.sign_out_device())
        && !matches!(error, SyncError::AuthNeeded { .. })
    {
        output.complain(&format!("the relay does not know yet that this device has signed out ({error}); whoever runs it can sign it out: motet-relay device revoke"));
    }
    if token::is_in_environment() {
        output.complain("MOTET_TOKEN is still set: the next sync signs in with it");
    }
    let what = match how {
        SignOut::Keep if release => {
            "signed out; the next account that signs in is given what is here".to_owned()
        }
        SignOut::Keep => "signed out; what is here stays, for the same account".to_owned(),
        _ => format!("signed out; {}", told(removed)),
    };
    tell(removed, &what, output)
}

pub(crate) fn clear_local(db: Option<&Path>, unsent: bool, output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    if !unsent {
        let removed = replica.clear_local()?;
        return tell(
            removed,
            &format!("{}; the next sync downloads what the relay has", told(removed)),
            output,
        );
    }
    // What is here may be all that this account will ever have of it.
    if replica.space().is_shared() {
        let relay = relay(&replica)?.ok_or(SyncError::NotConnected)?;
        if !relay.spaces().list()?.iter().any(|space| space.id == replica.space()) {
            return Err(CliError::Other(
                "this account may not read the space any more: what is here could not be had again, and stays; `motet export --all` copies it, and removing the file gives it up".into(),
            ));
        }
    }
    let removed = replica.discard_unsent()?;
    tell(removed, &format!("{}; the next sync downloads what the relay has", told(removed)), output)
}

fn told(Removed { documents, kept, .. }: Removed) -> String {
    let removed = format!("{documents} {} removed", if documents == 1 { "document" } else { "documents" });
    match kept {
        0 => removed,
        kept => format!(
            "{removed}, {kept} that only this device has {}",
            if kept == 1 { "stays" } else { "stay" }
        ),
    }
}

fn tell(removed: Removed, said: &str, output: &Output) -> Result<(), CliError> {
    if output.json {
        return output.json_line(&removed);
    }
    output.line(&format!("{} {said}", output.paint(GREEN, "✓")));
    Ok(())
}
