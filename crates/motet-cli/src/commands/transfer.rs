//! `import`, `export`, `adopt`, `automerge` and `change-log`.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use motet::{AdoptSummary, Adoption, BadRows, Refusal};

use super::documents::{input, read_all};
use super::{open, open_with_trash};
use crate::args::{AutomergeCommand, ChangeLogCommand};
use crate::error::{CliError, file_error};
use crate::output::{GREEN, Output};

pub(crate) fn import(
    db: Option<&Path>,
    source: Vec<OsString>,
    bad_rows: BadRows,
    output: &Output,
) -> Result<(), CliError> {
    let (collection, file) = match <[OsString; 2]>::try_from(source) {
        Ok([collection, file]) => {
            let name = collection.into_string();
            let name = name.map_err(|name| CliError::Usage(format!("{name:?} is not UTF-8")))?;
            (Some(name), PathBuf::from(file))
        }
        Err(one) => (None, one.into_iter().next().map_or_else(|| PathBuf::from("-"), PathBuf::from)),
    };
    let replica = open(db)?;
    let bar = ProgressBar::no_length().with_style(style());
    let summary =
        replica.import_jsonl(collection.as_deref(), input(&file)?, bad_rows, |count| bar.inc(count));
    bar.finish_and_clear();
    let summary = summary?;
    if output.json {
        output.json_line(&summary)?;
    } else {
        let into = collection.map(|name| format!(" into {name}")).unwrap_or_default();
        output.line(&format!("{} {} imported{into}", output.paint(GREEN, "✓"), summary.imported));
    }
    report(summary.refused, &summary.refusals, output)
}

pub(crate) fn export(
    db: Option<&Path>,
    collection: Option<&str>,
    all: bool,
    output: &Output,
) -> Result<(), CliError> {
    let replica = match collection {
        Some(collection) => open_with_trash(db, collection)?,
        None => open(db)?,
    };
    let mut names = replica.shared_collections()?;
    names.retain(|name| collection.is_none_or(|wanted| wanted == name));
    let mut outcome = Ok(());
    if all || names.len() > 1 {
        replica.export_all(|line| {
            if outcome.is_ok() {
                outcome = output.json_line(line);
            }
        })?;
        return outcome;
    }
    for name in names {
        replica.export(&name, |document| {
            if outcome.is_ok() {
                outcome = output.json_line(document);
            }
        })?;
    }
    outcome
}

/// What SQLite's files begin with.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

pub(crate) fn adopt(
    db: Option<&Path>,
    collection: &str,
    source: &Path,
    table: Option<&str>,
    adoption: &Adoption,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    let summary = match table {
        Some(table) => replica.adopt_sqlite(source, table, collection, adoption)?,
        None => {
            let rows = read_all(source)?;
            if rows.starts_with(SQLITE_MAGIC) {
                let path = source.display();
                return Err(CliError::Usage(format!(
                    "{path} is an SQLite database: name its table with --table"
                )));
            }
            replica.adopt_json(&rows, collection, adoption)?
        }
    };
    if output.json {
        output.json_line(&summary)?;
    } else {
        let AdoptSummary { new, updated, unchanged, passed_over, undated, .. } = summary;
        let undated =
            if undated == 0 { String::new() } else { format!(", {undated} without a time left alone") };
        let mark = output.paint(GREEN, "✓");
        output.line(&format!(
            "{mark} {new} new, {updated} updated, {unchanged} unchanged, {passed_over} passed over{undated}"
        ));
    }
    if !output.json {
        tell(summary.undated, &summary.undated_rows, output);
    }
    // What was left out of a row did not come over either.
    if !output.json {
        tell(summary.left_out, &summary.omissions, output);
    }
    report(summary.refused, &summary.refusals, output)?;
    match summary.left_out {
        0 => Ok(()),
        left_out => {
            Err(CliError::Refused(format!("{left_out} left out of their rows; the rest was taken up")))
        }
    }
}

pub(crate) fn automerge(
    db: Option<&Path>,
    command: &AutomergeCommand,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    match command {
        AutomergeCommand::Export { collection, id, file } => {
            let saved = replica.documents(collection).document(id).export_automerge()?;
            if file.as_os_str() != "-" {
                std::fs::write(file, saved).map_err(|error| file_error(file, &error))?;
                if output.json {
                    return output.json_line(&serde_json::json!({ "file": file }));
                }
                output.line(&format!("{} written to {}", output.paint(GREEN, "✓"), file.display()));
                return Ok(());
            }
            if std::io::stdout().is_terminal() {
                let advice = "a saved document is no text: name a file, or send it on with | or >";
                return Err(CliError::Usage(advice.to_owned()));
            }
            output.bytes(&saved);
            Ok(())
        }
        AutomergeCommand::Import { collection, id, file } => {
            let version = replica.documents(collection).document(id).import_automerge(&read_all(file)?)?;
            if output.json {
                return output.json_line(&serde_json::json!({ "id": id, "heads": version }));
            }
            output.line(&format!("{} merged into {collection}/{id}", output.paint(GREEN, "✓")));
            Ok(())
        }
    }
}

pub(crate) fn change_log(
    db: Option<&Path>,
    command: &ChangeLogCommand,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    match command {
        ChangeLogCommand::Export { since, after } => output.json_line(&match after {
            Some(cursor) => replica.export_change_log_after(*cursor)?,
            None => replica.export_change_log(*since)?,
        }),
        ChangeLogCommand::Import { file, strict } => {
            let bad_rows = if *strict { BadRows::RefuseAll } else { BadRows::Report };
            let summary = replica.import_change_log_text(&read_all(file)?, bad_rows)?;
            if output.json {
                output.json_line(&summary)?;
            } else {
                let (upserted, deleted) = (summary.upserted, summary.deleted);
                output.line(&format!("{} {upserted} written, {deleted} deleted", output.paint(GREEN, "✓")));
            }
            report(summary.refused, &summary.refusals, output)
        }
    }
}

/// Tells of rows that were refused, which fails the command after all others were taken up.
fn report(count: u64, refusals: &[Refusal], output: &Output) -> Result<(), CliError> {
    if count == 0 {
        return Ok(());
    }
    if !output.json {
        tell(count, refusals, output);
    }
    Err(CliError::Refused(format!("{count} refused; the others were taken up")))
}

/// Names rows on the error output.
fn tell(count: u64, rows: &[Refusal], output: &Output) {
    rows.iter().for_each(|row| output.complain(&row.to_string()));
    let more = count.saturating_sub(rows.len() as u64);
    if more > 0 {
        output.complain(&format!("and {more} more"));
    }
}

fn style() -> ProgressStyle {
    // The template is a constant; should it ever not parse, the default bar does.
    ProgressStyle::with_template("{spinner} {pos} {per_sec}").unwrap_or_else(|_| ProgressStyle::default_bar())
}
