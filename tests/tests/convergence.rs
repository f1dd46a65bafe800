//! Invariants C and O: equal heads, equal content, whatever the order of delivery and however often.

use std::collections::BTreeSet;
use std::time::Duration;

use motet::{Relay, Replica};
use motet_tests::shuffle::ShufflingRelay;
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use proptest::prelude::*;
use serde_json::json;

/// What a device does in one step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// Makes one of a few documents, or sets its title if it is there.
    Title {
        device: usize,
        document: usize,
        title: u8,
    },
    /// Types a word that occurs nowhere else into the text, at some place.
    Type {
        device: usize,
        document: usize,
        at: prop::sample::Index,
    },
    /// Writes the whole text anew, one line replaced.
    Replace {
        device: usize,
        document: usize,
        line: prop::sample::Index,
    },
    /// Sets a field of a nested object.
    Nested {
        device: usize,
        document: usize,
        key: u8,
    },
    Delete {
        device: usize,
        document: usize,
    },
    Sync {
        device: usize,
    },
}

fn step(devices: usize) -> impl Strategy<Value = Step> {
    let (device, document) = (0..devices, 0..3_usize);
    let index = any::<prop::sample::Index>();
    prop_oneof![
        3 => (device.clone(), document.clone(), any::<u8>())
            .prop_map(|(device, document, title)| Step::Title { device, document, title }),
        6 => (device.clone(), document.clone(), index.clone())
            .prop_map(|(device, document, at)| Step::Type { device, document, at }),
        2 => (device.clone(), document.clone(), index)
            .prop_map(|(device, document, line)| Step::Replace { device, document, line }),
        2 => (device.clone(), document.clone(), 0..3_u8)
            .prop_map(|(device, document, key)| Step::Nested { device, document, key }),
        1 => (device.clone(), document).prop_map(|(device, document)| Step::Delete { device, document }),
        4 => device.prop_map(|device| Step::Sync { device }),
    ]
}

fn history() -> impl Strategy<Value = (usize, Vec<Step>)> {
    (2..=5_usize).prop_flat_map(|devices| (Just(devices), prop::collection::vec(step(devices), 1..40)))
}

/// What must hold besides convergence: words that were typed and never removed are in the text, once.
#[derive(Default)]
struct Model {
    typed: BTreeSet<(usize, String)>,
    /// Documents of which a text was replaced or that were deleted: words may be gone.
    unsure: BTreeSet<usize>,
    words: usize,
}

impl Model {
    fn run(&mut self, replica: &Replica, device: usize, step: &Step) {
        let pieces = replica.documents("pieces");
        let id = |document: &usize| format!("d{document}");
        match step {
            Step::Title { document, title, .. } => {
                let value =
                    json!({ "title": format!("t{title}"), "lyrics": format!("first line of d{document}\n") });
                if pieces.get(&id(document)).unwrap().is_none() {
                    pieces.upsert(&id(document), &value).unwrap();
                } else {
                    pieces.patch(&id(document), &json!({ "title": format!("t{title}") })).unwrap();
                }
            }
            Step::Type { document, at, .. } => {
                let Some(piece) = pieces.get(&id(document)).unwrap() else { return };
                let len = piece["lyrics"].as_str().unwrap_or_default().chars().count();
                self.words += 1;
                let word = format!("‹ʻō{device}.{}›", self.words);
                pieces.document(&id(document)).splice_text("lyrics", at.index(len + 1), 0, &word).unwrap();
                self.typed.insert((*document, format!("{device}.{}", self.words)));
            }
            Step::Replace { document, line, .. } => {
                let Some(mut piece) = pieces.get(&id(document)).unwrap() else { return };
                let mut lines: Vec<String> =
                    piece["lyrics"].as_str().unwrap_or_default().lines().map(Into::into).collect();
                if !lines.is_empty() {
                    let at = line.index(lines.len());
                    lines[at] = format!("replaced by {device}");
                }
                piece["lyrics"] = (lines.join("\n") + "\n").into();
                pieces.update(&mut piece).unwrap();
                self.unsure.insert(*document);
            }
            Step::Nested { document, key, .. } => {
                if pieces.get(&id(document)).unwrap().is_some() {
                    let value = json!({ "meta": { format!("k{key}"): device } });
                    pieces.patch(&id(document), &value).unwrap();
                }
            }
            Step::Delete { document, .. } => {
                if pieces.delete(&id(document)).is_ok() {
                    self.unsure.insert(*document);
                }
            }
            Step::Sync { .. } => {}
        }
    }

