//! Each store of the relay against the one in memory, which is the model, written without SQL. The same calls have the same outcomes.

use std::sync::Arc;

use futures_util::future::join;
use motet_proto::message::Outcome;
use motet_proto::session::ReadOutcome;
use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, Position, SpaceId, limits as proto};
use motet_relay::config::Limits;
use motet_relay::store::memory::MemoryStore;
#[cfg(unix)]
use motet_relay::store::postgres::{PostgresStore, migrate};
use motet_relay::store::sqlite::{SqliteStore, care};
use motet_relay::store::{LogId, LogStore, StoreError};
use motet_tests::random::{Random, runs, seed};
#[cfg(unix)]
use motet_tests::servers::Postgres;

/// What was sent to one log so far.
#[derive(Default)]
struct Sent {
    entries: Vec<Entry>,
    positions: Vec<Position>,
}

fn log(account: u64) -> LogId {
    LogId { account: format!("account {account}"), space: SpaceId::DEFAULT }
}

fn entry(random: &mut Random, sent: &Sent, number: u64) -> Entry {
    let document = DocumentId([random.below(4) as u8; 16]);
    let named = |random: &mut Random| -> Vec<EntryId> {
        let of = sent.entries.iter().filter(|entry| entry.document == document || random.below(9) == 0);
        let mut ids: Vec<_> = of.filter(|_| !number.is_multiple_of(3)).map(|entry| entry.id).collect();
        if random.below(4) == 0 {
            ids.push(EntryId([number as u8; 32]));
        }
        ids.truncate(random.below(5) as usize);
        ids
    };
    let kind = match random.below(12) {
        0..6 => Kind::Changes,
        6..9 => Kind::Snapshot { heads: vec![[number as u8; 32]], supersedes: named(random) },
        9 => Kind::Erased,
        // As a later version writes it: a number and a map.
        10 => Kind::Other(vec![0x82, 0x09 + (number % 8) as u8, 0xa0]),
        _ => Kind::Snapshot { heads: Vec::new(), supersedes: Vec::new() },
    };
    let bytes = if random.below(30) == 0 { proto::PAGE_BYTES / 3 } else { random.below(80) as usize };
    let payload = [&number.to_be_bytes()[..], &vec![number as u8; bytes]].concat();
    let mut entry = Entry::new(SpaceId::DEFAULT, document, DeviceId([1; 16]), kind, 0, payload);
    if random.below(40) == 0 {
        entry.id.0[0] ^= 1;
    }
    entry
}

/// Both answers, as text: errors are not comparable.
fn same<T: std::fmt::Debug>(step: u64, (a, b): (Result<T, StoreError>, Result<T, StoreError>)) -> T {
    let (a, b) = (a.unwrap(), b.unwrap());
    let (left, right) = (format!("{a:?}"), format!("{b:?}"));
    assert!(left == right, "step {step}\nstored: {left}\nmemory: {right}");
    b
}

fn limits(random: &mut Random) -> Limits {
    let documents_per_account = 3 + random.below(3);
    Limits { documents_per_account, spaces: 2 + random.below(2), ..Limits::default() }
}

/// A model, and what was sent to it and to a store.
struct Model {
    memory: Arc<dyn LogStore>,
    sent: [Sent; 3],
}

impl Model {
    fn new(limits: &Limits) -> Self {
        let memory = Arc::new(MemoryStore::new());
        memory.set_limits(limits);
        Self { memory, sent: Default::default() }
    }
}

