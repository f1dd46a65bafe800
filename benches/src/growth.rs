//! What a device receives, twice as much of it each time: how the time grows. Twice as much that takes twice as long is linear.
//!
//! The changes come from a stranger who makes them by hand, as many as one entry holds, or from another device. Each is received by a
//! fresh device from a real relay.

use std::path::Path;
use std::time::Instant;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ROOT};
use clap::Parser;
use motet::{DeletePolicy, FieldKind, Relay, Replica, Schema, SyncMode, SyncPolicy};
use motet_benches::attack::{Peer, stranger};
use motet_benches::relay::{RelayProcess, again, serve};
use motet_proto::Kind;
use serde_json::json;

const COLLECTION: &str = "pieces";

/// How often the number is doubled.
const DOUBLED: u32 = 4;

/// How the time to receive something grows with how much it is.
#[derive(Parser)]
struct Args {
    /// The smallest number; each further one is twice the one before
    #[arg(long, default_value_t = 1_000)]
    first: usize,
    /// Only what has this in its name
    #[arg(long)]
    only: Option<String>,
    /// Folder of a relay: this is its process
    #[arg(long, hide = true)]
    relay: Option<std::path::PathBuf>,
}

/// Something to receive.
struct Load {
    what: &'static str,
    /// Beside the others, as each costs more.
    share: usize,
    send: fn(&Place, usize),
}

const LOADS: [Load; 7] = [
    Load { what: "a chain of changes, in order", share: 1, send: |at, n| at.push(&chain(n)) },
    Load {
        what: "a chain of changes, in reverse order",
        share: 1,
        send: |at, n| {
            let mut changes = chain(n);
            changes.reverse();
            at.push(&changes);
        },
    },
    Load { what: "concurrent changes of one field", share: 16, send: |at, n| at.push(&crowd(n)) },
    Load { what: "delete and restore in turn", share: 1, send: deletes },
    Load { what: "edits of a text, one by one", share: 1, send: edits },
    Load { what: "the same, beside as many of another device", share: 1, send: beside },
    Load { what: "items put into a list", share: 4, send: items },
];

fn main() {
    let args = Args::parse();
    if let Some(data) = &args.relay {
        return serve(motet_relay::Config::new(data));
    }
    println!(
        "{:<46} {:>8} {:>16} {:>16} {:>12}",
        "", "changes", "made: s, growth", "received: s", "us of each"
    );
    let is_meant = |load: &&Load| args.only.as_deref().is_none_or(|only| load.what.contains(only));
    for load in LOADS.iter().filter(is_meant) {
        let mut before = None;
        for doubled in 0..=DOUBLED {
            let count = (args.first << doubled) / load.share;
            let now = receive(load, count);
            let [made, received] = [0, 1].map(|side| {
                let growth = before
                    .map_or(String::new(), |before: [f64; 2]| format!("{:.2}x", now[side] / before[side]));
                format!("{:.3} {growth:>6}", now[side])
            });
            let each = now[1] / count as f64 * 1e6;
            println!("{:<46} {count:>8} {made:>16} {received:>16} {each:>12.0}", load.what);
            before = Some(now);
        }
    }
}

/// Seconds until it was made and sent, and until a fresh device has received it all.
fn receive(load: &Load, count: usize) -> [f64; 2] {
    let folder = tempfile::tempdir().unwrap();
    let relay = RelayProcess::start(again().arg("--relay").arg(folder.path().join("relay")));
    let place = Place { folder: folder.path(), relay };
    let begun = Instant::now();
    (load.send)(&place, count);
    let made = begun.elapsed().as_secs_f64();
    let device = place.device("receiver");
    let begun = Instant::now();
    device.sync_now().unwrap();
    assert!(device.quarantined(1).unwrap().is_empty());
    assert!(device.documents(COLLECTION).get("1").unwrap().is_some());
    [made, begun.elapsed().as_secs_f64()]
}

/// A relay and a folder for the devices.
struct Place<'f> {
    folder: &'f Path,
    relay: RelayProcess,
}

