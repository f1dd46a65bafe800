//! Many lives, on all cores.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use motet_proto::planted::{Bug, plant};

use super::world::run_and_read;
use super::{Failure, run};

/// Seeds within which each planted bug must be found.
const SEEDS_FOR_A_BUG: u64 = 100_000;

const HELP: &str = "simulate [--seeds N] [--first SEED]   plays N lives (default 1000) from a seed on
simulate --seed SEED                  plays one life and says what happened
simulate --record FILE [--seeds N]    plays N lives and notes what happened in each and what was written
simulate --compare FILE               plays the lives of FILE again and names those in which something is different
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
    if let Some(file) = value("--record") {
        return told(record(Path::new(file), first, number("--seeds").unwrap_or(1_000)));
    }
    if let Some(file) = value("--compare") {
        return told(compare(Path::new(file)));
    }
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

fn told(outcome: Result<String, String>) -> i32 {
    match outcome {
        Ok(said) => {
            println!("{said}");
            0
        }
        Err(what) => {
            println!("{what}");
            1
        }
    }
}

/// Writes a line for each life: its seed, and hashes of all that happened and of all that was written. A change of the code that moves or
/// renames something changes no line.
fn record(file: &Path, first: u64, count: u64) -> Result<String, String> {
    let seeds: Vec<u64> = (0..count).map(|n| first.wrapping_add(n)).collect();
    let lines = traces(&seeds)?;
    std::fs::write(file, lines.join("\n") + "\n").map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(format!("{} lives are noted in {}", lines.len(), file.display()))
}

fn compare(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let noted: Vec<&str> = text.lines().collect();
    let seed = |line: &&str| line.split(' ').next().and_then(|seed| seed.parse().ok());
    let seeds: Option<Vec<u64>> = noted.iter().map(seed).collect();
    let seeds = seeds.ok_or_else(|| format!("{}: each line begins with a seed", file.display()))?;
    let now = traces(&seeds)?;
    let differing: Vec<_> = noted.iter().zip(&now).filter(|(was, now)| was != now).collect();
    match differing.first() {
        None => Ok(format!("{} lives are what they were", now.len())),
        Some((was, is)) => Err(format!(
            "{} of {} lives are different; the first:\n  {was}\n  {is}",
            differing.len(),
            now.len()
        )),
    }
}

/// A line for each seed, in their order.
fn traces(seeds: &[u64]) -> Result<Vec<String>, String> {
    let next = AtomicU64::new(0);
    let lines = Mutex::new(vec![String::new(); seeds.len()]);
    let play = || -> Result<(), String> {
        while let Some((n, seed)) =
            Some(next.fetch_add(1, Ordering::Relaxed) as usize).and_then(|n| Some((n, *seeds.get(n)?)))
        {
            let outcome = run_and_read(seed).map_err(|failure| failure.to_string())?;
            lines.lock().unwrap()[n] = format!("{seed} {:016x} {:016x}", outcome.trace, outcome.rows);
        }
        Ok(())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(play)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread died".to_owned())?)
    })?;
    Ok(lines.into_inner().unwrap())
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
