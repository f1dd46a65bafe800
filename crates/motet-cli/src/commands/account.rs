//! `login`, `sign-out` and `clear-local`.

use std::path::{Path, PathBuf};

use motet::{Relay, Removed, SignOut, SyncError};

use super::{RELAY_URL, SIGNED_IN_AS, open, relay, token};
use crate::error::CliError;
use crate::output::{GREEN, Output};

/// Signs this device in with a sign-in key.
pub(crate) fn login(
    db: Option<&Path>,
    url: Option<String>,
    (key, file): (Option<String>, Option<PathBuf>),
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    if key.is_some() {
        output.complain(
            "a sign-in key on a command line is seen by others on this machine; use --key-file FILE, or MOTET_SIGN_IN_KEY",
        );
    }
    let key = token::sign_in_key(key, file.as_deref())?;
    let url = match url.map(|url| url.trim().to_owned()) {
        Some(url) => url,
        None => replica
            .setting(RELAY_URL)?
            .ok_or_else(|| CliError::Usage("which relay? give --relay URL".into()))?,
    };
    let relay = Relay::new(&url);
    relay.check().map_err(|e| CliError::Usage(e.to_string()))?;
    let signed_in = token::sign_in(&replica, &relay, &key, output)?;
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

/// Shows which spaces are shared with the account.
pub(crate) fn spaces(db: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    let relay = relay(&replica)?.ok_or(SyncError::NotConnected)?;
    let spaces = relay.shared_spaces()?;
    if output.json {
        return output.json_line(&spaces);
    }
    if spaces.is_empty() {
        output.line("no space is shared with this account");
    }
    for space in spaces {
        let role = serde_json::to_value(space.role).ok();
        let role = role.as_ref().and_then(|role| role.as_str()).unwrap_or_default().to_owned();
        let here = if space.id == replica.space() { ", in this database" } else { "" };
        output.line(&format!("{}  {}  of {}, as {role}{here}", space.id, space.name, space.owner));
    }
    Ok(())
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

pub(crate) fn clear_local(db: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let removed = open(db)?.clear_local()?;
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
