//! Whether a version that is locked has a known fault, by RustSec's database: <https://github.com/RustSec/advisory-db>.

use std::fs;
use std::path::{Path, PathBuf};

use semver::{Version, VersionReq};
use toml::{Table, Value};

/// Compares `Cargo.lock` of the workspace with a checkout of the database.
pub(crate) fn check(database: &Path) -> Result<(), String> {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let crates = database.join("crates");
    if !crates.is_dir() {
        return Err(format!(
            "{} is no checkout of advisory-db: it has no folder `crates`",
            database.display()
        ));
    }
    let locked = locked(&read(&lock)?).map_err(|e| format!("{}: {e}", lock.display()))?;
    let (mut compared, mut found) = (0, Vec::new());
    for (name, version) in &locked {
        for file in advisories(&crates.join(name))? {
            let advisory = advisory(&read(&file)?).map_err(|e| format!("{}: {e}", file.display()))?;
            compared += 1;
            if concerns(&advisory, version).map_err(|e| format!("{}: {e}", file.display()))? {
                found.push(format!("{name} {version}: {}", file.display()));
            }
        }
    }
    println!(
        "{} packages, {compared} advisories about them, {} of these versions",
        locked.len(),
        found.len()
    );
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))
}

/// Packages that come from a registry, with their versions.
fn locked(lock: &str) -> Result<Vec<(String, Version)>, String> {
    let lock: Table = lock.parse().map_err(|e| format!("{e}"))?;
    let packages = lock.get("package").and_then(Value::as_array).ok_or("it has no packages")?;
    let text = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
    let foreign = packages.iter().filter(|package| package.get("source").is_some());
    foreign
        .map(|package| {
            let (name, version) =
                text(package, "name").zip(text(package, "version")).ok_or("a package lacks its version")?;
            Ok((name, version.parse().map_err(|e| format!("{version}: {e}"))?))
        })
        .collect()
}

fn advisories(folder: &Path) -> Result<Vec<PathBuf>, String> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    Ok(files.filter(|file| file.extension().is_some_and(|extension| extension == "md")).collect())
}

/// What stands between the first fences of an advisory.
fn advisory(text: &str) -> Result<Table, String> {
    let table = text.strip_prefix("```toml\n").and_then(|rest| rest.split("\n```").next());
    table.ok_or("it does not begin with a table")?.parse().map_err(|e| format!("{e}"))
}

/// Whether a version is neither older than the fault nor newer than its mending.
fn concerns(advisory: &Table, version: &Version) -> Result<bool, String> {
    let is_withdrawn = advisory.get("advisory").is_some_and(|advisory| advisory.get("withdrawn").is_some());
    let fine = ["patched", "unaffected"].into_iter().flat_map(|key| {
        let versions = advisory.get("versions").and_then(|versions| versions.get(key));
        versions.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    });
    for text in fine {
        let range: VersionReq = text.parse().map_err(|e| format!("{text}: {e}"))?;
        if range.matches(version) {
            return Ok(false);
        }
    }
    Ok(!is_withdrawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_concerned_between_the_fault_and_its_mending() {
        let text = "```toml\n[advisory]\nid = \"RUSTSEC-2000-0001\"\n[versions]\npatched = [\">= 0.18.2\"]\nunaffected = [\"< 0.9\"]\n```\n\n# Title\n";
        let advisory = advisory(text).unwrap();
        for (version, expected) in [("0.8.9", false), ("0.9.0", true), ("0.18.1", true), ("0.18.2", false)] {
            assert_eq!(concerns(&advisory, &version.parse().unwrap()), Ok(expected), "{version}");
        }
        let withdrawn = text.replace("[versions]", "withdrawn = \"2001-01-01\"\n[versions]");
        assert_eq!(concerns(&super::advisory(&withdrawn).unwrap(), &"0.9.0".parse().unwrap()), Ok(false));
        assert!(super::advisory("# Title").is_err());
    }

    #[test]
    fn what_comes_from_a_registry_is_compared() {
        let lock = "[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n[[package]]\nname = \"lru\"\nversion = \"0.18.2\"\nsource = \"registry\"\n";
        assert_eq!(locked(lock).unwrap(), [("lru".to_owned(), Version::new(0, 18, 2))]);
        assert!(locked("").is_err());
    }
}
