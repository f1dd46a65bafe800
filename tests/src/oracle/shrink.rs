//! Makes a script that fails shorter, as long as it fails in the same way.

use serde_json::{Value, json};

use super::run::{Fault, play};
use super::script::{Act, Bounds, Choice, Declared, Fields, Policy, Script, Write};

/// Scripts that are tried, at most.
const TRIES: usize = 1_500;

/// The shortest script found that fails as this one does, and how it fails.
pub fn shrink(script: &Script, fault: &Fault) -> (Script, Fault) {
    let (mut best, mut how) = (script.clone(), fault.clone());
    best.steps.truncate(fault.step + 1);
    let mut tries = 0;
    loop {
        let mut better = None;
        for candidate in candidates(&best) {
            tries += 1;
            if tries > TRIES {
                return (best, how);
            }
            if let Err(fault) = play(&candidate)
                && fault.check == how.check
            {
                better = Some((candidate, fault));
                break;
            }
        }
        match better {
            Some(found) => (best, how) = found,
            None => return (best, how),
        }
    }
}

/// Scripts that are a little shorter or simpler.
fn candidates(script: &Script) -> Vec<Script> {
    let mut all = Vec::new();
    let count = script.steps.len();
    let mut size = count / 2;
    while size > 0 {
        for start in (0..count).step_by(size) {
            let mut shorter = script.clone();
            shorter.steps.drain(start..(start + size).min(count));
            all.push(shorter);
        }
        size /= 2;
    }
    if script.devices > 1 && script.steps.iter().all(|step| step.device + 1 < script.devices) {
        let skews = script.skews[1..].to_vec();
        all.push(Script { devices: script.devices - 1, skews, ..script.clone() });
    }
    for at in 0..script.declared.len() {
        let mut fewer = script.clone();
        fewer.declared.remove(at);
        all.push(fewer);
        for bounds in fewer_bounds(script.declared[at].1.bounds) {
            let mut simpler = script.clone();
            simpler.declared[at].1.bounds = bounds;
            all.push(simpler);
        }
    }
    if script.skews.iter().any(|skew| *skew != 0) {
        all.push(Script { skews: vec![0; script.devices], ..script.clone() });
    }
    if script.policy != Policy::default() {
        all.push(Script { policy: Policy::default(), ..script.clone() });
    }
    if script.local {
        all.push(Script { local: false, ..script.clone() });
    }
    for at in 0..count {
        for act in simpler_acts(&script.steps[at].act) {
            let mut simpler = script.clone();
            simpler.steps[at].act = act;
            all.push(simpler);
        }
        if script.steps[at].device > 0 {
            let mut simpler = script.clone();
            simpler.steps[at].device = 0;
            all.push(simpler);
        }
    }
    all.retain(|candidate| candidate != script);
    all
}

