//! Kinds of fields, one by one: what is written, what merges, what is refused, what stays on the device.

use motet::{Conflict, Field, FieldKind, Replica, Resolution, Schema, WriteError};
use motet_tests::{TestRelay, sync};
use serde_json::json;

fn pair(dir: &std::path::Path, schema: &Schema) -> (Replica, Replica) {
    let open = |name: &str| {
        let replica = Replica::builder(dir.join(format!("{name}.db"))).device_name(name).open().unwrap();
        replica.apply_schema(schema).unwrap();
        replica
    };
    (open("a"), open("b"))
}

#[test]
fn adopting_the_same_row_on_two_devices_is_once_and_different_rows_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let schema = Schema::new()
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "verses", FieldKind::List)
        .field("songs", "tags", FieldKind::Set);
    let (a, b) = pair(dir.path(), &schema);
    let row = json!({ "plays": 5, "verses": ["ʻekahi", "ʻelua"], "tags": ["hula", 7] });
    a.documents("songs").upsert("same", &row).unwrap();
    b.documents("songs").upsert("same", &row).unwrap();
    a.documents("songs").upsert("other", &row).unwrap();
    b.documents("songs")
        .upsert("other", &json!({ "plays": 2, "verses": ["ʻekolu"], "tags": ["kahiko"] }))
        .unwrap();
    a.documents("songs")
        .upsert("same", &json!({ "plays": 6, "verses": ["ʻekahi", "hou", "ʻelua"] }))
        .unwrap();
    b.documents("songs")
        .upsert("same", &json!({ "plays": 8, "verses": ["ʻekahi", "ʻelua", "ʻekolu"] }))
        .unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    for replica in [&a, &b] {
        let same = replica.documents("songs").get("same").unwrap().unwrap();
        assert_eq!(same["plays"], 9);
        assert_eq!(same["verses"], json!(["ʻekahi", "hou", "ʻelua", "ʻekolu"]));
        assert_eq!(same["tags"], json!(["hula", 7]));
        let other = replica.documents("songs").get("other").unwrap().unwrap();
        assert_eq!(other["plays"], 7);
        assert_eq!(other["verses"].as_array().unwrap().len(), 3);
        assert_eq!(other["tags"], json!(["hula", "kahiko", 7]));
        assert_eq!(replica.counts().unwrap().conflicts, 0);
    }
}

#[test]
fn declared_late_a_register_becomes_what_it_is_declared_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let (a, _) = pair(dir.path(), &Schema::new());
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "plays": 5, "tags": ["hula"], "status": "done" })).unwrap();
    let schema = Schema::new()
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "tags", FieldKind::Set)
        .field("songs", "status", Field::rank(["draft", "done"]));
    a.apply_schema(&schema).unwrap();
    songs.document("1").increment("plays", 2).unwrap();
    a.transaction(|tx| tx.documents("songs").add_to_set("1", "tags", &[json!("mele")])).unwrap();
    let song = songs.get("1").unwrap().unwrap();
    assert_eq!((&song["plays"], &song["tags"]), (&json!(7), &json!(["hula", "mele"])));
    let refused = songs.patch("1", &json!({ "status": "lost" })).unwrap_err();
    assert_eq!(refused.to_string(), "songs: status is not one of draft, done");
}

#[test]
fn rules_are_checked_on_write_and_name_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let schema = Schema::from_toml(
        r#"
        [collections.tasks.fields]
        title = { kind = "register", min_len = 2, max_len = 5 }
        xp = { kind = "register", min = 0, max = 100 }
        notes = { kind = "text", max_len = 3 }
        tags = "set"
    "#,
    )
    .unwrap();
    let (a, _) = pair(dir.path(), &schema);
    let tasks = a.documents("tasks");
    tasks.upsert("1", &json!({ "title": "ʻāina", "xp": 100, "notes": null })).unwrap();
    for (field, value, message) in [
        ("title", json!("x"), "tasks: title has length 1, at least 2 is asked for"),
        ("title", json!("ʻāinaʻ"), "tasks: title has length 6, at most 5 is allowed"),
        ("xp", json!(-1), "tasks: xp is below 0"),
        ("xp", json!(100.5), "tasks: xp is above 100"),
        ("notes", json!("four"), "tasks: notes has length 4, at most 3 is allowed"),
        ("tags", json!([["nested"]]), "tasks: tags is not an array of strings, numbers and booleans"),
    ] {
        let error = tasks.patch("1", &json!({ field: value })).unwrap_err();
        assert!(matches!(error, WriteError::Rule { .. }));
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(tasks.get("1").unwrap().unwrap()["title"], "ʻāina");
}

