//! The least that a live edit can cost at a relay on this machine: the same bytes in, one commit of the same rows, the same bytes out
//! to two sockets, in a bare loop on one thread. No WebSocket, no sessions, nobody else to serve.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use motet_benches::median;
use rusqlite::{Connection, params};

use crate::measure::cpu_ms;

/// Bytes of a live edit of a song on its way in, and out as a receipt and as a page.
const IN: usize = 250;
const RECEIPT: usize = 50;
const PAGE: usize = 280;

const EDITS: usize = 200;

/// Processor time at the loop per edit, and the median from sent to received, in milliseconds.
pub(crate) fn floor(folder: &Path) -> Option<(f64, f64)> {
    let mut child = Command::new(std::env::current_exe().ok()?)
        .args(["__floor".as_ref(), folder.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut address = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut()?), &mut address).ok()?;
    let connect = || {
        let stream = TcpStream::connect(address.trim()).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    };
    let (mut a, mut b) = (connect()?, connect()?);
    let before = cpu_ms(child.id());
    let mut times = Vec::new();
    for _ in 0..EDITS {
        let sent = Instant::now();
        a.write_all(&[7; IN]).ok()?;
        b.read_exact(&mut [0; PAGE]).ok()?;
        times.push(sent.elapsed().as_secs_f64() * 1e3);
        a.read_exact(&mut [0; RECEIPT]).ok()?;
    }
    let cpu = (cpu_ms(child.id()) - before) / EDITS as f64;
    drop((a, b));
    _ = child.wait();
    Some((cpu, median(times)))
}

/// The loop, until its first client hangs up.
pub(crate) fn run(folder: &Path) {
    let conn = Connection::open(folder.join("floor.db")).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    conn.execute_batch(
        "CREATE TABLE entry (id INTEGER PRIMARY KEY, entry BLOB);
         CREATE TABLE entry_of (hash BLOB PRIMARY KEY) WITHOUT ROWID;",
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let (mut a, mut b) = (listener.accept().unwrap().0, listener.accept().unwrap().0);
    a.set_nodelay(true).unwrap();
    b.set_nodelay(true).unwrap();
    let mut edit = [0; IN];
    for n in 1_i64.. {
        if a.read_exact(&mut edit).is_err() {
            return;
        }
        let hash = blake3::hash(&n.to_le_bytes());
        for (sql, values) in [
            ("BEGIN IMMEDIATE", params![]),
            ("INSERT INTO entry_of VALUES (?)", params![&hash.as_bytes()[..27]]),
            ("INSERT INTO entry VALUES (?, ?)", params![n, &[0_u8; PAGE][..]]),
            ("COMMIT", params![]),
        ] {
            conn.prepare_cached(sql).unwrap().execute(values).unwrap();
        }
        if b.write_all(&[7; PAGE]).is_err() || a.write_all(&[7; RECEIPT]).is_err() {
            return;
        }
    }
}
