//! What must hold: the invariants of the design, by letter.

use std::collections::{BTreeMap, BTreeSet};

use motet::Replica;
use motet::simulation;
use motet_proto::payload::Payload;
use motet_proto::{EntryId, SpaceId, envelope};
use serde_json::Value;

use super::world::{Step, World};

/// Small things after which a space that is left alone must be quiet. Grows with its log and its devices.
const PATIENCE: usize = 3_000;

/// Rounds of every device in the end: who came first has seen what the last one brought.
const ROUNDS: u64 = 2;

/// A document: its version and what it shows.
type Shown = BTreeMap<String, (String, Value)>;

/// The marks that a document shows.
pub(super) fn marks_of(value: &Value) -> BTreeSet<String> {
    let is_mark = |name: &str| name.strip_prefix('m').is_some_and(|n| n.parse::<u64>().is_ok());
    let fields = value.as_object().into_iter().flatten();
    fields.filter(|(name, value)| is_mark(name) && **value == true).map(|(name, _)| name.clone()).collect()
}

impl World {
    /// D: what a device has written itself and was told of is there after any crash. What a crash of the machine may take is what
    /// the device had from others: it comes again.
    pub(super) fn check_own(&mut self, at: usize) -> Step {
        let name = self.nodes[at].name.clone();
        if !self.own.keys().any(|(of, _)| *of == name) {
            return Ok(());
        }
        let opened = self.nodes[at].replica();
        let replica = match opened {
            Ok(replica) => replica,
            // A disk that fails or is full may refuse even this; that it is not damaged is seen in the end.
            Err(_) if !self.nodes[at].disk.is_dead() => return Ok(()),
            Err(_) => return Ok(()),
        };
        let Ok(shown) = shown(&replica) else { return Ok(()) };
        let account = self.nodes[at].account.clone();
        let nothing = BTreeSet::new();
        for ((_, id), marks) in self.own.iter().filter(|((of, _), _)| *of == name) {
            let buried = self.buried.get(&(account.clone(), id.clone())).unwrap_or(&nothing);
            let there = shown.get(id).map(|(_, value)| marks_of(value)).unwrap_or_default();
            for mark in marks {
                // Under an id that several use, somebody may put a new document in the place of a deleted one.
                let replaced = !shown.contains_key(id) || self.shared.contains(id);
                let may_be_gone = replaced && buried.contains(mark);
                if !there.contains(mark) && !may_be_gone {
                    return Err(format!("D: {name} has lost its own {mark} of {id}"));
                }
            }
        }
        Ok(())
    }

    /// D: what was acknowledged is in the log; O: and there once, in an order without gaps but those that snapshots explain.
    pub(super) fn check_log(&mut self) -> Step {
        if let Some(what) = &self.relay.false_claim {
            return Err(format!("D: {what}"));
        }
        for account in ["hana", "kai"] {
            let log = match self.relay.log(account) {
                // The power went in the middle of it.
                Err(_) if self.relay.disk.is_dead() => return Ok(()),
                log => log.map_err(|error| format!("the log cannot be read: {error}"))?,
            };
            let may_have_left = self.relay.may_have_left(&log);
            let mut held = BTreeSet::new();
            let mut before = 0;
            for (seq, entry) in &log {
                let is_next = if may_have_left.is_empty() { *seq == before + 1 } else { *seq > before };
                if !is_next {
                    return Err(format!("O: after entry {before} of {account} comes number {seq}"));
                }
                before = *seq;
                if !held.insert(entry.id) {
                    return Err(format!("O: {} is in the log of {account} twice", entry.id));
                }
            }
            let is_there = |id: &EntryId| held.contains(id) || may_have_left.contains(id);
            let lost = self.relay.acknowledged.get(account).into_iter().flatten().find(|id| !is_there(id));
            if let Some(id) = lost {
                return Err(format!("D: {id} of {account} was acknowledged and is not in the log"));
            }
        }
        Ok(())
    }