#[test]
fn what_breaks_a_rule_and_arrives_all_the_same_is_kept_and_flagged() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (strict, lax) = pair(dir.path(), &Schema::new());
    strict.apply_schema(&Schema::new().field("tasks", "title", Field::register().min_len(2))).unwrap();
    lax.documents("tasks").upsert("1", &json!({ "title": "x", "done": true })).unwrap();
    sync(&lax, &relay.url());
    sync(&strict, &relay.url());
    let tasks = strict.documents("tasks");
    assert_eq!(tasks.get("1").unwrap().unwrap()["title"], "x");
    let flagged = tasks.violations().unwrap();
    assert_eq!((flagged.len(), &*flagged[0].id, &*flagged[0].field), (1, "1", "title"));
    tasks.patch("1", &json!({ "done": false })).unwrap();
    tasks.patch("1", &json!({ "title": "xy" })).unwrap();
    assert!(tasks.violations().unwrap().is_empty());
}

#[test]
fn a_bad_schema_is_refused_by_name() {
    for (toml, wrong) in [
        ("songs.fields.cover = \"blob\"", "come with a later version"),
        ("songs.fields.x = \"colour\"", "unknown variant `colour`"),
        ("songs.fields.s = { kind = \"rank\" }", "songs.s: a rank names its values"),
        ("songs.fields.s = { kind = \"text\", order = [\"a\"] }", "only a rank has an order"),
        ("songs.fields.s = { kind = \"text\", mim_len = 2 }", "mim_len"),
        ("songs.fields = { a = { alias = [\"b\"] }, b = \"text\" }", "\"b\" cannot be its alias"),
        ("songs.fields.s = { min = 3, max = 2 }", "no value can be"),
        ("songs.fields.s = { min_len = 3000000, kind = \"text\" }", "no value can be"),
        ("songs.fields.s = { min = 0.2, max = 0.8, kind = \"counter\" }", "no value can be"),
        ("songs.fields.s = { min = 1e17, kind = \"counter\" }", "no value can be"),
        ("songs.fields.s = { max = inf }", "finite"),
        ("songs.fields.s = { min = nan }", "finite"),
        ("songs.fields.s = { alias = [\"t\", \"t\"] }", "songs.s: the alias \"t\" is named twice"),
        ("songs.fields.id = \"text\"", "songs.id: \"id\" names the document"),
        ("songs.fields.s = { alias = [\"id\"] }", "songs.s: \"id\" names the document"),
        ("songs.indexes = [[\"a\", \"id\"]]", "songs: an index names \"id\""),
        ("songs.indexes = [[\"a\", \"a\"]]", "an index names \"a\" twice"),
        ("songs.indexes = [[\"a\"], [\"b\"], [\"a\"]]", "the index of a is declared twice"),
        ("songs.indexes = [[]]", "an index names no field"),
        ("songs = { indexes = [[\"b\"]], fields = { a = { alias = [\"b\"] } } }", "show the field as \"a\""),
        ("songs = { search = [\"b.c\"], fields = { a = { alias = [\"b\"] } } }", "show the field as \"a\""),
        ("songs.search = [\"a\", \"a\"]", "search names \"a\" twice"),
        ("songs.search = [\"id\"]", "search names \"id\""),
        ("songs = { search = [\"a\"], fields = { a = \"local\" } }", "search names \"a\", which is `local`"),
        (
            "songs = { search = [\"a.b\"], fields = { a = \"local\" } }",
            "search names \"a.b\", which is `local`",
        ),
        ("songs = { search = [\"a\"], fields = { a = \"counter\" } }", "which is a `counter`"),
        ("songs.delete = \"never\"", "never"),
    ] {
        let error = Schema::from_toml(&format!("[collections]\n{toml}\n")).unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
    }
}

