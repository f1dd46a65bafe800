//! `init` and `schema`.

use std::path::{Path, PathBuf};

use motet::{Relay, Replica, Schema, SpaceId};

use super::{RELAY_URL, open, path, token};
use crate::args::SchemaCommand;
use crate::error::{CliError, file_error};
use crate::output::{GREEN, Output};

pub(crate) fn init(
    db: Option<&Path>,
    (device, (space, space_id)): (&str, (Option<&str>, Option<SpaceId>)),
    relay: Option<String>,
    (token, token_file): (Option<String>, Option<PathBuf>),
    output: &Output,
) -> Result<(), CliError> {
    let path = path(db)?;
    let relay = relay.map(|url| url.trim().to_owned());
    if token.is_some() {
        output.complain("a token on a command line is seen by others on this machine; use --token-file FILE, or MOTET_TOKEN");
    }
    let token = token::given(token, token_file.as_deref())?;
    // Whatever is wrong with them is said before anything is made.
    let named = Relay::new(relay.as_deref().unwrap_or("http://127.0.0.1"));
    let named = token.iter().fold(named, |relay, token| relay.token(token));
    named.check().map_err(|e| CliError::Usage(e.to_string()))?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| file_error(folder, &e))?;
    }
    let builder = Replica::builder(path).device_name(device);
    let space = space.map(str::trim);
    if let Some(name) = space
        && (name.is_empty() || name.contains(char::is_control))
    {
        return Err(CliError::Usage(format!("{name:?} is no name for a space")));
    }
    let replica = match space.map(SpaceId::named).or(space_id) {
        Some(space) => builder.space(space),
        None => builder,
    }
    .open()?;
    keep_private(path)?;
    if let Some(url) = &relay {
        replica.use_relay(&Relay::new(url))?;
        if replica.setting(RELAY_URL)?.as_deref() != Some(url) {
            // A token is good for the relay that it was given for.
            if token::kept(&replica)?.is_some() {
                output.complain(
                    "what signed this device in to the relay before is forgotten: sign in to this one",
                );
            }
            token::forget(&replica, output)?;
        }
        replica.set_setting(RELAY_URL, Some(url))?;
    }
    let is_in_keyring = match &token {
        Some(token) => token::keep(&replica, token, output)?,
        None => false,
    };
    if output.json {
        let (device_id, space) = (replica.device_id().to_string(), replica.space().to_string());
        let made =
            serde_json::json!({ "device": device, "device_id": device_id, "relay": relay, "space": space });
        return output.json_line(&made);
    }
    let relay = match relay {
        Some(url) => Some(url),
        None => replica.setting(RELAY_URL)?,
    };
    let relay = relay.map_or_else(|| "no relay".into(), |url| format!("relay {url}"));
    let place = if is_in_keyring { ", token in the keyring of the system" } else { "" };
    output.line(&format!(
        "{} {} is ready: device {device}, {relay}{place}",
        output.paint(GREEN, "✓"),
        path.display()
    ));
    Ok(())
}

pub(crate) fn schema(db: Option<&Path>, command: &SchemaCommand, output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    let SchemaCommand::Apply { file } = command else { return show(&replica.schema()?, output) };
    let text = std::fs::read_to_string(file).map_err(|e| file_error(file, &e))?;
    let schema = Schema::from_toml(text.strip_prefix('\u{feff}').unwrap_or(&text))?;
    replica.apply_schema(&schema)?;
    if output.json {
        return output.json_line(&schema);
    }
    for (name, collection) in &schema.collections {
        let fields: Vec<_> = collection.fields.keys().map(String::as_str).collect();
        output.line(&format!("{} {name}: {}", output.paint(GREEN, "✓"), fields.join(", ")));
    }
    Ok(())
}

fn show(schema: &Schema, output: &Output) -> Result<(), CliError> {
    if output.json {
        return output.json_line(schema);
    }
    let text = toml::to_string(schema).map_err(|e| CliError::Other(e.to_string()))?;
    output.toml(text.trim_end());
    Ok(())
}

/// The file holds people's words: nobody else on this machine reads it.
fn keep_private(path: &Path) -> Result<(), CliError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|e| file_error(path, &e))?;
    }
    Ok(())
}
