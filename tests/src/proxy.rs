//! A way to the relay that is as bad as one likes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::random::Random;

/// What a proxy does to the connections through it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Time that each piece takes in each direction.
    pub latency: Duration,
    /// Of a thousand connections, so many are reset, some at once, some in the middle.
    pub resets: u64,
    /// Of a thousand connections, so many are reset when something comes back: what was asked was done, and nobody hears of it.
    pub lost_answers: u64,
    /// Of a thousand connections, so many stop moving anything without being closed, at once or in the middle.
    pub stalls: u64,
    /// A connection breaks within so many bytes, most of them early; 0 for 4,000.
    pub breaks_within: u64,
    /// Of a thousand pieces, so many have one bit flipped.
    pub flips: u64,
    /// Bytes a second in each direction; 0 for as many as can be.
    pub bytes_per_second: u64,
}

/// A proxy on this machine, until it is dropped. The same seed and the same order of connections give the same faults.
pub struct Proxy {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    broken: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

/// When a connection breaks, in bytes from the client, and how.
#[derive(Clone, Copy)]
enum Fate {
    Fine,
    Reset(u64),
    Stall(u64),
}

impl Proxy {
    /// Passes connections on to `relay`.
    pub fn start(relay: SocketAddr, faults: Faults, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (broken, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let connections = Arc::new(AtomicU64::new(0));
        let (all, count, stop) = (connections.clone(), broken.clone(), stopped.clone());
        std::thread::spawn(move || {
            let mut random = Random(seed);
            for client in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(relay)) else { continue };
                let fate = fate(&faults, &mut random);
                let back = match random.below(1_000) {
                    n if n < faults.lost_answers => Fate::Reset(random.below(faults.within())),
                    _ => Fate::Fine,
                };
                all.fetch_add(1, Ordering::Relaxed);
                let is_fine = matches!((fate, back), (Fate::Fine, Fate::Fine));
                count.fetch_add(u64::from(!is_fine), Ordering::Relaxed);
                let seeds = [random.below(u64::MAX), random.below(u64::MAX)];
                let ends = [(&client, &server, fate), (&server, &client, back)];
                for ((from, to, fate), seed) in ends.into_iter().zip(seeds) {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || pass(from, to, fate, &faults, Random(seed)));
                }
            }
        });
        Self { address, connections, broken, stopped }
    }

    /// Where devices find the relay behind it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that were made.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections that were meant to break.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // The listener looks when somebody comes.
        _ = TcpStream::connect(self.address);
    }
}

impl Faults {
    fn within(&self) -> u64 {
        if self.breaks_within == 0 { 4_000 } else { self.breaks_within }
    }
}

fn fate(faults: &Faults, random: &mut Random) -> Fate {
    let at = match random.below(3) {
        0 => 0,
        1 => random.below(400),
        _ => random.below(faults.within()),
    };
    match random.below(1_000) {
        n if n < faults.resets => Fate::Reset(at),
        n if n < faults.resets + faults.stalls => Fate::Stall(at),
        _ => Fate::Fine,
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, fate: Fate, faults: &Faults, mut random: Random) {
    let mut buffer = [0; 4_096];
    let mut passed = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        std::thread::sleep(faults.latency);
        if faults.bytes_per_second > 0 {
            std::thread::sleep(Duration::from_secs_f64(read as f64 / faults.bytes_per_second as f64));
        }
        passed += read as u64;
        match fate {
            Fate::Reset(at) if passed > at => break,
            // Half open: the client goes on sending into nothing.
            Fate::Stall(at) if passed > at => continue,
            _ => {}
        }
        if random.below(1_000) < faults.flips {
            let bit = random.below(8 * read as u64);
            buffer[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    _ = from.shutdown(Shutdown::Both);
    _ = to.shutdown(Shutdown::Both);
}
