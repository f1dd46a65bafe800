//! The project's own commands: `cargo xtask test`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const USAGE: &str = "usage: cargo xtask test [ARGS FOR cargo test]";

/// The command line as it is built with the feature `keyring`, beside the usual one.
const WITH_KEYRING: &str = "motet-with-keyring";

/// Programs that tests start, the Debian packages that have them, and the suites that cannot run without.
const PROGRAMS: [(&str, &str, &str); 2] = [
    ("dbus-daemon", "dbus", "tests/keyring.rs"),
    ("gnome-keyring-daemon", "gnome-keyring", "tests/keyring.rs"),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let outcome = match args.next().as_deref() {
        Some("test") => test(args.collect()),
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

/// Runs every test of the workspace. The programs that some of them start are built first, and installed where that is possible.
fn test(args: Vec<String>) -> Result<(), String> {
    cargo(&["build", "--workspace", "--bins", "--features", "motet-cli/keyring"], &[])?;
    keep_apart()?;
    cargo(&["build", "--workspace", "--bins"], &[])?;
    install();
    let tested = cargo(&["test", "--workspace"], &args);
    for (program, package, suite) in missing() {
        eprintln!("xtask: SKIPPED: {suite} needs {program} (Debian package {package})");
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
    let install = [&["install", "--no-install-recommends"], &packages[..]].concat();
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

fn cargo(fixed: &[&str], more: &[String]) -> Result<(), String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(fixed).args(more).status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`cargo {}` failed", fixed.join(" "))) }
}
