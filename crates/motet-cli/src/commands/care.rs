//! `conflicts`, `resolve`, `quarantine`, `verify` and `repair`.

use std::path::Path;

use motet::{
    Conflict, ConflictKind, DocumentHandle, OpenError, Problem, Replica, Resolution, StorageError, WriteError,
};
use serde_json::json;

use super::documents::value_of;
use super::open;
use crate::error::CliError;
use crate::output::{CYAN, GREEN, GREY, Output, RED, YELLOW, local_time};

/// Items that `quarantine` lists.
const QUARANTINE_SHOWN: usize = 1_000;

pub(crate) fn conflicts(
    db: Option<&Path>,
    document: &[String],
    all: bool,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    let documents = match document {
        [collection, id] => {
            let known = replica.documents(collection).document(id).status()?;
            known.ok_or_else(|| CliError::NotFound(collection.clone(), id.clone()))?;
            vec![(collection.clone(), id.clone())]
        }
        _ => replica.conflicted_documents(all)?,
    };
    let mut listed = Vec::new();
    for (collection, id) in documents {
        for conflict in replica
            .documents(&collection)
            .document(&id)
            .conflicts()?
            .into_iter()
            .filter(|c| all || !c.settled)
        {
            if output.json {
                let mut value = serde_json::to_value(&conflict).unwrap_or_default();
                value["collection"] = collection.clone().into();
                value["id"] = id.clone().into();
                listed.push(value);
            } else {
                show(&collection, &id, &conflict, output);
            }
        }
    }
    if output.json { output.json_line(&listed) } else { Ok(()) }
}

pub(crate) fn resolve(
    db: Option<&Path>,
    collection: &str,
    id: &str,
    field: &str,
    loser: Option<String>,
    value: Option<String>,
    output: &Output,
) -> Result<(), CliError> {
    let resolution = match (loser, value) {
        (Some(loser), _) => Resolution::Loser(loser),
        (None, Some(text)) => Resolution::Value(value_of(field, &text)?),
        (None, None) => Resolution::Shown,
    };
    let path = if field.starts_with('/') { field.to_owned() } else { format!("/{field}") };
    let document = open(db)?.documents(collection).document(id);
    let version = document.resolve(&path, resolution).map_err(|error| match error {
        WriteError::NoLoser { .. } => no_loser(&document, &path, error),
        error => error.into(),
    })?;
    if output.json {
        return output.json_line(&json!({ "heads": version }));
    }
    output.line(&format!("{} settled", output.paint(GREEN, "✓")));
    Ok(())
}

/// Names the losers that there are.
fn no_loser(document: &DocumentHandle<serde_json::Value>, path: &str, error: WriteError) -> CliError {
    let Ok(conflicts) = document.conflicts() else { return error.into() };
    let losers = conflicts.into_iter().filter(|conflict| conflict.path == path && !conflict.settled);
    let losers: Vec<String> =
        losers.map(|conflict| format!("{} ({})", conflict.loser_id, conflict.loser)).collect();
    CliError::Usage(format!("wrong --loser; the losers at {path} are: {}", losers.join(", ")))
}

pub(crate) fn quarantine(db: Option<&Path>, retry: bool, output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    if retry {
        replica.retry_quarantined()?;
    }
    let items = replica.quarantined(QUARANTINE_SHOWN)?;
    if output.json {
        return output.json_line(&items);
    }
    for item in &items {
        let document = item.collection.iter().chain(&item.id).cloned().collect::<Vec<_>>().join("/");
        let document = if document.is_empty() { "an unknown document".to_owned() } else { document };
        let state = if item.waits { "waits" } else { "set aside" };
        let when = output.paint(GREY, &local_time(item.at));
        let short = output.paint(GREY, &item.item[..12]);
        output.line(&format!("{when} {short} {document}: {} ({})", item.reason, output.paint(YELLOW, state)));
    }
    if retry {
        output.line(&format!("{} all of it is tried again with the next sync", output.paint(GREEN, "✓")));
    }
    Ok(())
}

