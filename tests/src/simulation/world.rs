//! A life: what can happen in it, and what is remembered of it.

mod apps;
mod devices;
mod relay;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use motet::simulation;
use motet_proto::EntryId;

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
    /// Of all rows of all tables in the end: equal seeds write the same, as long as the code does. 0 if they were not read.
    pub rows: u64,
    /// Writes that returned.
    pub writes: usize,
    /// Entries that left the relay because a snapshot superseded them.
    pub swept: usize,
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
    play(seed, false)
}

/// The same, and reads what was written: that takes about as long again.
pub(super) fn run_and_read(seed: u64) -> Result<Outcome, Failure> {
    play(seed, true)
}

fn play(seed: u64, is_read: bool) -> Result<Outcome, Failure> {
    motet_proto::planted::make_batches_small();
    let mut world = World::new(seed);
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    let done = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    });
    let rows = if is_read { world.trace_of_rows() } else { 0 };
    let World { log, trace, written, nodes, relay, swept, .. } = world;
    drop((nodes, relay));
    simulation::end();
    match done {
        Ok(()) => Ok(Outcome { trace, rows, writes: written.values().map(BTreeSet::len).sum(), swept }),
        Err(what) => Err(Failure { seed, what, log }),
    }
}

/// FNV-1a, from a hash on.
fn hash_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
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
    swept: usize,
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
            swept: 0,
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
            self.release_some();
            for _ in 0..self.below(40) {
                self.micro_step()?;
            }
            self.look_after_power_cuts()?;
        }
        self.settle()
    }

    fn act(&mut self, at: usize) -> Step {
        match self.below(74) {
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
            48 => self.leave_link_deaf(at),
            49 | 63 => self.stall(at),
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
            64..=69 => self.compact(at),
            70..=71 => self.sync_document(at),
            72..=73 => self.sweep_relay()?,
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
        self.trace = hash_on(self.trace, bytes);
    }

    /// A hash of all rows that devices and relay have on their disks. The bytes of the files are no measure: SQLite draws numbers for its log.
    fn trace_of_rows(&self) -> u64 {
        let disks = self.nodes.iter().map(|node| &node.disk).chain([&self.relay.disk]);
        disks.fold(0, |hash, disk| disk.rows().iter().fold(hash, |hash, row| hash_on(hash, row.as_bytes())))
    }

    fn settle(&mut self) -> Step {
        self.say("the faults stop".into());
        self.harm = Harm::default();
        self.relay.disk.set_full(false);
        match self.relay.disk.is_dead() {
            true => self.look_after_power_cuts()?,
            false => self.change_relay(|world| world.relay.disk.as_written())?,
        }
        self.sweep_relay()?;
        self.join_late("hana");
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