fn simpler_acts(act: &Act) -> Vec<Act> {
    match act {
        Act::Write(write) => simpler_writes(write).into_iter().map(Act::Write).collect(),
        Act::Transaction { writes, fails } => {
            let mut all: Vec<Act> = Vec::new();
            if writes.len() == 1 && !fails {
                all.push(Act::Write(writes[0].clone()));
            }
            for at in 0..writes.len() {
                let mut fewer = writes.clone();
                fewer.remove(at);
                all.push(Act::Transaction { writes: fewer, fails: *fails });
                for write in simpler_writes(&writes[at]) {
                    let mut simpler = writes.clone();
                    simpler[at] = write;
                    all.push(Act::Transaction { writes: simpler, fails: *fails });
                }
            }
            all
        }
        Act::Change { slot, set, remove } => changes(set, remove)
            .into_iter()
            .map(|(set, remove)| Act::Change { slot: *slot, set, remove })
            .collect(),
        Act::Open { slot, doc, editor: true } => vec![Act::Open { slot: *slot, doc: *doc, editor: false }],
        Act::Import { documents, many } => {
            let mut all = Vec::new();
            if let [(doc, fields)] = &documents[..] {
                all.push(Act::Write(Write::Put { doc: *doc, fields: fields.clone() }));
            }
            for at in 0..documents.len() {
                let mut fewer = documents.clone();
                fewer.remove(at);
                all.push(Act::Import { documents: fewer, many: *many });
                for fields in simpler_fields(&documents[at].1) {
                    let mut simpler = documents.clone();
                    simpler[at].1 = fields;
                    all.push(Act::Import { documents: simpler, many: *many });
                }
            }
            all
        }
        Act::Adopt { doc, fields, newer } => {
            let mut all = vec![Act::Write(Write::Put { doc: *doc, fields: fields.clone() })];
            let simpler = simpler_fields(fields).into_iter();
            all.extend(simpler.map(|fields| Act::Adopt { doc: *doc, fields, newer: *newer }));
            all
        }
        Act::ChangeLog { entries } => {
            let mut all = Vec::new();
            if let [(doc, Some(fields))] = &entries[..] {
                all.push(Act::Write(Write::Put { doc: *doc, fields: fields.clone() }));
            }
            for at in 0..entries.len() {
                let mut fewer = entries.clone();
                fewer.remove(at);
                all.push(Act::ChangeLog { entries: fewer });
                for fields in entries[at].1.iter().flat_map(simpler_fields) {
                    let mut simpler = entries.clone();
                    simpler[at].1 = Some(fields);
                    all.push(Act::ChangeLog { entries: simpler });
                }
            }
            all
        }
        Act::Declare { field, declared, everywhere } => {
            let simpler = fewer_bounds(declared.bounds).into_iter();
            let simpler = simpler.map(|bounds| Declared { bounds, ..*declared });
            simpler
                .map(|declared| Act::Declare { field: field.clone(), declared, everywhere: *everywhere })
                .collect()
        }
        _ => Vec::new(),
    }
}

fn simpler_writes(write: &Write) -> Vec<Write> {
    match write {
        Write::Insert { doc, fields } => {
            let mut all = vec![Write::Put { doc: *doc, fields: fields.clone() }];
            all.extend(simpler_fields(fields).into_iter().map(|fields| Write::Insert { doc: *doc, fields }));
            all
        }
        Write::Put { doc, fields } => {
            simpler_fields(fields).into_iter().map(|fields| Write::Put { doc: *doc, fields }).collect()
        }
        Write::Set { doc, fields } => {
            let mut all = vec![Write::Put { doc: *doc, fields: fields.clone() }];
            all.extend(simpler_fields(fields).into_iter().map(|fields| Write::Set { doc: *doc, fields }));
            all
        }
        Write::PutAt { doc, fields, back } => {
            let mut all = vec![Write::Put { doc: *doc, fields: fields.clone() }];
            let simpler = simpler_fields(fields).into_iter();
            all.extend(simpler.map(|fields| Write::PutAt { doc: *doc, fields, back: *back }));
            all
        }
        Write::Update { doc, changes: all_changes } => {
            let mut all = Vec::new();
            for at in 0..all_changes.len() {
                let mut fewer = all_changes.clone();
                fewer.remove(at);
                all.push(Write::Update { doc: *doc, changes: fewer });
                for change in changes(&all_changes[at].0, &all_changes[at].1) {
                    let mut simpler = all_changes.clone();
                    simpler[at] = change;
                    all.push(Write::Update { doc: *doc, changes: simpler });
                }
            }
            all
        }
        Write::Splice { doc, field, at, delete, insert, outside } => {
            let with = |at: usize, delete: usize, insert: &str| Write::Splice {
                doc: *doc,
                field: field.clone(),
                at,
                delete,
                insert: insert.to_owned(),
                outside: *outside,
            };
            let mut all = vec![with(0, *delete, insert), with(*at, 0, insert), with(*at, *delete, "")];
            if insert != "a" && !insert.is_empty() {
                all.push(with(*at, *delete, "a"));
            }
            all.retain(|simpler| simpler != write);
            all
        }
        Write::Increment { doc, field, by } => {
            let smaller = [1, by / 2].into_iter().filter(|less| less != by && *by != 1 && *less != 0);
            smaller.map(|by| Write::Increment { doc: *doc, field: field.clone(), by }).collect()
        }
        Write::EditSet { doc, field, add, remove } => {
            let with = |add: Vec<Value>, remove: Vec<Value>| Write::EditSet {
                doc: *doc,
                field: field.clone(),
                add,
                remove,
            };
            let mut all = vec![with(Vec::new(), remove.clone()), with(add.clone(), Vec::new())];
            all.extend(add.iter().skip(1).map(|one| with(vec![one.clone()], remove.clone())));
            all.retain(|simpler| simpler != write);
            all
        }
        Write::Retype { doc, field, at, delete, mark, splice } => {
            let with = |at: usize, delete: usize, splice: bool| {
                let (doc, field, mark) = (*doc, field.clone(), *mark);
                Write::Retype { doc, field, at, delete, mark, splice }
            };
            let mut all = vec![with(0, *delete, *splice), with(*at, 0, *splice), with(*at, *delete, false)];
            all.retain(|simpler| simpler != write);
            all
        }
        Write::Relist { doc, field, at, delete, mark } => {
            let with = |at: usize, delete: usize| {
                let (doc, field, mark) = (*doc, field.clone(), *mark);
                Write::Relist { doc, field, at, delete, mark }
            };
            let mut all = vec![with(0, *delete), with(*at, 0)];
            all.retain(|simpler| simpler != write);
            all
        }
        Write::Resolve { doc, field, row, choice } => {
            let with = |row: usize, choice: Choice| {
                let (doc, field) = (*doc, field.clone());
                Write::Resolve { doc, field, row, choice }
            };
            let mut all = vec![with(0, choice.clone()), with(*row, Choice::Shown)];
            if let Choice::Value(value) = choice {
                all.extend(simpler_values(value).into_iter().map(|value| with(*row, Choice::Value(value))));
            }
            all.retain(|simpler| simpler != write);
            all
        }
        Write::RestoreVersion { doc, back } if *back > 0 => {
            vec![Write::RestoreVersion { doc: *doc, back: back - 1 }]
        }
        _ => Vec::new(),
    }
}