pub(crate) fn verify(db: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let report = open(db)?.verify()?;
    let sound = report.problems.is_empty();
    if output.json {
        output.json_line(&report)?;
    } else {
        report.problems.iter().for_each(|problem| show_problem(problem, output));
        let mark = if sound { output.paint(GREEN, "✓") } else { output.paint(RED, "✗") };
        output.line(&format!("{mark} {} documents, {} problems", report.documents, report.problems.len()));
    }
    if sound { Ok(()) } else { Err(CliError::Other("something is damaged; try: motet repair".into())) }
}

pub(crate) fn repair(db: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let mut put_aside = None;
    let replica = match open(db) {
        Err(CliError::Open(OpenError::Storage(StorageError::Damaged(reason)))) => {
            // What cannot be read of it any more is not in it afterwards.
            put_aside = Replica::salvage(super::path(db)?)?;
            if !output.json {
                output.line(&format!("{} the file was written anew: {reason}", output.paint(YELLOW, "⚠")));
            }
            open(db)?
        }
        replica => replica?,
    };
    let mut report = replica.repair()?;
    report.put_aside = report.put_aside.or(put_aside);
    let left = report.left.len();
    let is_left = || CliError::Other(format!("{left} problems are left"));
    if output.json {
        output.json_line(&report)?;
        return if left == 0 { Ok(()) } else { Err(is_left()) };
    }
    report.problems.iter().for_each(|problem| show_problem(problem, output));
    if left > 0 {
        output.line("what is left:");
        report.left.iter().for_each(|problem| show_problem(problem, output));
        return Err(is_left());
    }
    if let Some(path) = &report.put_aside {
        let path = path.display();
        output.line(&format!(
            "the damaged file is kept as {path}: it holds all that was in it, and can be removed"
        ));
    }
    output.line(&format!("{} {} repaired", output.paint(GREEN, "✓"), report.problems.len()));
    if report.fetched_again > 0 {
        output.line(&format!(
            "of {} something was lost here; fetch it again with: motet sync",
            report.fetched_again
        ));
    }
    Ok(())
}

fn show(collection: &str, id: &str, conflict: &Conflict, output: &Output) {
    let (glyph, style) = if conflict.settled { ("✓", GREEN) } else { ("⚠", YELLOW) };
    if conflict.kind == ConflictKind::More {
        let more = format!("{} more, for which the journal has no room", conflict.loser);
        return output.line(&format!("{} {collection}/{id} {more}", output.paint(style, glyph)));
    }
    let device = conflict.device_name.as_deref().unwrap_or("another device");
    // What every device makes alike has no time.
    let when = if conflict.time == 0 { String::new() } else { local_time(conflict.time) };
    let when = output.paint(GREY, &when);
    output.line(&format!(
        "{} {collection}/{id} {}",
        output.paint(style, glyph),
        output.paint(CYAN, &conflict.path)
    ));
    match (conflict.kind, &conflict.loser) {
        // Both versions are in the text.
        (ConflictKind::Text, serde_json::Value::Array(versions)) => {
            output.line(&format!("    before  {}", conflict.winner));
            versions.iter().for_each(|version| output.line(&format!("    wrote   {version}")));
            output.line(&format!("    latest  {device} {when}"));
        }
        _ => {
            output.line(&format!("    shows   {}", conflict.winner));
            output.line(&format!("    lost    {}  {device} {when}", conflict.loser));
        }
    }
    output.line(&output.paint(GREY, &format!("    loser   {}", conflict.loser_id)));
}

fn show_problem(problem: &Problem, output: &Output) {
    let place = match (&problem.collection, &problem.id) {
        (Some(collection), Some(id)) => format!("{collection}/{id}"),
        _ => "the file".into(),
    };
    let kind = format!("{:?}", problem.kind).to_lowercase();
    output.line(&format!("{} {place}: {kind}: {}", output.paint(RED, "✗"), problem.detail));
}
