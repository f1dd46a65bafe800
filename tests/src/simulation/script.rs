//! A short life that is always the same, for those who cut it off at every single call of a disk.

use std::collections::BTreeMap;
use std::time::Duration;

use motet::{Replica, simulation};
use motet_proto::EntryId;
use serde_json::json;

use super::disk::Disk;
use super::node::Node;
use super::relay::SimRelay;
use crate::random::Random;

const NOW: Duration = Duration::from_secs(1);

/// Steps of one exchange; it needs about a hundred.
const EXCHANGE_STEPS: usize = 5_000;

/// What was promised, and after how many calls of the disk.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// Marks that the device was told are saved, with their documents. `None` instead of a mark: the document is deleted.
    pub saved: Vec<(u64, String, Option<String>)>,
    /// Entries that the relay has acknowledged.
    pub acknowledged: Vec<(u64, EntryId)>,
}

struct Script {
    name: String,
    node: Node,
    relay: SimRelay,
    promises: Promises,
}

/// Plays the life on two disks, through whatever errors they have. `name` is its own among those that are played at a time.
pub fn play(name: &str, device: &Disk, relay: &Disk) -> Promises {
    simulation::begin(7);
    let node = Node::new("device".into(), "hana", &format!("{name}-device"), device.clone());
    let relay = SimRelay::on(format!("{name}-relay"), relay.clone());
    let mut script = Script { name: name.to_owned(), node, relay, promises: Promises::default() };
    script.play();
    simulation::end();
    script.promises
}

/// Opens what is left of a device and says what it shows: its marks by document.
///
/// # Errors
/// What is wrong with it.
pub fn inspect_device(name: &str, disk: &Disk) -> Result<BTreeMap<String, String>, String> {
    simulation::begin(8);
    let mut node = Node::new("device".into(), "hana", &format!("{name}-device"), disk.clone());
    check_file(&node.path())?;
    let replica = node.replica().map_err(|error| format!("it does not open: {error}"))?;
    simulation::catch_up(&replica).map_err(|error| error.to_string())?;
    let problems = replica.verify().map_err(|error| error.to_string())?.problems;
    if !problems.is_empty() {
        return Err(format!("{problems:?}"));
    }
    let list = replica.documents("pieces").list().map_err(|error| error.to_string())?;
    simulation::end();
    Ok(list.into_iter().map(|record| (record.id, record.value["marks"].to_string())).collect())
}

/// Opens what is left of a relay and says what its log holds.
///
/// # Errors
/// What is wrong with it.
pub fn inspect_relay(name: &str, disk: &Disk) -> Result<Vec<EntryId>, String> {
    let mut relay = SimRelay::on(format!("{name}-relay"), disk.clone());
    check_file(&relay.path())?;
    relay.start().map_err(|error| format!("it does not start: {error}"))?;
    let log = relay.log("hana").map_err(|error| error.to_string())?;
    if let Some(at) = log.iter().zip(1..).position(|((seq, _), n)| *seq != n) {
        return Err(format!("entry {at} has another number"));
    }
    Ok(log.into_iter().map(|(_, entry)| entry.id).collect())
}

impl Script {
    fn play(&mut self) {
        _ = self.relay.start();
        self.fill_relay();
        self.put("one", "a");
        self.put("two", "a");
        self.mark("one", "b");
        self.exchange();
        self.mark("two", "b");
        self.write_many();
        self.mark("one", "c");
        self.node.close();
        self.delete("two");
        self.exchange();
        self.mark("one", "d");
        self.put("three", "a");
        self.relay.stop();
        _ = self.relay.start();
        self.exchange();
        self.node.stop();
        self.relay.stop();
    }

    /// Another device has been there before, on a disk that is well.
    fn fill_relay(&mut self) {
        let disk = Disk::default();
        let mut other = Node::new("other".into(), "hana", &format!("{}-other", self.name), disk);
        let Ok(replica) = other.replica() else { return };
        for n in 0..6 {
            _ = replica
                .documents("pieces")
                .upsert(&format!("other{n}"), &json!({ "lyrics": "Ka pō nani\n" }));
        }
        exchange(&mut other, &mut self.relay, &mut self.promises.acknowledged);
    }

    fn replica(&mut self) -> Option<Replica> {
        self.node.replica().ok()
    }

    fn promise(&mut self, id: &str, mark: Option<&str>) {
        let calls = self.node.disk.calls();
        self.promises.saved.push((calls, id.to_owned(), mark.map(str::to_owned)));
    }

