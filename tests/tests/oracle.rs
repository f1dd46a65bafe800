//! The oracle: random scripts, and everything that can be read after each of their steps against a model in plain JSON.
//!
//! `cargo run --release -p motet-tests --bin oracle -- --scripts 1000000` plays more of them. `MOTET_SEED` plays one seed here.

use motet_tests::oracle::{Act, Generate, Kind, Policy, Script, Step, Write, alone, play, search, together};
use serde_json::{Value, json};

/// Scripts that are played unless `MOTET_SCRIPTS` says otherwise; of ten so many on one device.
const SCRIPTS: u64 = 10_000;
const ALONE_OF_TEN: u64 = 7;

fn every_script_keeps_its_promises(generate: Generate, of_ten: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) = match number("MOTET_SEED") {
        Some(seed) => (seed, 1),
        None => (1, motet_tests::random::count("MOTET_SCRIPTS", SCRIPTS) * of_ten / 10),
    };
    let search = search(generate, first, count, false);
    println!("{} scripts", search.scripts);
    if let Some((_, found)) = search.found.values().next() {
        panic!("{found}");
    }
}

#[test]
fn scripts_on_one_device() {
    every_script_keeps_its_promises(alone, ALONE_OF_TEN);
}

#[test]
fn scripts_on_two_and_three_devices() {
    every_script_keeps_its_promises(together, 10 - ALONE_OF_TEN);
}

/// Scripts that once failed, made short.
mod once {
    use super::*;

    fn script(declared: &[(&str, Kind)], acts: Vec<Act>) -> Script {
        let declared = declared.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).into())).collect();
        let steps = acts.into_iter().map(|act| Step { device: 0, act }).collect();
        Script { devices: 1, skews: vec![0], local: false, policy: Policy::EditWins, declared, steps }
    }

    fn fields(value: Value) -> serde_json::Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    fn put(value: Value) -> Act {
        Act::Write(Write::Put { doc: 0, fields: fields(value) })
    }

    fn update(values: &[Value]) -> Act {
        let changes = values.iter().map(|value| (fields(value.clone()), Vec::new())).collect();
        Act::Write(Write::Update { doc: 0, changes })
    }

    #[track_caller]
    fn holds(script: Script) {
        if let Err(fault) = play(&script) {
            panic!("{fault:?}\n{script}");
        }
    }

    #[test]
    fn a_record_is_updated_twice() {
        for (kind, begin, edit) in [
            (Kind::Counter, json!(1), json!(0)),
            (Kind::Text, json!(""), json!("a")),
            (Kind::List, json!([]), json!([null])),
            (Kind::Set, json!([]), json!(["a"])),
            (Kind::Rank, json!("draft"), json!("performed")),
            (Kind::Register, json!(1.5), json!({})),
        ] {
            let acts = vec![put(json!({ "f": begin })), update(&[json!({ "f": edit }), json!({})])];
            holds(script(&[("f", kind)], acts));
            let acts =
                vec![put(json!({ "f": begin })), update(&[json!({ "f": edit }), json!({ "f": begin })])];
            holds(script(&[("f", kind)], acts));
        }
    }

    #[test]
    fn a_field_that_held_something_else_is_written() {
        let olds =
            [json!(null), json!("3"), json!(1.5), json!(true), json!([1]), json!({ "a": 1 }), json!(3)];
        for old in olds {
            for (kind, new) in [
                (Kind::Counter, json!(3)),
                (Kind::List, json!(["a", "b"])),
                (Kind::Set, json!(["a", "b"])),
                (Kind::Text, json!("two words")),
            ] {
                let declare = Act::Declare { field: "f".into(), declared: kind.into(), everywhere: true };
                let acts = vec![put(json!({ "f": old })), declare, put(json!({ "f": new }))];
                holds(script(&[], acts));
            }
        }
    }

    #[test]
    fn a_text_that_holds_null_is_spliced() {
        let splice = |insert: &str| Write::Splice {
            doc: 0,
            field: "f".into(),
            at: 0,
            delete: 0,
            insert: insert.into(),
            outside: false,
        };
        for insert in ["", "aloha"] {
            let acts = vec![put(json!({ "f": null })), Act::Write(splice(insert))];
            holds(script(&[("f", Kind::Text)], acts));
        }
    }

    #[test]
    fn counters_at_the_ends_of_64_bits() {
        for (first, second) in
            [(i64::MAX, i64::MIN), (1, i64::MIN), (6_000_000_000_000_000_000, 6_000_000_000_000_000_000)]
        {
            let acts = vec![put(json!({ "f": first })), put(json!({ "f": second }))];
            holds(script(&[("f", Kind::Counter)], acts));
            let increment = |by| Act::Write(Write::Increment { doc: 0, field: "f".into(), by });
            let acts = vec![put(json!({})), increment(first), increment(second)];
            holds(script(&[("f", Kind::Counter)], acts));
        }
    }
}
