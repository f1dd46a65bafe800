//! A device's process: carries out one command per line of standard input.

use std::io::BufRead;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use motet::{Events, Relay, Replica, Schema};
use serde_json::{Value, json};

const COLLECTION: &str = "songs";

/// Longest time for one command.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run(db: &Path, name: &str) {
    let started = Instant::now();
    let replica = Replica::builder(db).device_name(name).open().unwrap();
    replica.apply_schema(&Schema::new().text(COLLECTION, "lyrics").text(COLLECTION, "notes")).unwrap();
    let (watched, commands) = std::sync::mpsc::channel();
    std::thread::spawn(move || watch(&commands));
    for line in std::io::stdin().lock().lines() {
        watched.send(()).unwrap();
        let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answer = match command["do"].as_str().unwrap() {
            "create" => create(&replica, Path::new(command["file"].as_str().unwrap())),
            "sync" => sync(&replica, command["url"].as_str()),
            "download" => download(&replica, &command, started),
            "ids" => ids(&replica, command["count"].as_u64().unwrap() as usize),
            "edit" => edit(&replica, command["id"].as_str().unwrap()),
            "expect" => expect(replica.events(), command["id"].as_str().unwrap()),
            "pipeline" => pipeline(&replica, &command),
            "changes" => {
                changes(&rusqlite::Connection::open(db).unwrap(), command["id"].as_str().unwrap()).into()
            }
            "expect_changes" => expect_changes(replica.events(), db, &command),
            "digest" => digest(&replica),
            other => panic!("unknown command {other}"),
        };
        watched.send(()).unwrap();
        println!("{answer}");
    }
}

fn create(replica: &Replica, file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap();
    let songs: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let begun = Instant::now();
    for batch in songs.chunks(250) {
        let batch = batch.to_vec();
        replica
            .transaction(move |tx| {
                batch.iter().try_for_each(|song| tx.documents(COLLECTION).insert(song).map(|_| ()))
            })
            .unwrap();
    }
    let made = begun.elapsed();
    // What is left to do in the background must not be in the way of what is measured next.
    replica.documents(COLLECTION).search("love", 1).unwrap();
    json!({ "s": made.as_secs_f64() })
}

fn sync(replica: &Replica, url: Option<&str>) -> Value {
    let begun = Instant::now();
    if let Some(url) = url {
        replica.connect(Relay::new(url)).unwrap();
    }
    let summary = replica.sync_now().unwrap();
    json!({ "s": begun.elapsed().as_secs_f64(), "summary": summary })
}

/// From the start of a fresh process: until every song is listed and one is opened, edited and committed; until
/// words are found; until everything is merged.
fn download(replica: &Replica, command: &Value, started: Instant) -> Value {
    let documents = command["documents"].as_u64().unwrap() as usize;
    replica.connect(Relay::new(command["url"].as_str().unwrap())).unwrap();
    let merged = {
        let replica = replica.clone();
        std::thread::spawn(move || (replica.sync_now().unwrap(), started.elapsed()))
    };
    let songs = replica.documents(COLLECTION);
    while (replica.counts().unwrap().documents as usize) < documents {
        std::thread::sleep(Duration::from_millis(5));
    }
    let last = songs.list().unwrap().pop().unwrap().id;
    songs.document(&last).splice_text("lyrics", 0, 0, "b").unwrap();
    let list_open = started.elapsed();
    while songs.search("love", 20).unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let search = started.elapsed();
    let (summary, merged) = merged.join().unwrap();
    json!({ "list_open_s": list_open.as_secs_f64(), "search_s": search.as_secs_f64(), "merged_s": merged.as_secs_f64(), "summary": summary })
}

fn ids(replica: &Replica, count: usize) -> Value {
    let mut ids = Vec::new();
    replica.documents(COLLECTION).for_each(|record| ids.push(record.id)).unwrap();
    let step = (ids.len() / count).max(1);
    let chosen: Vec<_> = (0..count).map(|i| ids[(i * step) % ids.len()].clone()).collect();
    json!(chosen)
}

fn edit(replica: &Replica, id: &str) -> Value {
    replica.documents(COLLECTION).document(id).splice_text("lyrics", 0, 0, "x").unwrap();
    json!({ "at_us": now_us() })
}

/// Says that it listens, and waits until the app is told that another device has changed the document.
fn expect(mut events: Events, id: &str) -> Value {
    println!("{}", Value::Null);
    loop {
        match events.wait().expect("the replica is gone") {
            Ok(event) if event.remote && event.id == id => return json!({ "at_us": now_us() }),
            _ => {}
        }
    }
}

fn pipeline(replica: &Replica, command: &Value) -> Value {
    let (id, edits) = (command["id"].as_str().unwrap(), command["edits"].as_u64().unwrap());
    let songs = replica.documents(COLLECTION);
    let writes: Vec<_> =
        (0..edits).map(|_| songs.document(id).splice_text_async("lyrics", 0, 0, "y")).collect();
    for write in writes {
        write.durable().unwrap();
    }
    json!({ "at_us": now_us() })
}

/// Says that it listens, and waits until the database holds so many changes of a document. Looks whenever the app is told of one:
/// looking all the time would keep a core busy that the devices need.
fn expect_changes(mut events: Events, db: &Path, command: &Value) -> Value {
    let (id, count) = (command["id"].as_str().unwrap(), command["count"].as_u64().unwrap());
    let conn = rusqlite::Connection::open(db).unwrap();
    println!("{}", Value::Null);
    while changes(&conn, id) < count {
        assert!(events.wait().is_some(), "the replica is gone");
    }
    Value::Null
}

/// Distinct changes of a document in the database.
fn changes(conn: &rusqlite::Connection, id: &str) -> u64 {
    let sql = "SELECT COUNT(*) FROM change c JOIN document d ON d.id = c.id >> 24 WHERE d.collection = ? AND d.name = ?";
    conn.query_row(sql, [COLLECTION, id], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
}

/// Ends the process if a command takes longer than anything here should: whoever waits for an edit that is lost waits for ever.
fn watch(commands: &std::sync::mpsc::Receiver<()>) {
    while commands.recv().is_ok() {
        if commands.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("a command has taken longer than {PATIENCE:?}");
            std::process::exit(1);
        }
    }
}

/// Hash over ids, versions and values of all songs.
fn digest(replica: &Replica) -> Value {
    let mut hash = blake3::Hasher::new();
    let mut count = 0;
    replica
        .documents(COLLECTION)
        .for_each(|record| {
            count += 1;
            hash.update(format!("{} {} {}\n", record.id, record.version, record.value).as_bytes());
        })
        .unwrap();
    json!({ "documents": count, "hash": hash.finalize().to_string() })
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}
