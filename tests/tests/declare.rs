//! The derive macro declares a field under the name that serde writes.

use std::collections::BTreeMap;

use motet::{Declare, FieldKind, Replica, json};
use motet_tests::{TestRelay, device, sync};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The names that are declared, and those that serde writes.
fn names<T: Declare + Default + Serialize>() -> (Vec<String>, Vec<String>) {
    let declared = T::schema().collections.remove(T::COLLECTION).unwrap_or_default();
    let Value::Object(written) = serde_json::to_value(T::default()).unwrap() else { panic!("no object") };
    let mut written: Vec<String> = written.keys().cloned().collect();
    written.sort();
    (declared.fields.into_keys().collect(), written)
}

/// A struct with all kinds of names, in one of serde's cases.
macro_rules! in_case {
    ($test:ident, $($case:tt)*) => {
        #[test]
        fn $test() {
            #[derive(Default, Serialize, Declare)]
            #[motet(collection = "songs")]
            #[serde($($case)*)]
            #[allow(non_snake_case)]
            struct Song {
                #[motet(text)]
                title: String,
                #[motet(counter)]
                times_played_so_far: i64,
                #[motet(local)]
                mele_ʻoli: String,
                #[motet(local)]
                größe_über_alles: String,
                #[motet(text)]
                kahakō: String,
                #[motet(ask)]
                line_2_b: String,
                #[motet(ask)]
                x_1y_2z: String,
                #[motet(ask)]
                a1b2: String,
                #[motet(set)]
                r#type: Vec<String>,
                #[motet(local)]
                r#match_あ_い: String,
                #[motet(list)]
                _hidden: Vec<String>,
                #[motet(local)]
                trailing_: String,
                #[motet(local)]
                two__words: String,
                #[motet(local)]
                Already_Upper: String,
                #[motet(local)]
                mixedCaseName: String,
                #[motet(local)]
                ALL_CAPS: String,
                #[motet(local)]
                n: String,
                #[motet(local)]
                дом_и_сад: String,
                #[motet(register)]
                #[serde(rename = "Straße 7")]
                street: String,
                #[motet(local)]
                #[serde(rename(serialize = "written ß"))]
                one_way: String,
                #[motet(local)]
                #[serde(rename(serialize = "both", deserialize = "ways"))]
                two_ways: String,
                #[motet(local)]
                #[serde(rename(deserialize = "read_only"))]
                read_as_another: String,
                #[motet(text)]
                #[serde(default, skip_serializing_if = "not_yet")]
                words_if_any: String,
            }
            let (declared, written) = names::<Song>();
            assert_eq!(declared, written);
        }
    };
}

fn not_yet(_: &str) -> bool {
    false
}

in_case!(as_it_is, default);
in_case!(lowercase, rename_all = "lowercase");
in_case!(uppercase, rename_all = "UPPERCASE");
in_case!(pascal_case, rename_all = "PascalCase");
in_case!(snake_case, rename_all = "snake_case");
in_case!(screaming_snake_case, rename_all = "SCREAMING_SNAKE_CASE");
in_case!(kebab_case, rename_all = "kebab-case");
in_case!(screaming_kebab_case, rename_all = "SCREAMING-KEBAB-CASE");
in_case!(written_screaming, rename_all(serialize = "SCREAMING_SNAKE_CASE", deserialize = "kebab-case"));
in_case!(written_pascal, rename_all(deserialize = "kebab-case", serialize = "PascalCase"));
in_case!(only_read, rename_all(deserialize = "SCREAMING_SNAKE_CASE"));

/// In camelCase serde has no name for a field that does not begin with an ASCII letter, so these are apart.
#[test]
fn camel_case() {
    #[derive(Default, Serialize, Declare)]
    #[motet(collection = "songs")]
    #[serde(rename_all(serialize = "camelCase"))]
    #[allow(non_snake_case)]
    struct Song {
        #[motet(text)]
        times_played_so_far: String,
        #[motet(local)]
        mele_ʻoli_ʻāina: String,
        #[motet(local)]
        größe_über_alles: String,
        #[motet(ask)]
        line_2_b: String,
        #[motet(ask)]
        x_1y_2z: String,
        #[motet(set)]
        r#type: Vec<String>,
        #[motet(list)]
        _hidden: Vec<String>,
        #[motet(list)]
        _2nd: Vec<String>,
        #[motet(local)]
        two__words_: String,
        #[motet(local)]
        Already_Upper: String,
        #[motet(local)]
        ALL_CAPS: String,
        #[motet(local)]
        #[serde(rename = "ʻokina")]
        ʻokina: String,
    }
    let (declared, written) = names::<Song>();
    assert_eq!(declared, written);
}