/// Every option on every kind: it does something, or it is refused by the names of field, option and the kinds that it fits.
#[test]
fn an_option_that_would_do_nothing_is_refused() {
    const KINDS: [&str; 8] = ["register", "text", "counter", "set", "list", "rank", "ask", "local"];
    let with_length: &[&str] = &["register", "text", "set", "list", "ask", "local"];
    let with_size: &[&str] = &["register", "counter", "ask", "local"];
    let options: [(&str, &str, &[&str]); 7] = [
        ("min_len", "min_len = 1", with_length),
        ("max_len", "max_len = 9", with_length),
        ("min", "min = 1", with_size),
        ("max", "max = 9", with_size),
        ("keep_duplicates", "keep_duplicates = true", &["list"]),
        ("order", "order = [\"a\", \"b\"]", &["rank"]),
        ("alias", "alias = [\"older\"]", &KINDS),
    ];
    for kind in KINDS {
        for (option, written, fits) in options {
            let order = if kind == "rank" && option != "order" { "order = [\"a\"], " } else { "" };
            let toml = format!("[collections]\nsongs.fields.s = {{ kind = \"{kind}\", {order}{written} }}\n");
            match Schema::from_toml(&toml) {
                Ok(_) => assert!(fits.contains(&kind), "{option} is accepted on {kind}"),
                Err(error) => {
                    let said = error.to_string();
                    assert!(!fits.contains(&kind), "{said}");
                    assert!(said.contains(option) || said.contains("only a rank has an order"), "{said}");
                    assert!(option == "order" || fits.iter().all(|kind| said.contains(kind)), "{said}");
                }
            }
        }
    }
    // The builder says the same, when it is applied, and nothing of it is applied.
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    let schema =
        Schema::new().text("songs", "title").field("songs", "tags", Field::from(FieldKind::Set).max(3.0));
    let said = replica.apply_schema(&schema).unwrap_err().to_string();
    assert!(said.contains("songs.tags: `max` does nothing on the kind `set`"), "{said}");
    replica.documents("songs").upsert("1", &json!({ "title": 5 })).unwrap();
    // Declared in two steps it is the same; a field that becomes local later only leaves the search.
    replica
        .apply_schema(
            &Schema::new().field("songs", "mine", FieldKind::Local).search("songs", ["title", "notes"]),
        )
        .unwrap();
    let said = replica.apply_schema(&Schema::new().search("songs", ["mine"])).unwrap_err().to_string();
    assert!(said.contains("search names \"mine\", which is `local`"), "{said}");
    replica.apply_schema(&Schema::new().field("songs", "notes", FieldKind::Local)).unwrap();
}

#[test]
fn an_app_that_renamed_a_field_shares_it_with_one_that_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (old, new) = pair(dir.path(), &Schema::new());
    new.apply_schema(&Schema::new().field("songs", "title", Field::register().alias("name"))).unwrap();
    old.documents("songs").upsert("1", &json!({ "name": "Aloha ʻOe", "unknown": 1 })).unwrap();
    sync(&old, &relay.url());
    sync(&new, &relay.url());
    let songs = new.documents("songs");
    assert_eq!(songs.get("1").unwrap().unwrap()["title"], "Aloha ʻOe");
    songs.patch("1", &json!({ "title": "Aloha nō" })).unwrap();
    assert_eq!(
        songs.get("1").unwrap().unwrap().value,
        json!({ "id": "1", "title": "Aloha nō", "unknown": 1 })
    );
    sync(&new, &relay.url());
    sync(&old, &relay.url());
    let seen = old.documents("songs").get("1").unwrap().unwrap();
    assert_eq!(seen.value, json!({ "id": "1", "name": "Aloha nō", "unknown": 1 }));
}

