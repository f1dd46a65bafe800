//! `history`, `restore`, `points`, `undo`, `redo` and `trash`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use motet::{DocumentHandle, ParseVersionError, RevisionKind, UndoScope, Undone, UndoneEffect, Version};
use serde_json::{Value, json};

use super::{open, open_with_trash};
use crate::args::UndoArgs;
use crate::error::CliError;
use crate::output::{BOLD, CYAN, GREEN, GREY, Output, local_time};

/// Hexadecimal digits of a version that are taken for the beginning of one.
const SHORTEST_VERSION: usize = 4;

pub(crate) fn history(
    db: Option<&Path>,
    collection: &str,
    id: &str,
    limit: usize,
    at: Option<&str>,
    output: &Output,
) -> Result<(), CliError> {
    let document = open_with_trash(db, collection)?.documents(collection).document(id);
    if let Some(version) = at {
        return output.json_line(&document.at(&version_of(&document, version)?)?);
    }
    let steps = document.history(limit)?;
    if output.json {
        return output.json_line(&steps);
    }
    for step in steps {
        let kind = match step.kind {
            RevisionKind::Created => "made",
            RevisionKind::Updated => "changed",
            RevisionKind::Deleted => "deleted",
            RevisionKind::Restored => "brought back",
            _ => "changed",
        };
        let device = step.device_name.as_deref().unwrap_or("an unknown device");
        let when = output.paint(GREY, &local_time(step.time));
        output.line(&format!(
            "{when}  {} {kind} {}",
            output.paint(BOLD, device),
            output.paint(CYAN, &step.fields.join(", "))
        ));
        if let Some(message) = step.message {
            output.line(&format!("    {message}"));
        }
        output.line(&output.paint(GREY, &format!("    {}", step.version)));
    }
    Ok(())
}

pub(crate) fn restore(
    db: Option<&Path>,
    document: &[String],
    version: Option<&str>,
    point: Option<&str>,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    let only = match document {
        [collection, id] => Some((collection.as_str(), id.as_str())),
        _ => None,
    };
    let mut purged = Vec::new();
    let mut is_deleted = false;
    let count = match (only, version, point) {
        (only, _, Some(point)) => {
            let restored = replica.restore_point(point, only)?;
            purged = restored.purged;
            restored.changed
        }
        (Some((collection, id)), Some(version), None) => {
            let document = replica.documents(collection).document(id);
            let version = version_of(&document, version)?;
            let is_present =
                document.status()?.is_some_and(|status| !status.deleted && status.heads == version);
            if !is_present {
                document.restore_version(&version)?;
                is_deleted = document.status()?.is_some_and(|status| status.deleted);
            }
            usize::from(!is_present)
        }
        (Some((collection, id)), None, None) => {
            if replica.documents(collection).get(id)?.is_some() {
                return Err(CliError::Usage(format!(
                    "{collection}/{id} is not deleted; --version names a version"
                )));
            }
            replica.documents(collection).document(id).restore()?;
            1
        }
        (None, ..) => {
            return Err(CliError::Usage("what is to be restored? COLLECTION ID, or --point NAME".into()));
        }
    };
    if output.json {
        return output.json_line(&json!({ "restored": count, "deleted": is_deleted, "purged": purged }));
    }
    match count {
        0 if purged.is_empty() => output.line("nothing to restore: all of it is as it was then"),
        0 => output.line("nothing to restore: the rest of it is as it was then"),
        _ if is_deleted => output.line(&format!(
            "{} {} is deleted, as it was in that version",
            output.paint(GREEN, "✓"),
            document.join("/")
        )),
        _ => output.line(&format!("{} {count} restored", output.paint(GREEN, "✓"))),
    }
    for (collection, id) in purged {
        output.line(&format!("    {collection}/{id} was removed for good, and cannot come back"));
    }
    Ok(())
}

pub(crate) fn points(
    db: Option<&Path>,
    create: Option<String>,
    remove: Option<String>,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    if let Some(name) = create {
        replica.create_restore_point(&name)?;
    }
    if let Some(name) = remove
        && !replica.remove_restore_point(&name)?
    {
        return Err(CliError::NotFound("restore point".into(), name));
    }
    let points = replica.restore_points()?;
    if output.json {
        return output.json_line(&points);
    }
    for point in points {
        output.line(&format!("{}  {}", output.paint(GREY, &local_time(point.created_at)), point.name));
    }
    Ok(())
}

pub(crate) fn undo(db: Option<&Path>, scope: &UndoArgs, output: &Output) -> Result<(), CliError> {
    step(Way::Back, db, scope, output)
}

pub(crate) fn redo(db: Option<&Path>, scope: &UndoArgs, output: &Output) -> Result<(), CliError> {
    step(Way::Again, db, scope, output)
}

fn step(way: Way, db: Option<&Path>, scope: &UndoArgs, output: &Output) -> Result<(), CliError> {
    let (replica, within) = (open(db)?, scope_of(scope));
    let done = match way {
        Way::Back => replica.undo_within(&within)?,
        Way::Again => replica.redo_within(&within)?,
    };
    if done.is_none() {
        check_scope(db, scope)?;
    }
    say(way, done, output)
}

