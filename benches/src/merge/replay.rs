//! Replays a trace: each agent is a device with a replica of its own, changes go through a relay, and every edit is made on the version that
//! its parents name.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use motet::{DocumentHandle, Record, Relay, Replica, Schema, Version, json};
use motet_benches::relay::RelayProcess;
use serde_json::Value;

use crate::trace::Trace;

const COLLECTION: &str = "texts";
const ID: &str = "trace";

/// Edits that are handed over before the first of them is waited for, where nothing depends on it.
const PIPELINED: usize = 1_024;

/// What a replay took.
pub(crate) struct Replayed {
    /// In the calls that write, durably.
    pub(crate) writing: Duration,
    /// In rounds of sync between the devices, and their number.
    pub(crate) syncing: Duration,
    pub(crate) rounds: usize,
    /// Until all devices show everything, after the last edit.
    pub(crate) settling: Duration,
    /// What each device shows in the end.
    pub(crate) texts: Vec<String>,
    /// Bytes of the largest file of those who write, as it was left.
    pub(crate) file_bytes: u64,
}

/// A device of somebody who writes.
struct Device {
    replica: Replica,
    song: DocumentHandle<Value>,
    /// Steps that it certainly has.
    has: Vec<bool>,
}

pub(crate) fn schema() -> Schema {
    Schema::new().text(COLLECTION, "text")
}

/// Opens a device's file.
pub(crate) fn open(path: &Path) -> Replica {
    let replica = Replica::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    replica.apply_schema(&schema()).unwrap();
    replica
}

/// What a device shows of the text.
pub(crate) fn shown(replica: &Replica) -> String {
    let text: Option<Record<Value>> = replica.documents(COLLECTION).get(ID).unwrap();
    text.map(|text| text["text"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// The file of a device.
pub(crate) fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.db"))
}

/// Bytes of a file, with SQLite's log.
pub(crate) fn bytes_of(path: &Path) -> u64 {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    [path, &log].into_iter().filter_map(|path| std::fs::metadata(path).ok()).map(|meta| meta.len()).sum()
}

impl Device {
    fn new(folder: &Path, name: &str, steps: usize, url: &str) -> Self {
        let replica = open(&file(folder, name));
        replica.connect(Relay::new(url)).unwrap();
        let song = replica.documents(COLLECTION).document(ID);
        Self { replica, song, has: vec![false; steps] }
    }
}

/// Makes the text on one device, as it is at the start, and gives it to all of `names`. Returns the version.
pub(crate) fn begin(folder: &Path, names: &[&str], start: &str, url: &str) -> Version {
    let mut version = None;
    for name in names {
        let replica = open(&file(folder, name));
        if version.is_none() {
            let made = json!({ "id": ID, "text": start });
            replica.documents(COLLECTION).insert(&made).unwrap();
            let record: Record<Value> = replica.documents(COLLECTION).get(ID).unwrap().unwrap();
            version = Some(record.version.clone());
        }
        replica.connect(Relay::new(url)).unwrap();
        replica.sync_now().unwrap();
    }
    version.unwrap_or_default()
}

/// Replays `trace` on the devices of `folder` that [`begin`] has made: `agent-0`, `agent-1` and so on.
pub(crate) fn replay(trace: &Trace, folder: &Path, start: &Version, relay: &RelayProcess) -> Replayed {
    let url = relay.url();
    let names = trace.names();
    let mut devices: Vec<Device> =
        names.iter().map(|name| Device::new(folder, name, trace.steps.len(), &url)).collect();
    let (mut writing, mut syncing, mut rounds) = (Duration::ZERO, Duration::ZERO, 0);
    if trace.agents == 1 && trace.steps.iter().enumerate().all(|(n, step)| n == 0 || step.parents == [n - 1])
    {
        writing += write_in_order(&devices[0].song, trace);
    } else {
        let mut versions: Vec<Version> = Vec::with_capacity(trace.steps.len());
        let mut at_relay = vec![false; trace.steps.len()];
        for (n, step) in trace.steps.iter().enumerate() {
            let lacks = |devices: &[Device]| {
                let parents = step.parents.iter().copied();
                parents.filter(|parent| !devices[step.agent].has[*parent]).collect::<Vec<_>>()
            };
            if !lacks(&devices).is_empty() {
                let begun = Instant::now();
                for parent in lacks(&devices) {
                    rounds += sync(&mut devices, trace.steps[parent].agent, &mut at_relay);
                }
                rounds += sync(&mut devices, step.agent, &mut at_relay);
                syncing += begun.elapsed();
            }
            let base = union(step.parents.iter().map(|parent| &versions[*parent]), start);
            let begun = Instant::now();
            let edited = devices[step.agent].song.edit_text("text", &step.edits, Some(&base));
            writing += begun.elapsed();
            versions.push(edited.unwrap_or_else(|e| panic!("txns[{n}]: {e}")).branch);
            devices[step.agent].has[n] = true;
        }
    }
    let begun = Instant::now();
    // What was put together in the end goes to the others.
    for _ in 0..3 {
        devices.iter().for_each(|device| _ = device.replica.sync_now().unwrap());
    }
    let settling = begun.elapsed();
    let texts = devices.iter().map(|device| shown(&device.replica)).collect();
    drop(devices);
    let file_bytes = names.iter().map(|name| bytes_of(&file(folder, name))).max().unwrap_or_default();
    Replayed { writing, syncing, rounds, settling, texts, file_bytes }
}

/// One person's edits, one after the other, each a change: the next is handed over before the one before is on the disk, as when somebody types.
fn write_in_order(song: &DocumentHandle<Value>, trace: &Trace) -> Duration {
    let begun = Instant::now();
    for steps in trace.steps.chunks(PIPELINED) {
        let written: Vec<_> =
            steps.iter().map(|step| song.edit_text_async("text", &step.edits, None)).collect();
        for (n, write) in written.into_iter().enumerate() {
            write.durable().unwrap_or_else(|e| panic!("an edit of the {n}th of these: {e}"));
        }
    }
    begun.elapsed()
}

/// One round of a device: what it has goes to the relay, and what the relay has comes to it.
fn sync(devices: &mut [Device], at: usize, at_relay: &mut [bool]) -> usize {
    let device = &mut devices[at];
    device.replica.sync_now().unwrap();
    for (here, there) in device.has.iter_mut().zip(at_relay) {
        let both = *here || *there;
        (*here, *there) = (both, both);
    }
    1
}

/// The version that has all of these.
fn union<'v>(versions: impl Iterator<Item = &'v Version>, start: &Version) -> Version {
    let mut heads: Vec<String> = versions.map(Version::to_string).collect();
    if heads.is_empty() {
        heads.push(start.to_string());
    }
    heads.join(",").parse().unwrap_or_else(|e| panic!("{e}"))
}
