//! `sync`, `status` and `watch`.

use std::path::Path;

use motet::{
    Conflict, ConflictKind, Counts, DocumentStatus, Event, Replica, SpaceId, Status, SyncError, SyncState,
};
use serde::Serialize;

use super::{RELAY_URL, SIGNED_IN_AS, open, open_with_trash, relay};
use crate::error::CliError;
use crate::output::{GREEN, GREY, Output, YELLOW, document_state, last_synced, local_time, sync_state};

/// Characters of a title that `watch` shows.
const TITLE_CHARS: usize = 60;

pub(crate) fn sync(db: Option<&Path>, document: &[String], output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    connect(&replica)?;
    if let [collection, id] = document {
        let synced = replica.documents(collection).document(id).sync();
        replica.disconnect();
        synced?;
        return document_status(&replica, collection, id, output);
    }
    let summary = replica.sync_now();
    replica.disconnect();
    let summary = summary?;
    if output.json {
        return output.json_line(&summary);
    }
    output.line(&format!("{} {summary}", output.paint(GREEN, "✓")));
    match replica.status().pending {
        0 => {}
        pending => output.line(&format!(
            "{} {pending} not sent: motet status COLLECTION ID says why",
            output.paint(YELLOW, "⚠")
        )),
    }
    let traffic = format!(
        "  {:.1} kB up, {:.1} kB down, {} ms",
        summary.bytes_up as f64 / 1e3,
        summary.bytes_down as f64 / 1e3,
        summary.duration_ms
    );
    output.line(&output.paint(GREY, &traffic));
    Ok(())
}

/// Takes effect with the next sync, which it runs if there is a relay.
pub(crate) fn erase_remote(db: Option<&Path>, collection: &str, output: &Output) -> Result<(), CliError> {
    let replica = open_with_trash(db, collection)?;
    replica.erase_remote(collection)?;
    if relay(&replica)?.is_some() {
        return sync(db, &[], output).inspect_err(|_| {
            // It stands in the database, whatever became of the sync.
            output.complain(&format!(
                "{collection} is not sent any more; the relay erases it with the next sync that succeeds"
            ));
        });
    }
    if output.json { output.json_line(&replica.status()) } else { Ok(()) }
}

pub(crate) fn compact(
    db: Option<&Path>,
    collection: &str,
    id: &str,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    connect(&replica)?;
    let document = replica.documents(collection).document(id);
    let compacted = replica.sync_now().and_then(|_| document.compact());
    replica.disconnect();
    let compacted = compacted?;
    if document.status()?.is_none() {
        return Err(CliError::NotFound(collection.to_owned(), id.to_owned()));
    }
    if output.json {
        return output.json_line(&serde_json::json!({ "compacted": compacted }));
    }
    let said = if compacted { "one snapshot now" } else { "there is not much to save" };
    output.line(&format!("{} {said}", output.paint(GREEN, "✓")));
    Ok(())
}

pub(crate) fn status(db: Option<&Path>, document: &[String], output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    match document {
        [collection, id] => document_status(&replica, collection, id, output),
        _ => space_status(&replica, output),
    }
}

#[derive(Serialize)]
struct SpaceReport {
    device: String,
    device_id: String,
    space: String,
    relay: Option<String>,
    /// The account that the database is bound to.
    account: Option<String>,
    /// What the relay calls the account that this device has signed in to.
    signed_in_as: Option<String>,
    #[serde(flatten)]
    status: Status,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Serialize)]
struct DocumentReport {
    collection: String,
    id: String,
    #[serde(flatten)]
    status: DocumentStatus,
    conflict_journal: Vec<Conflict>,
}

fn space_status(replica: &Replica, output: &Output) -> Result<(), CliError> {
    let report = SpaceReport {
        device: replica.device_name().to_owned(),
        device_id: replica.device_id().to_string(),
        space: replica.space().to_string(),
        relay: replica.setting(RELAY_URL)?,
        account: replica.account()?.map(|account| account.to_string()),
        signed_in_as: replica.setting(SIGNED_IN_AS)?,
        status: replica.status(),
        counts: replica.counts()?,
    };
    if output.json {
        return output.json_line(&report);
    }
    let SpaceReport { device, space, relay, signed_in_as, status, counts, .. } = report;
    let (glyph, style, word) = sync_state(status.state);
    output.line(&format!("{}  device {device}", output.paint(style, &format!("{glyph} {word}"))));
    output.line(&format!("relay          {}", relay.as_deref().unwrap_or("none")));
    if let Some(account) = signed_in_as {
        output.line(&format!("signed in as   {account}"));
    }
    if replica.space() != SpaceId::DEFAULT {
        output.line(&format!("space          {space}"));
    }
    output.line(&format!("last synced    {}", last_synced(status.last_synced_at)));
    output.line(&format!("documents      {}", counts.documents));
    output.line(&format!("pending        {}", status.pending));
    if counts.conflicts > 0 {
        output.line(&format!("conflicts      {}", counts.conflicts));
    }
    if counts.quarantined > 0 {
        output.line(&format!("set aside      {}", counts.quarantined));
    }
    if counts.leaving > 0 {
        let hint = "purged elsewhere, still in the trash here";
        output.line(&format!("leaving        {} ({hint})", counts.leaving));
    }
    if let Some(error) = status.last_error {
        output.line(&format!("last error     {} ({})", error.message, local_time(error.at)));
    }
    Ok(())
}