#[test]
fn what_is_local_never_leaves_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let schema = Schema::new().field("settings", "api_key", FieldKind::Local).local("secrets");
    let (a, b) = pair(dir.path(), &schema);
    let settings = a.documents("settings");
    settings.upsert("1", &json!({ "api_key": "s3cr3t-ʻōlelo", "theme": "dark" })).unwrap();
    settings.patch("1", &json!({ "api_key": "s3cr3t-hou" })).unwrap();
    a.documents("secrets").upsert("pin", &json!({ "pin": "s3cr3t-1234" })).unwrap();
    assert_eq!(settings.get("1").unwrap().unwrap()["api_key"], "s3cr3t-hou");
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(
        b.documents("settings").get("1").unwrap().unwrap().value,
        json!({ "id": "1", "theme": "dark" })
    );
    assert!(b.documents("secrets").get("pin").unwrap().is_none());
    settings.patch("1", &json!({ "theme": "light" })).unwrap();
    b.documents("settings").patch("1", &json!({ "theme": "sepia" })).unwrap();
    for replica in [&b, &a] {
        sync(replica, &relay.url());
    }
    // It outlives merges and reopening.
    drop(a);
    let a = Replica::open(dir.path().join("a.db")).unwrap();
    assert_eq!(a.documents("settings").get("1").unwrap().unwrap()["api_key"], "s3cr3t-hou");
    assert_eq!(a.documents("secrets").get("pin").unwrap().unwrap()["pin"], "s3cr3t-1234");
    // A backup leaves it out, and is a whole replica all the same.
    a.backup(dir.path().join("backup.db")).unwrap();
    let bytes = std::fs::read(dir.path().join("backup.db")).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"s3cr3t"));
    let backup = Replica::open(dir.path().join("backup.db")).unwrap();
    assert!(backup.documents("settings").get("1").unwrap().unwrap().get("api_key").is_none());
    assert!(backup.documents("secrets").list().unwrap().is_empty());
    assert!(backup.verify().unwrap().problems.is_empty());
    a.documents("secrets").delete("pin").unwrap();
    assert!(a.documents("secrets").get("pin").unwrap().is_none());
    // No byte of it is in what the relay holds, or in any change, sealed entry or snapshot of this device.
    let holds = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"s3cr3t");
    for file in std::fs::read_dir(dir.path().join("relay")).unwrap() {
        assert!(!holds(&std::fs::read(file.unwrap().path()).unwrap()));
    }
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    let all = motet_tests::raw::all_that_may_leave(&conn);
    assert!(!all.is_empty() && !all.iter().any(|bytes| holds(bytes)));
}

#[test]
fn a_conflict_is_settled_for_everybody_by_winner_loser_or_value() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = pair(dir.path(), &Schema::new().field("songs", "key", FieldKind::Ask));
    a.documents("songs").upsert("1", &json!({ "title": "t", "key": "C", "meta": { "tempo": 90 } })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for (replica, n) in [(&a, 1), (&b, 2)] {
        let fields = json!({ "title": format!("t{n}"), "key": format!("k{n}"), "meta": { "tempo": n } });
        replica.documents("songs").patch("1", &fields).unwrap();
    }
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    let songs = a.documents("songs");
    let open = |replica: &Replica| -> Vec<_> {
        replica
            .documents("songs")
            .document("1")
            .conflicts()
            .unwrap()
            .into_iter()
            .filter(|c| !c.settled)
            .collect()
    };
    assert_eq!(open(&a).len(), 3);
    assert!(matches!(songs.patch("1", &json!({ "key": "k3" })), Err(WriteError::Contested { .. })));
    let of = |path: &str| open(&a).into_iter().find(|conflict| conflict.path == path).unwrap();
    let (title, key) = (of("/title"), of("/key"));
    songs.document("1").resolve("/title", Resolution::Loser(title.loser_id.clone())).unwrap();
    songs.document("1").resolve("/key", Resolution::Shown).unwrap();
    songs.document("1").resolve("/meta/tempo", Resolution::Value(json!(60))).unwrap();
    let song = songs.get("1").unwrap().unwrap();
    assert_eq!(song["title"], title.loser);
    assert_eq!(song["key"], key.winner);
    assert_eq!(song["meta"]["tempo"], 60);
    assert!(matches!(
        songs.document("1").resolve("/title", Resolution::Loser("9@nobody".into())),
        Err(WriteError::NoLoser { .. })
    ));
    assert!(matches!(
        songs.document("1").resolve("/status", Resolution::Loser("9@nobody".into())),
        Err(WriteError::NoConflict { .. })
    ));
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(b.documents("songs").get("1").unwrap().unwrap().value, song.value);
    for replica in [&a, &b] {
        assert!(open(replica).is_empty());
        assert_eq!(replica.documents("songs").document("1").conflicts().unwrap().len(), 3);
    }
    songs.patch("1", &json!({ "key": "k4" })).unwrap();
}