pub(crate) fn trash(
    db: Option<&Path>,
    collection: &str,
    purge: Option<u32>,
    output: &Output,
) -> Result<(), CliError> {
    let documents = open_with_trash(db, collection)?.documents(collection);
    if let Some(days) = purge {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
        let count = documents.purge_trash(now + 1 - i64::from(days) * 86_400_000)?;
        if output.json {
            return output.json_line(&json!({ "purged": count }));
        }
        output.line(&format!("{} {count} removed for good", output.paint(GREEN, "✓")));
        return Ok(());
    }
    let trash = documents.trash()?;
    if output.json {
        return output.json_line(&trash);
    }
    for gone in trash {
        let title = gone.fields.get("title").and_then(|title| title.as_str()).unwrap_or_default();
        let goes = gone.leaves_at.map(|at| format!("  removed by another device, goes {}", local_time(at)));
        let when = output.paint(GREY, &local_time(gone.deleted_at));
        output.line(&format!(
            "{when}  {}  {title}{}",
            gone.id,
            output.paint(GREY, &goes.unwrap_or_default())
        ));
    }
    Ok(())
}

/// Nothing was done: perhaps because there is nothing of that name.
fn check_scope(db: Option<&Path>, scope: &UndoArgs) -> Result<(), CliError> {
    let Some(collection) = scope.collection.as_deref() else { return Ok(()) };
    let replica = open_with_trash(db, collection)?;
    let Some(id) = scope.id.as_deref() else { return Ok(()) };
    match replica.documents(collection).document(id).status()? {
        Some(_) => Ok(()),
        None => Err(CliError::NotFound(collection.to_owned(), id.to_owned())),
    }
}

fn scope_of(args: &UndoArgs) -> UndoScope {
    let scope = match (args.collection.as_deref(), args.id.as_deref()) {
        (Some(collection), Some(id)) => UndoScope::document(collection, id),
        (Some(collection), None) => UndoScope::collection(collection),
        (None, _) => UndoScope::default(),
    };
    match &args.label {
        Some(label) => scope.labelled(label),
        None => scope,
    }
}

/// Over what was done: back by an undo, or once again by a redo.
enum Way {
    Back,
    Again,
}

fn say(way: Way, done: Option<Undone>, output: &Output) -> Result<(), CliError> {
    let (what, changed) = match way {
        Way::Back => ("undone", "changed back"),
        Way::Again => ("redone", "changed again"),
    };
    if output.json {
        let mut told = json!({ what: done.is_some() });
        if let (Some(told), Some(done)) = (told.as_object_mut(), done) {
            let Undone { message, label, at, documents, .. } = done;
            let keys = [("message", json!(message)), ("label", json!(label)), ("at", json!(at))];
            told.extend(keys.map(|(key, value)| (key.to_owned(), value)));
            told.insert("documents".into(), json!(documents));
        }
        return output.json_line(&told);
    }
    let Some(done) = done else {
        output.line(&format!("nothing to be {what}"));
        return Ok(());
    };
    let notes = [done.message.map(|m| format!(" “{m}”")), done.label.map(|l| format!(" [{l}]"))];
    let notes: String = notes.into_iter().flatten().collect();
    let when = output.paint(GREY, &format!("of {}", local_time(done.at)));
    output.line(&format!("{} {what}{notes}  {when}", output.paint(GREEN, "✓")));
    for document in done.documents {
        let effect = match document.effect {
            UndoneEffect::Updated => changed,
            UndoneEffect::Deleted => "deleted",
            UndoneEffect::Restored => "brought back",
            UndoneEffect::Kept => "stays, since others have written in it; what was taken back of it",
            UndoneEffect::Unchanged => "as it was: nothing of it is left that could go back",
            _ => "changed",
        };
        let fields = output.paint(CYAN, &document.fields.join(", "));
        let name = output.paint(BOLD, &format!("{}/{}", document.collection, document.id));
        let colon = if document.fields.is_empty() { "" } else { ": " };
        output.line(&format!("    {name} {effect}{colon}{fields}"));
    }
    Ok(())
}

/// A version as it is printed, or its beginning, as git takes it.
fn version_of(document: &DocumentHandle<Value>, text: &str) -> Result<Version, CliError> {
    let error = match text.parse() {
        Ok(version) => return Ok(version),
        Err(error) => CliError::Usage(ParseVersionError::to_string(&error)),
    };
    if text.len() < SHORTEST_VERSION || !text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(error);
    }
    let text = text.to_lowercase();
    let steps = document.history(usize::MAX)?.into_iter().map(|step| step.version);
    let mut found: Vec<Version> = steps.filter(|version| version.to_string().starts_with(&text)).collect();
    found.dedup();
    match (found.pop(), found.is_empty()) {
        (Some(version), true) => Ok(version),
        (Some(_), false) => {
            Err(CliError::Usage(format!("several versions begin with {text}; give more of it")))
        }
        (None, _) => Err(CliError::NotFound("version".into(), text)),
    }
}
