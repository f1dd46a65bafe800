//! `import`, `export`, `adopt` and `change-log`.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use motet::{AdoptSummary, Adoption};
use serde_json::Value;

use super::documents::document_id;
use super::open;
use crate::args::ChangeLogCommand;
use crate::error::{CliError, file_error};
use crate::output::{GREEN, Output};

/// Documents per transaction. One fsync for many, and still a bar that moves.
const IMPORT_BATCH: usize = 250;

pub(crate) fn import(
    db: Option<&Path>,
    collection: &str,
    file: &Path,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    // Looked through before anything is written: a bad line imports nothing. What cannot be read twice is kept.
    let kept = if is_regular(file) { None } else { Some(read_all(file)?) };
    let lines = || -> Result<Box<dyn BufRead + '_>, CliError> {
        match &kept {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes))),
            None => Ok(Box::new(BufReader::new(File::open(file).map_err(|e| file_error(file, &e))?))),
        }
    };
    let total = each_object(lines()?, |_| Ok(()))?;
    let bar = ProgressBar::new(total).with_style(style());
    let mut batch = Vec::new();
    let write = |batch: &mut Vec<Value>| -> Result<(), CliError> {
        let (batch, name) = (std::mem::take(batch), collection.to_owned());
        let count = batch.len() as u64;
        replica.transaction(move |tx| tx.put_many(&name, &batch))?;
        bar.inc(count);
        Ok(())
    };
    each_object(lines()?, |value| {
        batch.push(value);
        if batch.len() == IMPORT_BATCH { write(&mut batch) } else { Ok(()) }
    })?;
    write(&mut batch)?;
    bar.finish_and_clear();
    if output.json {
        return output.json_line(&serde_json::json!({ "imported": total }));
    }
    output.line(&format!("{} {total} imported into {collection}", output.paint(GREEN, "✓")));
    Ok(())
}

pub(crate) fn export(db: Option<&Path>, collection: Option<&str>, output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    let names = match collection {
        Some(name) => vec![name.to_owned()],
        None => replica.collections()?,
    };
    if names.len() > 1 {
        eprintln!("{} collections in one stream: {}", names.len(), names.join(", "));
    }
    for name in names {
        let mut outcome = Ok(());
        replica.documents(&name).for_each(|record| {
            if outcome.is_ok() {
                outcome = output.json_line(&replica.shared_fields(&name, record.value));
            }
        })?;
        outcome?;
    }
    Ok(())
}

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
        None => replica.adopt(collection, read_rows(source)?, adoption)?,
    };
    if output.json {
        return output.json_line(&summary);
    }
    let AdoptSummary { new, updated, unchanged, passed_over } = summary;
    let mark = output.paint(GREEN, "✓");
    output.line(&format!(
        "{mark} {new} new, {updated} updated, {unchanged} unchanged, {passed_over} passed over"
    ));
    Ok(())
}

pub(crate) fn change_log(
    db: Option<&Path>,
    command: &ChangeLogCommand,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    match command {
        ChangeLogCommand::Export { since } => output.json_line(&replica.export_change_log(*since)?),
        ChangeLogCommand::Import { file } => {
            let log = serde_json::from_slice(&read_all(file)?)
                .map_err(|e| CliError::Other(format!("{}: not valid JSON: {e}", file.display())))?;
            let summary = replica.import_change_log(&log)?;
            if output.json {
                return output.json_line(&summary);
            }
            let (upserted, deleted) = (summary.upserted, summary.deleted);
            output.line(&format!("{} {upserted} written, {deleted} deleted", output.paint(GREEN, "✓")));
            Ok(())
        }
    }
}

/// A JSON array, or one object per line.
fn read_rows(source: &Path) -> Result<Vec<Value>, CliError> {
    let bytes = read_all(source)?;
    if let Ok(rows) = serde_json::from_slice(&bytes) {
        return Ok(rows);
    }
    let mut rows = Vec::new();
    each_object(Cursor::new(bytes), |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

/// Hands every line's object on; blank lines are passed over.
fn each_object(
    lines: impl BufRead,
    mut each: impl FnMut(Value) -> Result<(), CliError>,
) -> Result<u64, CliError> {
    let mut count = 0;
    for (number, line) in (1..).zip(lines.lines()) {
        let bad = |reason: String| CliError::Other(format!("line {number}: {reason}"));
        let line = line.map_err(|e| bad(e.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(&line).map_err(|e| bad(format!("not valid JSON: {e}")))?;
        if !value.is_object() {
            return Err(bad("it is not an object".into()));
        }
        document_id(&value).map_err(|e| bad(e.to_string()))?;
        each(value)?;
        count += 1;
    }
    Ok(count)
}

fn is_regular(file: &Path) -> bool {
    file.as_os_str() != "-" && std::fs::metadata(file).is_ok_and(|meta| meta.is_file())
}

fn read_all(file: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.map(|_| bytes).map_err(|e| file_error(file, &e))
}

fn style() -> ProgressStyle {
    // The template is a constant; should it ever not parse, the default bar does.
    ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
