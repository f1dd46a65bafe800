//! The project's own commands: `cargo xtask test`.

use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask test [ARGS FOR cargo test]";

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

/// Runs every test of the workspace. The programs that some of them start are built first.
fn test(args: Vec<String>) -> Result<(), String> {
    cargo(&["build", "--workspace", "--bins"], &[])?;
    cargo(&["test", "--workspace"], &args)
}

fn cargo(fixed: &[&str], more: &[String]) -> Result<(), String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(fixed).args(more).status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`cargo {}` failed", fixed.join(" "))) }
}
