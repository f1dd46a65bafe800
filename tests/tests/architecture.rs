//! The house: which crate may know which, and which room of `motet` may know SQLite and Automerge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Normal dependencies of every package of the workspace.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let normal = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
            let names = normal.map(|d| d["name"].as_str().unwrap().to_owned()).collect();
            (package["name"].as_str().unwrap().to_owned(), names)
        })
        .collect()
}

#[test]
fn no_crate_knows_its_siblings_or_the_floors_above() {
    let floors: [&[&str]; 5] = [
        &["motet-proto", "motet-derive"],
        &["motet", "motet-relay"],
        &["motet-cli", "xtask"],
        &["motet-examples", "motet-benches"],
        // Attacks on a relay are measured, and tested.
        &["motet-tests"],
    ];
    let dependencies = dependencies();
    let known: usize = floors.iter().map(|floor| floor.len()).sum();
    assert_eq!(dependencies.len(), known, "every package has a floor: {:?}", dependencies.keys());
    for (floor, names) in floors.iter().enumerate() {
        for name in *names {
            for dependency in &dependencies[*name] {
                let Some(below) = floors.iter().position(|names| names.contains(&dependency.as_str())) else {
                    continue;
                };
                assert!(below < floor, "{name} on floor {floor} must not know {dependency} on floor {below}");
            }
        }
    }
}

#[test]
fn the_wire_does_no_io_and_the_relay_is_blind() {
    let dependencies = dependencies();
    let forbidden = |name: &str, crates: &[&str]| {
        for dependency in &dependencies[name] {
            assert!(!crates.contains(&dependency.as_str()), "{name} must not know {dependency}");
        }
    };
    forbidden("motet-proto", &["tokio", "rusqlite", "automerge", "reqwest", "axum", "getrandom", "rand"]);
    forbidden("motet-relay", &["automerge", "motet"]);
    forbidden("motet", &["axum", "motet-relay"]);
}

#[test]
fn only_its_room_knows_sqlite_automerge_and_the_network() {
    for (krate, word, rooms) in [
        ("motet", "rusqlite", &["store"][..]),
        ("motet", "automerge", &["doc"]),
        ("motet", "reqwest", &["sync"]),
        ("motet", "tokio_tungstenite", &["sync"]),
        ("motet-relay", "rusqlite", &["store"]),
    ] {
        let source = root().join("crates").join(krate).join("src");
        for file in rust_files(&source) {
            let inside = file.strip_prefix(&source).unwrap();
            let room =
                inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
            let text = std::fs::read_to_string(&file).unwrap();
            let used = text
                .lines()
                .any(|line| line.contains(&format!("{word}::")) && !line.trim_start().starts_with("//"));
            assert!(!used || rooms.contains(&room), "{} must not know {word}", file.display());
        }
    }
}

#[test]
fn the_wire_reads_no_clock_and_draws_no_randomness() {
    for file in rust_files(&root().join("crates/motet-proto/src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for word in ["Instant::now", "SystemTime", "std::net", "std::fs", "std::thread"] {
            let in_test = file.ends_with("tests.rs");
            assert!(in_test || !text.contains(word), "{} uses {word}", file.display());
        }
    }
}

#[test]
fn the_top_level_is_as_it_should_be() {
    const ALLOWED: [&str; 14] = [
        "Cargo.toml",
        "Cargo.lock",
        "crates",
        "examples",
        "benches",
        "tests",
        "README.md",
        "docs",
        "fuzz",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "CHANGELOG.md",
        "rustfmt.toml",
        "clippy.toml",
    ];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || name == "target" || ALLOWED.contains(&name.as_str()),
            "{name} at the top level"
        );
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
