//! Many lives, on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use motet_proto::planted::{Bug, plant};

use super::{Failure, run};

/// Seeds within which each planted bug must be found.
const SEEDS_FOR_A_BUG: u64 = 100_000;

const HELP: &str = "simulate [--seeds N] [--first SEED]   plays N lives (default 1000) from a seed on
simulate --seed SEED                  plays one life and says what happened
simulate --bug NAME [--seeds N]       plants a bug and looks for a life that finds it
simulate --bugs [--seeds N]           the same for every bug there is (default 100000 lives for each)";

/// What a search has found.
#[derive(Debug)]
pub struct Search {
    /// Lives that were played.
    pub lives: u64,
    /// Writes that returned in them.
    pub writes: u64,
    /// Entries that left relays in them because snapshots superseded them.
    pub swept: u64,
    /// The first life that failed.
    pub failure: Option<Box<Failure>>,
}

/// Plays up to `count` lives from the seed `first` on, on all cores, until one fails.
pub fn search(first: u64, count: u64) -> Search {
    let next = AtomicU64::new(0);
    let [lives, writes, swept] = std::array::from_fn(|_| AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let found: Mutex<Option<Box<Failure>>> = Mutex::new(None);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let play = || {
        while !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return;
            }
            match run(first.wrapping_add(n)) {
                Ok(outcome) => {
                    writes.fetch_add(outcome.writes as u64, Ordering::Relaxed);
                    swept.fetch_add(outcome.swept as u64, Ordering::Relaxed);
                }
                Err(failure) => {
                    stop.store(true, Ordering::Relaxed);
                    found.lock().unwrap().get_or_insert_with(|| Box::new(failure));
                }
            }
            lives.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|_| _ = scope.spawn(play)));
    let [lives, writes, swept] = [lives, writes, swept].map(AtomicU64::into_inner);
    Search { lives, writes, swept, failure: found.into_inner().unwrap() }
}

/// Runs the command line; returns the exit code.
pub fn command(args: &[String]) -> i32 {
    // A life that panics is a life that fails; it is told of there.
    std::panic::set_hook(Box::new(|_| {}));
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    if args.iter().any(|arg| arg == "--help") {
        println!("{HELP}");
        return 0;
    }
    let bug = value("--bug").map(|name| Bug::EVERY.into_iter().find(|bug| format!("{bug:?}") == *name));
    if let Some(bug) = bug {
        let Some(bug) = bug else {
            eprintln!("there is no such bug; there are {:?}", Bug::EVERY);
            return 2;
        };
        plant(Some(bug));
    }
    if let Some(seed) = number("--seed") {
        return match run(seed) {
            Ok(outcome) => {
                println!("seed {seed}: all is well, {outcome:?}");
                0
            }
            Err(failure) => {
                println!("{failure}");
                1
            }
        };
    }
    let first = number("--first").unwrap_or(1);
    if args.iter().any(|arg| arg == "--bugs") {
        return find_bugs(first, number("--seeds").unwrap_or(SEEDS_FOR_A_BUG));
    }
    let start = Instant::now();
    let search = search(first, number("--seeds").unwrap_or(1_000));
    let Search { lives, writes, swept, .. } = search;
    println!(
        "{lives} lives, {writes} writes, {swept} entries superseded, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    match (search.failure, bug) {
        (Some(failure), _) => {
            println!("{failure}");
            1
        }
        (None, _) => 0,
    }
}

/// Plants one bug after the other. The exit code is the number of those that were not found.
fn find_bugs(first: u64, count: u64) -> i32 {
    let mut missed = 0;
    for bug in Bug::EVERY {
        plant(Some(bug));
        let search = search(first, count);
        match search.failure {
            Some(failure) => {
                let what: String = failure.what.chars().take(100).collect();
                println!("{bug:?}: found after {} lives, seed {}: {what}", search.lives, failure.seed);
            }
            None => {
                println!("{bug:?}: NOT found in {} lives", search.lives);
                missed += 1;
            }
        }
    }
    plant(None);
    missed
}