/// Two devices write every pair of values at once into a field of every kind, and one settles what is open by each choice.
#[test]
fn whatever_two_values_meet_is_settled_by_either() {
    let kinds = [
        ("registers", FieldKind::Register),
        ("texts", FieldKind::Text),
        ("asked", FieldKind::Ask),
        ("lists", FieldKind::List),
        ("counters", FieldKind::Counter),
    ];
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1.5),
        json!(""),
        json!("pō"),
        json!({}),
        json!({ "n": 1 }),
        json!([]),
        json!(["ua"]),
    ];
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let declare = |schema: Schema, (name, kind): &(&str, FieldKind)| schema.field(name, "f", kind.clone());
    let (a, b) = pair(dir.path(), &kinds.iter().fold(Schema::new(), declare));
    for (replica, is_first) in [(&a, true), (&b, false)] {
        for (of, _) in &kinds {
            for (m, x) in values.iter().enumerate() {
                for (n, y) in values.iter().enumerate() {
                    let value = if is_first { x } else { y };
                    for choice in ["shown", "lost"] {
                        // What a kind does not take is left out.
                        _ = replica
                            .documents(of)
                            .upsert(&format!("{m} {n} {choice}"), &json!({ "f": value }));
                    }
                }
            }
        }
    }
    let everywhere = || [&a, &b, &a].map(|replica| sync(replica, &relay.url()));
    everywhere();
    let open = |replica: &Replica, of: &str, id: &str| -> Vec<Conflict> {
        replica
            .documents(of)
            .document(id)
            .conflicts()
            .unwrap()
            .into_iter()
            .filter(|row| !row.settled)
            .collect()
    };
    let (mut settled, mut right) = (0, Vec::new());
    for (of, _) in &kinds {
        for record in a.documents(of).list().unwrap() {
            let is_shown = record.id.ends_with("shown");
            let Some(row) = open(&a, of, &record.id).into_iter().next() else { continue };
            assert_eq!(open(&b, of, &record.id).len(), open(&a, of, &record.id).len(), "{of} {}", record.id);
            let (choice, value) = match is_shown {
                true => (Resolution::Shown, record.value["f"].clone()),
                false => (Resolution::Loser(row.loser_id), row.loser),
            };
            a.documents(of).document(&record.id).resolve("/f", choice).unwrap();
            assert_eq!(a.documents(of).get(&record.id).unwrap().unwrap()["f"], value, "{of} {}", record.id);
            right.push((of, record.id, value));
            settled += 1;
        }
    }
    assert!(settled > 300, "{settled}");
    everywhere();
    for (of, id, value) in right {
        for replica in [&a, &b] {
            assert_eq!(replica.documents(of).get(&id).unwrap().unwrap()["f"], value, "{of} {id}");
            assert!(open(replica, of, &id).is_empty(), "{of} {id}: {:?}", open(replica, of, &id));
        }
    }
    assert_eq!([a.verify().unwrap().problems, b.verify().unwrap().problems], [[], []]);
}