    /// L: everybody connects, and everything is synced soon; then everything else.
    pub(super) fn check_in_the_end(&mut self) -> Step {
        for round in 1..=ROUNDS {
            self.sync_everybody(round)?;
        }
        if self.below(3) == 0 {
            self.compact_everything(0);
            self.run_until_quiet(None)?;
            self.sweep_relay()?;
            self.join_late("hana");
            self.sync_everybody(ROUNDS + 1)?;
        }
        // Everybody is connected: what is written now is everywhere without anybody asking.
        for at in 0..self.nodes.len() {
            self.edit(at);
        }
        self.run_until_quiet(None)?;
        self.check_isolation()?;
        self.check_log()?;
        for account in ["hana", "kai"] {
            self.check_devices(account)?;
        }
        Ok(())
    }

    fn sync_everybody(&mut self, round: u64) -> Step {
        for at in 0..self.nodes.len() {
            self.connect(at);
            let now = self.now;
            let name = self.nodes[at].name.clone();
            let session = self.nodes[at].session.as_mut();
            let session = session.ok_or_else(|| format!("L: {name} cannot connect"))?;
            session.request_round(round, now);
        }
        self.run_until_quiet(Some(round))
    }

    /// L and B: the number of steps until nothing is under way is bounded by what there is to send.
    fn run_until_quiet(&mut self, round: Option<u64>) -> Step {
        let entries = self.relay.log("hana").map_or(0, |log| log.len()) + self.marks_written();
        let patience = PATIENCE + 100 * entries * self.nodes.len();
        let mut done = BTreeSet::new();
        let mut quiet = 0;
        for _ in 0..patience {
            let at = self.below(self.nodes.len() as u64) as usize;
            let name = self.nodes[at].name.clone();
            if self.step_link(at)? {
                quiet = 0;
            }
            let Some(session) = &mut self.nodes[at].session else {
                return Err(format!("L: the connection of {name} ended: {:?}", self.log.last()));
            };
            if std::iter::from_fn(|| session.poll_done()).any(|finished| Some(finished) == round) {
                done.insert(at);
                let Ok(replica) = self.nodes[at].replica() else { continue };
                let pending = replica.status().pending;
                if pending > 0 {
                    let which = replica.pending_documents(10);
                    return Err(format!("L: a round of {name} ends, and {pending} are pending: {which:?}"));
                }
            }
            quiet += 1;
            if quiet > 60 * self.nodes.len()
                && (round.is_none() || done.len() == self.nodes.len())
                && self.is_quiet()
            {
                return Ok(());
            }
        }
        let missing: Vec<_> = (0..self.nodes.len())
            .filter(|at| !done.contains(at))
            .map(|at| self.nodes[at].name.as_str())
            .collect();
        let busy = |at: &usize| !self.is_quiet_at(*at);
        let busy: Vec<_> =
            (0..self.nodes.len()).filter(busy).map(|at| self.nodes[at].name.as_str()).collect();
        Err(format!(
            "L: not quiet after {patience} steps; rounds missing of {missing:?}, busy: {busy:?}, {quiet}"
        ))
    }

    fn is_quiet(&self) -> bool {
        (0..self.nodes.len()).all(|at| self.is_quiet_at(at))
    }

    fn is_quiet_at(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let (Some(session), Some(link)) = (&node.session, &node.link) else { return false };
        session.is_idle() && link.up.is_empty() && link.down.is_empty() && !self.relay.is_busy(link.session)
    }

    fn marks_written(&self) -> usize {
        self.written.values().map(BTreeSet::len).sum()
    }

    /// I and H-085: nothing of a collection that stays on its device is in a log, and nothing of one account in another's.
    fn check_isolation(&mut self) -> Step {
        for account in ["hana", "kai"] {
            for (_, entry) in self.relay.log(account).map_err(|error| error.to_string())? {
                let opened = envelope::open(entry.suite, &entry.payload);
                let payload =
                    opened.ok().and_then(|p| Payload::decode(&p, SpaceId::DEFAULT, entry.document).ok());
                let Some(payload) = payload else { continue };
                if payload.collection != "pieces" {
                    return Err(format!("I: {} has left its device", payload.name));
                }
                let of_other = |(of, id): &(String, String)| of != account && *id == payload.name;
                if payload.name.starts_with('d') && self.written.keys().any(of_other) {
                    return Err(format!("I: {} is in the log of {account}", payload.name));
                }
            }
        }
        Ok(())
    }

