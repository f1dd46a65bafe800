//! Durable entries a second of the relay's stores, against bare inserts of the same rows with the same commits, in one run.
//!
//! ```text
//! cargo run --release -p motet-benches --bin appends
//! ```
//!
//! Each shape is appended by several tasks at a time, each to a log of its own. The bare insert has the same rows in the same transactions, one connection for
//! each task (Postgres), or one for all (SQLite, which has one writer).

use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use motet_benches::median;
use motet_benches::servers::Postgres;
use motet_proto::{DeviceId, DocumentId, Entry, Kind, SpaceId};
use motet_relay::config::Limits;
use motet_relay::store::postgres::PostgresStore;
use motet_relay::store::sqlite::SqliteStore;
use motet_relay::store::{LogId, LogStore};

#[derive(Parser)]
#[command(about = "Durable entries a second of the relay's stores, against bare inserts")]
struct Args {
    /// Runs of each, of which the middle one counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// How entries are appended.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    tasks: usize,
    /// For each task.
    pushes: usize,
    /// Entries of a push.
    entries: usize,
    /// Bytes of a payload.
    bytes: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "single edits of 16 devices", tasks: 16, pushes: 60, entries: 1, bytes: 150 },
    Shape { name: "batches of one device", tasks: 1, pushes: 40, entries: 256, bytes: 300 },
    Shape { name: "batches of 8 devices", tasks: 8, pushes: 20, entries: 256, bytes: 300 },
];

impl Shape {
    fn pushes(&self, task: usize) -> Vec<Vec<Entry>> {
        let entry = |push: usize, at: usize| {
            let number = (task << 40 | push << 20 | at).to_be_bytes();
            let payload = [&number[..], &vec![push as u8; self.bytes - 8]].concat();
            let document = DocumentId([(at % 251) as u8; 16]);
            Entry::new(SpaceId::DEFAULT, document, DeviceId([1; 16]), Kind::Changes, 0, payload)
        };
        (0..self.pushes).map(|push| (0..self.entries).map(|at| entry(push, at)).collect()).collect()
    }

    fn all(&self) -> f64 {
        (self.tasks * self.pushes * self.entries) as f64
    }
}

