//! Which crate may import which, which module of a crate which other one, and which modules may use SQLite and Automerge.

use std::collections::{BTreeMap, BTreeSet};
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
fn no_crate_imports_its_siblings_or_the_layers_above() {
    let layers: [&[&str]; 5] = [
        &["motet-proto", "motet-derive"],
        &["motet", "motet-relay"],
        &["motet-cli", "xtask"],
        &["motet-examples", "motet-benches"],
        // Attacks on a relay are measured, and tested.
        &["motet-tests"],
    ];
    let dependencies = dependencies();
    let known: usize = layers.iter().map(|layer| layer.len()).sum();
    assert_eq!(dependencies.len(), known, "every package has a layer: {:?}", dependencies.keys());
    for (layer, names) in layers.iter().enumerate() {
        for name in *names {
            for dependency in &dependencies[*name] {
                let Some(below) = layers.iter().position(|names| names.contains(&dependency.as_str())) else {
                    continue;
                };
                assert!(
                    below < layer,
                    "{name} in layer {layer} must not import {dependency} of layer {below}"
                );
            }
        }
    }
}

/// The modules of a crate, from the bottom up, each with those that it imports. What stands lower never imports what stands higher.
type Modules = [(&'static str, &'static [&'static str])];

const PROTO: &Modules = &[
    ("limits", &[]),
    ("ids", &[]),
    ("planted", &[]),
    ("packing", &[]),
    ("envelope", &["ids", "limits", "packing"]),
    ("position", &["ids"]),
    ("payload", &["ids", "limits"]),
    ("device_key", &["ids"]),
    ("entry", &["ids", "limits"]),
    ("presence", &["envelope", "ids", "limits"]),
    ("message", &["entry", "ids", "position", "presence"]),
    ("frame", &["limits", "message", "packing"]),
    ("session", &["entry", "ids", "limits", "message", "planted", "position", "presence"]),
];

const MOTET: &Modules = &[
    ("limits", &[]),
    ("time", &[]),
    ("platform", &[]),
    ("types", &["limits"]),
    ("query", &["limits", "types"]),
    ("schema", &["limits", "query"]),
    ("doc", &["limits", "platform", "query", "schema", "types"]),
    ("store", &["limits", "platform", "query", "schema", "types"]),
    ("error", &["schema", "store", "types"]),
    ("engine", &["doc", "error", "limits", "platform", "query", "schema", "store", "time", "types"]),
    ("sync", &["engine", "error", "limits", "platform", "store", "time", "types"]),
    ("secrets", &["limits", "sync", "time"]),
    (
        "api",
        &[
            "doc", "engine", "error", "limits", "platform", "query", "schema", "store", "sync", "time",
            "types",
        ],
    ),
    ("sign_in", &["api", "error", "platform", "secrets", "sync"]),
    ("spaces", &["error", "sync"]),
    ("own_account", &["spaces", "sync"]),
    ("simulation", &["api", "doc", "error", "platform", "schema", "store", "sync"]),
];

const RELAY: &Modules = &[
    ("limits", &[]),
    ("terminal", &[]),
    ("admin", &[]),
    ("identity", &[]),
    ("own_account", &[]),
    ("sharing", &[]),
    ("auth", &["identity", "limits", "own_account"]),
    ("oidc", &["identity", "limits"]),
    ("config", &["limits", "oidc"]),
    ("doors", &["config", "limits"]),
    ("tls", &["limits"]),
    ("accept", &["config", "doors", "limits", "tls"]),
    ("metrics", &["limits"]),
    ("exporter", &["accept", "config", "doors", "limits", "metrics"]),
    ("accounts", &["config", "limits"]),
    ("strangers", &["limits"]),
    ("outgoing", &["config"]),
    ("store", &["config", "limits"]),
    ("access", &["auth", "sharing", "store"]),
    ("directory", &["access", "auth", "identity", "limits", "own_account", "sharing", "store"]),
    ("export", &["directory", "store"]),
    ("erasure", &["directory", "limits", "store"]),
    ("reload", &["access", "auth", "config", "directory", "identity", "limits", "oidc", "sharing"]),
    ("health", &["limits", "store"]),
    ("notifier", &["limits", "store"]),
    ("hub", &["limits", "notifier", "store"]),
    (
        "state",
        &[
            "access",
            "accounts",
            "auth",
            "config",
            "doors",
            "health",
            "hub",
            "limits",
            "metrics",
            "outgoing",
            "store",
            "strangers",
        ],
    ),
    ("requests", &["doors", "limits", "state"]),
    ("session", &["access", "auth", "hub", "limits", "metrics", "outgoing", "state", "store"]),
    ("routes", &["auth", "doors", "limits", "state"]),
    ("registration", &["auth", "doors", "identity", "limits", "routes", "state"]),
    ("own_routes", &["auth", "limits", "own_account", "routes", "state"]),
    ("spaces", &["access", "limits", "routes", "sharing", "state"]),
    (
        "console",
        &[
            "access",
            "auth",
            "directory",
            "doors",
            "limits",
            "metrics",
            "own_account",
            "own_routes",
            "routes",
            "sharing",
            "spaces",
            "state",
            "store",
        ],
    ),
    (
        "server",
        &[
            "accept",
            "access",
            "auth",
            "config",
            "console",
            "directory",
            "doors",
            "erasure",
            "health",
            "hub",
            "limits",
            "metrics",
            "notifier",
            "own_routes",
            "registration",
            "requests",
            "session",
            "spaces",
            "state",
            "store",
            "strangers",
            "tls",
        ],
    ),
    ("embedded", &["doors", "limits", "server", "session", "state"]),
    ("simulation", &["doors", "embedded", "server", "state"]),
];

#[test]
fn modules_import_what_stands_below_them_alone() {
    for (krate, modules) in [("motet-proto", PROTO), ("motet", MOTET), ("motet-relay", RELAY)] {
        let source = root().join("crates").join(krate).join("src");
        let known: Vec<&str> = modules.iter().map(|(module, _)| *module).collect();
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in rust_files(&source) {
            let module = module_of(&source, &file);
            if ["lib", "main"].contains(&&*module) || file.ends_with("tests.rs") {
                continue;
            }
            assert!(known.contains(&&*module), "{krate}: {module} has no place among the modules");
            let imported = imports(&std::fs::read_to_string(&file).unwrap());
            let others = imported.into_iter().filter(|other| *other != module && known.contains(&&**other));
            found.entry(module.clone()).or_default().extend(others);
        }
        for (place, (module, allowed)) in modules.iter().enumerate() {
            for other in *allowed {
                let below = known[..place].contains(other);
                assert!(below, "{krate}: {module} must not import {other}, which does not stand below it");
            }
            let allowed: BTreeSet<String> = allowed.iter().map(ToString::to_string).collect();
            let found = found.get(*module).cloned().unwrap_or_default();
            assert_eq!(found, allowed, "{krate}: what {module} imports");
        }
    }
}

/// The list in the document is the one that is enforced.
#[test]
fn the_imports_are_written_down() {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let written = text.split("## Imports").nth(1).unwrap();
    let lines: Vec<String> =
        written.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for (krate, modules) in [("motet-proto", PROTO), ("motet", MOTET), ("motet-relay", RELAY)] {
        let begin = lines.iter().position(|line| *line == format!("`{krate}`")).unwrap();
        let list: Vec<&String> = lines[begin + 1..]
            .iter()
            .skip_while(|line| *line != "```")
            .skip(1)
            .take_while(|line| *line != "```")
            .collect();
        let enforced: Vec<String> = modules
            .iter()
            .map(|(module, imports)| match imports.is_empty() {
                true => (*module).to_owned(),
                false => format!("{module} → {}", imports.join(", ")),
            })
            .collect();
        assert_eq!(list, enforced.iter().collect::<Vec<_>>(), "{krate}");
    }
}

fn module_of(source: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(source).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// What stands right behind `crate::` in a source, comments aside, also within braces.
fn imports(source: &str) -> BTreeSet<String> {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let text = lines.collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for part in text.split("crate::").skip(1) {
        let Some(group) = part.strip_prefix('{') else {
            found.insert(first_name(part));
            continue;
        };
        let mut depth = 0;
        let mut names = vec![String::new()];
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                '{' => depth += 1,
                ',' if depth == 0 => names.push(String::new()),
                c if depth == 0 => names.last_mut().unwrap().push(c),
                _ => {}
            }
        }
        found.extend(names.iter().map(|name| first_name(name.trim())));
    }
    found
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
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
fn one_module_uses_sqlite_automerge_and_the_network() {
    for (krate, word, modules) in [
        ("motet", "rusqlite", &["store"][..]),
        ("motet", "automerge", &["doc"]),
        ("motet", "reqwest", &["sync"]),
        ("motet", "tokio_tungstenite", &["sync"]),
        ("motet-relay", "rusqlite", &["directory", "store"]),
    ] {
        let source = root().join("crates").join(krate).join("src");
        for file in rust_files(&source) {
            let inside = file.strip_prefix(&source).unwrap();
            let module =
                inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
            let text = std::fs::read_to_string(&file).unwrap();
            let used = text
                .lines()
                .any(|line| line.contains(&format!("{word}::")) && !line.trim_start().starts_with("//"));
            assert!(!used || modules.contains(&module), "{} must not know {word}", file.display());
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
    const ALLOWED: [&str; 16] = [
        "Cargo.toml",
        "Cargo.lock",
        "crates",
        "examples",
        "benches",
        "tests",
        "README.md",
        "docs",
        "deploy",
        "fuzz",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
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

/// Docs name tests as `file::test`, or as `file::beginning_…`: a test that is renamed or moved is renamed there too.
#[test]
fn tests_that_the_docs_name_are_there() {
    let mut missing = Vec::new();
    for doc in
        ["docs/security.md", "docs/reliability.md", "docs/requirements.md", "docs/storage.md", "README.md"]
    {
        let text = std::fs::read_to_string(root().join(doc)).unwrap();
        for (file, name) in text.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")) {
            let source = std::fs::read_to_string(root().join(format!("tests/tests/{file}.rs")));
            // Modules of crates have names of the same form.
            let Some(source) = source.ok().filter(|_| !name.contains("::")) else { continue };
            // A whole name ends at the parenthesis.
            let wanted = match name.strip_suffix(['…', '*']) {
                Some(beginning) => format!("fn {beginning}"),
                None => format!("fn {name}("),
            };
            if !source.contains(&wanted) {
                missing.push(format!("{doc}: {file}::{name}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
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
