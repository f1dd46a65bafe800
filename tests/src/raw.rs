//! Entries by hand, as no device of ours would send them.

use motet_benches::attack;
use motet_proto::message::{Message, Outcome, Pull, Push};
use motet_proto::{DeviceId, Entry, Kind, SpaceId, frame};
use rusqlite::Connection;
use sha2::{Digest, Sha256};

/// An entry of a document of `pieces`, from a stranger, without a preview.
pub fn entry(name: &str, kind: Kind, body: Vec<u8>) -> Entry {
    attack::stranger("pieces", name, kind, body)
}

/// A change or saved document as Automerge made it, of a row of `change` or `snapshot` of the document with that id (docs/storage.md): a
/// second implementation.
///
/// # Panics
/// If it says that it is compressed, and is not.
pub fn chunk(document: i64, mut row: Vec<u8>) -> Vec<u8> {
    let number = (document as u64 * 2_654_435_761) % (1 << 32);
    for (n, byte) in row.iter_mut().take(4).enumerate() {
        *byte ^= (number >> (8 * n)) as u8;
    }
    match row.strip_prefix(b"ZMP1") {
        Some(rest) => zstd::decode_all(&rest[4..]).unwrap(),
        None => row,
    }
}

/// All changes in a file, document by document, as Automerge made them.
///
/// # Panics
/// If the file cannot be read.
pub fn changes(conn: &Connection) -> Vec<Vec<u8>> {
    chunks(conn, "SELECT id >> 24, bytes FROM change ORDER BY id")
}

/// Everything in a file that may be sent from it: changes, saved documents, sealed entries.
///
/// # Panics
/// If the file cannot be read.
pub fn all_that_may_leave(conn: &Connection) -> Vec<Vec<u8>> {
    let mut all = changes(conn);
    all.extend(chunks(conn, "SELECT document, bytes FROM snapshot"));
    let mut sealed = conn.prepare("SELECT sealed FROM outbox WHERE sealed IS NOT NULL").unwrap();
    all.extend(sealed.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap().map(Result::unwrap));
    all
}

fn chunks(conn: &Connection, sql: &str) -> Vec<Vec<u8>> {
    let mut select = conn.prepare(sql).unwrap();
    let rows = select.query_map([], |row| Ok(chunk(row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Sends entries to the relay at `url`, and returns what becomes of each.
///
/// # Panics
/// If it does not answer as a relay does.
pub fn push(url: &str, entries: Vec<Entry>) -> Vec<Outcome> {
    let messages = exchange(url, &Message::Push(Push { id: 1, entries }));
    let receipt = messages.into_iter().find_map(|message| match message {
        Message::Receipt(receipt) => Some(receipt.outcomes),
        _ => None,
    });
    receipt.unwrap()
}

/// The first page of the log of the relay at `url`.
///
/// # Panics
/// If it does not answer as a relay does.
pub fn pull(url: &str) -> Vec<Entry> {
    let messages = exchange(url, &Message::Pull(Pull { id: 1, after: None, live: false }));
    let page = messages.into_iter().find_map(|message| match message {
        Message::Page(page) => Some(page.entries),
        _ => None,
    });
    page.unwrap()
}

/// One `POST`: a greeting, a message, and what the relay answers.
fn exchange(url: &str, message: &Message) -> Vec<Message> {
    let mut body = Vec::new();
    frame::write_delimited(&attack::hello(DeviceId([9; 16]), SpaceId::DEFAULT), &mut body);
    frame::write_delimited(message, &mut body);
    let client = reqwest::blocking::Client::new();
    let answer = client.post(format!("{url}/v1/sync")).body(body).send().unwrap();
    let answer = answer.error_for_status().unwrap().bytes().unwrap();
    let mut rest = &answer[..];
    let mut messages = Vec::new();
    while let Some(bytes) = frame::split_delimited(&mut rest).unwrap() {
        messages.push(frame::decode(bytes).unwrap());
    }
    messages
}

/// A change of a few bytes that puts nothing into one field `count` times: its columns are runs.
pub fn bomb(count: u64) -> Vec<u8> {
    const CHANGE: u8 = 1;
    let run = |value: &[u8]| [&signed(count)[..], value].concat();
    // Key, insert, action, value's length, predecessors.
    let columns =
        [(21, run(b"\x01k")), (52, unsigned(count)), (66, run(&[1])), (86, run(&[0])), (112, run(&[0]))];
    // No dependencies, an actor, sequence 1, first op 1, time 0, no message, no other actors.
    let mut data = vec![0, 1, 7, 1, 1, 0, 0, 0, columns.len() as u8];
    columns.iter().for_each(|(kind, column)| data.extend([*kind, column.len() as u8]));
    columns.iter().for_each(|(_, column)| data.extend(column));
    let chunk = [&[CHANGE][..], &unsigned(data.len() as u64), &data].concat();
    [&[0x85, 0x6f, 0x4a, 0x83][..], &Sha256::digest(&chunk)[..4], &chunk].concat()
}

fn unsigned(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A number that is not negative, where others may be: bit 6 of its last byte is its sign.
fn signed(value: u64) -> Vec<u8> {
    let mut bytes = unsigned(value);
    if let Some(last) = bytes.last_mut().filter(|last| **last & 0x40 != 0) {
        *last |= 0x80;
        bytes.push(0);
    }
    bytes
}

/// The same chunk with the checksum that its bytes have now.
pub fn checked(mut chunk: Vec<u8>) -> Vec<u8> {
    let checksum = Sha256::digest(&chunk[8..]);
    chunk[4..8].copy_from_slice(&checksum[..4]);
    chunk
}