fn main() {
    let args = Args::parse();
    let postgres = Postgres::start_with(true);
    if postgres.is_none() {
        eprintln!("Postgres is not installed: only SQLite is measured");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("entries/s durable, and the part of a bare insert\n");
    let mut databases = 0;
    for shape in SHAPES {
        println!("{} ({} x {} pushes of {})", shape.name, shape.tasks, shape.pushes, shape.entries);
        let (mut stored, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            let folder = tempfile::tempdir().unwrap();
            let store: Arc<dyn LogStore> = Arc::new(SqliteStore::open(folder.path()).unwrap());
            stored.push(runtime.block_on(append(store, shape)));
            bare.push(bare_sqlite(&folder.path().join("bare.db"), shape));
        }
        tell("SQLite", stored, bare);
        let Some(postgres) = &postgres else { continue };
        let (mut stored, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            databases += 1;
            let url = postgres.database(&format!("run{databases}"));
            let store = runtime.block_on(PostgresStore::open(&url, 16, &Limits::default())).unwrap();
            stored.push(runtime.block_on(append(Arc::new(store), shape)));
            bare.push(bare_postgres(&url, shape));
        }
        tell("Postgres", stored, bare);
    }
}

fn tell(what: &str, stored: Vec<f64>, bare: Vec<f64>) {
    let (stored, bare) = (median(stored), median(bare));
    println!("  {what:<9} {stored:>8.0}/s   bare {bare:>8.0}/s   {:.2}x", stored / bare);
}

/// Entries a second through a store. Each task waits for the answer to a push before the next one, as a device with one push under way does.
async fn append(store: Arc<dyn LogStore>, shape: Shape) -> f64 {
    let work: Vec<_> = (0..shape.tasks).map(|task| (task, shape.pushes(task))).collect();
    // The logs are there, as those of devices that have synced before.
    let log = |task: usize| LogId { account: format!("account {task}"), space: SpaceId::DEFAULT };
    for task in 0..shape.tasks {
        let first =
            Entry::new(SpaceId::DEFAULT, DocumentId([9; 16]), DeviceId([1; 16]), Kind::Changes, 0, vec![1]);
        store.append(log(task), vec![first]).await.unwrap();
    }
    let begun = Instant::now();
    let tasks: Vec<_> = work
        .into_iter()
        .map(|(task, pushes)| {
            let store = store.clone();
            tokio::spawn(async move {
                for push in pushes {
                    assert!(store.append(log(task), push).await.unwrap().failed.is_none());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    shape.all() / begun.elapsed().as_secs_f64()
}

fn bare_sqlite(path: &std::path::Path, shape: Shape) -> f64 {
    let mut conn = rusqlite::Connection::open(path).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    conn.execute_batch(
        "CREATE TABLE entry (id INTEGER PRIMARY KEY, entry BLOB, tag BLOB, document BLOB, device BLOB, kind BLOB, suite INTEGER, payload BLOB, received_at INTEGER);
         CREATE TABLE entry_of (space INTEGER, document BLOB, head BLOB, seq INTEGER, PRIMARY KEY (space, document, head, seq)) WITHOUT ROWID",
    )
    .unwrap();
    let work: Vec<_> = (0..shape.tasks).map(|task| shape.pushes(task)).collect();
    let begun = Instant::now();
    // Pushes that come at the same time share a commit, as in the store.
    for push in 0..shape.pushes {
        let tx = conn.transaction().unwrap();
        for (task, pushes) in work.iter().enumerate() {
            for (at, entry) in pushes[push].iter().enumerate() {
                let seq = (push * shape.entries + at) as i64;
                tx.prepare_cached("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
                    .unwrap()
                    .execute(rusqlite::params![
                        (task as i64) << 40 | seq,
                        entry.id.0,
                        [7_u8; 16],
                        entry.document.0,
                        entry.device.0,
                        entry.kind.to_bytes(),
                        entry.suite,
                        entry.payload,
                        0
                    ])
                    .unwrap();
                tx.prepare_cached("INSERT INTO entry_of VALUES (?, ?, ?, ?)")
                    .unwrap()
                    .execute(rusqlite::params![task as i64, entry.document.0, &entry.id.0[..8], seq])
                    .unwrap();
            }
        }
        tx.commit().unwrap();
    }
    shape.all() / begun.elapsed().as_secs_f64()
}

fn bare_postgres(url: &str, shape: Shape) -> f64 {
    let mut conn = postgres::Client::connect(url, postgres::NoTls).unwrap();
    conn.batch_execute(
        "CREATE TABLE bare (LIKE entry INCLUDING ALL); ALTER TABLE bare ALTER COLUMN payload SET STORAGE EXTERNAL",
    )
    .unwrap();
    let work: Vec<_> = (0..shape.tasks).map(|task| (task, shape.pushes(task))).collect();
    let insert = "INSERT INTO bare (log, seq, id, tag, document, device, kind, suite, payload, size, received_at)
                  SELECT $1, e.seq, e.id, e.id, e.document, e.document, $5, 0, e.payload, 1, 0
                  FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $6::bytea[]) AS e(seq, id, document, payload)";
    let clients: Vec<_> = (0..shape.tasks)
        .map(|_| {
            let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
            let statement = client.prepare(insert).unwrap();
            (client, statement)
        })
        .collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for ((task, pushes), (mut client, statement)) in work.into_iter().zip(clients) {
            scope.spawn(move || {
                for (n, push) in pushes.iter().enumerate() {
                    let seqs: Vec<_> = (0..push.len()).map(|at| (n * shape.entries + at) as i64).collect();
                    let ids: Vec<_> = push.iter().map(|entry| entry.id.0.as_slice()).collect();
                    let documents: Vec<_> = push.iter().map(|entry| entry.document.0.as_slice()).collect();
                    let payloads: Vec<_> = push.iter().map(|entry| entry.payload.as_slice()).collect();
                    let kind = push[0].kind.to_bytes();
                    let params: [&(dyn postgres::types::ToSql + Sync); 6] =
                        [&(task as i64), &seqs, &ids, &documents, &kind, &payloads];
                    client.execute(&statement, &params).unwrap();
                }
            });
        }
    });
    shape.all() / begun.elapsed().as_secs_f64()
}
