//! What can be read of a device, beside what was promised.

use std::collections::BTreeSet;

use super::device::{COLLECTION, Device};
use super::known::Known;
use super::model::{Outcome, State};
use super::reading::Shown;
use super::run::Checked;
use super::script::{Act, Fields, Told, id};

/// What shows is what was promised.
pub(super) fn compare(known: &Known, act: &Act, expected: &Outcome, shown: &Shown) -> Checked {
    let wrong = |doc: usize, what: String| Err(("shown", format!("{}: {} {what}", Told(act), id(doc))));
    let docs: BTreeSet<usize> = expected.world.keys().chain(shown.keys()).copied().collect();
    for doc in docs.into_iter().filter(|doc| !expected.open_documents.contains(doc)) {
        match (expected.world.get(&doc), shown.get(&doc)) {
            (Some(State::Live(expected_fields)), Some(shown)) => {
                let is_open = |name: &String| expected.open.contains(&(doc, name.clone()));
                let relevant = |fields: &Fields| -> Fields {
                    let fields = known.rules.comparable(fields).into_iter();
                    fields.filter(|(name, _)| !is_open(name)).collect()
                };
                let (expected, shown) = (relevant(expected_fields), relevant(shown));
                if expected != shown {
                    return wrong(doc, difference(&expected, &shown));
                }
            }
            (Some(State::Live(fields)), None) => {
                return wrong(doc, format!("is not there; it is {}", text(fields)));
            }
            (_, Some(fields)) => return wrong(doc, format!("is there: {}", text(fields))),
            (_, None) => {}
        }
    }
    Ok(())
}

fn text(fields: &Fields) -> String {
    serde_json::Value::Object(fields.clone()).to_string()
}

/// The fields that differ.
pub(super) fn difference(expected: &Fields, shown: &Fields) -> String {
    let names: BTreeSet<&String> = expected.keys().chain(shown.keys()).collect();
    let told = |value: Option<&serde_json::Value>| value.map_or("nothing".to_owned(), ToString::to_string);
    let differing = names.into_iter().filter(|name| expected.get(*name) != shown.get(*name));
    let all: Vec<String> = differing
        .map(|name| format!("{name:?} is {}, not {}", told(shown.get(name)), told(expected.get(name))))
        .collect();
    all.join(", ")
}

/// The same in every way that it can be read.
pub(super) fn check_everywhere(
    device: &Device,
    known: &Known,
    shown: &Shown,
    trash: &Shown,
    thorough: bool,
) -> Checked {
    let rules = &known.rules;
    let selected =
        device.selected().or_else(|error| if shown.is_empty() { Ok(Shown::new()) } else { Err(error) });
    same("sql", "the view in SQL", shown, &selected.map_err(|error| ("sql", error))?)?;
    if thorough {
        let second = device.open().map_err(|error| ("open", error))?;
        let listed = device.listed(&second).map_err(|error| ("second", error))?;
        same("second", "another process", shown, &listed)?;
    }
    let anew = device.anew().map_err(|error| ("anew", error))?;
    for (doc, fields) in shown {
        let Some(anew) = anew.get(doc) else { return Err(("anew", format!("{} has no changes", id(*doc)))) };
        if rules.local {
            if anew.has_changes {
                return Err(("local", format!("{} is local and has changes", id(*doc))));
            }
            continue;
        }
        let forked = known.forked.contains(doc);
        if forked && !anew.contested.is_empty() {
            continue;
        }
        let expected = rules.comparable(&rules.shared(fields));
        if forked && rules.renamed(&anew.fields).len() < anew.fields.len() {
            // Two names of one field have values; what they show together is for the promises.
            continue;
        }
        let read = rules.comparable(&rules.shared(&rules.renamed(&anew.fields)));
        if expected != read {
            let what = difference(&expected, &read);
            return Err(("anew", format!("{} read anew from its changes: {what}", id(*doc))));
        }
        if forked {
            continue;
        }
        if !anew.contested.is_empty() {
            return Err(("conflict", format!("{} holds several values of {:?}", id(*doc), anew.contested)));
        }
        let rows = device
            .replica()
            .documents(COLLECTION)
            .document(&id(*doc))
            .conflicts()
            .map_err(|e| ("conflict", e.to_string()))?;
        if !rows.is_empty() {
            return Err(("conflict", format!("{} is in conflict with itself: {rows:?}", id(*doc))));
        }
    }
    for (doc, fields) in trash {
        if let Some(State::Deleted(Some(held))) = known.world.get(doc) {
            // What stays on this device is not taken back by undo.
            let (held, fields) =
                (rules.comparable(&rules.shared(held)), rules.comparable(&rules.shared(fields)));
            if held != fields {
                return Err(("trash", format!("{} in the trash: {}", id(*doc), difference(&held, &fields))));
            }
        }
    }
    if !thorough {
        return Ok(());
    }
    let violations = device.violations().map_err(|error| ("violations", error))?;
    if violations != rules.violations(shown) {
        let expected = rules.violations(shown);
        return Err(("violations", format!("listed are {violations:?}, not {expected:?}")));
    }
    let problems = device.replica().verify().map_err(|e| ("verify", e.to_string()))?.problems;
    if !problems.is_empty() {
        return Err(("verify", format!("verify finds {problems:?}")));
    }
    Ok(())
}

fn same(check: &'static str, who: &str, shown: &Shown, other: &Shown) -> Checked {
    let docs: BTreeSet<usize> = shown.keys().chain(other.keys()).copied().collect();
    for doc in docs {
        match (shown.get(&doc), other.get(&doc)) {
            (Some(shown), Some(other)) if shown == other => {}
            (Some(shown), Some(other)) => {
                return Err((check, format!("{who} shows of {}: {}", id(doc), difference(shown, other))));
            }
            (shown, _) => {
                let is_there = if shown.is_some() { "does not show" } else { "shows" };
                return Err((check, format!("{who} {is_there} {}", id(doc))));
            }
        }
    }
    Ok(())
}

/// Every version is what it was.
pub(super) fn check_versions(device: &Device, known: &Known) -> Checked {
    let rules = &known.rules;
    let things = device.replica().documents(COLLECTION);
    for (doc, versions) in &known.versions {
        if rules.local || known.forked.contains(doc) {
            continue;
        }
        for noted in versions {
            let version = noted.version.parse().map_err(|_| ("version", "it cannot be read".to_owned()))?;
            let then = things.document(&id(*doc)).at(&version);
            let then = then.map_err(|error| ("version", format!("{} at {version}: {error}", id(*doc))))?;
            let serde_json::Value::Object(then) = then else { continue };
            let (then, noted) =
                (rules.comparable(&rules.shared(&then)), rules.comparable(&rules.shared(&noted.fields)));
            if then != noted {
                return Err(("version", format!("{} at {version}: {}", id(*doc), difference(&noted, &then))));
            }
        }
    }
    Ok(())
}