/// A field that serde skips is no field; one that it only reads has the name that it reads.
#[test]
fn fields_that_are_skipped_converted_or_flattened() {
    mod shout {
        pub(super) fn serialize<S: serde::Serializer>(number: &i64, s: S) -> Result<S::Ok, S::Error> {
            s.serialize_str(&number.to_string())
        }
    }
    #[derive(Default, Serialize, Deserialize, Declare)]
    #[motet(collection = "songs", search("title", "anything"))]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "sort")]
    #[allow(dead_code)]
    struct Song {
        #[motet(text)]
        title: String,
        #[serde(skip)]
        #[motet(local)]
        in_memory: String,
        #[serde(skip_serializing, default)]
        #[motet(local)]
        read_only: String,
        #[serde(skip_serializing, rename(deserialize = "läse"), default)]
        #[motet(local)]
        reads: String,
        #[serde(skip_deserializing)]
        #[motet(local)]
        write_only: String,
        #[serde(serialize_with = "shout::serialize")]
        #[motet(text)]
        loud: i64,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }
    let (declared, written) = names::<Song>();
    assert_eq!(declared, ["LOUD", "READ_ONLY", "TITLE", "WRITE_ONLY", "läse"]);
    assert_eq!(written, ["LOUD", "TITLE", "WRITE_ONLY", "sort"]);
}

/// What serde renames stays on the device if it is declared so, and what is declared as text or counter is one.
#[test]
fn a_renamed_field_is_what_it_is_declared_to_be() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize, Declare)]
    #[motet(collection = "songs")]
    #[serde(rename_all(serialize = "UPPERCASE", deserialize = "UPPERCASE"))]
    struct Song {
        #[motet(local)]
        größe: String,
        #[motet(local)]
        #[serde(rename(serialize = "geheim", deserialize = "geheim"))]
        secret: String,
        #[motet(text)]
        r#type: String,
        #[motet(counter)]
        #[serde(rename = "Zähler")]
        plays: i64,
    }
    let kinds: Vec<(String, FieldKind)> =
        Song::schema().collections["songs"].fields.iter().map(|(n, f)| (n.clone(), f.kind.clone())).collect();
    let expected = [
        ("GRößE", FieldKind::Local),
        ("TYPE", FieldKind::Text),
        ("Zähler", FieldKind::Counter),
        ("geheim", FieldKind::Local),
    ];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));

    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    let songs = |replica: &Replica| replica.declare::<Song>().unwrap();
    let private = "s3cr3t-4711".to_owned();
    let song =
        Song { größe: private.clone(), secret: private.clone(), r#type: "one three".into(), plays: 1 };
    songs(&a).upsert("song", &song).unwrap();
    assert_eq!(*songs(&a).get("song").unwrap().unwrap(), song);
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    // The other device has the shared fields only, and they merge as what they are.
    let there = b.documents("songs").get("song").unwrap().unwrap();
    assert_eq!(there.value, json!({ "id": "song", "TYPE": "one three", "Zähler": 1 }));
    songs(&b);
    a.documents("songs").patch("song", &json!({ "TYPE": "one two three", "Zähler": 2 })).unwrap();
    b.documents("songs").patch("song", &json!({ "TYPE": "one three four", "Zähler": 2 })).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    for replica in [&a, &b] {
        let song = replica.documents("songs").get("song").unwrap().unwrap();
        assert_eq!((&song["TYPE"], &song["Zähler"]), (&json!("one two three four"), &json!(3)));
    }
    for file in std::fs::read_dir(dir.path().join("relay")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(private.len()).any(|window| window == private.as_bytes()));
    }
}
