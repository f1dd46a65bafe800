//! Whole lives of a space, from a seed: devices that edit, restart, are copied and join late; a way to the relay that breaks;
//! a relay that is restarted, restored from a backup or wiped. In the end every write that returned is on every device, once
//! (invariants D, C, O, M, A, L).
//!
//! `MOTET_SEEDS=1000 cargo test --release -p motet-tests --test chaos` plays more of them; `MOTET_SEED` one again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use motet::{Relay, Replica, Transport};
use motet_relay::auth::Auth;
use motet_tests::proxy::{Faults, Proxy};
use motet_tests::random::{Random, seed};
use motet_tests::{TestRelay, contents, copy_folder, device, sync};
use serde_json::{Value, json};

/// Lives that are played unless `MOTET_SEEDS` says otherwise.
const LIVES: u64 = 12;

/// Things that happen in a life.
const STEPS: usize = 60;

/// Most devices of a space.
const DEVICES: usize = 6;

#[test]
fn whatever_happens_every_write_that_returned_is_everywhere_in_the_end() {
    let lives = motet_tests::random::runs(LIVES);
    let first = seed();
    let lives = if std::env::var("MOTET_SEED").is_ok() { 1 } else { lives };
    for n in 0..lives {
        let seed = first.wrapping_add(n);
        println!("life {seed}");
        Life::new(seed).play();
    }
}

