//! Texts that were really edited on two branches: merged by Motet on two devices, and by git.
//!
//! `cargo run --release -p motet-benches --bin prose -- --repo PATH` takes every merge in the history of a git repository in which both
//! sides changed the same file of prose.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use motet::{ConflictKind, Relay, Replica, Schema};
use serde_json::json;
use similar::{ChangeTag, DiffTag, TextDiff};

/// Merges prose from a git history on two devices and compares with git's merge.
#[derive(Parser)]
struct Args {
    /// A git repository with prose in it
    #[arg(long)]
    repo: PathBuf,
    /// Most cases
    #[arg(long, default_value_t = 500)]
    limit: usize,
    /// Ends of the names of files that are prose
    #[arg(long, value_delimiter = ',', default_value = ".md,.asc,.txt,.rst,.adoc")]
    prose: Vec<String>,
    /// Show what differs from git
    #[arg(long)]
    show: bool,
}

struct Case {
    name: String,
    base: String,
    sides: [String; 2],
    /// Git's merge, if it found no conflict.
    clean: Option<String>,
}

fn main() {
    let args = Args::parse();
    let cases = cases(&args);
    let merged = merge(&cases);
    let (mut clean, mut equal, mut lines_lost, mut words_lost, mut unlisted) = (0, 0, 0, 0, 0);
    for (case, (text, is_listed)) in cases.iter().zip(&merged) {
        match &case.clean {
            Some(git) => {
                clean += 1;
                equal += usize::from(git == text);
                let lost = case
                    .sides
                    .iter()
                    .any(|side| inserted_lines(&case.base, side).any(|l| !text.contains(&l)));
                lines_lost += usize::from(lost);
                if args.show && git != text {
                    println!("--- {}", case.name);
                    print!("{}", TextDiff::from_lines(git, text).unified_diff().header("git", "motet"));
                }
            }
            None => {
                let missing: Vec<String> = case
                    .sides
                    .iter()
                    .flat_map(|side| inserted_words(&case.base, side))
                    .filter(|word| !text.contains(word.as_str()))
                    .collect();
                let lost = !missing.is_empty();
                words_lost += usize::from(lost);
                unlisted += usize::from(!is_listed);
                if args.show && (lost || !is_listed) {
                    println!("--- {}: not there {missing:?}, overlap listed {is_listed}", case.name);
                }
            }
        }
    }
    println!("{} cases, the same text on both devices in all of them", cases.len());
    println!(
        "git merges {clean} cleanly: {equal} equal ({:.1} %), an inserted line is missing in {lines_lost}",
        equal as f64 * 100.0 / f64::from(clean.max(1))
    );
    println!(
        "git finds conflicts in {}: an inserted word is missing in {words_lost}, the overlap is not in the journal in {unlisted}",
        cases.len() as i32 - clean
    );
}

/// Both devices' edits of all cases, merged: the text, and whether an overlap is in the journal.
fn merge(cases: &[Case]) -> Vec<(String, bool)> {
    let dir = tempfile::tempdir().unwrap();
    let url = relay(&dir.path().join("relay"));
    let open = |name: &str| {
        let replica =
            Replica::builder(dir.path().join(format!("{name}.db"))).device_name(name).open().unwrap();
        replica.apply_schema(&Schema::new().text("files", "text")).unwrap();
        replica
    };
    let sync = |replica: &Replica| {
        replica.connect(Relay::new(&url)).unwrap();
        replica.sync_now().unwrap();
    };
    let (a, b) = (open("a"), open("b"));
    for (n, case) in cases.iter().enumerate() {
        a.documents("files").upsert(&n.to_string(), &json!({ "text": case.base })).unwrap();
    }
    sync(&a);
    sync(&b);
    a.disconnect();
    b.disconnect();
    for (n, case) in cases.iter().enumerate() {
        for (replica, text) in [&a, &b].into_iter().zip(&case.sides) {
            replica.documents("files").patch(&n.to_string(), &json!({ "text": text })).unwrap();
        }
    }
    sync(&a);
    sync(&b);
    sync(&a);
    let of = |replica: &Replica, n: usize| {
        replica.documents("files").get(&n.to_string()).unwrap().unwrap()["text"].as_str().unwrap().to_owned()
    };
    (0..cases.len())
        .map(|n| {
            let text = of(&a, n);
            assert_eq!(text, of(&b, n), "{}", cases[n].name);
            let journal = a.documents("files").document(&n.to_string()).conflicts().unwrap();
            (text, journal.iter().any(|conflict| conflict.kind == ConflictKind::Text))
        })
        .collect()
}

