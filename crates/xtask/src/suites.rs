//! Runs the test programs of the workspace, several at a time. `cargo test` runs one after the other, and many of them wait for most of their time.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A program that takes longer hangs, and is ended. The slowest take 3 minutes with the full budgets.
const LONGEST: Duration = Duration::from_secs(20 * 60);

/// How long what a program has printed may take to arrive once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Programs that look at how long something takes: one after the other, before all others.
const ALONE: [&str; 5] = ["attacks", "bounds", "relay_damage", "relay_left", "relay_odd"];

/// Programs that compute for most of their time: as many at a time as there are cores, the longest first.
const BUSY: [&str; 13] = [
    "hostile",
    "planted",
    "oracle",
    "crash_points",
    "simulation",
    "openapi",
    "compaction",
    "damage_pages",
    "embedded",
    "convergence",
    "damage_rows",
    "orders",
    "fuzz",
];

/// Of the others, which wait for much of their time, so many for each two cores.
const WAITING_PER_TWO_CORES: usize = 3;

/// A test program, as cargo has built it.
struct Suite {
    name: String,
    program: PathBuf,
    /// The folder of its package, in which cargo runs it.
    folder: PathBuf,
}

/// Builds all test programs and runs each, also if others fail. What one prints is shown when it ends.
pub(crate) fn run(mut cargo: Command, env: &[(&str, &str)]) -> Result<(), String> {
    let built = cargo
        .args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"])
        .stdout(Stdio::piped())
        .spawn();
    let mut built = built.map_err(|e| format!("cargo: {e}"))?;
    let messages = built.stdout.take().ok_or("cargo: it has no output")?;
    let mut suites = Vec::new();
    for line in BufReader::new(messages).lines() {
        suites.extend(suite(&line.map_err(|e| format!("cargo: {e}"))?));
    }
    let status = built.wait().map_err(|e| format!("cargo: {e}"))?;
    if !status.success() {
        return Err("the tests do not build".into());
    }
    if suites.is_empty() {
        return Err("cargo names no test programs".into());
    }
    suites.sort_by(|a, b| a.name.cmp(&b.name));
    let count = suites.len();
    let (alone, suites): (Vec<_>, Vec<_>) =
        suites.into_iter().partition(|suite| ALONE.contains(&&*suite.name));
    let (mut busy, waiting): (Vec<_>, _) = suites.into_iter().partition(|suite| BUSY.contains(&&*suite.name));
    busy.sort_by_key(|suite| BUSY.iter().position(|name| *name == suite.name));
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let mut failed = at_a_time(1, alone, env);
    failed.extend(at_a_time(cores, busy, env));
    failed.extend(at_a_time((WAITING_PER_TWO_CORES * cores).div_ceil(2), waiting, env));
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("{} of {count} test programs failed\n{}", failed.len(), failed.join("\n"))),
    }
}

/// Runs so many at a time, and returns which have failed.
fn at_a_time(lanes: usize, suites: Vec<Suite>, env: &[(&str, &str)]) -> Vec<String> {
    let (queue, failed) = (Mutex::new(VecDeque::from(suites)), Mutex::new(Vec::new()));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let run = || {
        while let Some(suite) = next() {
            if let Err(reason) = execute(&suite, env) {
                let reason = format!("{}: {reason}", suite.name);
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(reason);
            }
        }
    };
    thread::scope(|scope| (0..lanes).for_each(|_| drop(scope.spawn(run))));
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What a message of cargo says of a test program, if it is about one.
fn suite(line: &str) -> Option<Suite> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
    let (name, program) = (message["target"]["name"].as_str()?, message["executable"].as_str()?);
    is_test.then(|| Suite { name: name.into(), program: program.into(), folder: folder.into() })
}

/// Runs one, and shows what it has printed.
fn execute(suite: &Suite, env: &[(&str, &str)]) -> Result<(), String> {
    let failed = |e: std::io::Error| e.to_string();
    let begun = Instant::now();
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let mut command = Command::new(&suite.program);
    command.current_dir(&suite.folder).env("CARGO_MANIFEST_DIR", &suite.folder).envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(failed)?).stderr(writer);
    let mut child = command.spawn().map_err(failed)?;
    // It holds the writing end, without which the pipe would not end.
    drop(command);
    let printed = Arc::new(Mutex::new(Vec::new()));
    let collect = thread::spawn({
        let printed = printed.clone();
        move || collect(reader, &printed)
    });
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break Some(status),
            None if begun.elapsed() > LONGEST => {
                child.kill().map_err(failed)?;
                break None;
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    // Programs that it has started and left behind may hold the pipe for longer, and have nothing to say any more.
    let ended = Instant::now();
    while !collect.is_finished() && ended.elapsed() < LAST_WORDS {
        thread::sleep(Duration::from_millis(1));
    }
    show(suite, begun.elapsed(), &printed);
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(status.to_string()),
        None => Err(format!("it was ended after {} s", LONGEST.as_secs())),
    }
}

fn collect(mut reader: impl Read, printed: &Mutex<Vec<u8>>) {
    let mut part = [0; 8 << 10];
    while let Ok(bytes @ 1..) = reader.read(&mut part) {
        printed.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&part[..bytes]);
    }
}

fn show(suite: &Suite, took: Duration, printed: &Mutex<Vec<u8>>) {
    let printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
    let mut out = std::io::stdout().lock();
    // Nobody may read it, and the outcome is told otherwise.
    _ = writeln!(out, "\n     Running {} ({:.1} s)", suite.name, took.as_secs_f64());
    _ = out.write_all(&printed).and_then(|()| out.flush());
}