    fn check(&self, replica: &Replica) {
        for (document, word) in self.typed.iter().filter(|(document, _)| !self.unsure.contains(document)) {
            let piece =
                replica.documents("pieces").get(&format!("d{document}")).unwrap().expect("never deleted");
            let letters: String = piece["lyrics"].as_str().unwrap().chars().collect();
            // Another word may have been typed into the middle of it, so it is looked for by its letters in order.
            let mut wanted = word.chars().peekable();
            letters.chars().for_each(|c| _ = wanted.next_if_eq(&c));
            assert!(wanted.peek().is_none(), "{word} is missing in {letters:?}");
        }
    }
}

fn device_of(step: &Step) -> usize {
    match step {
        Step::Title { device, .. }
        | Step::Type { device, .. }
        | Step::Replace { device, .. }
        | Step::Nested { device, .. }
        | Step::Delete { device, .. }
        | Step::Sync { device } => *device,
    }
}

/// Carries out a history; returns what must then be true of it.
fn play(steps: &[Step], replicas: &[Replica], url: &str) -> Model {
    let mut model = Model::default();
    for step in steps {
        let at = device_of(step);
        match step {
            Step::Sync { .. } => _ = sync(&replicas[at], url),
            step => model.run(&replicas[at], at, step),
        }
    }
    model
}

/// Syncs until nobody has anything to tell: whoever sees two lines of changes meet may reconcile them by a change, which the others
/// have to hear of.
fn settle(replicas: &[Replica], url: &str) {
    for _ in 0..8 {
        let sent: u64 = replicas.iter().map(|replica| sync(replica, url).sent).sum();
        if sent == 0 {
            return;
        }
    }
    panic!("devices go on sending to each other");
}

fn check_equal(replicas: &[Replica]) {
    let first = contents(&replicas[0]);
    for other in &replicas[1..] {
        assert_eq!(first, contents(other));
    }
    for replica in replicas {
        assert_eq!(replica.counts().unwrap().quarantined, 0);
        assert_eq!(replica.status().pending, 0);
    }
    let conflicts = |replica: &Replica| -> Vec<_> {
        let of = |id: &str| {
            replica.documents("pieces").document(id).conflicts().unwrap().into_iter().filter(|c| !c.settled)
        };
        let mut open: Vec<_> = (0..3)
            .flat_map(|d| of(&format!("d{d}")).map(move |c| (d, c.path, c.loser.to_string(), c.device)))
            .collect();
        open.sort();
        open
    };
    let first = conflicts(&replicas[0]);
    replicas[1..].iter().for_each(|other| assert_eq!(first, conflicts(other), "open conflicts"));
}

/// Cases and seeds can be set from outside: `PROPTEST_CASES`, `PROPTEST_RNG_SEED`.
fn config() -> ProptestConfig {
    let cases = motet_tests::random::runs(24);
    ProptestConfig { cases, max_shrink_iters: 200, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_histories_through_a_relay_converge((devices, steps) in history()) {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let replicas: Vec<_> = (0..devices).map(|i| device(dir.path(), &format!("device{i}"))).collect();
        let model = play(&steps, &replicas, &relay.url());
        settle(&replicas, &relay.url());
        check_equal(&replicas);
        model.check(&replicas[0]);
    }

    #[test]
    fn any_order_and_any_number_of_deliveries_converge((devices, steps) in history(), seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let relay = ShufflingRelay::start(seed);
        let replicas: Vec<_> = (0..devices).map(|i| device(dir.path(), &format!("device{i}"))).collect();
        let model = play(&steps, &replicas, &relay.url());
        for replica in &replicas {
            sync(replica, &relay.url());
        }
        // From now on everything is handed to everybody.
        relay.hold_back_nothing();
        settle(&replicas, &relay.url());
        check_equal(&replicas);
        model.check(&replicas[0]);
    }
}

#[test]
fn connected_devices_hear_of_changes_as_they_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    for replica in [&a, &b] {
        replica.connect(Relay::new(&relay.url())).unwrap();
        replica.sync_now().unwrap();
    }
    let id = a.documents("pieces").insert(&json!({ "lyrics": "live" })).unwrap();
    wait_until("the piece on b", Duration::from_secs(5), || {
        b.documents("pieces").get(&id).unwrap().is_some()
    });
    b.documents("pieces").document(&id).splice_text("lyrics", 4, 0, " and kicking").unwrap();
    wait_until("the edit on a", Duration::from_secs(5), || {
        a.documents("pieces").get(&id).unwrap().unwrap()["lyrics"] == "live and kicking"
    });
    wait_until("synced", Duration::from_secs(5), || a.status().state == motet::SyncState::Synced);
}
