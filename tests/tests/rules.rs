//! Every rule of merging, against a model that knows who knew what: random histories on 2-5 devices whose clocks are
//! years apart. After every step the acting device must show exactly what the rules say.

use std::collections::{BTreeMap, BTreeSet};

use motet::{DeletePolicy, Field, FieldKind, Replica, Schema, WriteError};
use motet_tests::{TestRelay, sync};
use proptest::prelude::*;
use serde_json::{Value, json};

const RANKS: [&str; 5] = ["draft", "queued", "processing", "submitted", "completed"];
const TAGS: [&str; 3] = ["hula", "mele ʻohana", "kahiko"];

#[derive(Clone, Debug)]
enum Act {
    Title,
    Rank(usize),
    Ask,
    Count(i64),
    Add(usize),
    Remove(usize),
    Delete,
    Restore,
    Sync,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Title),
        3 => (0..RANKS.len()).prop_map(Act::Rank),
        2 => Just(Act::Ask),
        3 => (-5..20_i64).prop_map(Act::Count),
        2 => (0..TAGS.len()).prop_map(Act::Add),
        2 => (0..TAGS.len()).prop_map(Act::Remove),
        1 => Just(Act::Delete),
        1 => Just(Act::Restore),
        5 => Just(Act::Sync),
    ]
}

fn history() -> impl Strategy<Value = (usize, Vec<(usize, Act)>)> {
    (2..=5_usize).prop_flat_map(|devices| (Just(devices), prop::collection::vec((0..devices, act()), 1..50)))
}

/// One write, and what its device knew when it made it.
#[derive(Clone, Debug)]
struct Write {
    act: Act,
    value: Value,
    knew: BTreeSet<usize>,
    /// By the clock of its device, and later than all that it knew.
    time: i64,
}

/// All writes, and who has which of them.
struct Model {
    writes: Vec<Write>,
    devices: Vec<BTreeSet<usize>>,
    relay: BTreeSet<usize>,
    delete: DeletePolicy,
}

/// What a device must show.
#[derive(Debug)]
struct Expected {
    deleted: bool,
    count: i64,
    tags: BTreeSet<String>,
    rank: BTreeSet<String>,
    titles: BTreeSet<String>,
    /// The titles of the latest of the concurrent writes: one, unless two are of one millisecond.
    latest_titles: BTreeSet<String>,
    asks: BTreeSet<String>,
}

impl Model {
    fn expected(&self, device: usize) -> Expected {
        let known = &self.devices[device];
        let of = |is: fn(&Act) -> bool| known.iter().copied().filter(move |w| is(&self.writes[*w].act));
        let unseen_by = |w: usize, others: &BTreeSet<usize>| {
            !others.iter().any(|other| self.writes[*other].knew.contains(&w))
        };
        let current = |is: fn(&Act) -> bool| -> BTreeSet<String> {
            let all: BTreeSet<usize> = of(is).collect();
            let current = all.iter().filter(|w| unseen_by(**w, &all));
            current.map(|w| self.writes[*w].value.as_str().unwrap().to_owned()).collect()
        };
        let tombstones: BTreeSet<usize> = of(|act| matches!(act, Act::Delete)).collect();
        let restored: BTreeSet<usize> = of(|act| matches!(act, Act::Restore)).collect();
        let mut heads = known.iter().filter(|w| unseen_by(**w, known));
        let mut standing = tombstones.iter().filter(|tombstone| unseen_by(**tombstone, &restored));
        let deleted = match self.delete {
            DeletePolicy::EditWins => heads.all(|head| tombstones.contains(head)),
            DeletePolicy::Wins => standing.next().is_some(),
            DeletePolicy::Latest => standing.any(|tombstone| {
                let tombstone = &self.writes[*tombstone];
                let mut unseen = known.difference(&tombstones).filter(|w| !tombstone.knew.contains(w));
                unseen.all(|w| self.writes[*w].time < tombstone.time)
            }),
            policy => panic!("the model does not know {policy:?}"),
        };
        let mut tags = BTreeSet::new();
        for (i, tag) in TAGS.iter().enumerate() {
            let touching = |wanted: fn(&Act) -> Option<usize>| -> BTreeSet<usize> {
                known.iter().copied().filter(|w| wanted(&self.writes[*w].act) == Some(i)).collect()
            };
            let removals = touching(|act| if let Act::Remove(tag) = act { Some(*tag) } else { None });
            let adds = touching(|act| if let Act::Add(tag) = act { Some(*tag) } else { None });
            if adds.iter().any(|add| unseen_by(*add, &removals)) {
                tags.insert((*tag).to_owned());
            }
        }
        Expected {
            deleted,
            count: of(|act| matches!(act, Act::Count(_)))
                .map(|w| self.writes[w].value.as_i64().unwrap())
                .sum(),
            tags,
            rank: current(|act| matches!(act, Act::Rank(_))),
            titles: current(|act| matches!(act, Act::Title)),
            latest_titles: {
                let all: BTreeSet<usize> = of(|act| matches!(act, Act::Title)).collect();
                let current = all.iter().filter(|w| unseen_by(**w, &all)).map(|w| &self.writes[*w]);
                let latest = current.clone().map(|write| write.time).max();
                let latest = current.filter(|write| Some(write.time) == latest);
                latest.map(|write| write.value.as_str().unwrap().to_owned()).collect()
            },
            asks: current(|act| matches!(act, Act::Ask)),
        }
    }

