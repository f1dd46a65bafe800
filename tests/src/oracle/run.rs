//! Plays a script and compares, after every step, what was promised with everything that can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use motet::{WriteError, simulation};

use super::device::{COLLECTION, Device, Shown, schema};
use super::known::{Held, Known};
use super::model::{Noted, Outcome, Rules, State, Verdict, World};
use super::network::Network;
use super::promises::{Losers, Promises, Wrote};
use super::script::{Act, Fields, Script, Told, Write, id};

/// Numbers runs of this process, so that their disks do not meet.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// How far time goes on with every act, in milliseconds.
const ACT_MS: i64 = 1_500;

/// After every so many steps, and after the last one, another process opens the file, and `verify` looks at all of it.
const THOROUGH_EVERY: usize = 3;

/// The slot of updates that are read and written in one go.
const SCRATCH: usize = usize::MAX;

/// Something is not as it was promised.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What kind of check it was.
    pub check: &'static str,
    /// The step after which it was seen.
    pub step: usize,
    /// What is wrong.
    pub what: String,
}

type Checked<T = ()> = Result<T, (&'static str, String)>;

/// Plays a script from its beginning to its end.
///
/// # Errors
/// The first fault.
pub fn play(script: &Script) -> Result<(), Fault> {
    simulation::begin(1);
    let mut step = 0;
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(script)?;
        for (number, next) in script.steps.iter().enumerate() {
            step = number;
            run.thorough = number % THOROUGH_EVERY == 0 || number + 1 == script.steps.len();
            run.step(next.device, &next.act)?;
        }
        run.finish()
    }));
    simulation::end();
    let done = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(("panic", text.unwrap_or_default()))
    });
    done.map_err(|(check, what)| Fault { check, step, what })
}

struct Run {
    devices: Vec<Device>,
    known: Vec<Known>,
    promises: Promises,
    network: Option<Network>,
    /// Milliseconds since the start, and how far the clock of each device is off.
    script_ms: i64,
    /// Whether this step is followed by the checks that take longer than the step.
    thorough: bool,
    skews: Vec<i64>,
}

impl Run {
    fn new(script: &Script) -> Checked<Self> {
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let schema = schema(&script.declared, script.local);
        let rules = Rules { kinds: script.declared.iter().cloned().collect(), local: script.local };
        let network = (script.devices > 1).then(|| Network::new(format!("oracle-{number}-relay")));
        let promises = Promises::new(script.devices);
        let mut run = Self {
            devices: Vec::new(),
            known: Vec::new(),
            promises,
            network,
            script_ms: 0,
            thorough: true,
            skews: script.skews.clone(),
        };
        for at in 0..script.devices {
            let device = Device::new(&format!("device {at}"), &format!("oracle-{number}-{at}"), &schema);
            run.devices.push(device.map_err(|error| ("open", error))?);
            run.known.push(Known { rules: rules.clone(), ..Known::default() });
        }
        Ok(run)
    }

    fn step(&mut self, at: usize, act: &Act) -> Checked {
        match act {
            // A call each: what is written before one is refused stays.
            Act::Write(Write::Update { doc, changes }) => {
                self.act(at, &Act::Open { slot: SCRATCH, doc: *doc, editor: false })?;
                for (set, remove) in changes {
                    let change = Act::Change { slot: SCRATCH, set: set.clone(), remove: remove.clone() };
                    self.act(at, &change)?;
                }
                Ok(())
            }
            Act::Declare { field, kind } => {
                for at in 0..self.devices.len() {
                    self.act(at, act)?;
                    let known = &mut self.known[at];
                    known.rules.kinds.insert(field.clone(), *kind);
                    if *kind == super::script::Kind::Local {
                        known.late_local.insert(field.clone());
                    }
                }
                Ok(())
            }
            Act::Sync => self.round(at),
            act => self.act(at, act),
        }
    }

