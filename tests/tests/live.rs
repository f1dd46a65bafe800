//! Live queries: after every step what they show is what the query finds.

use std::time::{Duration, Instant};

use motet::{Field, Filter, LiveQuery, Order, Query, Replica, Schema, field};
use motet_tests::random::{Random, seed};
use motet_tests::{TestRelay, sync};
use serde_json::{Value, json};

/// Lives that are played; a step is followed by a look at every query.
const RUNS: u64 = 4;
const STEPS: u64 = 40;

fn queries() -> Vec<Query> {
    let hula = || field("category").eq("hula");
    vec![
        Query::new(),
        Query::new().filter(hula()).order_by("title").limit(3),
        Query::new().filter(hula()).order_by("title").limit(3).offset(2),
        Query::new().order("title", Order::Descending).offset(1).limit(2),
        Query::new().filter(Filter::Pending),
        Query::new().filter(Filter::Not(Box::new(Filter::Pending))).limit(2).offset(1),
        Query::new().filter(Filter::Conflicted),
        Query::new().filter(Filter::Any(vec![Filter::Pending, field("rank").eq("done")])).order_by("rank"),
        Query::new().filter(field("name").eq("b")),
    ]
}

/// Takes up what there is to be heard.
fn settle(live: &mut LiveQuery<Value>) {
    loop {
        let mut next = Box::pin(live.next());
        match next.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(changed) => _ = changed.unwrap(),
            std::task::Poll::Pending => return,
        }
    }
}

fn shown<'r>(records: impl IntoIterator<Item = &'r motet::Record<Value>>) -> Vec<(String, String, Value)> {
    records.into_iter().map(|r| (r.id.clone(), r.version.to_string(), r.value.clone())).collect()
}

fn document(random: &mut Random) -> Value {
    let mut one = |of: &[&'static str]| of[random.below(of.len() as u64) as usize];
    let (title, category) = (one(&["a", "b", "c", "d"]), one(&["hula", "mele"]));
    json!({ "title": title, "category": category, "rank": one(&["draft", "done"]), "old": one(&["a", "b"]) })
}

struct World {
    a: Replica,
    /// A replica of its own on the file of `a`: what another process has.
    beside: Replica,
    b: Replica,
    url: String,
    random: Random,
}

impl World {
    /// Does something; what it did, for people.
    fn step(&mut self) -> &'static str {
        let Self { a, beside, b, url, random } = self;
        let id = random.below(9).to_string();
        let (title, category) = (random.below(4).to_string(), ["hula", "mele"][random.below(2) as usize]);
        match random.below(14) {
            0..4 => {
                a.documents("songs").upsert(&id, &document(random)).unwrap();
                "put"
            }
            4 => {
                _ = a.documents("songs").patch(&id, &json!({ "title": title, "category": category }));
                "set"
            }
            5..7 => {
                _ = a.documents("songs").delete(&id);
                "delete"
            }
            7 => {
                _ = a.documents("songs").document(&id).restore();
                "restore"
            }
            8 => {
                beside.documents("songs").upsert(&id, &document(random)).unwrap();
                "put beside"
            }
            9 => {
                _ = beside.documents("songs").delete(&id);
                "delete beside"
            }
            10 => {
                b.documents("songs").upsert(&id, &document(random)).unwrap();
                sync(b, url);
                "put elsewhere"
            }
            11 => {
                sync(a, url);
                "sync"
            }
            12 => {
                sync(beside, url);
                "sync beside"
            }
            _ => {
                let schemas = [
                    Schema::new().field("songs", "rank", Field::rank(["done", "draft"])),
                    Schema::new().field("songs", "rank", Field::rank(["draft", "done"])),
                    Schema::new().field("songs", "name", Field::register().alias("old")),
                    Schema::new().index("songs", ["category", "title"]),
                ];
                let by = if random.below(2) == 0 { a } else { beside };
                by.apply_schema(&schemas[random.below(4) as usize]).unwrap();
                "schema"
            }
        }
    }
}

fn play(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let open = |name: &str| Replica::open(dir.path().join(name)).unwrap();
    let (a, beside, b) = (open("a.db"), open("a.db"), open("b.db"));
    sync(&a, &relay.url());
    let mut live: Vec<_> = queries()
        .into_iter()
        .map(|query| (a.documents("songs").live(query.clone()).unwrap(), query))
        .collect();
    let mut world = World { a: a.clone(), beside, b, url: relay.url(), random: Random(seed) };
    let mut steps = Vec::new();
    for _ in 0..STEPS {
        steps.push(world.step());
        // A transaction sees what another process wrote; else it is looked for twice a second.
        a.set_setting("seen", Some("x")).unwrap();
        for (live, query) in &mut live {
            let limit = Instant::now() + Duration::from_secs(5);
            loop {
                settle(live);
                let fresh = a.documents("songs").find(query).unwrap();
                if shown(live.results()) == shown(&fresh) {
                    break;
                }
                assert!(
                    Instant::now() < limit,
                    "seed {seed}, {query:?} after {steps:?}\nlive:  {:#?}\nfresh: {:#?}",
                    shown(live.results()),
                    shown(&fresh)
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn a_live_query_shows_what_a_fresh_one_finds() {
    let seed = seed();
    (0..RUNS).for_each(|run| play(seed.wrapping_add(run)));
}

#[test]
fn a_page_moves_when_a_document_before_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    let songs = replica.documents("songs");
    for id in ["1", "2", "3", "4"] {
        songs.upsert(id, &json!({ "category": "hula" })).unwrap();
    }
    let page = Query::new().filter(field("category").eq("hula")).offset(1).limit(2);
    let mut live = songs.live(page).unwrap();
    let ids =
        |live: &mut LiveQuery<Value>| live.wait().unwrap().iter().map(|r| r.id.clone()).collect::<Vec<_>>();
    songs.delete("1").unwrap();
    assert_eq!(ids(&mut live), ["3", "4"]);
    songs.patch("2", &json!({ "category": "mele" })).unwrap();
    assert_eq!(ids(&mut live), ["4"]);
}

#[test]
fn what_is_pending_is_not_any_more_after_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    sync(&replica, &relay.url());
    let songs = replica.documents("songs");
    let mut pending = songs.live(Query::new().filter(Filter::Pending)).unwrap();
    songs.upsert("1", &json!({ "title": "Hoʻi" })).unwrap();
    assert_eq!(pending.wait().unwrap().len(), 1);
    let waiting = std::thread::spawn(move || pending.wait().unwrap().len());
    sync(&replica, &relay.url());
    assert_eq!(waiting.join().unwrap(), 0);
}
