//! The command line as a script sees it: grammar, output, exit codes. `docs/cli.md` describes it.

use std::path::Path;

use motet_tests::{Cli, RelayProcess};
use serde_json::{Value, json};

const SCHEMA: &str = "[collections.pieces.fields]\nlyrics = \"text\"\nnotes = \"text\"\n";

fn with_schema(dir: &Path, name: &str, relay: &str) -> Cli {
    let cli = Cli::init(dir, name, relay);
    let file = dir.join("schema.toml");
    std::fs::write(&file, SCHEMA).unwrap();
    cli.ok(&["schema", "apply", file.to_str().unwrap()]);
    cli
}

fn code(output: &std::process::Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn two_databases_and_a_relay_merge_in_any_order_of_sync() {
    for order in [["a", "b", "a", "b"], ["b", "a", "b", "a"], ["a", "a", "b", "a"]] {
        let dir = tempfile::tempdir().unwrap();
        let relay = RelayProcess::start(&dir.path().join("relay"), "127.0.0.1:0", &[]);
        let (a, b) = (with_schema(dir.path(), "a", &relay.url()), with_schema(dir.path(), "b", &relay.url()));
        let song =
            json!({ "title": "Hoʻi", "lyrics": "ʻekahi\nʻelua\nʻekolu\n", "year": 1909, "tags": ["mele"] });
        let id = a.ok_with(&["put", "pieces"], &song.to_string());
        assert!(id.ends_with('\n') && id.trim().len() == 36, "put prints only the id: {id:?}");
        let id = id.trim();
        a.ok(&["sync"]);
        b.ok(&["sync"]);
        let edit = |old: &str, new: &str| {
            json!({ "lyrics": song["lyrics"].as_str().unwrap().replace(old, new) }).to_string()
        };
        a.ok_with(&["put", "pieces", "--id", id], &edit("ʻekahi", "ʻekahi nō 👩‍🎤"));
        b.ok_with(&["put", "pieces", "--id", id], &edit("ʻekolu", "ʻekolu nō"));
        for name in order {
            if name == "a" {
                a.ok(&["sync"])
            } else {
                b.ok(&["sync"])
            };
        }
        let (left, right) = (a.ok(&["get", "pieces", id, "--json"]), b.ok(&["--json", "get", "pieces", id]));
        assert_eq!(left, right, "byte for byte");
        let mut expected = song.clone();
        expected["id"] = id.into();
        expected["lyrics"] = "ʻekahi nō 👩‍🎤\nʻelua\nʻekolu nō\n".into();
        assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), expected);
    }
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = "http://127.0.0.1:9";
    let cli = Cli::init(dir.path(), "a", nowhere);
    let id = cli.ok_with(&["put", "pieces"], r#"{"title":"ʻŌ"}"#);
    let offline = cli.run(&["sync"]);
    assert_eq!(code(&offline), 3);
    let message = String::from_utf8(offline.stderr).unwrap();
    assert!(message.contains("offline") && message.contains("saved here"), "{message}");
    assert_eq!(cli.json(&["get", "pieces", id.trim(), "--json"])["title"], "ʻŌ", "nothing is lost");
    assert_eq!(cli.json(&["status", "--json"])["pending"], 1);
    for missing in ["get", "delete", "status", "conflicts"].map(|command| [command, "pieces", "none"]) {
        assert_eq!(code(&cli.run(&missing)), 5, "{missing:?}");
    }
    assert_eq!(code(&cli.run(&["set", "pieces", "none", "a=1"])), 5);
    for usage in [
        &["put"][..],
        &["frobnicate"],
        &["set", "pieces", "x"],
        &["set", "pieces", "x", "novalue"],
        &["status", "x"],
        &["put", "pieces", r#"{"title":"where a file belongs"}"#],
        &["import", "pieces", r#"[{"title":"where a file belongs"}]"#],
        &["resolve", "pieces", "x", "title"],
        &["resolve", "pieces", "x", "title", "--shown", "--value", "1"],
        &["resolve", "pieces", "x", "title", "--loser", "1", "--value", "1"],
    ] {
        assert_eq!(code(&cli.run(usage)), 2, "{usage:?}");
    }
    assert_eq!(code(&cli.run(&["init", "--device", "d", "--relay", "gopher://x"])), 2);
    let nothing = Cli::new(dir.path(), "missing").run(&["list", "pieces"]);
    assert_eq!(code(&nothing), 1);
    assert!(!dir.path().join("missing.db").exists(), "a mistyped name makes no database");
    let no_db =
        std::process::Command::new(motet_tests::program("motet")).arg("sync").env_remove("MOTET_DB").output();
    assert_eq!(code(&no_db.unwrap()), 2);
    assert_eq!(code(&cli.run_with(&["put", "pieces"], "{ not json")), 1);
    assert_eq!(code(&cli.run_with(&["put", "pieces"], "[1]")), 1);

    std::fs::write(dir.path().join("tokens"), "good -> keola\n").unwrap();
    let tokens = dir.path().join("tokens");
    let relay = RelayProcess::start(
        &dir.path().join("relay"),
        "127.0.0.1:0",
        &["--tokens", tokens.to_str().unwrap()],
    );
    for token in [&[][..], &["--token", "bad"]] {
        cli.ok(&[&["init", "--device", "a", "--relay", &relay.url()], token].concat());
        let refused = cli.run(&["sync"]);
        assert_eq!(code(&refused), 4, "{}", String::from_utf8_lossy(&refused.stderr));
    }
    cli.ok(&["init", "--device", "a", "--relay", &relay.url(), "--token", "good"]);
    cli.ok(&["sync"]);
    assert_eq!(cli.json(&["status", "--json"])["pending"], 0);
}

#[test]
fn ids_nulls_and_bases_are_kept_as_given() {
    let dir = tempfile::tempdir().unwrap();
    let cli = with_schema(dir.path(), "a", "http://127.0.0.1:9");
    assert_eq!(cli.ok_with(&["put", "pieces"], r#"{"id":"Ka ʻŌʻō/1","lyrics":"a\nb\n"}"#), "Ka ʻŌʻō/1\n");
    assert_eq!(cli.ok_with(&["put", "pieces", "--id", "7"], r#"{"id":7,"n":null}"#), "7\n");
    assert_eq!(code(&cli.run_with(&["put", "pieces", "--id", "8"], r#"{"id":"9"}"#)), 2);
    assert_eq!(cli.json(&["get", "pieces", "7", "--json"]), json!({ "id": "7", "n": null }));
    cli.ok(&["set", "pieces", "7", "n=1", "title=Ka pō", r#"list=["ā"]"#, "quoted=\"1\"", "empty="]);
    let expected = json!({ "id": "7", "n": 1, "title": "Ka pō", "list": ["ā"], "quoted": "1", "empty": "" });
    assert_eq!(cli.json(&["get", "pieces", "7", "--json"]), expected);

    let base = cli.json(&["status", "pieces", "Ka ʻŌʻō/1", "--json"])["heads"].as_str().unwrap().to_owned();
    cli.ok_with(&["put", "pieces", "--id", "Ka ʻŌʻō/1"], r#"{"lyrics":"A\nb\n"}"#);
    cli.ok_with(&["put", "pieces", "--id", "Ka ʻŌʻō/1", "--base", &base], r#"{"lyrics":"a\nB\n"}"#);
    assert_eq!(cli.json(&["get", "pieces", "Ka ʻŌʻō/1", "--json"])["lyrics"], "A\nB\n");
    assert_eq!(code(&cli.run_with(&["put", "pieces", "--id", "7", "--base", "xyz"], "{}")), 2);
    assert_eq!(
        code(&cli.run_with(&["put", "pieces", "--id", "7", "--base", &"0".repeat(64)], r#"{"a":1}"#)),
        1
    );
    cli.ok(&["delete", "pieces", "7"]);
    assert_eq!(code(&cli.run(&["get", "pieces", "7"])), 5);
    assert_eq!(cli.json(&["list", "pieces", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn export_is_what_import_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (with_schema(dir.path(), "a", "http://x"), with_schema(dir.path(), "b", "http://x"));
    let lines: String = (0..600)
        .map(|i| {
            json!({ "id": format!("song-{i}"), "title": format!("Mele {i}"), "lyrics": "E hoʻi\n", "n": i })
                .to_string()
                + "\n"
        })
        .collect();
    let file = dir.path().join("songs.jsonl");
    std::fs::write(&file, format!("{lines}\n\n")).unwrap();
    a.ok(&["import", "pieces", file.to_str().unwrap()]);
    let exported = a.ok(&["export", "pieces"]);
    assert_eq!(exported.lines().count(), 600);
    b.ok_with(&["import", "pieces", "-"], &exported);
    assert_eq!(b.ok(&["export"]), exported);
    b.ok_with(&["import", "pieces", "-"], &exported);
    assert_eq!(b.ok(&["export"]), exported, "importing twice changes nothing");
    let bad = a.run_with(&["import", "other", "-"], "{\"a\":1}\n{\"a\":\n");
    assert_eq!(code(&bad), 1);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("line 2"));
    assert_eq!(a.ok(&["export", "other"]).lines().count(), 1, "the other line goes in");
    let strict = a.run_with(&["import", "strict", "-", "--strict"], "{\"a\":1}\n{\"a\":\n");
    assert_eq!(code(&strict), 1);
    assert!(String::from_utf8_lossy(&strict.stderr).contains("line 2"));
    assert_eq!(code(&a.run(&["export", "strict"])), 5, "a bad line imports nothing");
    a.ok(&["delete", "other", &id_of(&a.ok(&["export", "other"]))]);
    let no_ids = "{\"title\":\"x\"}\n{\"title\":\"x\"}\n";
    a.ok_with(&["import", "other", "-"], no_ids);
    assert_eq!(a.ok(&["export", "other"]).lines().count(), 2);
}

fn id_of(line: &str) -> String {
    serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_whole_database_goes_through_a_pipe_into_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let a = with_schema(dir.path(), "a", "http://x");
    a.ok_with(
        &["put", "pieces", "--id", "1"],
        "\u{feff}{\"title\":\"Hoʻi\",\"n\":18446744073709551615,\"lyrics\":\"l\\n\"}",
    );
    let whole = a.ok(&["export", "--all"]);
    a.ok_with(&["put", "events", "--id", "1"], r#"{"on":null,"x":[{"y":1e300}]}"#);
    let several = a.ok(&["export"]);
    assert_eq!(several, a.ok(&["export", "--all"]), "of several collections every line names its own");
    assert_eq!(a.ok(&["export", "pieces"]).lines().count(), 1);
    for (n, (lines, kept)) in [(whole, 1), (several, 2)].into_iter().enumerate() {
        let b = Cli::init(dir.path(), &format!("b{n}"), "http://x");
        b.ok_with(&["import"], &lines);
        assert_eq!(b.ok(&["export", "--all"]), lines);
        assert_eq!(b.ok(&["sql", "SELECT 1 FROM document", "--json"]).matches('1').count(), 2 * kept);
    }
    let unnamed = Cli::init(dir.path(), "c", "http://x").run_with(&["import", "-"], "{\"id\":1}");
    assert_eq!(code(&unnamed), 1);
    assert!(String::from_utf8_lossy(&unnamed.stderr).contains("names no collection"));
}

#[test]
fn numbers_that_would_become_others_are_refused_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let a = with_schema(dir.path(), "a", "http://x");
    let wide = "{\"id\":\"1\",\"meta\":{\"n\":18446744073709551616}}";
    let row = dir.path().join("rows.jsonl");
    std::fs::write(&row, wide).unwrap();
    let row = row.to_str().unwrap();
    let log = dir.path().join("log.json");
    std::fs::write(
        &log,
        format!("{{\"changes\":{{\"pieces\":[{{\"op\":\"upsert\",\"id\":\"1\",\"data\":{wide}}}]}}}}"),
    )
    .unwrap();
    for args in [
        &["put", "pieces"][..],
        &["set", "pieces", "1", "n=18446744073709551616"],
        &["import", "pieces", "-"],
        &["import", "pieces", "-", "--strict"],
        &["adopt", "pieces", row],
        &["change-log", "import", log.to_str().unwrap()],
    ] {
        let refused = a.run_with(args, wide);
        assert_eq!(code(&refused), 1, "{args:?}");
        let message = String::from_utf8(refused.stderr).unwrap();
        let field = if args[0] == "set" { "n: " } else { "meta/n" };
        assert!(
            message.contains("18446744073709551616 does not fit") && message.contains(field),
            "{message}"
        );
    }
    assert_eq!(a.ok(&["list", "pieces", "--json"]), "[]\n");
}

#[test]
fn rows_that_are_refused_are_reported_to_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let a = with_schema(dir.path(), "a", "http://x");
    let rows = "\u{feff}{\"id\":\"1\",\"title\":\"t\"}\n{\"id\":\"2\",\"lyrics\":7}\n{\"id\":\"3\",\"x\":{\"\":1}}\n";
    let file = dir.path().join("rows.jsonl");
    std::fs::write(&file, rows).unwrap();
    let file = file.to_str().unwrap();
    for args in [&["import", "pieces", file, "--json"][..], &["adopt", "pieces", file, "--json"]] {
        let output = a.run(args);
        assert_eq!(code(&output), 1);
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&summary["refused"], summary["refusals"].as_array().unwrap().len()), (&json!(2), 2));
        let first = &summary["refusals"][0];
        assert_eq!((&first["id"], &first["field"]), (&json!("2"), &json!("lyrics")));
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["code"], "refused");
        let strict = a.run(&[args, &["--strict"]].concat());
        assert_eq!((code(&strict), strict.stdout.len()), (1, 0));
        let error: Value = serde_json::from_slice(&strict.stderr).unwrap();
        assert_eq!(error["error"]["code"], "write-refused");
        assert_eq!(error["error"]["refusals"].as_array().unwrap().len(), 2);
    }
    assert_eq!(a.json(&["list", "pieces", "--json"]).as_array().unwrap().len(), 1);
    let nothing = a.run(&["resolve", "pieces", "1", "title", "--value", "x"]);
    assert_eq!(code(&nothing), 1);
    assert_eq!(a.json(&["get", "pieces", "1", "--json"])["title"], "t");
}

#[test]
fn a_schema_file_with_a_mistake_is_refused_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::init(dir.path(), "a", "http://x");
    for (text, expected) in [
        ("[collections.pieces.fields]\nlyrics = \"txt\"\n", "txt"),
        ("[collection.pieces]\n", "collection"),
        ("not toml at all", "line 1"),
    ] {
        let file = dir.path().join("schema.toml");
        std::fs::write(&file, text).unwrap();
        let refused = cli.run(&["schema", "apply", file.to_str().unwrap()]);
        assert_eq!(code(&refused), 1);
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(message.contains(expected), "{message}");
    }
}

/// Every `--json` shape, as `docs/cli.md` fixes them. Times, sizes and random ids are replaced.
#[test]
fn json_shapes_are_fixed() {
    let dir = tempfile::tempdir().unwrap();
    let relay = RelayProcess::start(&dir.path().join("relay"), "127.0.0.1:0", &[]);
    let (a, b) = (with_schema(dir.path(), "a", &relay.url()), with_schema(dir.path(), "b", &relay.url()));
    a.ok_with(&["put", "pieces", "--id", "x"], r#"{"title":"t","lyrics":"l"}"#);
    let mut shapes = serde_json::Map::new();
    let mut keep = |name: &str, value: Value| _ = shapes.insert(name.into(), shape(value));
    keep("init", a.json(&["init", "--device", "a", "--relay", &relay.url(), "--json"]));
    keep("get", a.json(&["get", "pieces", "x", "--json"]));
    keep("list", a.json(&["list", "pieces", "--json"]));
    keep("status pending", a.json(&["status", "--json"]));
    keep("status of a document, pending", a.json(&["status", "pieces", "x", "--json"]));
    a.ok(&["sync"]);
    keep("sync, fresh device", b.json(&["sync", "--json"]));
    a.ok(&["set", "pieces", "x", "title=from a"]);
    b.ok(&["set", "pieces", "x", "title=from b"]);
    a.ok(&["sync"]);
    keep("sync with a conflict", b.json(&["sync", "--json"]));
    keep("status", b.json(&["status", "--json"]));
    keep("status of a document, conflict", b.json(&["status", "pieces", "x", "--json"]));
    keep(
        "import",
        serde_json::from_str(&a.ok_with(&["import", "pieces", "-", "--json"], "{\"a\":1}\n")).unwrap(),
    );
    keep(
        "schema apply",
        a.json(&["schema", "apply", dir.path().join("schema.toml").to_str().unwrap(), "--json"]),
    );
    keep("conflicts", b.json(&["conflicts", "--json"]));
    let conflict = &b.json(&["conflicts", "--json"])[0];
    let loser = conflict["loser_id"].as_str().unwrap().to_owned();
    keep("resolve", b.json(&["resolve", "pieces", "x", "title", "--loser", &loser, "--json"]));
    keep("search", a.json(&["search", "pieces", "l", "--json"]));
    keep("sql", a.json(&["sql", "SELECT id, lyrics FROM collection_pieces WHERE id = 'x'", "--json"]));
    keep("history", a.json(&["history", "pieces", "x", "--limit", "1", "--json"]));
    let version = a.json(&["history", "pieces", "x", "--json"])[1]["version"].as_str().unwrap().to_owned();
    keep("history, one version", a.json(&["history", "pieces", "x", "--at", &version, "--json"]));
    keep("restore", a.json(&["restore", "pieces", "x", "--version", &version, "--json"]));
    keep("undo", a.json(&["undo", "--json"]));
    keep("redo", a.json(&["redo", "--json"]));
    keep("points", a.json(&["points", "--create", "one", "--json"]));
    a.ok(&["delete", "pieces", "x"]);
    keep("trash", a.json(&["trash", "pieces", "--json"]));
    keep("trash, purged", a.json(&["trash", "pieces", "--purge", "0", "--json"]));
    keep("change log", a.json(&["change-log", "export", "--json"])["config"].take());
    let rows = dir.path().join("rows.json");
    std::fs::write(&rows, r#"[{"id":7,"title":"ʻehiku"}]"#).unwrap();
    keep("adopt", a.json(&["adopt", "pieces", rows.to_str().unwrap(), "--json"]));
    keep("verify", a.json(&["verify", "--json"]));
    keep("repair", a.json(&["repair", "--json"]));
    drop(relay);
    let error = a.run(&["sync", "--json"]);
    keep("error on stderr", serde_json::from_slice(&error.stderr).unwrap());
    keep("status offline", a.json(&["status", "--json"]));
    insta::assert_json_snapshot!(shapes);
}

/// Replaces what differs from run to run.
fn shape(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| {
                let value = match key.as_str() {
                    "heads" | "device_id" | "device_name" | "winner_device" | "winner_device_name"
                    | "relay" | "version" | "loser_id" | "score" => {
                        json!("<text>")
                    }
                    "message" => json!("<text for a person>"),
                    // Which of two concurrent titles wins depends on random actor ids.
                    "winner" | "loser" => json!("<value>"),
                    "device" if value != json!("a") => json!("<text>"),
                    _ if key.ends_with("_at")
                        || key.starts_with("bytes")
                        || key.ends_with("_ms")
                        || key == "at" =>
                    {
                        if value.is_null() {
                            value
                        } else {
                            json!("<number>")
                        }
                    }
                    "pending_since" | "time" | "winner_time" | "messages_up" if !value.is_null() => {
                        json!("<number>")
                    }
                    _ => shape(value),
                };
                (key, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(shape).collect(),
        other => other,
    }
}

#[test]
fn watch_prints_what_happens() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let relay = RelayProcess::start(&dir.path().join("relay"), "127.0.0.1:0", &[]);
    let (a, b) = (with_schema(dir.path(), "a", &relay.url()), with_schema(dir.path(), "b", &relay.url()));
    let mut child = b.command(&["watch", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    lines.find(|line| line["status"]["state"] == "synced").unwrap();
    a.ok_with(&["put", "pieces", "--id", "x"], r#"{"title":"t"}"#);
    a.ok(&["sync"]);
    let event = lines.find(|line| !line["event"].is_null()).unwrap()["event"].take();
    for (key, value) in [("collection", json!("pieces")), ("id", json!("x")), ("kind", json!("created"))] {
        assert_eq!(event[key], value);
    }
    assert_eq!((&event["remote"], &event["fields"]), (&json!(true), &json!(["title"])));
    assert!(event["device"].is_string() && event["time"].is_i64() && event["transaction"].is_u64());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_demo_merges_and_leaves_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("demo");
    let demo = || {
        std::process::Command::new(motet_tests::program("motet")).arg("demo").arg(&folder).output().unwrap()
    };
    let output = demo();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for expected in
        ["lani uliuli", "mau ka pua", "hale aloha", "← phone: uliuli", "conflict, nothing lost", "Try next"]
    {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "plain when piped");
    assert!(folder.join("phone.db").exists() && folder.join("laptop.db").exists());
    assert_eq!(code(&demo()), 2, "a folder with files in it is left alone");
}

#[test]
fn tokens_are_kept_and_pipes_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path(), "a");
    let init = |more: &[&str]| {
        let output =
            cli.command(&[&["init", "--device", "a"], more].concat()).env("MOTET_TOKEN", "good").output();
        assert!(output.unwrap().status.success());
    };
    init(&[]);
    std::fs::write(dir.path().join("tokens"), "good -> keola\n").unwrap();
    let tokens = dir.path().join("tokens");
    let relay = RelayProcess::start(
        &dir.path().join("relay"),
        "127.0.0.1:0",
        &["--tokens", tokens.to_str().unwrap()],
    );
    init(&["--relay", &relay.url()]);
    cli.ok(&["init", "--device", "renamed", "--relay", &relay.url()]);
    cli.ok(&["sync"]);
    let fifo = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let writer = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::write(fifo, "{\"id\":\"x\"}\n{\"id\":\"y\"}\n").unwrap()
    });
    cli.ok(&["import", "pieces", fifo.to_str().unwrap()]);
    writer.join().unwrap();
    assert_eq!(cli.json(&["list", "pieces", "--json"]).as_array().unwrap().len(), 2);
    assert_eq!(code(&cli.run_with(&["put", "pieces", "--base", &"0".repeat(64)], "{}")), 2);
}

#[test]
fn one_document_is_synced_compacted_and_taken_back_from_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let relay = RelayProcess::start(&dir.path().join("relay"), "127.0.0.1:0", &["--retention", "0"]);
    let (a, b) = (with_schema(dir.path(), "a", &relay.url()), with_schema(dir.path(), "b", &relay.url()));
    let id = a.ok_with(&["put", "pieces"], r#"{"title":"Hoʻi","lyrics":""}"#);
    let id = id.trim();
    a.ok_with(&["put", "private", "--id", "note"], r#"{"notes":"mine"}"#);
    assert_eq!(a.json(&["sync", "pieces", id, "--json"])["state"], "synced");
    assert_eq!(code(&a.run(&["sync", "pieces", "none"])), 5);
    assert_eq!(code(&a.run(&["sync", "pieces"])), 2);
    for line in 0..12 {
        a.ok(&["set", "pieces", id, &format!("line{line}=ʻekahi")]);
        a.ok(&["sync"]);
    }
    assert_eq!(a.json(&["compact", "pieces", id, "--json"])["compacted"], true);
    assert_eq!(a.json(&["compact", "pieces", id, "--json"])["compacted"], false);
    assert!(a.ok(&["compact", "pieces", id]).contains("not much to save"));
    assert_eq!(a.json(&["erase-remote", "private", "--json"])["sent"], 1);
    assert_eq!(a.json(&["status", "private", "note", "--json"])["state"], "local-only");
    assert_eq!(a.json(&["get", "private", "note", "--json"])["notes"], "mine");
    b.ok(&["sync"]);
    assert_eq!(b.json(&["get", "pieces", id, "--json"])["line11"], "ʻekahi");
    assert_eq!(code(&b.run(&["get", "private", "note"])), 5);
}

/// A database that cannot be written, or in a folder that cannot, is read as any other; what would write says so.
#[test]
#[cfg(unix)]
fn a_database_that_cannot_be_written_is_read() {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Output};
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("archive");
    std::fs::create_dir(&folder).unwrap();
    let a = with_schema(&folder, "a", "http://127.0.0.1:9");
    a.ok_with(&["put", "pieces", "--id", "1"], r#"{"title":"Hoʻi","lyrics":"E hoʻi\n"}"#);
    a.ok(&["set", "pieces", "1", "title=Hoʻi mai"]);
    let file = folder.join("a.db");
    // Who may write everything does not see permissions: somebody else does.
    let program = dir.path().join("motet");
    std::fs::copy(motet_tests::program("motet"), &program).unwrap();
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    let run = |args: &[&str]| -> Output {
        let mut command = match is_root {
            true => {
                let mut other = Command::new("setpriv");
                other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
                other
            }
            false => Command::new(&program),
        };
        command.arg("--db").arg(&file).args(args).output().unwrap()
    };
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for (file_mode, folder_mode) in [(0o444, 0o555), (0o666, 0o555), (0o444, 0o777)] {
        let mode = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&folder, 0o777);
        for entry in std::fs::read_dir(&folder).unwrap() {
            mode(&entry.unwrap().path(), file_mode);
        }
        mode(&folder, folder_mode);
        let before: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let bytes = std::fs::read(&file).unwrap();
        for args in [
            &["list", "pieces"][..],
            &["get", "pieces", "1"],
            &["export", "pieces"],
            &["search", "pieces", "mai"],
            &["history", "pieces", "1"],
        ] {
            let output = run(args);
            let said = String::from_utf8(output.stdout.clone()).unwrap();
            assert_eq!(code(&output), 0, "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(args[0] == "history" || said.contains("Hoʻi mai"), "{args:?}: {said}");
        }
        for args in [&["status"][..], &["verify"], &["conflicts"], &["trash", "pieces"]] {
            assert_eq!(code(&run(args)), 0, "{args:?}");
        }
        for args in [&["set", "pieces", "1", "title=x"][..], &["delete", "pieces", "1"], &["undo"], &["sync"]]
        {
            let output = run(args);
            assert_eq!(code(&output), 1, "{args:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("only be read"), "{output:?}");
        }
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "{file_mode:o} {folder_mode:o}");
        let after: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(after.len(), before.len(), "{after:?}");
    }
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn shells_and_man_know_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path(), "none");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = cli.ok(&["completions", shell]);
        for command in ["change-log", "quarantine", "completions"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(!script.contains("__relay"), "{shell}");
        let json = cli.json(&["completions", shell, "--json"]);
        assert_eq!(json["script"].as_str().unwrap().trim_end(), script.trim_end());
    }
    assert_eq!(code(&cli.run(&["completions", "tcsh"])), 2);
    let pages = dir.path().join("man");
    let missing = cli.run(&["man", pages.to_str().unwrap()]);
    assert_eq!(code(&missing), 1);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("man"));
    std::fs::create_dir(&pages).unwrap();
    cli.ok(&["man", pages.to_str().unwrap()]);
    for page in ["motet.1", "motet-put.1", "motet-change-log.1"] {
        assert!(std::fs::read_to_string(pages.join(page)).unwrap().contains("motet"), "{page}");
    }
    assert!(!pages.join("motet-__relay.1").exists());
}