fn document_status(replica: &Replica, collection: &str, id: &str, output: &Output) -> Result<(), CliError> {
    let status = replica.documents(collection).document(id).status()?;
    let status = status.ok_or_else(|| CliError::NotFound(collection.to_owned(), id.to_owned()))?;
    let conflict_journal = replica.documents(collection).document(id).conflicts()?;
    let report =
        DocumentReport { collection: collection.to_owned(), id: id.to_owned(), status, conflict_journal };
    if output.json {
        return output.json_line(&report);
    }
    let DocumentReport { status, conflict_journal, .. } = report;
    let (glyph, style, word) = document_state(status.state);
    let deleted = if status.deleted { ", deleted" } else { "" };
    output.line(&format!("{}  {collection}/{id}{deleted}", output.paint(style, &format!("{glyph} {word}"))));
    output.line(&format!("last synced    {}", last_synced(status.last_synced_at)));
    output.line(&format!("last changed   {}", local_time(status.updated_at)));
    if let Some(since) = status.pending_since {
        output.line(&format!(
            "pending        {} changes since {}",
            status.pending_changes,
            local_time(since)
        ));
    }
    for conflict in conflict_journal {
        let device = conflict.device_name.as_deref().unwrap_or("another device");
        let settled = if conflict.settled { " (settled)" } else { "" };
        let field = conflict.path.trim_start_matches('/');
        match (conflict.kind, &conflict.loser) {
            // Both versions are in the text.
            (ConflictKind::Text, serde_json::Value::Array(versions)) => {
                let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
                let versions = versions.join(" and ");
                output.line(&format!(
                    "conflict       {field}: both {versions} are in it, {device} the latest{settled}"
                ));
            }
            (ConflictKind::More, more) => {
                output
                    .line(&format!("conflict       {more} more, for which the journal has no room{settled}"));
            }
            _ => output.line(&format!("conflict       {field}: {device} wrote {}{settled}", conflict.loser)),
        }
    }
    if let Some(error) = status.error {
        output.line(&format!("error          {}", error.message));
    }
    output.line(&output.paint(GREY, &format!("version        {}", status.heads)));
    Ok(())
}

pub(crate) fn watch(db: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::Other(e.to_string()))?;
    let mut events = replica.events();
    let mut status = replica.watch_status();
    connect(&replica)?;
    runtime.block_on(async {
        let mut shown = None;
        loop {
            let current = status.current();
            show_new_status(&current, &mut shown, output)?;
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(()),
                changed = status.next() => match changed {
                    // One that is over already is shown all the same.
                    Some(status) => show_new_status(&status, &mut shown, output)?,
                    None => return Ok(()),
                },
                event = events.next() => match event {
                    Some(Ok(event)) => show_event(&replica, &event, output)?,
                    Some(Err(missed)) => output.complain(&missed.to_string()),
                    None => return Ok(()),
                },
            }
        }
    })
}

/// What was shown of a status.
type Shown = (std::mem::Discriminant<SyncState>, u64, Option<String>);

/// Shows a status that does not look like the last one.
fn show_new_status(status: &Status, shown: &mut Option<Shown>, output: &Output) -> Result<(), CliError> {
    let error = status.last_error.as_ref().map(|error| error.message.clone());
    let line = (std::mem::discriminant(&status.state), status.pending, error);
    if shown.as_ref() == Some(&line) {
        return Ok(());
    }
    *shown = Some(line);
    show_status(status, output)
}

fn show_status(status: &Status, output: &Output) -> Result<(), CliError> {
    if output.json {
        return output.json_line(&serde_json::json!({ "status": status }));
    }
    let (glyph, style, word) = sync_state(status.state);
    let pending = if status.pending > 0 { format!(", {} pending", status.pending) } else { String::new() };
    let why = status.last_error.as_ref().map(|error| reason(&error.message, word)).unwrap_or_default();
    output.line(&format!("{} {}{why}", clock(), output.paint(style, &format!("{glyph} {word}{pending}"))));
    Ok(())
}

/// What a status says of the last error: it may begin with the state itself.
fn reason(message: &str, state: &str) -> String {
    let rest = message.strip_prefix(state).and_then(|rest| rest.strip_prefix(": "));
    match rest {
        Some(rest) => format!(": {rest}"),
        None => format!(" ({message})"),
    }
}

fn show_event(replica: &Replica, event: &Event, output: &Output) -> Result<(), CliError> {
    if output.json {
        return output.json_line(&serde_json::json!({ "event": event }));
    }
    let arrow = if event.remote { "↓" } else { "↑" };
    let kind = format!("{:?}", event.kind).to_lowercase();
    let title = title(replica, event).map(|title| format!("  {title}")).unwrap_or_default();
    let line =
        format!("{} {arrow} {}/{} {kind}{}", clock(), event.collection, event.id, output.paint(GREY, &title));
    output.line(&line);
    Ok(())
}

/// What a person knows a document by.
fn title(replica: &Replica, event: &Event) -> Option<String> {
    let record = replica.documents(&event.collection).get(&event.id).ok()??;
    let named = |field: &&str| {
        record.value.get(*field).and_then(|value| value.as_str()).filter(|text| !text.is_empty())
    };
    let title = ["title", "name"].iter().find_map(named)?;
    let first = title.lines().next().unwrap_or_default();
    Some(format!("{:?}", first.chars().take(TITLE_CHARS).collect::<String>()))
}

/// The time of day.
fn clock() -> String {
    jiff::Zoned::now().strftime("%H:%M:%S").to_string()
}

fn connect(replica: &Replica) -> Result<(), CliError> {
    match relay(replica)? {
        Some(relay) => Ok(replica.connect(relay)?),
        None => Err(SyncError::NotConnected.into()),
    }
}
