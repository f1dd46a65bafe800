//! A device that receives, in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use motet::Relay;
use motet_benches::relay::again;
use motet_benches::{median, peak_rss_mb, process_cpu_s};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{replay, shapes};

/// Longest time that a follower waits for the end after the last edit.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a device that received everything tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Read {
    /// From the start of the process until everything is shown.
    s: f64,
    peak_mb: f64,
    pub(crate) file_bytes: u64,
    pub(crate) text: String,
}

impl Read {
    pub(crate) fn median_s(all: &[Self]) -> f64 {
        median(all.iter().map(|read| read.s).collect())
    }

    pub(crate) fn peak_mb(all: &[Self]) -> f64 {
        median(all.iter().map(|read| read.peak_mb).collect())
    }
}

/// Has a process read what the relay has, and show it.
pub(crate) fn start(db: &Path, url: &str) -> Read {
    told_by("__reader", db, url, Machine::Whole)
}

/// The reader's process.
pub(crate) fn read(db: &Path, url: &str) {
    let begun = Instant::now();
    let replica = replay::open(db);
    replica.connect(Relay::new(url)).unwrap();
    replica.sync_now().unwrap();
    let text = replay::shown(&replica);
    let s = begun.elapsed().as_secs_f64();
    let peak_mb = peak_rss_mb(std::process::id()).unwrap_or_default();
    drop(replica);
    let read = Read { s, peak_mb, file_bytes: replay::bytes_of(db), text };
    println!("{}", serde_json::to_string(&read).unwrap());
}

/// What a device that was away tells once it has received everything.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Received {
    /// From the connection until everything is stored.
    pub(crate) s: f64,
    /// Processor time of all threads from the start of the process.
    pub(crate) cpu_s: f64,
    pub(crate) peak_mb: f64,
    pub(crate) file_bytes: u64,
    /// Of what all documents show.
    pub(crate) digest: String,
}

/// Has a process receive what the relay has.
pub(crate) fn start_receiver(db: &Path, url: &str, on: Machine) -> Received {
    told_by("__receiver", db, url, on)
}

/// What a process may have of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// All of it.
    Whole,
    /// One core, and [`PHONE_BYTES`] of memory of its own: beyond that it is refused more.
    Phone,
}

/// Memory of a process on a phone, in bytes.
const PHONE_BYTES: u64 = 256 << 20;

/// What a process tells that does this with a device's file and a relay.
fn told_by<T: DeserializeOwned>(role: &str, db: &Path, url: &str, on: Machine) -> T {
    let mut command = match on {
        Machine::Whole => again(),
        Machine::Phone => {
            let mut limited = Command::new("prlimit");
            limited.arg(format!("--data={PHONE_BYTES}")).args(["taskset", "--cpu-list", "0"]);
            limited.arg(std::env::current_exe().unwrap());
            limited
        }
    };
    let output = command.arg(role).arg(db).arg(url).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{role} has failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The receiver's process.
pub(crate) fn receive(db: &Path, url: &str) {
    let replica = shapes::open(db);
    let begun = Instant::now();
    replica.connect(Relay::new(url)).unwrap();
    replica.sync_now().unwrap();
    let s = begun.elapsed().as_secs_f64();
    let pid = std::process::id();
    let (cpu_s, peak_mb) = (process_cpu_s(), peak_rss_mb(pid).unwrap_or_default());
    let digest = shapes::digest(&replica);
    drop(replica);
    let received = Received { s, cpu_s, peak_mb, file_bytes: replay::bytes_of(db), digest };
    println!("{}", serde_json::to_string(&received).unwrap());
}

/// A device that is connected while others write.
pub(crate) struct Follower {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

pub(crate) fn start_follower(db: &Path, url: &str, end: &Path) -> Follower {
    let mut command = again();
    command.arg("__follower").arg(db).arg(url).arg(end).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    output.read_line(&mut ready).unwrap();
    Follower { child, output }
}

impl Follower {
    /// Waits until it shows the end; otherwise what it shows after a while.
    pub(crate) fn wait(&mut self) -> Result<(), String> {
        // From here on its time runs.
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        _ = self.child.wait();
        match serde_json::from_str(&line).unwrap() {
            None => Ok(()),
            Some(text) => Err(text),
        }
    }
}

/// The follower's process.
pub(crate) fn follow(db: &Path, url: &str, end: &Path) {
    let end = std::fs::read_to_string(end).unwrap();
    let replica = replay::open(db);
    replica.connect(Relay::new(url)).unwrap();
    replica.sync_now().unwrap();
    println!("ready");
    _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let begun = Instant::now();
    let mut text = replay::shown(&replica);
    while text != end && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(2));
        text = replay::shown(&replica);
    }
    println!("{}", serde_json::to_string(&(text != end).then_some(text)).unwrap());
}