struct Life {
    seed: u64,
    random: Random,
    dir: tempfile::TempDir,
    relay: Option<TestRelay>,
    port: u16,
    backups: Vec<PathBuf>,
    devices: Vec<Replica>,
    names: usize,
    /// What was written and returned: per document its marks in fields and in text.
    written: BTreeMap<String, Vec<String>>,
    marks: usize,
    log: Vec<String>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let port = relay.address().port();
        let mut life = Self {
            seed,
            random: Random(seed),
            dir,
            relay: Some(relay),
            port,
            backups: Vec::new(),
            devices: Vec::new(),
            names: 0,
            written: BTreeMap::new(),
            marks: 0,
            log: Vec::new(),
        };
        life.join();
        life.join();
        life
    }

    fn play(mut self) {
        for _ in 0..STEPS {
            let at = self.random.below(self.devices.len() as u64) as usize;
            match self.random.below(32) {
                0..=7 => self.edit(at),
                8..=9 => self.make(at, 1),
                10 => self.make(at, 45),
                11..=16 => self.sync_badly(at),
                17..=20 => self.sync_well(at),
                21..=22 => self.stay_connected(at),
                23..=24 => self.restart(at),
                25 => self.copy(at),
                26 => self.join(),
                27..=28 => self.restart_relay(None),
                29 => self.back_up_relay(),
                30 => self.restore_relay(),
                _ => self.restart_relay(Some(None)),
            }
        }
        self.settle();
    }

    fn settle(mut self) {
        let url = self.url();
        self.join();
        for _ in 0..3 {
            for replica in &self.devices {
                replica.disconnect();
                sync(replica, &url);
            }
        }
        let all = contents(&self.devices[0]);
        for replica in &self.devices {
            self.check(contents(replica) == all, replica, "it holds something else");
            let counts = replica.counts().unwrap();
            self.check(counts.quarantined == 0, replica, &format!("{:?}", replica.quarantined(5)));
            self.check(replica.status().pending == 0, replica, "something is pending");
            let problems = replica.verify().unwrap().problems;
            self.check(problems.is_empty(), replica, &format!("{problems:?}"));
        }
        let shown: BTreeMap<&str, &Value> = all.iter().map(|(_, id, _, v)| (id.as_str(), v)).collect();
        let first = &self.devices[0];
        for (id, marks) in &self.written {
            let Some(document) = shown.get(id.as_str()) else {
                return self.check(false, first, &format!("{id} is lost"));
            };
            let lyrics = document["lyrics"].as_str().unwrap();
            for mark in marks {
                self.check(document[mark] == true, first, &format!("{mark} of {id} is lost"));
                let times = lyrics.matches(&format!("<{mark}>")).count();
                self.check(times == 1, first, &format!("{mark} stands {times} times in the text of {id}"));
            }
        }
    }

    fn check(&self, holds: bool, replica: &Replica, what: &str) {
        assert!(holds, "seed {}: {}: {what}\n{}", self.seed, replica.device_name(), self.log.join("\n"));
    }

    fn say(&mut self, what: String) {
        self.log.push(what);
    }

    fn url(&self) -> String {
        self.relay.as_ref().unwrap().url()
    }

    fn mark(&mut self) -> String {
        self.marks += 1;
        format!("m{}", self.marks)
    }

    /// Writes a mark into a field and into the text of a document that the device knows.
    fn edit(&mut self, at: usize) {
        let pieces = self.devices[at].documents("pieces");
        let known = pieces.list().unwrap();
        if known.is_empty() {
            return;
        }
        let id = known[self.random.below(known.len() as u64) as usize].id.clone();
        let mark = self.mark();
        let lyrics =
            known.iter().find(|r| r.id == id).unwrap().value["lyrics"].as_str().unwrap().chars().count();
        let place = self.random.below(lyrics as u64 + 1) as usize;
        pieces.patch(&id, &json!({ mark.as_str(): true })).unwrap();
        // Marks are not torn by other marks: they go to the end or the start of a line.
        let text = known.iter().find(|r| r.id == id).unwrap().value["lyrics"].as_str().unwrap().to_owned();
        let line = text
            .chars()
            .take(place)
            .collect::<String>()
            .rfind('\n')
            .map_or(0, |i| text[..=i].chars().count());
        pieces.document(&id).splice_text("lyrics", line, 0, &format!("<{mark}>\n")).unwrap();
        self.say(format!("{} edits {id} with {mark}", self.devices[at].device_name()));
        self.written.entry(id).or_default().push(mark);
    }

    fn make(&mut self, at: usize, count: usize) {
        let mut songs = Vec::new();
        for _ in 0..count {
            let mark = self.mark();
            let verse = "Hiki mai ka ʻelele o ka loko ʻino\n".repeat(self.random.below(20) as usize);
            let song = json!({ "title": mark, mark.as_str(): true, "lyrics": format!("<{mark}>\n{verse}") });
            self.written.insert(format!("d{mark}"), vec![mark.clone()]);
            songs.push((format!("d{mark}"), song));
        }
        self.say(format!(
            "{} makes {} to {}",
            self.devices[at].device_name(),
            songs[0].0,
            songs[count - 1].0
        ));
        let put = move |tx: &mut motet::Transaction<'_>| {
            songs.iter().try_for_each(|(id, song)| tx.documents("pieces").upsert(id, song).map(drop))
        };
        self.devices[at].transaction(put).unwrap();
    }

    /// One round over a way that breaks; it may fail, and is given up half-way.
    fn sync_badly(&mut self, at: usize) {
        let (resets, flips) = (self.random.below(500), self.random.below(2) * 50);
        let faults = Faults {
            resets,
            flips,
            latency: Duration::from_millis(self.random.below(4)),
            ..Faults::default()
        };
        let proxy = Proxy::start(self.relay.as_ref().unwrap().address(), faults, self.random.below(u64::MAX));
        let transport = [Transport::WebSocket, Transport::Post][self.random.below(2) as usize];
        let patience = Duration::from_millis(self.random.below(120));
        let replica = &self.devices[at];
        replica.connect(Relay::new(&proxy.url()).transport(transport)).unwrap();
        let outcome = replica.on_background(patience).map(drop).map_err(|error| error.to_string());
        replica.disconnect();
        self.say(format!("{} syncs badly over {transport:?}: {outcome:?}", self.devices[at].device_name()));
    }

    fn sync_well(&mut self, at: usize) {
        self.say(format!("{} syncs", self.devices[at].device_name()));
        sync(&self.devices[at], &self.url());
    }

    fn stay_connected(&mut self, at: usize) {
        self.say(format!("{} stays connected", self.devices[at].device_name()));
        self.devices[at].connect(Relay::new(&self.url())).unwrap();
    }

    fn restart(&mut self, at: usize) {
        let name = self.devices[at].device_name().to_owned();
        self.say(format!("{name} restarts"));
        drop(self.devices.remove(at));
        self.devices.insert(at, device(self.dir.path(), &name));
    }

    /// The file is copied, edits that were not sent among the rest; original and copy both go on.
    fn copy(&mut self, at: usize) {
        if self.devices.len() >= DEVICES {
            return;
        }
        self.names += 1;
        let name = format!("copy{}", self.names);
        self.say(format!("{} is copied to {name}", self.devices[at].device_name()));
        self.devices[at].backup(self.dir.path().join(format!("{name}.db"))).unwrap();
        self.devices.push(device(self.dir.path(), &name));
    }

    fn join(&mut self) {
        if self.devices.len() >= DEVICES {
            return;
        }
        self.names += 1;
        let name = format!("device{}", self.names);
        self.say(format!("{name} joins"));
        self.devices.push(device(self.dir.path(), &name));
    }

    /// `Some(Some(backup))`: restored from it; `Some(None)`: wiped.
    fn restart_relay(&mut self, log: Option<Option<PathBuf>>) {
        self.say(format!("the relay is restarted: {log:?}"));
        self.relay = None;
        let data = self.dir.path().join("relay");
        if let Some(backup) = log {
            std::fs::remove_dir_all(&data).unwrap();
            std::fs::create_dir(&data).unwrap();
            if let Some(backup) = backup {
                copy_folder(&backup, &data);
            }
        }
        self.relay = Some(TestRelay::start_with(&data, Auth::Local, self.port));
    }

    fn back_up_relay(&mut self) {
        self.relay = None;
        let backup = self.dir.path().join(format!("relay backup {}", self.backups.len()));
        copy_folder(&self.dir.path().join("relay"), &backup);
        self.backups.push(backup);
        self.restart_relay(None);
    }

    fn restore_relay(&mut self) {
        if self.backups.is_empty() {
            return;
        }
        let backup = self.backups[self.random.below(self.backups.len() as u64) as usize].clone();
        self.restart_relay(Some(Some(backup)));
    }
}
