//! `search`, `sql` and `tail`.

use std::path::Path;
use std::time::Duration;

use motet::{Hit, Snippet};
use serde_json::{Value, json};

use super::documents::headline;
use super::{open, open_known};
use crate::error::CliError;
use crate::output::{BOLD, CYAN, GREY, Output, YELLOW, local_time};

/// How often `tail` looks for changes of other programs.
const TAIL_EVERY: Duration = Duration::from_millis(200);

/// Changes that `tail` reads at once.
const TAIL_PAGE: usize = 1_000;

pub(crate) fn search(
    db: Option<&Path>,
    collection: &str,
    words: &str,
    limit: u64,
    output: &Output,
) -> Result<(), CliError> {
    let hits = open_known(db, collection)?.documents(collection).search(words, limit)?;
    if output.json {
        let shown = |hit: Hit<Value>| json!({ "id": hit.record.id, "score": hit.score, "snippet": hit.snippet, "document": hit.record.value });
        return output.json_line(&hits.into_iter().map(shown).collect::<Vec<_>>());
    }
    for hit in &hits {
        output.line(&format!("{}  {}", output.paint(GREY, &hit.record.id), headline(&hit.record)));
        if let Some(snippet) = &hit.snippet {
            let field = output.paint(CYAN, &snippet.field);
            output.line(&format!("    {field}: {}", highlighted(snippet, output)));
        }
    }
    if output.is_colour() {
        output.line(&output.paint(GREY, &format!("{} found", hits.len())));
    }
    Ok(())
}

pub(crate) fn sql(db: Option<&Path>, query: &str, output: &Output) -> Result<(), CliError> {
    let table = open(db)?.sql(query)?;
    if output.json {
        let objects =
            table.rows.into_iter().map(|row| Value::Object(table.columns.iter().cloned().zip(row).collect()));
        return output.json_line(&objects.collect::<Vec<_>>());
    }
    output.line(&output.paint(BOLD, &table.columns.join("\t")));
    for row in table.rows {
        let cell = |value: Value| match value {
            Value::String(text) => text.replace(['\t', '\n'], " "),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        output.line(&row.into_iter().map(cell).collect::<Vec<_>>().join("\t"));
    }
    Ok(())
}

pub(crate) fn tail(db: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    let mut after = replica.latest_change()?;
    loop {
        for change in replica.changed_after(after, TAIL_PAGE)? {
            after = change.seq;
            // One that is gone has no history left to tell of.
            let step = replica.documents(&change.collection).document(&change.id).history(1).ok();
            let step = step.and_then(|steps| steps.into_iter().next());
            if output.json {
                output
                    .json_line(&json!({ "collection": change.collection, "id": change.id, "at": change.at,
                    "deleted": change.deleted, "change": step }))?;
                continue;
            }
            let (who, what) = match &step {
                Some(step) => (step.device_name.clone().unwrap_or_default(), step.fields.join(", ")),
                None => Default::default(),
            };
            let kind = if change.deleted { "deleted" } else { "changed" };
            let when = output.paint(GREY, &local_time(change.at));
            output.line(&format!("{when} {}/{} {kind} {what} {who}", change.collection, change.id));
        }
        std::thread::sleep(TAIL_EVERY);
    }
}

fn highlighted(snippet: &Snippet, output: &Output) -> String {
    let (mut shown, mut at) = (String::new(), 0);
    for range in &snippet.matches {
        shown.push_str(&snippet.text[at..range.start]);
        shown.push_str(&output.paint(YELLOW, &snippet.text[range.clone()]));
        at = range.end;
    }
    shown.push_str(&snippet.text[at..]);
    shown.replace('\n', " / ")
}