fn cases(args: &Args) -> Vec<Case> {
    let git = |parts: &[&str]| -> Option<String> {
        let output = Command::new("git").arg("-C").arg(&args.repo).args(parts).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()
    };
    let mut cases = Vec::new();
    let merges = git(&["log", "--merges", "--format=%H %P"]).expect("a git repository");
    for merge in merges.lines() {
        let [_, ours, theirs] = merge.split(' ').collect::<Vec<_>>()[..] else { continue };
        let Some(base) = git(&["merge-base", ours, theirs]) else { continue };
        let base = base.trim();
        let changed = |side| git(&["diff", "--name-only", base, side]).unwrap_or_default();
        let (left, right) = (changed(ours), changed(theirs));
        let left: HashSet<&str> = left.lines().collect();
        for file in
            right.lines().filter(|f| left.contains(f) && args.prose.iter().any(|end| f.ends_with(end)))
        {
            let at = |commit| git(&["show", &format!("{commit}:{file}")]);
            let (Some(old), Some(ours), Some(theirs)) = (at(base), at(ours), at(theirs)) else { continue };
            if ours == theirs || ours == old || theirs == old {
                continue;
            }
            let clean = git_merge(&old, &ours, &theirs);
            let name = format!("{} {file}", &merge[..10]);
            cases.push(Case { name, base: old, sides: [ours, theirs], clean });
            if cases.len() == args.limit {
                return cases;
            }
        }
    }
    cases
}

/// What git makes of it, if it finds no conflict.
fn git_merge(base: &str, ours: &str, theirs: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("base", base), ("ours", ours), ("theirs", theirs)] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let output = Command::new("git")
        .current_dir(dir.path())
        .args(["merge-file", "-p", "ours", "base", "theirs"])
        .output()
        .unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn inserted_lines(base: &str, side: &str) -> impl Iterator<Item = String> {
    let diff = TextDiff::from_lines(base, side);
    let inserted = diff.iter_all_changes().filter(|change| change.tag() == ChangeTag::Insert);
    inserted.map(|change| change.value().trim_end().to_owned()).collect::<Vec<_>>().into_iter()
}

/// Words that a side inserted: in changed lines, those that the lines before did not have.
fn inserted_words(base: &str, side: &str) -> Vec<String> {
    let lines = TextDiff::from_lines(base, side);
    let mut words = Vec::new();
    for op in lines.ops() {
        let (old, new) = (op.old_range(), op.new_range());
        let of = |slices: &[&str]| -> String { slices.concat() };
        let (removed, inserted) = (of(&lines.old_slices()[old]), of(&lines.new_slices()[new]));
        if op.tag() == DiffTag::Insert || op.tag() == DiffTag::Replace {
            let known: HashSet<&str> = removed.split_whitespace().collect();
            let new = inserted.split_whitespace().filter(|word| !known.contains(word));
            words.extend(new.map(str::to_owned));
        }
    }
    words
}

fn relay(data: &Path) -> String {
    let (tell, told) = std::sync::mpsc::channel();
    let config = motet_relay::Config::new(data);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(format!("http://{}", listener.local_addr().unwrap())).unwrap();
            motet_relay::run(listener, config, std::future::pending()).await.unwrap();
        });
    });
    told.recv().unwrap()
}
