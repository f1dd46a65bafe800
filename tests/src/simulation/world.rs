//! What happens in a life, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use motet::{WriteError, simulation};
use motet_proto::message::{Hello, Push};
use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, Message, SpaceId, envelope, limits};
use serde_json::json;

use super::disk::{Disk, Left};
use super::network::Harm;
use super::node::Node;
use super::relay::SimRelay;
use crate::random::Random;

/// Things that happen before the faults stop, at least and at most.
const STEPS: (u64, u64) = (10, 60);

/// Most devices of a life.
const DEVICES: usize = 10;

/// Frames that come to harm while faults go on, of a thousand.
const HARM: u64 = 25;

/// Numbers lives of this process, so that their disks do not meet.
static LIVES: AtomicU64 = AtomicU64::new(0);

/// How a life went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of everything that happened, in order: equal seeds have equal traces.
    pub trace: u64,
    /// Writes that returned.
    pub writes: usize,
}

/// An invariant does not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Seed of the life.
    pub seed: u64,
    /// What does not hold.
    pub what: String,
    /// What happened before.
    pub log: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}: {}\n{}", self.seed, self.what, self.log.join("\n"))
    }
}

/// Plays the life of a seed to its end and checks it.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run(seed: u64) -> Result<Outcome, Failure> {
    motet_proto::planted::make_batches_small();
    let mut world = World::new(seed);
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    let done = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    });
    let World { log, trace, written, nodes, relay, .. } = world;
    drop((nodes, relay));
    simulation::end();
    match done {
        Ok(()) => Ok(Outcome { trace, writes: written.values().map(BTreeSet::len).sum() }),
        Err(what) => Err(Failure { seed, what, log }),
    }
}

pub(super) type Step = Result<(), String>;

