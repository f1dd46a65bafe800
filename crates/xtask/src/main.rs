//! The project's own commands: `cargo xtask test`, all tests with small budgets, and `cargo xtask ci`, everything.

mod advisories;
mod schemathesis;
mod suites;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const USAGE: &str = "usage: cargo xtask test [ARGS FOR cargo test]   all tests, random ones with small budgets
       cargo xtask ci                          everything: format, lints, features, docs, all tests with their full budgets
       cargo xtask advisories FOLDER           compares Cargo.lock with a checkout of RustSec's advisory-db";

/// Where `ci` finds such a checkout.
const ADVISORY_DB: &str = "MOTET_ADVISORY_DB";

/// What tests take from the environment in a run with small budgets; what somebody has set stays, and with a budget of theirs, all of it.
const QUICK: [(&str, &str); 2] = [("MOTET_BUDGET", "quick"), ("PROPTEST_CASES", "16")];

/// The same for everything.
const FULL: [(&str, &str); 1] = [("MOTET_BUDGET", "full")];

/// Combinations of features that apps may choose: each must build, without warnings. The defaults are built with everything else.
const FEATURES: [&[&str]; 3] = [
    &["-p", "motet", "--no-default-features"],
    &["-p", "motet", "--all-features"],
    &["-p", "motet-relay", "--no-default-features"],
];

/// The command line as it is built with the feature `keyring`, beside the usual one.
const WITH_KEYRING: &str = "motet-with-keyring";

/// Programs that tests start, the Debian packages that have them, and the suites that cannot run without.
const PROGRAMS: [(&str, &str, &str); 9] = [
    ("chromedriver", "chromium-driver", "tests/console_browser.rs"),
    ("chromium", "chromium", "tests/console_browser.rs"),
    ("dbus-daemon", "dbus", "tests/keyring.rs"),
    ("gnome-keyring-daemon", "gnome-keyring", "tests/keyring.rs"),
    ("nats-server", "nats-server", "tests/nodes.rs"),
    ("nginx", "nginx", "tests/nginx.rs"),
    ("pg_ctlcluster", "postgresql", "tests/nodes.rs and a part of tests/stores.rs"),
    ("python3", "python3-venv", "a part of tests/openapi.rs"),
    ("valgrind", "valgrind", "tests/instructions.rs"),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let outcome = match args.next().as_deref() {
        Some("test") => {
            let is_set = |(name, _): &(&str, &str)| std::env::var_os(name).is_some();
            let budgets = if is_set(&QUICK[0]) { Vec::new() } else { QUICK.to_vec() };
            let budgets: Vec<_> = budgets.into_iter().filter(|budget| !is_set(budget)).collect();
            test(&args.collect::<Vec<_>>(), &budgets)
        }
        Some("ci") if args.len() == 0 => ci(),
        Some("advisories") => match (args.next(), args.next()) {
            (Some(folder), None) => advisories::check(Path::new(&folder)),
            _ => Err(USAGE.to_owned()),
        },
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// What must hold before a change lands.
fn ci() -> Result<(), String> {
    step(&["fmt", "--all", "--check"], &[])?;
    let lints = ["--all-targets", "--locked", "--", "-D", "warnings"];
    step(&[&["clippy", "--workspace"], &lints[..]].concat(), &[])?;
    step(&[&["clippy", "--workspace", "--features", "motet-cli/keyring"], &lints[..]].concat(), &[])?;
    for features in FEATURES {
        step(&[&["clippy", "--lib"], features, &["--locked", "--", "-D", "warnings"]].concat(), &[])?;
    }
    step(&["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    match std::env::var_os(ADVISORY_DB) {
        Some(folder) => advisories::check(Path::new(&folder))?,
        None => {
            eprintln!("xtask: SKIPPED: advisories; {ADVISORY_DB} names no checkout of RustSec's advisory-db")
        }
    }
    // Last, so that a log ends with what the tests say.
    test(&[], &FULL)
}

/// Runs every test of the workspace. The programs that some of them start are built first, and installed where that is possible.
fn test(args: &[String], budgets: &[(&str, &str)]) -> Result<(), String> {
    // With the tests, as `cargo test` has it: other dependencies would mean other features, and everything built once more.
    let build = ["build", "--workspace", "--bins", "--tests"];
    cargo(&[&build[..], &["--features", "motet-cli/keyring"]].concat(), &[], &[])?;
    keep_apart()?;
    cargo(&build, &[], &[])?;
    install();
    schemathesis::install();
    let tested = match args {
        // Not those that run in its documentation, which are one program of another kind.
        [] => suites::run(cargo_command(), budgets)
            .and_then(|()| cargo(&["test", "--workspace", "--doc"], &[], budgets)),
        args => cargo(&["test", "--workspace"], args, budgets),
    };
    for (program, package, suite) in missing() {
        eprintln!("xtask: SKIPPED: {suite} needs {program} (Debian package {package})");
    }
    if !schemathesis::is_there() {
        eprintln!(
            "xtask: SKIPPED: a part of tests/openapi.rs needs Schemathesis (tests/schemathesis/requirements.txt, by python3 with venv and pip)"
        );
    }
    tested
}

/// The next build puts the usual command line in the place of this one.
fn keep_apart() -> Result<(), String> {
    let named = |name: &str| -> Result<PathBuf, String> {
        let own = std::env::current_exe().map_err(|e| format!("xtask: {e}"))?;
        let folder = own.parent().unwrap_or(Path::new("."));
        Ok(folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
    };
    let (from, to) = (named("motet")?, named(WITH_KEYRING)?);
    // A copy into a file that another run has open fails; a new file in its place does not.
    let fresh = to.with_extension("new");
    std::fs::copy(&from, &fresh)
        .and_then(|_| std::fs::rename(&fresh, &to))
        .map_err(|e| format!("{} -> {}: {e}", from.display(), to.display()))
}

/// Installs what is missing, where this is Debian and we may.
fn install() {
    let packages: Vec<&str> = missing().map(|(_, package, _)| package).collect();
    install_packages(&packages);
}

/// Installs Debian packages likewise.
fn install_packages(packages: &[&str]) {
    if packages.is_empty() || !cfg!(target_os = "linux") {
        return;
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]).args(args);
        // Without a network it gives up at once.
        command.args(["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let install = [&["install", "--no-install-recommends"], packages].concat();
    if !apt(&install) {
        _ = apt(&["update"]) && apt(&install);
    }
}

fn missing() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let is_there = move |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    PROGRAMS.into_iter().filter(move |(program, ..)| !is_there(program))
}

/// Says what it does before.
fn step(args: &[&str], env: &[(&str, &str)]) -> Result<(), String> {
    eprintln!("\n== cargo {}", args.join(" "));
    cargo(args, &[], env)
}

fn cargo(fixed: &[&str], more: &[String], env: &[(&str, &str)]) -> Result<(), String> {
    let mut command = cargo_command();
    command.args(fixed).args(more).envs(env.iter().copied());
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`cargo {}` failed", fixed.join(" "))) }
}

fn cargo_command() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