impl Place<'_> {
    /// A device that syncs when it is told to.
    fn device(&self, name: &str) -> Replica {
        let replica = Replica::builder(self.folder.join(name)).device_name(name).open().unwrap();
        let schema = Schema::new()
            .text(COLLECTION, "lyrics")
            .field(COLLECTION, "verses", FieldKind::List)
            .delete(COLLECTION, DeletePolicy::Wins);
        replica.apply_schema(&schema).unwrap();
        replica.set_sync_policy(SyncPolicy { mode: SyncMode::Manual, ..SyncPolicy::default() }).unwrap();
        replica.connect(Relay::new(&self.relay.url())).unwrap();
        replica
    }

    /// Sends changes of the document as one entry.
    fn push(&self, changes: &[Change]) {
        let body = changes.iter().flat_map(|change| change.raw_bytes().to_vec()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut peer = Peer::welcome(&self.relay.address, None, 9).await;
            peer.push(vec![stranger(COLLECTION, "1", Kind::Changes, body)]).await.unwrap();
        });
    }
}

/// Each change writes the title anew, on top of the one before.
fn chain(count: usize) -> Vec<Change> {
    let mut document = Automerge::new();
    for n in 0..count {
        write_title(&mut document, n);
    }
    document.get_changes(&[])
}

/// Each change writes the title, and knows of none of the others.
fn crowd(count: usize) -> Vec<Change> {
    let mut base = Automerge::new();
    write_title(&mut base, 0);
    let first = base.get_heads();
    let mut changes = base.get_changes(&[]);
    for n in 1..count {
        let mut fork = base.clone();
        fork.set_actor(ActorId::from(format!("actor {n:010}").as_bytes()));
        write_title(&mut fork, n);
        changes.extend(fork.get_changes(&first));
    }
    changes
}

fn write_title(document: &mut Automerge, n: usize) {
    let mut tx = document.transaction();
    tx.put(ROOT, "title", format!("mele {n}")).unwrap();
    tx.commit_with(CommitOptions::default().with_time(n as i64));
}

fn deletes(place: &Place<'_>, count: usize) {
    let device = place.device("a");
    let pieces = device.documents(COLLECTION);
    pieces.upsert("1", &json!({ "lyrics": "E hoʻi ke aloha" })).unwrap();
    for _ in 0..count / 2 {
        pieces.delete("1").unwrap();
        pieces.document("1").restore().unwrap();
    }
    device.sync_now().unwrap();
}

/// Each edit writes another line of a text that keeps its length.
fn edits(place: &Place<'_>, count: usize) {
    let device = place.device("a");
    begin(&device);
    write_lines(&device, count, "a");
    device.sync_now().unwrap();
}

fn beside(place: &Place<'_>, count: usize) {
    let devices = ["a", "b"].map(|name| place.device(name));
    begin(&devices[0]);
    devices.iter().for_each(|device| _ = device.sync_now().unwrap());
    for (device, name) in devices.iter().zip(["a", "b"]) {
        write_lines(device, count / 2, name);
    }
    devices.iter().for_each(|device| _ = device.sync_now().unwrap());
}

fn begin(device: &Replica) {
    device.documents(COLLECTION).upsert("1", &json!({ "lyrics": first_lines().join("\n") })).unwrap();
    device.sync_now().unwrap();
}

fn first_lines() -> Vec<String> {
    (0..24).map(|n| format!("line {n}")).collect()
}

fn write_lines(device: &Replica, count: usize, who: &str) {
    let pieces = device.documents(COLLECTION);
    let mut lines = first_lines();
    for n in 0..count {
        let at = n % lines.len();
        lines[at] = format!("line {at} of {who}, {n}");
        pieces.patch("1", &json!({ "lyrics": lines.join("\n") })).unwrap();
    }
}

fn items(place: &Place<'_>, count: usize) {
    let device = place.device("a");
    let pieces = device.documents(COLLECTION);
    let mut verses = Vec::new();
    pieces.upsert("1", &json!({ "verses": verses })).unwrap();
    for n in 0..count {
        verses.push(json!(format!("verse {n}")));
        pieces.patch("1", &json!({ "verses": verses })).unwrap();
    }
    device.sync_now().unwrap();
}