pub(super) struct World {
    life: u64,
    pub(super) random: Random,
    pub(super) now: Duration,
    pub(super) nodes: Vec<Node>,
    pub(super) relay: SimRelay,
    backups: Vec<(Disk, BTreeMap<String, BTreeSet<EntryId>>)>,
    /// Most devices of this life, before one more joins in the end.
    devices: usize,
    names: usize,
    marks: usize,
    /// Writes that returned, by account and document.
    pub(super) written: BTreeMap<(String, String), BTreeSet<String>>,
    /// Of these and of writes whose fate is not known: what somebody saw who then deleted the document.
    pub(super) buried: BTreeMap<(String, String), BTreeSet<String>>,
    /// Documents that were put on several devices under one id.
    pub(super) shared: BTreeSet<String>,
    /// Who made the writes that returned, for what must be on a device after any crash.
    pub(super) own: BTreeMap<(String, String), BTreeSet<String>>,
    /// Entries that nobody can read.
    pub(super) poison: usize,
    harm: Harm,
    pub(super) log: Vec<String>,
    pub(super) trace: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        simulation::begin(seed);
        let life = LIVES.fetch_add(1, Ordering::Relaxed);
        let mut world = Self {
            life,
            random: Random(seed ^ 0x6d6f_7465_7421),
            now: Duration::from_secs(1),
            nodes: Vec::new(),
            relay: SimRelay::new(format!("{life:012}-relay")),
            backups: Vec::new(),
            devices: 2,
            names: 0,
            marks: 0,
            written: BTreeMap::new(),
            buried: BTreeMap::new(),
            shared: BTreeSet::new(),
            own: BTreeMap::new(),
            poison: 0,
            harm: Harm(HARM),
            log: Vec::new(),
            trace: 0,
        };
        world.join("hana");
        world.join("hana");
        world
    }

    fn play(&mut self) -> Step {
        // Most lives have few devices: what goes wrong with ten mostly goes wrong with three, and is found sooner.
        self.devices = [2, 3, 3, 4, 5, DEVICES - 1][self.below(6) as usize];
        let steps = STEPS.0 + self.below(STEPS.1 - STEPS.0);
        // Some lives are quiet, some are hell.
        self.harm = Harm([0, HARM, 4 * HARM][self.below(3) as usize]);
        for _ in 0..steps {
            let at = self.below(self.nodes.len() as u64) as usize;
            self.act(at)?;
            for _ in 0..self.below(40) {
                self.micro_step()?;
            }
            self.look_after_power_cuts()?;
        }
        self.settle()
    }

    fn act(&mut self, at: usize) -> Step {
        match self.below(64) {
            0..=9 => self.edit(at),
            10..=15 => self.make(at),
            16 => self.make_shared(at),
            17..=18 => self.delete(at),
            19..=30 => self.connect(at),
            31..=32 => self.hang_up(at),
            33..=34 => self.stumble(at),
            35..=37 => self.restart(at)?,
            38..=39 => self.cut_power_soon(at),
            40 => self.fill_disk(at),
            41 => self.turn_clock(at),
            42 => self.lock_out(at),
            43 => self.copy(at),
            44..=45 => self.join("hana"),
            46 => self.join("kai"),
            47 => self.second_process(at),
            48..=49 => self.leave_link_deaf(at),
            50..=51 => self.pass_time(),
            52..=53 => self.restart_relay()?,
            54 => self.cut_relay_power_soon(),
            55 => self.fill_relay_disk(),
            56 => self.back_up_relay()?,
            57 => self.restore_relay()?,
            58 => self.wipe_relay()?,
            59..=60 => self.poison(at),
            61 => self.draft(at),
            62 => self.speak_another_version(at),
            _ => self.retry_quarantined(at),
        }
        Ok(())
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    pub(super) fn say(&mut self, what: String) {
        self.note(what.as_bytes());
        self.log.push(what);
    }

    /// Adds something to the trace.
    pub(super) fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    // ------------------------------------------------------------------------------------------------ what apps do

    fn mark(&mut self) -> String {
        self.marks += 1;
        format!("m{}", self.marks)
    }

    fn wrote(&mut self, at: usize, id: &str, mark: &str) {
        let node = &self.nodes[at];
        let (account, name) = (node.account.clone(), node.name.clone());
        self.written.entry((account, id.to_owned())).or_default().insert(mark.to_owned());
        self.own.entry((name, id.to_owned())).or_default().insert(mark.to_owned());
        let now = self.now;
        let node = &mut self.nodes[at];
        if let Some(session) = &mut node.session
            && session.outbox_changed(now).is_err()
        {
            node.session = None;
        }
    }

    /// Documents that a device shows.
    fn known(&mut self, at: usize) -> Vec<String> {
        let Ok(replica) = self.nodes[at].replica() else { return Vec::new() };
        let Ok(list) = replica.documents("pieces").list() else { return Vec::new() };
        list.into_iter().map(|record| record.id).collect()
    }

    /// One of the documents that a device shows; often one of the few that everybody works on.
    fn choose(&mut self, known: &[String]) -> String {
        let among = if self.below(2) == 0 { known.len().min(2) } else { known.len() };
        known[self.below(among as u64) as usize].clone()
    }

    /// Writes a mark into a field and into the text of a document, and counts it, in one transaction.
    pub(super) fn edit(&mut self, at: usize) {
        let known = self.known(at);
        if known.is_empty() {
            return;
        }
        let id = self.choose(&known);
        let mark = self.mark();
        let place = self.below(1_000) as usize;
        let Ok(replica) = self.nodes[at].replica() else { return };
        let (document, written) = (id.clone(), mark.clone());
        let done = replica.transaction(move |tx| {
            let value: serde_json::Value = match tx.get("pieces", &document)? {
                Some(record) => record.value,
                None => return Err(WriteError::NotFound { collection: "pieces".into(), id: document }),
            };
            let lyrics = value["lyrics"].as_str().unwrap_or_default();
            // Marks are not torn by other marks: they go to the start of a line.
            let starts: Vec<usize> =
                lyrics.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(n, _)| n + 1).collect();
            let line = starts.get(place % (starts.len() + 1)).copied().unwrap_or(0);
            tx.set("pieces", &document, &json!({ written.as_str(): true, "note": written }))?;
            tx.splice_text("pieces", &document, "lyrics", line, 0, &format!("<{written}>\n"))?;
            tx.add_to_set("pieces", &document, "tags", &[json!(written)])?;
            tx.increment("pieces", &document, "plays", 1).map(drop)
        });
        self.say(format!("{} edits {id} with {mark}: {}", self.nodes[at].name, told(&done)));
        if done.is_ok() {
            self.wrote(at, &id, &mark);
        }
    }

    fn make(&mut self, at: usize) {
        let count = [1, 1, 1, 1, 2, 9][self.below(6) as usize];
        let mut songs = Vec::new();
        for _ in 0..count {
            let mark = self.mark();
            let verses = "Hiki mai ka ʻelele o ka loko ʻino\n".repeat(self.below(3) as usize);
            songs.push((format!("d{mark}"), mark.clone(), song(&mark, &verses)));
        }
        let Ok(replica) = self.nodes[at].replica() else { return };
        let put = songs.clone();
        let done = replica.transaction(move |tx| {
            put.iter().try_for_each(|(id, _, song)| tx.put("pieces", id, song).map(drop))
        });
        self.say(format!("{} makes {count} from {}: {}", self.nodes[at].name, songs[0].0, told(&done)));
        if done.is_ok() {
            for (id, mark, _) in songs {
                self.wrote(at, &id, &mark);
            }
        }
    }

    /// Puts a document under an id that others may use as well.
    fn make_shared(&mut self, at: usize) {
        let id = format!("shared{}", self.below(3));
        let known = self.known(at);
        if known.contains(&id) {
            return;
        }
        let mark = self.mark();
        let Ok(replica) = self.nodes[at].replica() else { return };
        let done = replica.documents("pieces").put(&id, &song(&mark, ""));
        self.say(format!("{} puts {id} with {mark}: {}", self.nodes[at].name, told(&done)));
        self.shared.insert(id.clone());
        if done.is_ok() {
            self.wrote(at, &id, &mark);
        }
    }

    fn delete(&mut self, at: usize) {
        let known = self.known(at);
        if known.is_empty() {
            return;
        }
        let id = self.choose(&known);
        let Ok(replica) = self.nodes[at].replica() else { return };
        let Ok(Some(record)) = replica.documents("pieces").get(&id) else { return };
        let seen = super::checks::marks_of(&record.value);
        let done = replica.documents("pieces").delete(&id);
        self.say(format!("{} deletes {id}: {}", self.nodes[at].name, told(&done)));
        // If it is not known whether the delete was kept, it may have been.
        let account = self.nodes[at].account.clone();
        self.buried.entry((account, id)).or_default().extend(seen);
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.session.as_mut().is_some_and(|session| session.outbox_changed(now).is_err()) {
            node.session = None;
        }
    }

    /// Something that never leaves the device.
    fn draft(&mut self, at: usize) {
        let mark = self.mark();
        let Ok(replica) = self.nodes[at].replica() else { return };
        let collection = ["drafts", "switched off"][self.below(2) as usize];
        let done = replica.documents(collection).put(&mark, &json!({ "words": "kept to myself" }));
        self.say(format!("{} keeps {mark} in {collection}: {}", self.nodes[at].name, told(&done)));
    }

    /// Another program writes to the same file, while the app is at it.
    fn second_process(&mut self, at: usize) {
        _ = self.nodes[at].replica();
        let Ok(other) = self.nodes[at].open() else { return };
        let Ok(list) = other.documents("pieces").list() else { return };
        let mark = self.mark();
        let (id, done) = if list.is_empty() || self.below(3) == 0 {
            let id = format!("d{mark}");
            (id.clone(), other.documents("pieces").put(&id, &song(&mark, "")).map(drop))
        } else {
            let id = list[self.below(list.len() as u64) as usize].id.clone();
            let (document, written) = (id.clone(), mark.clone());
            let done = other.transaction(move |tx| {
                tx.set("pieces", &document, &json!({ written.as_str(): true, "note": written }))?;
                tx.splice_text("pieces", &document, "lyrics", 0, 0, &format!("<{written}>\n"))?;
                tx.increment("pieces", &document, "plays", 1).map(drop)
            });
            (id, done)
        };
        self.say(format!(
            "another process of {} writes {mark} to {id}: {}",
            self.nodes[at].name,
            told(&done)
        ));
        drop(other);
        if done.is_ok() {
            self.wrote(at, &id, &mark);
        }
    }

    fn retry_quarantined(&mut self, at: usize) {
        let Ok(replica) = self.nodes[at].replica() else { return };
        let done = replica.retry_quarantined();
        self.say(format!("{} tries again what was set aside: {}", self.nodes[at].name, told(&done)));
    }

    // ---------------------------------------------------------------------------------------------- what happens to devices

    fn join(&mut self, account: &str) {
        if self.nodes.len() >= self.devices {
            return;
        }
        self.names += 1;
        let name = format!("device{:02}", self.names);
        self.say(format!("{name} of {account} joins"));
        let mount = format!("{:012}-{name}", self.life);
        self.nodes.push(Node::new(name, account, &mount, Disk::default()));
    }

    /// The file is copied by hand, edits that were not sent among the rest; original and copy both go on.
    fn copy(&mut self, at: usize) {
        if self.nodes.len() >= self.devices {
            return;
        }
        self.names += 1;
        let name = format!("device{:02}", self.names);
        let node = &self.nodes[at];
        let (account, disk) = (node.account.clone(), node.disk.as_written());
        self.say(format!("{} is copied to {name}", self.nodes[at].name));
        let mount = format!("{:012}-{name}", self.life);
        let own: Vec<_> = self
            .own
            .iter()
            .filter(|((of, _), _)| *of == self.nodes[at].name)
            .map(|((_, id), m)| (id.clone(), m.clone()))
            .collect();
        for (id, marks) in own {
            self.own.insert((name.clone(), id), marks);
        }
        self.nodes.push(Node::new(name, &account, &mount, disk));
    }

    fn restart(&mut self, at: usize) -> Step {
        self.lose_connection(at);
        if self.below(2) == 0 {
            self.say(format!("{} is closed", self.nodes[at].name));
            self.nodes[at].close();
        } else {
            self.say(format!("{} is killed", self.nodes[at].name));
            self.nodes[at].come_back_after_kill();
        }
        self.check_own(at)
    }

    fn cut_power_soon(&mut self, at: usize) {
        let calls = 1 + self.below(60);
        self.say(format!("{} loses power in {calls} calls", self.nodes[at].name));
        self.nodes[at].disk.die_after(calls);
    }

    fn look_after_power_cuts(&mut self) -> Step {
        for at in 0..self.nodes.len() {
            if self.nodes[at].disk.is_dead() {
                self.lose_connection(at);
                let left = Left::EVERY[self.below(4) as usize];
                self.say(format!(
                    "{} comes back, of what was not synced there is: {left:?}",
                    self.nodes[at].name
                ));
                self.nodes[at].come_back_after_power_cut(left, &mut self.random);
                self.check_own(at)?;
            }
        }
        if self.relay.disk.is_dead() {
            let left = Left::EVERY[self.below(4) as usize];
            self.say(format!("the relay comes back, of what was not synced there is: {left:?}"));
            self.change_relay(|world| world.relay.disk.after_power_cut(left, &mut world.random))?;
            self.check_log()?;
        }
        Ok(())
    }

    fn fill_disk(&mut self, at: usize) {
        let full = self.below(2) == 0;
        self.say(format!("the disk of {} is full: {full}", self.nodes[at].name));
        self.nodes[at].disk.set_full(full);
    }

    /// One call of the disk fails.
    fn stumble(&mut self, at: usize) {
        let disk = &self.nodes[at].disk;
        let call = disk.calls() + 1 + self.random.below(20);
        disk.fail_at(call, super::disk::Fault::Io);
        self.say(format!("{} stumbles soon", self.nodes[at].name));
    }

    fn turn_clock(&mut self, at: usize) {
        let years = self.below(21) as i64 - 10;
        self.say(format!("the clock of {} jumps by {years} years", self.nodes[at].name));
        self.nodes[at].turn_clock(years * 31_557_600_000);
    }

    fn lock_out(&mut self, at: usize) {
        self.nodes[at].locked_out ^= true;
        self.say(format!("{} is locked out: {}", self.nodes[at].name, self.nodes[at].locked_out));
        self.lose_connection(at);
    }

    // ------------------------------------------------------------------------------------------------ what happens between

    pub(super) fn connect(&mut self, at: usize) {
        if self.nodes[at].link.is_some() || self.nodes[at].locked_out || !self.relay.is_up() {
            return;
        }
        let session = self.relay.accept(&self.nodes[at].account);
        let now = self.now;
        let begun = self.nodes[at].begin_session(session, now);
        self.say(format!("{} connects: {begun:?}", self.nodes[at].name));
        if begun.is_err() {
            self.relay.drop_session(session);
        }
    }

    fn hang_up(&mut self, at: usize) {
        if self.nodes[at].link.is_some() {
            self.say(format!("{} hangs up", self.nodes[at].name));
            self.lose_connection(at);
        }
    }

    /// The connection breaks. Some of what was on its way still arrives at the relay.
    pub(super) fn lose_connection(&mut self, at: usize) {
        self.nodes[at].session = None;
        let Some(mut link) = self.nodes[at].link.take() else { return };
        for _ in 0..self.below(link.up.len() as u64 + 1) {
            if let Some(frame) = link.up.pop_front() {
                self.relay.take(link.session, &frame);
            }
        }
        self.relay.drop_session(link.session);
    }

    fn leave_link_deaf(&mut self, at: usize) {
        let up = self.below(2) == 0;
        if let Some(link) = &mut self.nodes[at].link {
            (link.deaf_up, link.deaf_down) = (link.deaf_up || up, link.deaf_down || !up);
            self.say(format!("{}'s way {} is deaf", self.nodes[at].name, if up { "up" } else { "down" }));
        }
    }

    fn pass_time(&mut self) {
        let seconds = [1, 6, 31][self.below(3) as usize];
        self.now += Duration::from_secs(seconds);
        for at in 0..self.nodes.len() {
            self.take_timeout(at);
        }
    }

    fn take_timeout(&mut self, at: usize) {
        let now = self.now;
        let Some(session) = &mut self.nodes[at].session else { return };
        if session.poll_timeout().is_some_and(|due| due <= now) && session.pass_time(now).is_err() {
            self.lose_connection(at);
        }
    }

    /// One small thing on one connection. False if there was nothing to do on it.
    pub(super) fn micro_step(&mut self) -> Result<bool, String> {
        let at = self.below(self.nodes.len() as u64) as usize;
        self.step_link(at)
    }

    pub(super) fn step_link(&mut self, at: usize) -> Result<bool, String> {
        self.now += Duration::from_micros(self.random.below(2_000));
        let now = self.now;
        let harm = self.harm;
        let choice = self.below(5);
        let lag = self.below(8) == 0;
        let detail = self.below(1 << 20);
        let node = &mut self.nodes[at];
        let (Some(session), Some(link)) = (&mut node.session, &mut node.link) else {
            if node.link.is_some() {
                self.lose_connection(at);
            }
            return Ok(false);
        };
        while let Some(message) = session.poll_message() {
            link.up.push_back(motet_proto::frame::encode(&message));
        }
        while let Some(message) = self.relay.poll_message(link.session) {
            link.down.push_back(motet_proto::frame::encode(&message));
        }
        let mut noted = Vec::new();
        let done = match choice {
            0 if !link.up.is_empty() && !self.relay.is_saturated(link.session) => {
                if let Some(frame) = harm.next(&mut link.up, &mut self.random)
                    && !link.deaf_up
                {
                    noted = frame;
                    self.relay.take(link.session, &noted);
                }
                Ok(true)
            }
            1 if !link.down.is_empty() && !session.is_saturated() => {
                match harm.next(&mut link.down, &mut self.random).filter(|_| !link.deaf_down) {
                    None => Ok(true),
                    Some(frame) => {
                        noted = frame;
                        match motet_proto::frame::decode(&noted) {
                            Ok(message) => session.take(message, now).map(|()| true),
                            Err(_) => Ok(false),
                        }
                    }
                }
            }
            2 => Ok(self.relay.work(link.session, detail, lag)),
            3 => session.work(detail, now),
            _ => Ok(false),
        };
        let broken = done.is_err()
            || (choice == 1 && matches!(done, Ok(false)) && !noted.is_empty())
            || session.ended().is_some()
            || !self.relay.is_open(link.session);
        if let Some(why) = session.ended().map(str::to_owned) {
            self.say(format!("the session of {} ends: {why}", self.nodes[at].name));
        }
        self.note(&noted);
        if broken {
            self.lose_connection(at);
        }
        Ok(done.unwrap_or(false))
    }

    // -------------------------------------------------------------------------------------------- what happens to the relay

    /// The relay ends, and comes back on what `disk` makes of its own.
    fn change_relay(&mut self, disk: impl FnOnce(&mut Self) -> Disk) -> Step {
        for at in 0..self.nodes.len() {
            self.lose_connection(at);
        }
        let disk = disk(self);
        self.relay.stop();
        self.relay.disk = disk;
        self.relay.start().map_err(|error| format!("the relay does not start: {error}"))
    }

    fn restart_relay(&mut self) -> Step {
        self.say("the relay is killed and started again".into());
        self.change_relay(|world| world.relay.disk.as_written())?;
        self.check_log()
    }

    fn cut_relay_power_soon(&mut self) {
        let calls = 1 + self.below(40);
        self.say(format!("the relay loses power in {calls} calls"));
        self.relay.disk.die_after(calls);
    }

    fn fill_relay_disk(&mut self) {
        let full = self.below(2) == 0;
        self.say(format!("the relay's disk is full: {full}"));
        self.relay.disk.set_full(full);
    }

    fn back_up_relay(&mut self) -> Step {
        if !self.relay.is_up() {
            return Ok(());
        }
        self.say("the relay is backed up".into());
        self.backups.push((self.relay.disk.as_written(), self.relay.acknowledged.clone()));
        Ok(())
    }

    fn restore_relay(&mut self) -> Step {
        if self.backups.is_empty() {
            return Ok(());
        }
        let at = self.below(self.backups.len() as u64) as usize;
        let (disk, acknowledged) = self.backups[at].clone();
        self.say(format!("the relay is restored from backup {at}"));
        self.change_relay(|world| {
            world.relay.acknowledged = acknowledged;
            disk.as_written()
        })?;
        self.check_log()
    }

    fn wipe_relay(&mut self) -> Step {
        if self.below(2) == 0 {
            return Ok(());
        }
        self.say("the relay is wiped".into());
        self.change_relay(|world| {
            world.relay.acknowledged.clear();
            Disk::default()
        })
    }

    /// Somebody of the account sends what nobody can read.
    fn poison(&mut self, at: usize) {
        if !self.relay.is_up() {
            return;
        }
        let known = self.known(at);
        let id = match known.is_empty() {
            true => "nowhere".to_owned(),
            false => known[self.below(known.len() as u64) as usize].clone(),
        };
        let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", &id);
        let body: Vec<u8> = (0..self.below(200)).map(|_| self.random.below(256) as u8).collect();
        let sealed = match self.below(3) {
            0 => body,
            1 => envelope::seal_plain(&body),
            _ => {
                let payload = motet_proto::payload::Payload {
                    collection: "pieces".into(),
                    name: id.clone(),
                    device_name: "stranger".into(),
                    preview: None,
                    body,
                };
                envelope::seal_plain(&payload.encode())
            }
        };
        let kind = match self.below(3) {
            0 => Kind::Changes,
            1 => Kind::Snapshot { heads: vec![[1; 32]], supersedes: Vec::new() },
            // [9, {}]: of a later version.
            _ => Kind::Other(vec![0x82, 0x09, 0xa0]),
        };
        let entry =
            Entry::new(SpaceId::DEFAULT, document, DeviceId([7; 16]), kind, envelope::SUITE_PLAIN, sealed);
        self.say(format!("a stranger sends poison for {id}"));
        self.poison += 1;
        let account = self.nodes[at].account.clone();
        self.send_raw(&account, Message::Push(Push { id: 1, entries: vec![entry] }), limits::VERSION_MAX);
    }

    /// A device of a later version comes by, and is told no.
    fn speak_another_version(&mut self, at: usize) {
        let account = self.nodes[at].account.clone();
        self.say("a device of a later version calls".into());
        self.send_raw(&account, Message::Push(Push { id: 1, entries: Vec::new() }), limits::VERSION_MAX + 1);
    }

    fn send_raw(&mut self, account: &str, message: Message, version: u16) {
        if !self.relay.is_up() {
            return;
        }
        let session = self.relay.accept(account);
        let hello = Hello {
            version_min: version,
            version_max: version,
            device: DeviceId([7; 16]),
            space: SpaceId::DEFAULT,
            agent: "stranger".into(),
        };
        for message in [Message::Hello(hello), message] {
            self.relay.take(session, &motet_proto::frame::encode(&message));
        }
        while self.relay.work(session, 0, false) {}
        self.relay.drop_session(session);
    }

    // ------------------------------------------------------------------------------------------------------- in the end

    fn settle(&mut self) -> Step {
        self.say("the faults stop".into());
        self.harm = Harm::default();
        self.relay.disk.set_full(false);
        match self.relay.disk.is_dead() {
            true => self.look_after_power_cuts()?,
            false => self.change_relay(|world| world.relay.disk.as_written())?,
        }
        self.check_log()?;
        self.devices += 1;
        self.join("hana");
        for at in 0..self.nodes.len() {
            self.nodes[at].locked_out = false;
            self.lose_connection(at);
            if self.nodes[at].disk.is_dead() {
                self.nodes[at].come_back_after_power_cut(Left::Some, &mut self.random);
            } else {
                self.nodes[at].come_back_after_kill();
            }
            self.check_own(at)?;
        }
        self.check_in_the_end()
    }
}

fn song(mark: &str, verses: &str) -> serde_json::Value {
    json!({ "title": mark, mark: true, "plays": 1, "tags": [mark], "note": mark, "lyrics": format!("<{mark}>\n{verses}") })
}

fn told<T>(done: &Result<T, WriteError>) -> String {
    match done {
        Ok(_) => "done".into(),
        Err(error) => error.to_string(),
    }
}
