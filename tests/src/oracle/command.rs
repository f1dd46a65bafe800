//! Many scripts, on all cores.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::generate::{alone, together};
use super::run::{Fault, play};
use super::script::Script;
use super::shrink::shrink;

const HELP: &str = "oracle [--scripts N] [--first SEED] [--devices 1|2] [--all]
    plays N scripts (default 1000) from a seed on, half of them on one device and half on two or three, until one fails;
    with --all goes on to the end and tells each kind of failure once
oracle --seed SEED [--devices 1|2]
    plays the scripts of one seed, and makes them short if they fail";

/// A script that fails, made short.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its seed.
    pub seed: u64,
    /// The short script.
    pub script: Script,
    /// What is wrong.
    pub fault: Fault,
}

/// What a search has found.
#[derive(Debug, Default)]
pub struct Search {
    /// Scripts that were played.
    pub scripts: u64,
    /// Scripts that fail: one of each kind, and how often.
    pub found: BTreeMap<String, (u64, Found)>,
}

/// Makes the script of a seed.
pub type Generate = fn(u64) -> Script;

/// Plays up to `count` scripts from the seed `first` on, on all cores, until one fails, or with `all` to the end.
pub fn search(generate: Generate, first: u64, count: u64, all: bool) -> Search {
    let [next, played] = std::array::from_fn(|_| AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let search: Mutex<Search> = Mutex::default();
    let play_some = || {
        while !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return;
            }
            played.fetch_add(1, Ordering::Relaxed);
            let seed = first.wrapping_add(n);
            let Err(failed) = try_one(&generate(seed)) else { continue };
            let (script, fault) = *failed;
            let mut search = search.lock().unwrap();
            stop.fetch_or(!all, Ordering::Relaxed);
            let found = Found { seed, script, fault };
            let kind = kind_of(&found);
            if all && !search.found.contains_key(&kind) {
                println!("{found}");
            }
            search.found.entry(kind).or_insert((0, found)).0 += 1;
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| _ = scope.spawn(play_some)));
    Search { scripts: played.into_inner(), ..search.into_inner().unwrap() }
}

/// Plays a script; if it fails, it is made short.
///
/// # Errors
/// The short script, and how it fails.
pub fn try_one(script: &Script) -> Result<(), Box<(Script, Fault)>> {
    play(script).map_err(|fault| Box::new(shrink(script, &fault)))
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Fault { check, step, what } = &self.fault;
        write!(f, "seed {}: after step {step} ({check}): {what}\n{}", self.seed, self.script)
    }
}

/// Runs the command line; returns the exit code.
pub fn command(args: &[String]) -> i32 {
    // A script that panics is a script that fails; it is told of there.
    std::panic::set_hook(Box::new(|_| {}));
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    let has = |name: &str| args.iter().any(|arg| arg == name);
    if has("--help") {
        println!("{HELP}");
        return 0;
    }
    let generates: Vec<(&str, Generate)> = match number("--devices") {
        Some(1) => vec![("one device", alone)],
        Some(_) => vec![("two or three devices", together)],
        None => vec![("one device", alone), ("two or three devices", together)],
    };
    let mut code = 0;
    let each = number("--scripts").unwrap_or(1_000) / generates.len() as u64;
    for (name, generate) in generates {
        if let Some(seed) = number("--seed") {
            code |= one(seed, &generate(seed));
            continue;
        }
        let start = Instant::now();
        let search = search(generate, number("--first").unwrap_or(1), each, has("--all"));
        println!("{} scripts on {name}, {:.1} s", search.scripts, start.elapsed().as_secs_f64());
        for (kind, (times, found)) in &search.found {
            println!("  {times} times, first seed {}: {kind}", found.seed);
            code = 1;
        }
        if let Some((_, found)) = search.found.values().next().filter(|_| !has("--all")) {
            println!("{found}");
        }
    }
    code
}

fn one(seed: u64, script: &Script) -> i32 {
    match try_one(script) {
        Ok(()) => {
            println!("seed {seed}: all is well\n{script}");
            0
        }
        Err(failed) => {
            let (script, fault) = *failed;
            println!("{}", Found { seed, script, fault });
            1
        }
    }
}

/// Faults that are probably one: the same check, the same kinds of fields, the same kinds of acts.
fn kind_of(found: &Found) -> String {
    let name = |act: &dyn std::fmt::Debug| {
        let text = format!("{act:?}");
        let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.find(|word| *word != "Write").unwrap_or_default().to_owned()
    };
    let mut kinds: Vec<_> =
        found.script.declared.iter().map(|(_, declared)| format!("{:?}", declared.kind)).collect();
    kinds.sort();
    kinds.dedup();
    let acts: Vec<_> = found.script.steps.iter().map(|step| name(&step.act)).collect();
    format!("{} {kinds:?} {}", found.fault.check, acts.join(" "))
}