    fn note(&mut self, device: usize, act: &Act, value: Value) {
        let knew = self.devices[device].clone();
        let seen = knew.iter().map(|w| self.writes[*w].time + 1).max();
        let time = clock(device).max(seen.unwrap_or_default());
        self.writes.push(Write { act: act.clone(), value, knew, time });
        self.devices[device].insert(self.writes.len() - 1);
    }

    /// Carries out one step on the replica and on the model.
    fn step(&mut self, replica: &Replica, device: usize, act: &Act, collection: &str, url: &str) {
        if let Act::Sync = act {
            sync(replica, url);
            self.relay.extend(&self.devices[device]);
            self.devices[device] = self.relay.clone();
            return;
        }
        let things = replica.documents(collection);
        let before = self.expected(device);
        let unique = format!("ʻ{}", self.writes.len());
        match act {
            Act::Restore if before.deleted => {
                things.document("d").restore().unwrap();
                self.note(device, act, Value::Null);
            }
            Act::Restore => {
                assert!(matches!(things.document("d").restore(), Err(WriteError::NotFound { .. })))
            }
            Act::Delete if before.deleted => {
                assert!(matches!(things.delete("d"), Err(WriteError::NotFound { .. })));
            }
            _ if before.deleted => {}
            Act::Delete => {
                things.delete("d").unwrap();
                self.note(device, act, Value::Null);
            }
            Act::Title => {
                things.patch("d", &json!({ "title": unique })).unwrap();
                self.note(device, act, unique.into());
            }
            Act::Ask if before.asks.len() > 1 => {
                let refused = things.patch("d", &json!({ "choice": unique })).unwrap_err();
                assert!(matches!(refused, WriteError::Contested { .. }), "{refused}");
            }
            Act::Ask => {
                things.patch("d", &json!({ "choice": unique })).unwrap();
                self.note(device, act, unique.into());
            }
            Act::Rank(rank) => {
                let shown = highest(&before.rank);
                things.patch("d", &json!({ "status": RANKS[*rank] })).unwrap();
                // Writing what shows already is no write.
                if shown.as_deref() != Some(RANKS[*rank]) {
                    self.note(device, act, RANKS[*rank].into());
                }
            }
            Act::Count(by) => {
                things.document("d").increment("count", *by).unwrap();
                self.note(device, act, (*by).into());
            }
            Act::Add(tag) => {
                let (name, tag) = (collection.to_owned(), *tag);
                replica
                    .transaction(move |tx| tx.documents(&name).add_to_set("d", "tags", &[json!(TAGS[tag])]))
                    .unwrap();
                self.note(device, act, Value::Null);
            }
            Act::Remove(tag) => {
                let (name, i) = (collection.to_owned(), *tag);
                replica
                    .transaction(move |tx| {
                        tx.documents(&name).remove_from_set("d", "tags", &[json!(TAGS[i])])
                    })
                    .unwrap();
                // Taking out what is not in it is no write.
                if before.tags.contains(TAGS[*tag]) {
                    self.note(device, act, Value::Null);
                }
            }
            Act::Sync => unreachable!(),
        }
    }

    fn check(&self, replica: &Replica, device: usize, collection: &str) {
        let expected = self.expected(device);
        let things = replica.documents(collection);
        let shown = things.get("d").unwrap();
        assert_eq!(shown.is_none(), expected.deleted, "deleted on {device}");
        let Some(shown) = shown else {
            assert_eq!(things.trash().unwrap().len(), 1);
            return;
        };
        assert_eq!(shown["count"].as_i64().unwrap_or(0), expected.count, "a counter adds up");
        let tags: BTreeSet<String> = serde_json::from_value(shown["tags"].clone()).unwrap();
        assert_eq!(tags, expected.tags, "adds survive");
        assert_eq!(shown["status"].as_str().map(Into::into), highest(&expected.rank), "a rank never falls");
        let title = shown["title"].as_str();
        assert!(
            title.map_or(expected.titles.is_empty(), |title| expected.latest_titles.contains(title)),
            "{title:?}"
        );
        // Every loser is listed once, and the winner never.
        let mut losers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let journal = replica.documents(collection).document("d").conflicts().unwrap();
        // What a rank has decided is in the journal and asks nothing of anybody.
        let ranks: Vec<_> = journal.iter().filter(|c| c.path == "/status").collect();
        assert!(ranks.iter().all(|conflict| conflict.settled));
        for lower in expected.rank.iter().filter(|rank| Some(rank.as_str()) != shown["status"].as_str()) {
            assert!(ranks.iter().any(|conflict| conflict.loser == *lower.as_str()), "{lower} is not listed");
        }
        for conflict in journal.iter().filter(|c| !c.settled) {
            let loser = conflict.loser.as_str().unwrap().to_owned();
            losers.entry(conflict.path.clone()).or_default().push(loser);
        }
        for (field, current) in [("title", &expected.titles), ("choice", &expected.asks)] {
            let mut listed = losers.remove(&format!("/{field}")).unwrap_or_default();
            listed.sort();
            let winner = shown[field].as_str();
            let expected: Vec<String> =
                current.iter().filter(|value| Some(value.as_str()) != winner).cloned().collect();
            assert!(winner.is_none_or(|winner| current.contains(winner)), "{field} shows {winner:?}");
            listed.dedup();
            assert_eq!(listed, expected, "losers of {field}");
        }
        assert!(losers.is_empty(), "{losers:?}");
    }
}