/// Makes the same calls to a store and to the model.
async fn compare(random: &mut Random, stored: Arc<dyn LogStore>, model: &mut Model) {
    let Model { memory, sent } = model;
    let memory = memory.clone();
    for step in 0..80 {
        let account = random.below(3);
        let (log, sent) = (log(account), &mut sent[account as usize]);
        match random.below(10) {
            0..5 => {
                let mut entries: Vec<_> =
                    (0..random.below(5)).map(|n| entry(random, sent, step * 8 + n)).collect();
                // What a device sends again, and what it sends twice.
                let again = |random: &mut Random| sent.entries.get(random.below(40) as usize).cloned();
                entries.extend(again(random));
                entries.extend(entries.first().filter(|_| random.below(6) == 0).cloned());
                let appended =
                    join(stored.append(log.clone(), entries.clone()), memory.append(log, entries.clone()));
                let appended = same(step, appended.await);
                for (entry, outcome) in entries.iter().zip(&appended.outcome.outcomes) {
                    if matches!(outcome, Outcome::Stored(_)) {
                        sent.entries.push(entry.clone());
                    }
                }
                sent.positions.extend(appended.outcome.appended.map(|(_, position)| position));
            }
            5..7 => {
                let after = sent.positions.get(random.below(20) as usize).copied();
                let after = after.map(|mut position| {
                    match random.below(12) {
                        0 => position.tag[0] ^= 1,
                        1 => position.seq += 1,
                        2 => position.seq = 0,
                        _ => {}
                    }
                    position
                });
                let mut next = after;
                // To the end, page by page.
                for _ in 0..20 {
                    let page = join(stored.read(&log, next), memory.read(&log, next)).await;
                    match same(step, page) {
                        ReadOutcome::Page { position, head, .. } if position.seq < head => {
                            next = Some(position)
                        }
                        _ => break,
                    }
                }
            }
            7 => {
                let document = DocumentId([random.below(5) as u8; 16]);
                let after = random.below(12) * random.below(2);
                for whole in [true, false] {
                    let page = join(
                        stored.read_document(&log, document, after, whole),
                        memory.read_document(&log, document, after, whole),
                    );
                    same(step, page.await);
                }
            }
            8 => _ = same(step, join(stored.head(&log), memory.head(&log)).await),
            9 if random.below(4) == 0 => {
                // A log that was removed is one that never was.
                for store in [&stored, &memory] {
                    while store.remove(log.clone()).await.unwrap() {}
                }
                *sent = Sent::default();
                let account = &log.account;
                let logs = join(stored.logs_of(account), memory.logs_of(account)).await;
                assert_eq!(same(step, logs), []);
                same(step, join(stored.read(&log, None), memory.read(&log, None)).await);
            }
            _ => {
                let before = if random.below(3) == 0 { 0 } else { i64::MAX };
                for store in [&stored, &memory] {
                    while store.sweep(before).await.unwrap() > 0 {}
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_answers_as_the_model() {
    let seed = seed();
    for run in 0..runs(60_u64) {
        let seed = seed.wrapping_add(run);
        println!("seed {seed}");
        let (mut random, folder) = (Random(seed), tempfile::tempdir().unwrap());
        let limits = limits(&mut random);
        let store = Arc::new(SqliteStore::open_with(folder.path(), &limits).unwrap());
        compare(&mut random, store, &mut Model::new(&limits)).await;
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_answers_as_the_model() {
    let Some(postgres) = Postgres::start() else { return };
    let seed = seed();
    for run in 0..runs(12_u64) {
        let seed = seed.wrapping_add(run);
        println!("seed {seed}");
        let mut random = Random(seed);
        let limits = limits(&mut random);
        let url = postgres.database(&format!("run{run}"));
        let store = Arc::new(PostgresStore::open(&url, 4, &limits).await.unwrap());
        compare(&mut random, store, &mut Model::new(&limits)).await;
    }
}

/// Logs that were copied into Postgres go on where they were.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_copied_into_postgres_goes_on() {
    let Some(postgres) = Postgres::start() else { return };
    let seed = seed();
    for run in 0..runs(6_u64) {
        let seed = seed.wrapping_add(run);
        println!("seed {seed}");
        let (mut random, folder) = (Random(seed), tempfile::tempdir().unwrap());
        let limits = limits(&mut random);
        let mut model = Model::new(&limits);
        let store = Arc::new(SqliteStore::open_with(folder.path(), &limits).unwrap());
        let id = store.id();
        compare(&mut random, store.clone(), &mut model).await;
        let url = postgres.database(&format!("run{run}"));
        let copy = |folder: &std::path::Path| {
            let (folder, url) = (folder.to_owned(), url.clone());
            tokio::task::spawn_blocking(move || migrate(&folder, &url))
        };
        assert!(matches!(copy(folder.path()).await.unwrap(), Err(StoreError::InUse(_))));
        drop(store);
        let copied = copy(folder.path()).await.unwrap().unwrap();
        let store = PostgresStore::open(&url, 2, &limits).await.unwrap();
        assert_eq!(store.id(), id);
        assert_eq!(copied.logs > 0, copied.entries > 0);
        compare(&mut random, Arc::new(store), &mut model).await;
        if copied.logs > 0 {
            let error = copy(folder.path()).await.unwrap().unwrap_err();
            assert!(error.to_string().contains("has moved into"), "{error}");
        }
    }
}

/// Keeps to the bytes of an account; what is erased makes room, and can be erased although there is none.
async fn keeps_to_the_bytes_of_an_account(store: Arc<dyn LogStore>) {
    store.set_limits(&Limits { bytes_per_account: 1_000, ..Limits::default() });
    let entry = |document: u8, n: u8, bytes: usize, kind| {
        let payload = vec![n; bytes];
        Entry::new(SpaceId::DEFAULT, DocumentId([document; 16]), DeviceId([1; 16]), kind, 0, payload)
    };
    let changes = |n: u8| entry(1, n, 300, Kind::Changes);
    let appended = store.append(log(1), (0..3).map(changes).collect()).await.unwrap();
    assert!(matches!(appended.failed, Some(StoreError::Quota(_))), "{:?}", appended.failed);
    assert_eq!(appended.outcome.outcomes, [Outcome::Stored(1), Outcome::Stored(2)]);
    let appended = store.append(log(1), vec![entry(2, 9, 100, Kind::Changes)]).await.unwrap();
    assert_eq!(appended.outcome.outcomes, [Outcome::Stored(3)]);
    // Nothing fits any more. What was never there cannot be erased to no end either.
    let appended = store.append(log(1), vec![entry(3, 0, 0, Kind::Erased)]).await.unwrap();
    assert!(matches!(appended.failed, Some(StoreError::Quota(_))), "{:?}", appended.failed);
    assert!(store.append(log(1), vec![entry(1, 0, 0, Kind::Erased)]).await.unwrap().failed.is_none());
    assert!(store.append(log(1), vec![changes(5)]).await.unwrap().failed.is_none());
}

/// Each part that is taken out leaves a log that ends earlier, whenever that stops, and what was taken out does not count.
async fn a_log_is_removed_in_parts(store: Arc<dyn LogStore>) {
    let other = LogId { account: log(1).account, space: SpaceId::named("other") };
    let changes = |space: SpaceId, n: u32| {
        let payload = [&n.to_be_bytes()[..], &[7; 100]].concat();
        Entry::new(space, DocumentId([n as u8; 16]), DeviceId([1; 16]), Kind::Changes, 0, payload)
    };
    let entries: Vec<_> = (0..7_000).map(|n| changes(log(1).space, n)).collect();
    for part in entries.chunks(1_000) {
        assert!(store.append(log(1), part.to_vec()).await.unwrap().failed.is_none());
    }
    store.append(other.clone(), vec![changes(other.space, 1)]).await.unwrap();
    let end = Position {
        seq: 7_000,
        ..store.ends(&[log(1)]).await.unwrap().pop().unwrap_or(Position::start(log(1).space))
    };
    let mut parts = 0;
    while store.remove(log(1)).await.unwrap() {
        parts += 1;
        let head = store.head(&log(1)).await.unwrap();
        assert!(head < 7_000);
        assert!(matches!(store.read(&log(1), Some(end)).await.unwrap(), ReadOutcome::Refused));
        if head == 0 {
            continue;
        }
        // It is sound, and whoever appends to it meanwhile appends behind what is left.
        let appended = store.append(log(1), vec![changes(log(1).space, 8_000 + parts)]).await.unwrap();
        assert_eq!(appended.outcome.outcomes, [Outcome::Stored(head + 1)]);
        let (mut next, mut found) = (None, 0);
        while found < head + 1 {
            let ReadOutcome::Page { entries, position, .. } = store.read(&log(1), next).await.unwrap() else {
                panic!("{next:?} is not known")
            };
            found += entries.len() as u64;
            next = Some(position);
        }
    }
    assert_eq!(store.head(&log(1)).await.unwrap(), 0);
    assert!(!store.remove(log(1)).await.unwrap());
    assert_eq!(store.logs_of(&log(1).account).await.unwrap(), [other.space]);
    // All that the account has now is one small entry.
    store.set_limits(&Limits { bytes_per_account: 600, ..Limits::default() });
    let again = store.append(log(1), vec![changes(log(1).space, 1)]).await.unwrap();
    assert_eq!(again.outcome.outcomes, [Outcome::Stored(1)]);
    assert!(again.failed.is_none());
    let too_much = vec![changes(log(1).space, 2), changes(log(1).space, 3), changes(log(1).space, 4)];
    assert!(store.append(log(1), too_much).await.unwrap().failed.is_some());
}

#[tokio::test]
async fn sqlite_and_memory_remove_a_log_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    a_log_is_removed_in_parts(Arc::new(MemoryStore::new())).await;
    a_log_is_removed_in_parts(Arc::new(SqliteStore::open(folder.path()).unwrap())).await;
    let found = care::verify(folder.path()).unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
}

#[cfg(unix)]
#[tokio::test]
async fn postgres_removes_a_log_in_parts() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database("removed");
    let store = PostgresStore::open(&url, 2, &Limits::default()).await.unwrap();
    a_log_is_removed_in_parts(Arc::new(store)).await;
}

#[tokio::test]
async fn sqlite_and_memory_keep_to_the_bytes_of_an_account() {
    let folder = tempfile::tempdir().unwrap();
    keeps_to_the_bytes_of_an_account(Arc::new(MemoryStore::new())).await;
    keeps_to_the_bytes_of_an_account(Arc::new(SqliteStore::open(folder.path()).unwrap())).await;
}

#[cfg(unix)]
#[tokio::test]
async fn postgres_keeps_to_the_bytes_of_an_account() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database("bytes");
    let store = PostgresStore::open(&url, 2, &Limits::default()).await.unwrap();
    keeps_to_the_bytes_of_an_account(Arc::new(store)).await;
}