    fn check_devices(&mut self, account: &str) -> Step {
        let mut first: Option<(String, Shown)> = None;
        for at in 0..self.nodes.len() {
            if self.nodes[at].account != account {
                continue;
            }
            let name = self.nodes[at].name.clone();
            let replica =
                self.nodes[at].replica().map_err(|error| format!("{name} does not open: {error}"))?;
            let shown = self.check_device(&name, &replica)?;
            match &first {
                None => {
                    self.check_written(account, &shown)?;
                    first = Some((name, shown));
                }
                Some((other, theirs)) if *theirs != shown => {
                    return Err(format!("C: {other} and {name} differ: {}", difference(theirs, &shown)));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// One device: nothing is pending, nothing set aside that is not poison, and its file is sound.
    fn check_device(&mut self, name: &str, replica: &Replica) -> Result<Shown, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        simulation::catch_up(replica).map_err(|e| failed(&e))?;
        let pending = replica.status().pending;
        let waiting = replica.pending_documents(10).map_err(|e| failed(&e))?;
        if pending != 0 || !waiting.is_empty() {
            return Err(format!("L: {pending} changes of {name} are pending: {waiting:?}"));
        }
        let set_aside = replica.quarantined(1_000).map_err(|e| failed(&e))?;
        if set_aside.len() > self.poison {
            return Err(format!("L: {name} has set aside {set_aside:?}"));
        }
        // Reading every document again takes longer than the rest of a life.
        if self.below(4) == 0 {
            let problems = replica.verify().map_err(|e| failed(&e))?.problems;
            if !problems.is_empty() {
                return Err(format!("D: {name}: {problems:?}"));
            }
        }
        shown(replica).map_err(|e| failed(&e))
    }

    /// D, O and A: every write that returned is there once, unless somebody who saw it deleted its document.
    fn check_written(&self, account: &str, shown: &Shown) -> Step {
        let nothing = BTreeSet::new();
        for ((_, id), marks) in self.written.iter().filter(|((of, _), _)| of == account) {
            let buried = self.buried.get(&(account.to_owned(), id.clone())).unwrap_or(&nothing);
            let Some((_, value)) = shown.get(id) else {
                match marks.iter().find(|mark| !buried.contains(*mark)) {
                    Some(mark) => return Err(format!("A: {id} is gone, and with it {mark}")),
                    None => continue,
                }
            };
            let there = marks_of(value);
            let lyrics = value["lyrics"].as_str().unwrap_or_default();
            let is_shared = self.shared.contains(id);
            let may_be_gone = |mark: &String| is_shared && buried.contains(mark);
            let is_lost = |mark: &&String| !there.contains(*mark) && !may_be_gone(mark);
            if let Some(mark) = marks.iter().find(is_lost) {
                return Err(format!("D: {mark} of {id} is lost"));
            }
            // Known: two who edit a text of two beginnings, after they have seen both, may each take in the other one's words.
            if is_shared {
                continue;
            }
            for mark in &there {
                let times = lyrics.matches(&format!("<{mark}>")).count();
                if times != 1 {
                    return Err(format!("O: {mark} stands {times} times in the text of {id}: {lyrics:?}"));
                }
            }
            if value["plays"] != there.len() {
                return Err(format!(
                    "O: {id} was counted {} times and written {}",
                    value["plays"],
                    there.len()
                ));
            }
        }
        Ok(())
    }
}

fn shown(replica: &Replica) -> Result<Shown, motet::ReadError> {
    let list = replica.documents("pieces").list()?;
    Ok(list.into_iter().map(|record| (record.id, (record.version.to_string(), record.value))).collect())
}

fn difference(a: &Shown, b: &Shown) -> String {
    let ids: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let differs = ids.into_iter().find(|id| a.get(*id) != b.get(*id));
    differs.map_or(String::new(), |id| format!("{id}: {:?} and {:?}", a.get(id), b.get(id)))
}
