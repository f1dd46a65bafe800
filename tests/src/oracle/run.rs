//! Plays a script and compares, after every step, what was promised with everything that can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use motet::limits::WRITE_TURN;
use motet::{Schema, WriteError, simulation};

use super::checks::{check_everywhere, check_versions, compare, difference};
use super::device::{COLLECTION, Device, schema};
use super::journal::{self, Journal};
use super::known::Known;
use super::model::{Outcome, Rules, State, Verdict};
use super::network::Network;
use super::promises::{Losers, Promises, Wrote};
use super::remember::{keep_slots, note_versions, remember};
use super::script::{Act, Declared, Fields, Script, Told, Write, id};

/// Numbers the threads that play scripts, so that their disks do not meet.
static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// How far time goes on with every act, in milliseconds.
const ACT_MS: i64 = 1_500;

/// After every so many steps, and after the last one, another process opens the file, and `verify` looks at all of it.
const THOROUGH_EVERY: usize = 6;

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

pub(super) type Checked<T = ()> = Result<T, (&'static str, String)>;

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
        let number = THREAD.with(|number| *number);
        let schema = schema(script);
        let mut rules = Rules { local: script.local, policy: script.policy, ..Rules::default() };
        script.declared.iter().for_each(|(field, declared)| rules.declare(field, *declared));
        let network = match script.devices > 1 {
            true => Some(Network::new(&format!("oracle-{number}-relay")).map_err(|error| ("open", error))?),
            false => None,
        };
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
            let device = Device::new(at, &format!("oracle-{number}-{at}"), &schema);
            run.devices.push(device.map_err(|error| ("open", error))?);
            run.known.push(Known { rules: rules.clone(), ..Known::default() });
        }
        // A script draws the same whether its disks had to be made first or not.
        simulation::begin(1);
        Ok(run)
    }

    fn step(&mut self, at: usize, act: &Act) -> Checked {
        match act {
            Act::Declare { field, .. } if self.known[at].rules.newest(field) != field => Ok(()),
            // A call each: what is written before one is refused stays.
            Act::Write(Write::Update { doc, changes }) => {
                self.act(at, &Act::Open { slot: SCRATCH, doc: *doc, editor: false })?;
                for (set, remove) in changes {
                    let change = Act::Change { slot: SCRATCH, set: set.clone(), remove: remove.clone() };
                    self.act(at, &change)?;
                }
                Ok(())
            }
            Act::Declare { field, declared, everywhere } => {
                let devices = if *everywhere { 0..self.devices.len() } else { at..at + 1 };
                // What is listed as broken follows the rules that are taken up below.
                let thorough = std::mem::take(&mut self.thorough);
                for at in devices {
                    self.act(at, act)?;
                    let known = &mut self.known[at];
                    known.rules.declare(field, *declared);
                    if declared.kind == super::script::Kind::Local {
                        known.late_local.insert(field.clone());
                    }
                }
                self.thorough = thorough;
                Ok(())
            }
            Act::Rename { from, to, alias } => self.rename(from, to, *alias),
            Act::DeclarePolicy { policy } => {
                for at in 0..self.devices.len() {
                    self.act(at, act)?;
                    self.known[at].rules.policy = *policy;
                }
                Ok(())
            }
            Act::Sync => self.round(at, false),
            act => self.act(at, act),
        }
    }

    /// Every device calls a field otherwise.
    fn rename(&mut self, from: &str, to: &str, alias: bool) -> Checked {
        if !self.known.iter().all(|known| known.may_rename(from, to, alias)) {
            return Ok(());
        }
        for (device, known) in self.devices.iter_mut().zip(&mut self.known) {
            let rules = &known.rules;
            let field = Declared { kind: rules.kind(from), bounds: rules.bounds(from) }.field();
            let field = if alias { field.alias(from) } else { field };
            let declared = device.replica().apply_schema(&Schema::new().field(COLLECTION, to, field));
            declared.map_err(|error| ("rename", error.to_string()))?;
            device.close_slots();
            known.rename(from, to);
        }
        (0..self.devices.len())
            .try_for_each(|at| self.act(at, &Act::Rename { from: from.to_owned(), to: to.to_owned(), alias }))
    }

    /// A round of one device. What it shows then is what has met, by the promises that devices make each other.
    fn round(&mut self, at: usize, is_last: bool) -> Checked {
        let Some(network) = &mut self.network else { return Ok(()) };
        self.script_ms += ACT_MS;
        let (device, known) = (&mut self.devices[at], &mut self.known[at]);
        device.set_clock(self.script_ms + self.skews[at]);
        let before = states(device, known);
        network.round(device).map_err(|error| ("round", error))?;
        self.promises.round(at);
        let shown = device.listed(device.replica()).map_err(|error| ("list", error))?;
        let trash = device.trash().map_err(|error| ("trash", error))?;
        let was_purged: Vec<usize> =
            known.world.iter().filter(|(_, state)| **state == State::Purged).map(|(doc, _)| *doc).collect();
        known.take_in(&shown, &trash.keys().copied().collect(), None, None);
        for doc in self.promises.purged(at) {
            // What came of a purge elsewhere shows nowhere; one that was never sent is not known here.
            if !shown.contains_key(&doc) && !trash.contains_key(&doc) && device.status(doc).is_some() {
                known.world.insert(doc, State::Purged);
            }
        }
        for (doc, fields) in &trash {
            known.world.insert(*doc, State::Deleted(Some(fields.clone())));
        }
        known.undo_is_open |= was_purged.iter().any(|doc| known.world.get(doc) != Some(&State::Purged));
        let after = states(device, known);
        known
            .forked
            .extend(after.iter().filter(|(doc, state)| before.get(*doc) != Some(state)).map(|(doc, _)| *doc));
        note_versions(known, &after);
        check_everywhere(device, known, &shown, &trash, self.thorough)?;
        let losers = losers(device, known)?;
        // What loses shows nowhere, and is not in the version that somebody holds.
        for ((doc, path), _) in losers.iter().filter(|((doc, _), _)| before.get(doc) != after.get(doc)) {
            for held in known.slots.values_mut().filter(|held| held.doc == *doc) {
                held.foreign.extend(path.split('/').next().map(str::to_owned));
            }
        }
        self.promises
            .check(at, &known.rules, &known.world, &losers, is_last)
            .map_err(|what| ("promise", format!("on {at}: {what}")))?;
        let set_aside = device.replica().counts().map_err(|e| ("round", e.to_string()))?.quarantined;
        if is_last && set_aside > 0 {
            return Err(("round", format!("{set_aside} entries are set aside in the end")));
        }
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
        let here = losers(&self.devices[one], &self.known[one])?;
        let there = losers(&self.devices[other], &self.known[other])?;
        for (doc, state) in &states_here {
            if states_there.get(doc).is_none_or(|theirs| theirs.0 != state.0) {
                continue;
            }
            // What is local on one of the two is its own there.
            let rules = [&self.known[one].rules, &self.known[other].rules];
            let fields = |known: &Known| match known.world.get(doc) {
                Some(State::Live(fields)) => Some(rules[1].shared(&rules[0].shared(fields))),
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
        self.thorough = false;
        for _ in 0..2 {
            (0..self.devices.len()).try_for_each(|at| self.round(at, false))?;
        }
        // A change that all make alike may have been made in the last round.
        self.thorough = true;
        (0..self.devices.len()).try_for_each(|at| self.round(at, true))?;
        let first = states(&self.devices[0], &self.known[0]);
        for at in 1..self.devices.len() {
            let other = states(&self.devices[at], &self.known[at]);
            // What was removed for good before it was ever sent is nowhere else.
            let is_gone = |at: usize, doc: &usize| self.known[at].world.get(doc) == Some(&State::Purged);
            let differs = |doc: &usize| match (first.get(doc), other.get(doc)) {
                (Some(_), None) => !is_gone(0, doc),
                (None, Some(_)) => !is_gone(at, doc),
                // What came after a purge and brought nothing back is not in every version of it.
                (Some((_, true)), Some((_, true))) if is_gone(0, doc) || is_gone(at, doc) => false,
                (one, other) => one != other,
            };
            if first.keys().chain(other.keys()).any(differs) {
                return Err(("converge", format!("versions on 0 and on {at}: {first:?} and {other:?}")));
            }
        }
        Ok(())
    }

    fn act(&mut self, at: usize, act: &Act) -> Checked {
        self.script_ms += ACT_MS;
        let (device, known) = (&mut self.devices[at], &mut self.known[at]);
        let by_newest = &known.rules.by_newest(act);
        let (written, act) =
            if known.rules.is_by_any_name(act) { (act, by_newest) } else { (by_newest, by_newest) };
        device.set_clock(self.script_ms + self.skews[at]);
        device.rows = self.script_ms / ACT_MS;
        let before = states(device, known);
        known.journal = match known.needs_journal(act) {
            true => journal::read(device.replica(), &known.rules, &known.world.keys().copied().collect())?,
            false => Journal::new(),
        };
        let mut expected = known.expect(act);
        if expected.verdict == Verdict::Done {
            expected.verdict = known.contested(act);
        }
        let begun = Instant::now();
        let done = device.act(written, &known.journal, &known.versions);
        let in_turns = matches!(act, Act::Import { .. } | Act::Adopt { .. } | Act::ChangeLog { .. });
        // Rows that took longer than a turn of the writer are several transactions, of which undo takes back the last.
        known.undo_is_open |= in_turns && begun.elapsed() >= WRITE_TURN;
        let shown = device.listed(device.replica()).map_err(|error| ("list", error))?;
        let done = judge(act, &expected, done)?;
        if let (Act::Write(Write::Resolve { doc, row, .. }), Some(_)) = (act, done) {
            check_settled(device, known, *doc, *row)?;
        }
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
        for (doc, fields) in trash.iter().filter(|(doc, _)| expected.open_documents.contains(*doc)) {
            // What is written of a document that stays deleted is in the trash with it.
            known.world.insert(*doc, State::Deleted(Some(fields.clone())));
        }
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
        if let (Act::Write(Write::Resolve { doc, row, .. }), Some(_)) = (act, done)
            && let Some(row) = journal::pick(&known.journal, *doc, *row)
        {
            let field = (*doc, row.path[0].clone());
            _ = if row.path.len() == 1 { wrote.settled.insert(field) } else { wrote.forced.insert(field) };
        }
        wrote.time = device.now();
        wrote.beside.clone_from(&expected.forked);
        self.promises.note(at, &known.rules, &world, &known.world, &wrote);
        remember(known, act, done, world, &wrote.touched)?;
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
pub(super) type States = BTreeMap<usize, (String, bool)>;

fn states(device: &Device, known: &Known) -> States {
    let docs = known.world.keys().copied().chain(0..4).collect::<BTreeSet<_>>();
    let state = |doc| device.status(doc).map(|status| (doc, (status.version, status.deleted)));
    docs.into_iter().filter_map(state).collect()
}

/// The open losers of each field.
fn losers(device: &Device, known: &Known) -> Checked<Losers> {
    let mut all = Losers::new();
    let journal = journal::read(device.replica(), &known.rules, &known.world.keys().copied().collect())?;
    for (doc, rows) in journal {
        for row in rows.into_iter().filter(|row| !row.settled) {
            all.entry((doc, row.path.join("/"))).or_default().push(row.loser);
        }
    }
    all.values_mut().for_each(|rows| rows.sort_by_key(ToString::to_string));
    Ok(all)
}

/// After a `resolve` nothing of its path is open.
fn check_settled(device: &Device, known: &Known, doc: usize, row: usize) -> Checked {
    let Some(row) = journal::pick(&known.journal, doc, row) else { return Ok(()) };
    let now = journal::read(device.replica(), &known.rules, &BTreeSet::from([doc]))?;
    match now[&doc].iter().find(|other| other.path == row.path && !other.settled) {
        Some(open) => Err(("settled", format!("{} is resolved, and {open:?} is open", row.pointer))),
        None => Ok(()),
    }
}

/// What an act wrote, as far as it can be told.
fn wrote(act: &Act, before: &States, after: &States, expected: &Outcome) -> Wrote {
    let touched = after.iter().filter(|(doc, state)| before.get(*doc) != Some(state)).map(|(doc, _)| *doc);
    let mut wrote = Wrote { touched: touched.collect(), ..Wrote::default() };
    let mut force = |doc: usize, fields: &mut dyn Iterator<Item = &String>| {
        wrote.forced.extend(fields.map(|field| (doc, field.clone())));
    };
    let writes = match act {
        Act::Transaction { writes, .. } => &writes[..],
        Act::Write(write) => std::slice::from_ref(write),
        _ => &[],
    };
    for write in writes {
        if writes.len() > 1 || may_write_what_is_there(write) {
            force(write.doc(), &mut write.fields().iter());
        }
        wrote.remade.extend(write.remade().into_iter().map(|field| (write.doc(), field)));
    }
    match act {
        Act::Undo | Act::Redo => wrote.goes_back = true,
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

/// Whether what a write leaves may be what was there, and be written all the same.
fn may_write_what_is_there(write: &Write) -> bool {
    match write {
        Write::EditSet { .. } | Write::PutAt { .. } => true,
        Write::Update { changes, .. } => changes.len() > 1,
        _ => false,
    }
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
