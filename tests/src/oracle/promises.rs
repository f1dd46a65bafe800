//! What several devices promise each other: who wrote what knowing what, and what must show once it has met.
//!
//! What is promised of each kind stands in `docs/schema.md`. Of histories that mix what cannot be told apart (a counter that was
//! also null, a text that was replaced by a number) nothing is checked here but that all devices agree.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::deletes::Presence;
use super::model::{COUNTER_MAX, Rules, State, World};
use super::script::{Fields, Kind, MARKS, Policy, id};

/// Changes that are further apart than this, in milliseconds, are told apart by their time: what a device writes in a moment, or
/// after others whose clocks are ahead, is a few milliseconds apart.
pub(super) const SURELY_LATER: i64 = 500;

/// A field that changed.
#[derive(Clone, Debug)]
pub(super) struct Event {
    doc: usize,
    /// `None`: the document itself was made, deleted or brought back.
    field: Option<String>,
    before: Option<Value>,
    after: Option<Value>,
    /// The document is deleted after it.
    pub(super) deletes: bool,
    /// The act that it belongs to.
    act: usize,
    /// The document was deleted before it, and is there after it.
    pub(super) restores: bool,
    /// It wrote in a document that is deleted, and stays so.
    pub(super) is_beside_delete: bool,
    /// What deletes did on its device.
    pub(super) policy: Policy,
    /// The document was removed for good by it.
    purges: bool,
    /// What it did was dropped before its device knew of a relay: it never leaves.
    pub(super) never_sent: bool,
    /// It may have written; the value may be as it was.
    forced: bool,
    /// It took the field out and wrote it again.
    remade: bool,
    /// It took a step back, or did it again: the field goes back to what there would be without it, and that counts from when it was written.
    goes_back: bool,
    /// It was taken up from rows that others may have as well.
    pub(super) adopted: bool,
    /// Events that its device knew.
    pub(super) knew: BTreeSet<usize>,
    /// When, in milliseconds: by the clock of its device, but not before what it knew.
    pub(super) time: i64,
}

/// All events, and who knows which.
#[derive(Clone, Debug)]
pub(super) struct Promises {
    pub(super) events: Vec<Event>,
    acts: usize,
    /// Documents that a device wrote on an older version of its own.
    beside: BTreeSet<usize>,
    /// Documents of which rows were taken up.
    adopted: BTreeSet<usize>,
    devices: Vec<BTreeSet<usize>>,
    /// Devices that have met the relay.
    has_synced: Vec<bool>,
    relay: BTreeSet<usize>,
}

/// What an act wrote, beside what can be seen of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wrote {
    /// Fields that were written several times, or with what they held.
    pub(super) forced: BTreeSet<(usize, String)>,
    /// Fields that were taken out and written again by it.
    pub(super) remade: BTreeSet<(usize, String)>,
    /// It was an undo or a redo.
    pub(super) goes_back: bool,
    /// Fields of which a conflict was settled: they were written, also with what they held.
    pub(super) settled: BTreeSet<(usize, String)>,
    /// It took up rows.
    pub(super) adopted: bool,
    /// Documents whose version changed.
    pub(super) touched: BTreeSet<usize>,
    /// Documents that were written on an older version.
    pub(super) beside: BTreeSet<usize>,
    /// When, in milliseconds by the clock of the device.
    pub(super) time: i64,
}

impl Promises {
    pub(super) fn new(devices: usize) -> Self {
        Self {
            events: Vec::new(),
            acts: 0,
            beside: BTreeSet::new(),
            adopted: BTreeSet::new(),
            devices: vec![BTreeSet::new(); devices],
            has_synced: vec![false; devices],
            relay: BTreeSet::new(),
        }
    }

    /// A round with the relay.
    pub(super) fn round(&mut self, device: usize) {
        self.has_synced[device] = true;
        self.relay.extend(&self.devices[device]);
        self.devices[device].clone_from(&self.relay);
    }