    /// A round of one device. What it shows then is what has met, by the promises that devices make each other.
    fn round(&mut self, at: usize) -> Checked {
        let Some(network) = &mut self.network else { return Ok(()) };
        self.script_ms += ACT_MS;
        let (device, known) = (&mut self.devices[at], &mut self.known[at]);
        device.set_clock(self.script_ms + self.skews[at]);
        let before = states(device, known);
        network.round(device).map_err(|error| ("round", error))?;
        self.promises.round(at);
        let shown = device.listed(device.replica()).map_err(|error| ("list", error))?;
        let trash = device.trash().map_err(|error| ("trash", error))?;
        known.take_in(&shown, &trash.keys().copied().collect(), None, None);
        for (doc, fields) in &trash {
            known.world.insert(*doc, State::Deleted(Some(fields.clone())));
        }
        let after = states(device, known);
        known
            .forked
            .extend(after.iter().filter(|(doc, state)| before.get(*doc) != Some(state)).map(|(doc, _)| *doc));
        note_versions(known, &after);
        check_everywhere(device, known, &shown, &trash, self.thorough)?;
        let losers = losers(device, &known.world)?;
        self.promises
            .check(at, &known.rules, &known.world, &losers)
            .map_err(|what| ("promise", format!("on {at}: {what}")))?;
        let pending = device.replica().status().pending;
        if pending > 0 {
            return Err(("round", format!("{pending} changes are pending after a round")));
        }
        for other in 0..self.devices.len() {
            self.check_equal(at, other)?;
        }
        Ok(())
    }

    /// Devices that have the same version of a document show the same.
    fn check_equal(&self, one: usize, other: usize) -> Checked {
        let (states_here, states_there) =
            (states(&self.devices[one], &self.known[one]), states(&self.devices[other], &self.known[other]));
        let here = losers(&self.devices[one], &self.known[one].world)?;
        let there = losers(&self.devices[other], &self.known[other].world)?;
        for (doc, state) in &states_here {
            if states_there.get(doc).is_none_or(|theirs| theirs.0 != state.0) {
                continue;
            }
            let fields = |known: &Known| match known.world.get(doc) {
                Some(State::Live(fields)) => Some(known.rules.shared(fields)),
                _ => None,
            };
            let (mine, theirs) = (fields(&self.known[one]), fields(&self.known[other]));
            if mine != theirs {
                let what = difference(&mine.unwrap_or_default(), &theirs.unwrap_or_default());
                return Err(("converge", format!("{} on {other} and on {one}: {what}", id(*doc))));
            }
            // A rule settles what it is declared for, on the devices that know it.
            let alike = |path: &str| {
                let name = path.split('/').next().unwrap_or_default();
                self.known[one].rules.kind(name) == self.known[other].rules.kind(name)
            };
            let rows = |losers: &Losers| -> Vec<_> {
                let of_both = losers.iter().filter(|((of, path), _)| of == doc && alike(path));
                of_both.map(|(_, rows)| rows.clone()).collect()
            };
            if rows(&here) != rows(&there) {
                let what = format!("{:?} and {:?}", rows(&here), rows(&there));
                return Err(("converge", format!("open conflicts of {} differ: {what}", id(*doc))));
            }
        }
        Ok(())
    }

    /// Everybody has met everybody.
    fn meet(&mut self) -> Checked {
        for _ in 0..2 {
            (0..self.devices.len()).try_for_each(|at| self.round(at))?;
        }
        // A change that all make alike may have been made in the last round.
        (0..self.devices.len()).try_for_each(|at| self.round(at))?;
        let first = states(&self.devices[0], &self.known[0]);
        for at in 1..self.devices.len() {
            let other = states(&self.devices[at], &self.known[at]);
            if first != other {
                return Err(("converge", format!("versions on 0 and on {at}: {first:?} and {other:?}")));
            }
        }
        Ok(())
    }

