//! Device files in which somebody has put pages that are no damage but made up: to repair them takes no longer than files of their size take.
//! Each of these took minutes to hours, or hundreds of megabytes, so an end is what the tests wait for.

use std::path::{Path, PathBuf};

use motet::Replica;
use motet_tests::empty_log;
use rusqlite::Connection;
use serde_json::json;

const PAGE: usize = 4096;

/// A file with some documents, and the page at which a table begins that says nothing about them.
fn make(dir: &Path) -> (PathBuf, usize) {
    let path = dir.join("a.db");
    let a = Replica::builder(&path).device_name("a").open().unwrap();
    for n in 0..20 {
        a.documents("songs").upsert(&n.to_string(), &json!({ "title": format!("Hiʻilawe {n}") })).unwrap();
    }
    a.counts().unwrap();
    drop(a);
    let conn = Connection::open(&path).unwrap();
    empty_log(&conn);
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'traffic'";
    let root = conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as usize;
    (path, root)
}

fn repaired(path: &Path) {
    let open = || Replica::builder(path).device_name("a").open();
    let a = open().or_else(|_| Replica::salvage(path).and_then(|_| open())).unwrap();
    let report = a.repair().unwrap();
    assert_eq!((report.left, report.put_aside.is_some()), (vec![], true));
    assert_eq!(a.verify().unwrap().problems, []);
    let songs = a.documents("songs").list().unwrap();
    assert_eq!(songs.len(), 20);
    assert!(songs.iter().all(|song| song["title"] == format!("Hiʻilawe {}", song.id)));
}

fn damage(bytes: &mut [u8], page: usize, size: usize) {
    bytes[(page - 1) * size] = 99;
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![(number & 0x7f) as u8];
    while number > 0x7f {
        number >>= 7;
        bytes.insert(0, number as u8 | 0x80);
    }
    bytes
}

/// A leaf of which all pointers lead to one row, which goes on at a page.
fn leaf(size: usize, len: u64, next: u32) -> Vec<u8> {
    let mut page = vec![0; size];
    let cell = [varint(len), varint(7)].concat();
    let place = size / 2;
    page[place..place + cell.len()].copy_from_slice(&cell);
    let local = 489;
    page[place + cell.len() + local..][..4].copy_from_slice(&next.to_be_bytes());
    let count = (place - 8) / 2;
    page[0] = 13;
    page[3..5].copy_from_slice(&(count as u16).to_be_bytes());
    for n in 0..count {
        page[8 + 2 * n..][..2].copy_from_slice(&(place as u16).to_be_bytes());
    }
    page
}

#[test]
fn rows_that_go_on_for_ever_are_given_up() {
    const LEAVES: u32 = 60;
    const CHAIN: u32 = 400;
    let dir = tempfile::tempdir().unwrap();
    let (path, root) = make(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes, root, PAGE);
    let first = (bytes.len() / PAGE) as u32 + LEAVES + 1;
    for _ in 0..LEAVES {
        // 800 MB, of which so many stand in the leaf.
        bytes.extend(leaf(PAGE, 489 + 4_092 * 200_000, first));
    }
    for n in 0..CHAIN {
        let mut page = vec![0; PAGE];
        page[..4].copy_from_slice(&(first + (n + 1) % CHAIN).to_be_bytes());
        bytes.extend(page);
    }
    let count = (bytes.len() / PAGE) as u32;
    bytes[28..32].copy_from_slice(&count.to_be_bytes());
    std::fs::write(&path, bytes).unwrap();
    repaired(&path);
}

/// SQLite makes pages of other sizes as well.
#[test]
fn a_file_with_larger_pages_is_repaired() {
    const SIZE: usize = 65_536;
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = make(dir.path());
    let conn = Connection::open(&path).unwrap();
    let sql = "PRAGMA journal_mode = DELETE; PRAGMA page_size = 65536; VACUUM; PRAGMA journal_mode = WAL";
    conn.execute_batch(sql).unwrap();
    empty_log(&conn);
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'traffic'";
    let root = conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as usize;
    drop(conn);
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() % SIZE, 0);
    damage(&mut bytes, root, SIZE);
    std::fs::write(&path, bytes).unwrap();
    repaired(&path);
}

/// The last commit of SQLite's log says how many pages there are.
#[test]
fn a_log_that_names_four_billion_pages_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, root) = make(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes, root, PAGE);
    let last = bytes[bytes.len() - PAGE..].to_vec();
    let number = (bytes.len() / PAGE) as u32;
    std::fs::write(&path, bytes).unwrap();
    let mut log = [0x377f_0682u32, 3_007_000, PAGE as u32, 0, 1, 2].map(u32::to_be_bytes).concat();
    let mut sums = sum((0, 0), &log);
    log.extend([sums.0, sums.1].map(u32::to_be_bytes).concat());
    let head = [number, u32::MAX].map(u32::to_be_bytes).concat();
    sums = sum(sum(sums, &head), &last);
    log.extend(head);
    log.extend([1, 2, sums.0, sums.1].map(u32::to_be_bytes).concat());
    log.extend(last);
    std::fs::write(dir.path().join("a.db-wal"), log).unwrap();
    repaired(&path);
}

/// Checksums of SQLite's log, over numbers of little-endian bytes.
fn sum((mut a, mut b): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    for pair in bytes.chunks(8) {
        let number = |at: usize| u32::from_le_bytes(pair[at..at + 4].try_into().unwrap());
        a = a.wrapping_add(number(0)).wrapping_add(b);
        b = b.wrapping_add(number(4)).wrapping_add(a);
    }
    (a, b)
}