    /// What an act of a device did.
    pub(super) fn note(
        &mut self,
        device: usize,
        rules: &Rules,
        before: &World,
        after: &World,
        wrote: &Wrote,
    ) {
        let knew = self.devices[device].clone();
        let fields = |world: &World, doc: usize| match world.get(&doc) {
            Some(State::Live(fields) | State::Deleted(Some(fields))) => {
                rules.comparable(&rules.shared(fields))
            }
            _ => Fields::new(),
        };
        let is_live = |world: &World, doc: usize| matches!(world.get(&doc), Some(State::Live(_)));
        let first = self.events.len();
        self.acts += 1;
        self.beside.extend(wrote.beside.iter().copied());
        if wrote.adopted {
            self.adopted.extend(wrote.touched.iter().copied());
        }
        for doc in wrote.touched.iter().copied() {
            let (old, new) = (fields(before, doc), fields(after, doc));
            let deletes = !is_live(after, doc);
            let was_deleted = matches!(before.get(&doc), Some(State::Deleted(_) | State::Purged));
            let (restores, policy) = (was_deleted && !deletes, rules.policy);
            let purges = after.get(&doc) == Some(&State::Purged);
            let never_sent = purges && !self.has_synced[device];
            let is_beside_delete = was_deleted && deletes && !purges;
            let act = self.acts;
            let known = knew.iter().map(|event| &self.events[*event]).filter(|event| event.doc == doc);
            let time = known.map(|event| event.time).max().unwrap_or(0).max(wrote.time);
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let forced = wrote.forced.contains(&(doc, name.clone()));
                let settled = wrote.settled.contains(&(doc, name.clone()));
                if old.get(name) != new.get(name) || forced || settled {
                    self.events.push(Event {
                        doc,
                        field: Some(name.clone()),
                        before: old.get(name).cloned(),
                        after: new.get(name).cloned(),
                        deletes,
                        restores,
                        is_beside_delete,
                        policy,
                        purges,
                        never_sent,
                        act,
                        forced,
                        remade: wrote.remade.contains(&(doc, name.clone())),
                        goes_back: wrote.goes_back,
                        adopted: wrote.adopted,
                        knew: knew.clone(),
                        time,
                    });
                }
            }
            self.events.push(Event {
                doc,
                field: None,
                before: None,
                after: None,
                deletes,
                restores,
                is_beside_delete,
                policy,
                purges,
                never_sent,
                act,
                forced: false,
                remade: false,
                goes_back: false,
                adopted: wrote.adopted,
                knew: knew.clone(),
                time,
            });
        }
        self.devices[device].extend(first..self.events.len());
    }

    /// Documents of which a device knows that they were removed for good.
    pub(super) fn purged(&self, device: usize) -> BTreeSet<usize> {
        let known = self.devices[device].iter().map(|event| &self.events[*event]);
        known.filter(|event| event.purges).map(|event| event.doc).collect()
    }

    /// Whether what a device shows is what was promised, given what it knows.
    pub(super) fn check(
        &self,
        device: usize,
        rules: &Rules,
        world: &World,
        losers: &Losers,
        is_last: bool,
    ) -> Result<(), String> {
        let known = &self.devices[device];
        let docs: BTreeSet<usize> = known.iter().map(|event| self.events[*event].doc).collect();
        for doc in docs {
            let of_doc: BTreeSet<usize> =
                known.iter().copied().filter(|event| self.events[*event].doc == doc).collect();
            let presence = self.presence(rules.policy, &of_doc);
            let fields = match world.get(&doc) {
                Some(State::Live(fields)) => fields,
                // Who has removed it for good waits for the whole of it.
                _ if !is_last && of_doc.iter().any(|event| self.events[*event].purges) => continue,
                _ if presence == Presence::Live => {
                    return Err(format!("{} is deleted, although it was written to since", id(doc)));
                }
                _ => continue,
            };
            if presence == Presence::Deleted {
                return Err(format!("{} is there, although it was deleted", id(doc)));
            }
            let rows: usize =
                losers.iter().filter(|((of, _), _)| *of == doc).map(|(_, rows)| rows.len()).sum();
            if rows > 0 && !self.beside.contains(&doc) && self.is_linear(&of_doc) {
                return Err(format!("{} is in conflict, although nobody wrote at the same time", id(doc)));
            }
            // A document that was deleted and put again has lost its fields on purpose.
            let deleted = of_doc.iter().any(|event| self.events[*event].deletes);
            let mut by_field: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
            for event in &of_doc {
                if let Some(field) = &self.events[*event].field {
                    by_field.entry(rules.newest(field)).or_default().insert(*event);
                }
            }
            for (field, events) in by_field {
                let losers = losers.get(&(doc, field.to_owned())).map_or(&[][..], Vec::as_slice);
                let checked =
                    self.check_field(rules.kind(field), &events, fields.get(field), losers, deleted);
                checked.map_err(|what| format!("{} {field:?}: {what}", id(doc)))?;
            }
        }
        Ok(())
    }

    fn check_field(
        &self,
        kind: Kind,
        events: &BTreeSet<usize>,
        shown: Option<&Value>,
        losers: &[Value],
        deleted: bool,
    ) -> Result<(), String> {
        match kind {
            Kind::Register | Kind::Ask => self.check_register(events, shown, losers, deleted),
            Kind::Counter => self.check_counter(events, shown, deleted),
            Kind::Set => self.check_set(events, shown, deleted),
            Kind::Text | Kind::List => self.check_marks(events, shown, losers, deleted),
            Kind::Rank | Kind::Local => Ok(()),
        }
    }

    /// Whether each act knew all before it.
    fn is_linear(&self, events: &BTreeSet<usize>) -> bool {
        events.iter().all(|event| {
            let act = self.events[*event].act;
            let before = events.iter().filter(|other| self.events[**other].act < act);
            before.clone().all(|other| self.events[*event].knew.contains(other))
        })
    }

    /// Events that no other of them knew.
    pub(super) fn latest(&self, events: &BTreeSet<usize>) -> BTreeSet<usize> {
        let known = |event: usize| events.iter().any(|other| self.events[*other].knew.contains(&event));
        events.iter().copied().filter(|event| !known(*event)).collect()
    }

    fn values(&self, events: &BTreeSet<usize>) -> impl Iterator<Item = Option<&Value>> {
        events
            .iter()
            .flat_map(|event| [self.events[*event].before.as_ref(), self.events[*event].after.as_ref()])
    }

    /// One of the latest values shows; the others stand in the journal.
    fn check_register(
        &self,
        events: &BTreeSet<usize>,
        shown: Option<&Value>,
        losers: &[Value],
        deleted: bool,
    ) -> Result<(), String> {
        if deleted || self.values(events).flatten().any(Value::is_object) {
            return Ok(());
        }
        let latest = self.latest(events);
        let candidates: Vec<&Event> = latest.iter().map(|event| &self.events[*event]).collect();
        let is_candidate = candidates.iter().any(|event| event.after.as_ref() == shown);
        if !is_candidate {
            let values: Vec<_> = candidates.iter().map(|event| &event.after).collect();
            return Err(format!("shows {shown:?}, written last were {values:?}"));
        }
        if candidates.iter().any(|event| event.forced || event.adopted || event.goes_back) {
            return Ok(());
        }
        // The time of a row is that of its database.
        let is_adopted = candidates.iter().any(|event| self.adopted.contains(&event.doc));
        let winner =
            candidates.iter().filter(|_| !is_adopted).max_by_key(|event| (event.after.is_some(), event.time));
        if let Some(winner) = winner
            && winner.after.is_some()
            && winner.after.as_ref() != shown
            && candidates.iter().all(|event| {
                let is_same = event.after == winner.after;
                is_same || event.after.is_none() || event.time + SURELY_LATER < winner.time
            })
        {
            return Err(format!("shows {shown:?}, and {:?} was written later", winner.after));
        }
        for event in candidates {
            if event.after.is_some() && event.after.as_ref() != shown {
                let lost = event.after.as_ref().filter(|value| !losers.contains(value));
                if let Some(lost) = lost {
                    return Err(format!("shows {shown:?}, and {lost} stands in no journal: {losers:?}"));
                }
            }
        }
        // Whoever wrote knowing of a loser has settled it.
        let is_latest =
            |loser: &&Value| latest.iter().any(|event| self.events[*event].after.as_ref() == Some(*loser));
        let is_sure = events.iter().all(|event| !self.events[*event].forced && !self.events[*event].adopted);
        if let Some(old) = losers.iter().find(|loser| is_sure && !is_latest(loser)) {
            return Err(format!("{old} is open, although somebody wrote who knew of it"));
        }
        Ok(())
    }

    /// The sum of what was added.
    fn check_counter(
        &self,
        events: &BTreeSet<usize>,
        shown: Option<&Value>,
        deleted: bool,
    ) -> Result<(), String> {
        // A larger number is no counter: it was there before the field was declared.
        let is_count = |number: i64| number.unsigned_abs() <= COUNTER_MAX.unsigned_abs();
        let is_number = |value: &Option<Value>| value.as_ref().and_then(Value::as_i64).is_some_and(is_count);
        let (begins, others): (Vec<usize>, Vec<usize>) =
            events.iter().partition(|event| !is_number(&self.events[**event].before));
        let [begin] = begins[..] else { return Ok(()) };
        let all_numbers = events.iter().all(|event| is_number(&self.events[*event].after));
        let is_base = others.iter().all(|event| self.events[*event].knew.contains(&begin));
        let mixed = events.iter().any(|event| self.events[*event].adopted || self.events[*event].forced);
        if deleted || mixed || !all_numbers || !is_base || self.events[begin].before.is_some() {
            return Ok(());
        }
        let number = |value: &Option<Value>| i128::from(value.as_ref().and_then(Value::as_i64).unwrap_or(0));
        let sum: i128 =
            events.iter().map(|e| number(&self.events[*e].after) - number(&self.events[*e].before)).sum();
        let bound = i128::from(COUNTER_MAX);
        let expected = sum.clamp(-bound, bound);
        match shown.and_then(Value::as_i64) {
            Some(n) if i128::from(n) == expected => Ok(()),
            // Who counts on from a bound has taken in what lies beyond it.
            _ if self
                .values(events)
                .flatten()
                .any(|n| i128::from(n.as_i64().unwrap_or(0)).abs() == bound) =>
            {
                Ok(())
            }
            _ => Err(format!("shows {shown:?}, the sum of what was added is {sum}")),
        }
    }

    /// What anybody added stays, unless somebody who knew it took it out.
    fn check_set(
        &self,
        events: &BTreeSet<usize>,
        shown: Option<&Value>,
        deleted: bool,
    ) -> Result<(), String> {
        let is_set = |value: &Option<Value>| value.as_ref().is_none_or(Value::is_array);
        let plain = events.iter().all(|event| {
            let event = &self.events[*event];
            is_set(&event.before) && event.after.as_ref().is_some_and(Value::is_array) && !event.forced
        });
        if deleted || !plain {
            return Ok(());
        }
        let elements = |value: Option<&Value>| -> BTreeSet<String> {
            value.and_then(Value::as_array).into_iter().flatten().map(Value::to_string).collect()
        };
        let touching = |element: &String, added: bool| -> BTreeSet<usize> {
            let is_it = |event: &&usize| {
                let event = &self.events[**event];
                let (before, after) = (elements(event.before.as_ref()), elements(event.after.as_ref()));
                let (old, new) = (before.contains(element), after.contains(element));
                if added { !old && new } else { old && !new }
            };
            events.iter().filter(is_it).copied().collect()
        };
        let all: BTreeSet<String> = self.values(events).flat_map(elements).collect();
        let shown = elements(shown);
        for element in &all {
            let (adds, removals) = (touching(element, true), touching(element, false));
            let survives =
                |add: &usize| !removals.iter().any(|removal| self.events[*removal].knew.contains(add));
            if adds.iter().any(survives) != shown.contains(element) {
                let what = if shown.contains(element) { "is still in it" } else { "is missing" };
                return Err(format!("{element} {what}: {shown:?}"));
            }
        }
        Ok(())
    }

    /// Marks that were put into a text or list are there once, those that were taken out at most once.
    fn check_marks(
        &self,
        events: &BTreeSet<usize>,
        shown: Option<&Value>,
        losers: &[Value],
        deleted: bool,
    ) -> Result<(), String> {
        // What was something else before, also null, is begun anew: not everybody begins the same.
        let all = |is: fn(&Value) -> bool| {
            events
                .iter()
                .map(|event| &self.events[*event])
                .all(|event| event.before.as_ref().is_none_or(is) && event.after.as_ref().is_some_and(is))
        };
        let whole = all(Value::is_string) || all(Value::is_array);
        // What was made anew may not be what others wrote in: one of the two is in the journal.
        let remade = events.iter().any(|event| self.events[*event].remade);
        if deleted || !whole || remade {
            return Ok(());
        }
        // Of a list that several begin, one over what was no list until then, one stands in the journal.
        let several = events.iter().filter(|event| self.events[**event].before.is_none()).count() > 1;
        let text = |value: Option<&Value>| value.map(mark_text).unwrap_or_default();
        let shown = text(shown);
        for mark in MARKS {
            let times = |value: Option<&Value>| text(value).matches(mark).count();
            let inserted = events.iter().any(|event| times(self.events[*event].after.as_ref()) > 0);
            let taken_out = events.iter().any(|event| {
                let event = &self.events[*event];
                times(event.before.as_ref()) > times(event.after.as_ref())
            });
            let twice = self.values(events).any(|value| times(value) > 1);
            let now = shown.matches(mark).count();
            let is_told = several && losers.iter().any(|loser| times(Some(loser)) > 0);
            if inserted && !twice && (now > 1 || (now == 0 && !taken_out && !is_told)) {
                return Err(format!("{mark:?} stands there {now} times: {shown}"));
            }
        }
        Ok(())
    }
}

/// Open losers of each field.
pub(super) type Losers = BTreeMap<(usize, String), Vec<Value>>;

fn mark_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
