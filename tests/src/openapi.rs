//! The description of the relay's HTTP interface: `docs/openapi.json`.

use std::collections::BTreeSet;

use serde_json::Value;

/// Where it is, from the folder of the tests.
pub const FILE: &str = "../docs/openapi.json";

/// What is no method in an item of `paths`.
const BESIDE_METHODS: [&str; 2] = ["parameters", "servers"];

/// A method and a path, of which the variable parts are names in braces.
pub type Operation = (String, String);

/// The description as it is.
///
/// # Panics
/// If it cannot be read.
pub fn description() -> Value {
    serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
}

/// Every operation that it has.
///
/// # Panics
/// If it cannot be read.
pub fn operations() -> BTreeSet<Operation> {
    let description = description();
    let of = |(path, item): (&String, &Value)| -> Vec<Operation> {
        let methods = item.as_object().unwrap().keys();
        let methods = methods.filter(|key| !BESIDE_METHODS.contains(&key.as_str()));
        methods.map(|method| (method.to_uppercase(), path.clone())).collect()
    };
    description["paths"].as_object().unwrap().iter().flat_map(of).collect()
}

/// Every path that the source of the relay names to its router, without the pages of the console.
///
/// # Panics
/// If it cannot be read.
pub fn routes_of_the_source() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    let mut folders = vec![std::path::PathBuf::from("../crates/motet-relay/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(entry).unwrap();
                routes.extend(text.split(".route(").skip(1).map(|rest| first_string(rest).to_owned()));
            }
        }
    }
    routes.retain(|route| !route.starts_with("/console"));
    routes
}

/// The path that a call of the router begins with. One that is made by other means than a literal would not be seen.
fn first_string(call: &str) -> &str {
    let literal = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
    literal
        .unwrap_or_else(|| panic!("a route whose path is no literal: {}", call.lines().next().unwrap_or("")))
}