    fn put(&mut self, id: &str, mark: &str) {
        let Some(replica) = self.replica() else { return };
        let song = json!({ "marks": [mark], "lyrics": format!("<{mark}>\n"), "plays": 0 });
        if replica.documents("pieces").upsert(id, &song).is_ok() {
            self.promise(id, Some(mark));
        }
    }

    fn mark(&mut self, id: &str, mark: &str) {
        let Some(replica) = self.replica() else { return };
        let (document, written) = (id.to_owned(), mark.to_owned());
        let done = replica.transaction(move |tx| {
            let record = tx.documents("pieces").get(&document)?;
            let mut marks = record.map_or(json!([]), |record| record.value["marks"].clone());
            if let Some(marks) = marks.as_array_mut() {
                marks.push(json!(written));
            }
            tx.documents("pieces").patch(&document, &json!({ "marks": marks }))?;
            tx.documents("pieces").splice_text(&document, "lyrics", 0, 0, &format!("<{written}>\n"))
        });
        if done.is_ok() {
            self.promise(id, Some(mark));
        }
    }

    /// Several documents at once, all or none of them.
    fn write_many(&mut self) {
        let Some(replica) = self.replica() else { return };
        let done = replica.transaction(|tx| {
            let song = json!({ "marks": ["m"], "lyrics": "Hiki mai ka ʻelele o ka loko ʻino\n".repeat(40) });
            (0..5).try_for_each(|n| tx.documents("pieces").upsert(&format!("many{n}"), &song).map(drop))
        });
        if done.is_ok() {
            (0..5).for_each(|n| self.promise(&format!("many{n}"), Some("m")));
        }
    }

    fn delete(&mut self, id: &str) {
        let Some(replica) = self.replica() else { return };
        if replica.documents("pieces").delete(id).is_ok() {
            self.promise(id, None);
        }
    }

    fn exchange(&mut self) {
        exchange(&mut self.node, &mut self.relay, &mut self.promises.acknowledged);
    }
}

/// One session, until nothing is left to do or something fails.
fn exchange(node: &mut Node, relay: &mut SimRelay, acknowledged: &mut Vec<(u64, EntryId)>) {
    if !relay.is_up() && relay.start().is_err() {
        return;
    }
    let id = relay.accept("hana");
    if node.begin_session(id, NOW).is_ok() {
        // Steps take turns in an order that is always the same.
        let mut random = Random(1);
        for _ in 0..EXCHANGE_STEPS {
            let known = relay.acknowledged.values().map(std::collections::BTreeSet::len).sum::<usize>();
            let going = step(node, relay, id, &mut random);
            if relay.acknowledged.values().map(std::collections::BTreeSet::len).sum::<usize>() > known {
                let calls = relay.disk.calls();
                let all = relay.acknowledged.values().flatten();
                let fresh: Vec<_> =
                    all.filter(|id| !acknowledged.iter().any(|(_, known)| known == *id)).copied().collect();
                acknowledged.extend(fresh.into_iter().map(|id| (calls, id)));
            }
            if going.is_err() || going == Ok(false) {
                break;
            }
        }
    }
    (node.session, node.link) = (None, None);
    relay.drop_session(id);
}

/// False when both sides are quiet.
fn step(node: &mut Node, relay: &mut SimRelay, id: u64, random: &mut Random) -> Result<bool, ()> {
    let Some(session) = &mut node.session else { return Err(()) };
    let mut busy = session.work(random.below(8), NOW);
    while let Some(message) = session.poll_message() {
        relay.take(id, &motet_proto::frame::encode(&message));
        busy = true;
    }
    busy |= relay.work(random.below(8));
    if !session.is_saturated()
        && let Some(frame) = relay.poll_frame(id)
    {
        let message = motet_proto::frame::decode(&frame).map_err(drop)?;
        session.take(message, NOW);
        busy = true;
    }
    if session.ended().is_some() || !relay.is_open(id) {
        return Err(());
    }
    Ok(busy)
}

fn check_file(path: &std::path::Path) -> Result<(), String> {
    let Ok(conn) = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)
    else {
        // It was not even created.
        return Ok(());
    };
    let told: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(|error| format!("integrity_check: {error}"))?;
    if told == "ok" { Ok(()) } else { Err(format!("integrity_check: {told}")) }
}