    fn act(&mut self, at: usize, act: &Act) -> Checked {
        self.script_ms += ACT_MS;
        let (device, known) = (&mut self.devices[at], &mut self.known[at]);
        device.set_clock(self.script_ms + self.skews[at]);
        device.rows = self.script_ms / ACT_MS;
        let before = states(device, known);
        let mut expected = known.expect(act);
        if expected.verdict == Verdict::Done && known.may_be_contested(act) {
            expected.verdict = Verdict::Either;
        }
        let done = device.act(act, &known.world, &known.versions);
        let shown = device.listed(device.replica()).map_err(|error| ("list", error))?;
        let done = judge(act, &expected, done)?;
        let own = match act {
            Act::Change { slot, .. } => Some(*slot),
            _ => None,
        };
        if done.is_some() {
            compare(known, act, &expected, &shown)?;
        } else {
            let nothing = Outcome { world: known.world.clone(), ..expected.clone() };
            compare(known, act, &nothing, &shown)?;
        }
        let world = known.world.clone();
        let trash = device.trash().map_err(|error| ("trash", error))?;
        let deleted: BTreeSet<usize> = trash.keys().copied().collect();
        known.take_in(&shown, &deleted, own, done.map(|_| &expected));
        known.note_rewritten(act, own);
        // An editor saves what can be saved, also where the rest is refused.
        known.forked.extend(expected.forked.iter().copied());
        let writes =
            own.is_some() || matches!(act, Act::Adopt { .. } | Act::Write(_) | Act::Transaction { .. });
        if done.is_some() && writes {
            known.forked.extend(expected.open.iter().map(|(doc, _)| *doc));
        }
        let after = states(device, known);
        let mut wrote = wrote(act, &before, &after, &expected);
        wrote.time = device.now();
        wrote.beside.clone_from(&expected.forked);
        self.promises.note(at, &known.rules, &world, &known.world, &wrote);
        remember(known, act, done, world, before != after)?;
        note_versions(known, &after);
        keep_slots(device, known, act, done);
        check_everywhere(device, known, &shown, &trash, self.thorough)
    }

    fn finish(&mut self) -> Checked {
        self.meet()?;
        for (device, known) in self.devices.iter_mut().zip(&self.known) {
            device.close_slots();
            check_versions(device, known)?;
        }
        Ok(())
    }
}

/// The version of each document, and whether it is deleted.
type States = BTreeMap<usize, (String, bool)>;

fn states(device: &Device, known: &Known) -> States {
    let docs = known.world.keys().copied().chain(0..4).collect::<BTreeSet<_>>();
    let state = |doc| device.status(doc).map(|status| (doc, (status.version, status.deleted)));
    docs.into_iter().filter_map(state).collect()
}

/// The open losers of each field.
fn losers(device: &Device, world: &World) -> Checked<Losers> {
    let mut all = Losers::new();
    for doc in world.keys() {
        let rows =
            device.replica().conflicts(COLLECTION, &id(*doc)).map_err(|e| ("conflict", e.to_string()))?;
        for row in rows.into_iter().filter(|row| !row.settled) {
            let field = row.path.trim_start_matches('/').replace("~1", "/").replace("~0", "~");
            all.entry((*doc, field)).or_default().push(row.loser);
        }
    }
    all.values_mut().for_each(|rows| rows.sort_by_key(ToString::to_string));
    Ok(all)
}

/// What an act wrote, as far as it can be told.
fn wrote(act: &Act, before: &States, after: &States, expected: &Outcome) -> Wrote {
    let touched = after.iter().filter(|(doc, state)| before.get(*doc) != Some(state)).map(|(doc, _)| *doc);
    let mut wrote = Wrote { touched: touched.collect(), ..Wrote::default() };
    let mut force = |doc: usize, fields: &mut dyn Iterator<Item = &String>| {
        wrote.forced.extend(fields.map(|field| (doc, field.clone())));
    };
    match act {
        Act::Transaction { writes, .. } if writes.len() > 1 => {
            for write in writes {
                force(write.doc(), &mut write.fields().iter());
            }
        }
        Act::Write(write @ (Write::EditSet { .. } | Write::PutAt { .. })) => {
            force(write.doc(), &mut write.fields().iter());
        }
        Act::ChangeLog { entries } => {
            for (doc, fields) in entries {
                force(*doc, &mut fields.iter().flat_map(Fields::keys));
            }
        }
        Act::Import { documents, .. } => {
            documents.iter().for_each(|(doc, fields)| force(*doc, &mut fields.keys()));
        }
        Act::Change { set, .. } if !expected.forked.is_empty() => {
            // A record that is behind writes beside what others wrote.
            wrote.touched.clone().into_iter().for_each(|doc| {
                wrote.forced.extend(set.keys().map(|field| (doc, field.clone())));
            });
        }
        _ => {}
    }
    wrote.adopted = matches!(act, Act::Adopt { .. } | Act::Import { .. } | Act::ChangeLog { .. });
    wrote
}

/// Whether a call did what it had to: `Some` with what it returned, or `None` if it was refused as it may be.
fn judge(act: &Act, expected: &Outcome, done: Result<bool, WriteError>) -> Checked<Option<bool>> {
    match (done, expected.verdict) {
        (Ok(_), Verdict::Refused) => Err(("accepted", format!("{}: it must be refused", Told(act)))),
        (Err(error), Verdict::Done) => Err(("refused", format!("{}: {error}", Told(act)))),
        (Ok(done), _) => Ok(Some(done)),
        (Err(_), _) => Ok(None),
    }
}