fn highest(values: &BTreeSet<String>) -> Option<String> {
    values.iter().max_by_key(|value| RANKS.iter().position(|rank| rank == value)).cloned()
}

fn schema(collection: &str, delete: DeletePolicy) -> Schema {
    Schema::new()
        .field(collection, "status", Field::rank(RANKS))
        .field(collection, "choice", FieldKind::Ask)
        .field(collection, "count", FieldKind::Counter)
        .field(collection, "tags", FieldKind::Set)
        .delete(collection, delete)
}

/// Ten years apart, the first device being the most behind; all stand still.
fn clock(device: usize) -> i64 {
    1_700_000_000_000 + (device as i64 - 1) * 10 * 365 * 86_400_000
}

fn play(devices: usize, steps: &[(usize, Act)], collection: &str, delete: DeletePolicy) {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let replicas: Vec<Replica> = (0..devices)
        .map(|i| {
            let now = move || clock(i);
            let path = dir.path().join(format!("{i}.db"));
            let replica =
                Replica::builder(path).device_name(&format!("device {i}")).clock(now).open().unwrap();
            replica.apply_schema(&schema(collection, delete)).unwrap();
            replica
        })
        .collect();
    let create = Write { act: Act::Sync, value: Value::Null, knew: BTreeSet::new(), time: clock(0) };
    replicas[0].documents(collection).upsert("d", &json!({ "tags": [] })).unwrap();
    let mut model = Model {
        writes: vec![create],
        devices: vec![BTreeSet::from([0]); devices],
        relay: BTreeSet::from([0]),
        delete,
    };
    replicas.iter().for_each(|replica| _ = sync(replica, &relay.url()));
    for (device, act) in steps {
        model.step(&replicas[*device], *device, act, collection, &relay.url());
        model.check(&replicas[*device], *device, collection);
    }
    for _ in 0..2 {
        for (device, replica) in replicas.iter().enumerate() {
            model.step(replica, device, &Act::Sync, collection, &relay.url());
        }
    }
    let shown = |replica: &Replica| {
        let mut losers: Vec<_> = replica.documents(collection).document("d").conflicts().unwrap();
        losers.retain(|conflict| !conflict.settled);
        losers.sort_by(|a, b| (&a.path, &a.loser_id).cmp(&(&b.path, &b.loser_id)));
        let shown = replica.documents(collection).get("d").unwrap();
        (shown.map(|record| (record.version.to_string(), record.value)), losers)
    };
    for (device, replica) in replicas.iter().enumerate() {
        model.check(replica, device, collection);
        assert_eq!(shown(replica), shown(&replicas[0]), "all devices agree");
    }
}

fn config() -> ProptestConfig {
    let cases = motet_tests::random::runs(40);
    ProptestConfig { cases, max_shrink_iters: 300, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_rule_holds((devices, steps) in history()) {
        play(devices, &steps, "things", DeletePolicy::EditWins);
    }

    #[test]
    fn every_rule_holds_where_deletes_win((devices, steps) in history()) {
        play(devices, &steps, "things", DeletePolicy::Wins);
    }

    #[test]
    fn every_rule_holds_where_the_latest_wins((devices, steps) in history()) {
        play(devices, &steps, "things", DeletePolicy::Latest);
    }
}

#[test]
fn an_element_that_is_added_again_survives_that_another_device_takes_it_out() {
    let steps = [
        (0, Act::Add(1)),
        (0, Act::Sync),
        (0, Act::Add(1)),
        (1, Act::Sync),
        (1, Act::Remove(1)),
        (0, Act::Sync),
    ];
    play(2, &steps, "things", DeletePolicy::EditWins);
}

#[test]
fn a_value_chosen_among_concurrent_ones_is_a_write_of_its_own() {
    let steps = [
        (1, Act::Rank(0)),
        (0, Act::Rank(3)),
        (1, Act::Sync),
        (0, Act::Sync),
        (2, Act::Sync),
        (2, Act::Rank(2)),
        (1, Act::Sync),
        (1, Act::Rank(0)),
    ];
    play(3, &steps, "things", DeletePolicy::EditWins);
}
