//! Schemathesis, which asks a relay what its description allows and forbids: a program in Python, in an environment of its own below the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What belongs into the environment.
const REQUIREMENTS: &str = "../../tests/schemathesis/requirements.txt";

/// Whether it is there, in the versions that are asked for.
pub(crate) fn is_there() -> bool {
    let asked = fs::read(requirements());
    folder()
        .is_some_and(|folder| asked.is_ok_and(|asked| fs::read(stamp(&folder)).is_ok_and(|had| had == asked)))
}

/// Installs it, where there is a Python with `venv` and a package index. What could not be installed is missing, and said so at the end.
pub(crate) fn install() {
    let Some(folder) = folder().filter(|_| !is_there()) else { return };
    let quietly = |program: &Path, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let (Some(into), requirements) = (folder.to_str(), requirements()) else { return };
    let Some(requirements) = requirements.to_str() else { return };
    // From nothing: what an earlier run has left half done is no beginning.
    let make = || quietly(Path::new("python3"), &["-m", "venv", "--clear", into]);
    // Debian has the module in a package of its own.
    let made = make() || {
        crate::install_packages(&["python3-venv"]);
        make()
    };
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"];
    let args = [&pip[..], &["--only-binary", ":all:", "--requirement", requirements]].concat();
    if made && quietly(&folder.join("bin/python"), &args) {
        // Last: it says that all the rest is there.
        _ = fs::copy(requirements, stamp(&folder));
    }
}

fn requirements() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(REQUIREMENTS)
}

/// Beside the folder of the programs, where the suite looks for it.
fn folder() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    Some(own.parent()?.parent()?.join("schemathesis"))
}

fn stamp(folder: &Path) -> PathBuf {
    folder.join("requirements.txt")
}