fn fewer_bounds(bounds: Bounds) -> Vec<Bounds> {
    let mut all = vec![
        Bounds { min_len: None, ..bounds },
        Bounds { max_len: None, ..bounds },
        Bounds { min: None, ..bounds },
        Bounds { max: None, ..bounds },
    ];
    all.retain(|fewer| *fewer != bounds);
    all
}

fn changes(set: &Fields, remove: &[String]) -> Vec<(Fields, Vec<String>)> {
    let mut all: Vec<_> = simpler_fields(set).into_iter().map(|set| (set, remove.to_vec())).collect();
    if !remove.is_empty() {
        all.push((set.clone(), Vec::new()));
    }
    all
}

fn simpler_fields(fields: &Fields) -> Vec<Fields> {
    let mut all = Vec::new();
    for (name, value) in fields {
        let mut fewer = fields.clone();
        fewer.remove(name);
        all.push(fewer);
        for value in simpler_values(value) {
            let mut simpler = fields.clone();
            simpler.insert(name.clone(), value);
            all.push(simpler);
        }
    }
    all
}

fn simpler_values(value: &Value) -> Vec<Value> {
    let mut all = match value {
        Value::Null | Value::Bool(false) => Vec::new(),
        Value::Bool(true) => vec![Value::Bool(false)],
        Value::Number(n) => match n.as_i64() {
            Some(0) => Vec::new(),
            Some(1) => vec![json!(0)],
            Some(n) => vec![json!(1), json!(n / 2)],
            None => vec![json!(1.5)],
        },
        Value::String(text) => {
            let chars: Vec<char> = text.chars().collect();
            let half = |part: &[char]| Value::String(part.iter().collect());
            match chars.len() {
                0 => Vec::new(),
                1 if text == "a" => vec!["".into()],
                1 => vec!["".into(), "a".into()],
                n => vec![
                    half(&chars[..n / 2]),
                    half(&chars[n / 2..]),
                    half(&chars[1..]),
                    half(&chars[..n - 1]),
                ],
            }
        }
        Value::Array(items) => {
            let mut all = Vec::new();
            for at in 0..items.len() {
                let mut fewer = items.clone();
                fewer.remove(at);
                all.push(Value::Array(fewer));
            }
            for at in 0..items.len() {
                for simple in simpler_values(&items[at]) {
                    let mut simpler = items.clone();
                    simpler[at] = simple;
                    all.push(Value::Array(simpler));
                }
            }
            all
        }
        Value::Object(fields) => simpler_fields(fields).into_iter().map(Value::Object).collect(),
    };
    all.retain(|simpler| simpler != value);
    all
}