/// What shows is what was promised.
fn compare(known: &Known, act: &Act, expected: &Outcome, shown: &Shown) -> Checked {
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
fn difference(expected: &Fields, shown: &Fields) -> String {
    let names: BTreeSet<&String> = expected.keys().chain(shown.keys()).collect();
    let told = |value: Option<&serde_json::Value>| value.map_or("nothing".to_owned(), ToString::to_string);
    let differing = names.into_iter().filter(|name| expected.get(*name) != shown.get(*name));
    let all: Vec<String> = differing
        .map(|name| format!("{name:?} is {}, not {}", told(shown.get(name)), told(expected.get(name))))
        .collect();
    all.join(", ")
}

/// What can be taken back, and what can be done again.
fn remember(known: &mut Known, act: &Act, done: Option<bool>, before: World, wrote: bool) -> Checked {
    match (act, done) {
        (Act::Undo, Some(done)) => {
            let was = known.undo.pop();
            if done != was.is_some() {
                return Err(("undo", format!("undo returns {done}, there is {}", told(was.is_some()))));
            }
            was.into_iter().for_each(|_| known.redo.push(before.clone()));
        }
        (Act::Redo, Some(done)) => {
            let was = known.redo.pop();
            if done != was.is_some() {
                return Err(("undo", format!("redo returns {done}, there is {}", told(was.is_some()))));
            }
            was.into_iter().for_each(|_| known.undo.push(before.clone()));
        }
        (Act::Point, _) => known.point = Some(before),
        _ if wrote && !known.rules.local => {
            known.undo.push(before);
            known.redo.clear();
        }
        _ => {}
    }
    Ok(())
}

fn told(is_there: bool) -> &'static str {
    if is_there { "something to go back to" } else { "nothing to go back to" }
}

fn note_versions(known: &mut Known, after: &States) {
    for (doc, (version, deleted)) in after {
        let Some(State::Live(fields)) = known.world.get(doc) else { continue };
        let fields = known.rules.shared(fields);
        let versions = known.versions.entry(*doc).or_default();
        if !deleted && versions.last().is_none_or(|last| last.version != *version) {
            versions.push(Noted { version: version.clone(), fields });
        }
    }
}

/// What the app holds after an act.
fn keep_slots(device: &Device, known: &mut Known, act: &Act, done: Option<bool>) {
    match act {
        Act::Open { slot, doc, editor } => {
            known.slots.remove(slot);
            if let (Some(true), Some(base)) = (done, device.slot(*slot)) {
                let (doc, editor, remade) = (*doc, *editor, false);
                known.slots.insert(*slot, Held { doc, editor, base, foreign: BTreeSet::new(), remade });
            }
        }
        Act::Change { slot, .. } => match (done, device.slot(*slot)) {
            (Some(true), Some(base)) => {
                known.slots.entry(*slot).and_modify(|held| held.base = base);
            }
            (Some(false), _) => {}
            _ => _ = known.slots.remove(slot),
        },
        Act::Refresh { slot } => {
            if let (Some(true), Some(base)) = (done, device.slot(*slot)) {
                known.slots.entry(*slot).and_modify(|held| {
                    held.base = base;
                    held.foreign.clear();
                    held.remade = false;
                });
            }
        }
        Act::Restart => known.slots.clear(),
        _ => {}
    }
}

/// The same in every way that it can be read.
fn check_everywhere(device: &Device, known: &Known, shown: &Shown, trash: &Shown, thorough: bool) -> Checked {
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
        let read = rules.comparable(&rules.shared(&anew.fields));
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
        let rows =
            device.replica().conflicts(COLLECTION, &id(*doc)).map_err(|e| ("conflict", e.to_string()))?;
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
fn check_versions(device: &Device, known: &Known) -> Checked {
    let rules = &known.rules;
    let things = device.replica().documents(COLLECTION);
    for (doc, versions) in &known.versions {
        if rules.local || known.forked.contains(doc) {
            continue;
        }
        for noted in versions {
            let version = noted.version.parse().map_err(|_| ("version", "it cannot be read".to_owned()))?;
            let then = things.at(&id(*doc), &version);
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
