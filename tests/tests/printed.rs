//! What the commands print, and where: names that are mistyped or steer a terminal, outputs that are full.

use std::process::Command;

use motet_tests::{Cli, RelayProcess, TestRelay, program};
use serde_json::{Value, json};

fn code(output: &std::process::Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path(), "a");
    cli.ok(&["init", "--device", "a"]);
    cli.ok_with(&["put", "songs", "--id", "1"], r#"{"title":"mele"}"#);
    for args in [
        &["export", "songs"][..],
        &["list", "songs"],
        &["status"],
        &["change-log", "export"],
        &["get", "songs", "1"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = cli.command(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{args:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = cli.command(&[&["--json"], args].concat()).stdout(full).output().unwrap();
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert!(error["error"]["message"].as_str().unwrap().contains("standard output"), "{args:?}: {error}");
    }
}

#[test]
fn what_others_wrote_does_not_steer_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let relay = RelayProcess::start(&dir.path().join("relay"), "127.0.0.1:0", &[]);
    let [a, b] = ["a", "b"].map(|name| Cli::init(dir.path(), name, &relay.url()));
    let steering = "\u{1b}]0;mine\u{7}\u{1b}[2J";
    for (cli, n) in [(&a, 1), (&b, 2)] {
        let song = serde_json::json!({ steering: format!("{steering}{n}") });
        cli.ok_with(&["put", "songs", "--id", "1"], &song.to_string());
        cli.ok(&["sync"]);
    }
    a.ok(&["sync"]);
    for args in [
        &["list", "songs"][..],
        &["get", "songs", "1"],
        &["conflicts"],
        &["history", "songs", "1"],
        &["status"],
    ] {
        let output = a.run(args);
        let said = [output.stdout, output.stderr].concat();
        assert!(!said.contains(&0x1b) && !said.contains(&7), "{args:?}: {}", String::from_utf8_lossy(&said));
    }
}

/// What a new user types: a name that is nearly right, a field that goes, the first digits of a version.
#[test]
fn names_are_checked_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let a = Cli::init(dir.path(), "a", "http://127.0.0.1:9");
    let schema = dir.path().join("schema.toml");
    std::fs::write(
        &schema,
        "[collections.songs.fields]\nlyrics = \"text\"\ntags = \"set\"\nplays = \"counter\"\n",
    )
    .unwrap();
    a.ok(&["schema", "apply", schema.to_str().unwrap()]);
    assert_eq!(
        a.json(&["--json", "schema", "show"])["collections"]["songs"]["fields"].as_object().unwrap().len(),
        3
    );
    let shown = dir.path().join("shown.toml");
    std::fs::write(&shown, a.ok(&["schema", "show"])).unwrap();
    a.ok(&["schema", "apply", shown.to_str().unwrap()]);
    a.ok_with(
        &["put", "songs", "--id", "1"],
        r#"{"title": "Hiʻilawe", "lyrics": "Kūmaka\n", "tags": ["mele"]}"#,
    );
    for args in [&["list"][..], &["collections"]] {
        assert_eq!(
            a.json(&[&["--json"], args].concat()),
            serde_json::json!([{ "collection": "songs", "documents": 1 }])
        );
    }
    for args in
        [&["list", "sogns"][..], &["get", "sogns", "1"], &["search", "sogns", "x"], &["delete", "sogns", "1"]]
    {
        let output = a.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 5, "{args:?}: {said}");
        assert!(said.contains("did you mean \"songs\"?"), "{args:?}: {said}");
    }
    a.ok(&["set", "songs", "1", "tags+=hula", "plays+=3", "plays-=1", "title=Hiʻilawe hou"]);
    let song = a.json(&["--json", "get", "songs", "1"]);
    assert_eq!(
        (&song["tags"], &song["plays"]),
        (&serde_json::json!(["hula", "mele"]), &serde_json::json!(2))
    );
    a.ok(&["set", "songs", "1", "tags-=mele"]);
    for field in ["tag+=x", "title+=x", "plays+=x"] {
        assert_ne!(code(&a.run(&["set", "songs", "1", field])), 0, "{field}");
    }
    a.ok(&["unset", "songs", "1", "title"]);
    assert_eq!(code(&a.run(&["unset", "songs", "1", "titel"])), 5);
    let song = a.json(&["--json", "get", "songs", "1"]);
    assert_eq!((song.get("title"), &song["tags"]), (None, &serde_json::json!(["hula"])));
    let steps = a.json(&["--json", "history", "songs", "1"]);
    let first = steps.as_array().unwrap().last().unwrap()["version"].as_str().unwrap().to_owned();
    let before = a.json(&["--json", "history", "songs", "1", "--at", &first[..8]]);
    assert_eq!(before["title"], "Hiʻilawe");
    assert_eq!(code(&a.run(&["history", "songs", "1", "--at", "0000"])), 5);
    a.ok(&["restore", "songs", "1", "--version", &first[..8]]);
    let heads = a.json(&["--json", "status", "songs", "1"])["heads"].as_str().unwrap().to_owned();
    let restored = a.json(&["--json", "restore", "songs", "1", "--version", &heads]);
    assert_eq!(restored["restored"], 0, "it is what it is already");
    assert_eq!(a.json(&["--json", "get", "songs", "1"])["title"], "Hiʻilawe");
    let output = a.run(&["--json", "lsit"]);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((code(&output), &error["error"]["code"]), (2, &serde_json::json!("usage")));
    let said = String::from_utf8_lossy(&a.run(&["sql", "SELECT * FROM songs"]).stderr).into_owned();
    assert!(said.contains("collection_NAME"), "{said}");
}

/// A name that is not there is an error for each command that takes one, and not a success that did nothing.
#[test]
fn what_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = Cli::init(dir.path(), "a", &relay.url());
    a.ok_with(&["put", "songs", "--id", "1"], r#"{"title":"mele"}"#);
    a.ok_with(&["put", "gone", "--id", "1"], r#"{"title":"mele"}"#);
    a.ok(&["delete", "gone", "1"]);
    for args in [
        &["export", "sogns"][..],
        &["trash", "sogns"],
        &["trash", "sogns", "--purge", "0"],
        &["undo", "sogns"],
        &["redo", "sogns"],
        &["undo", "songs", "2"],
        &["compact", "songs", "2"],
        &["erase-remote", "sogns"],
        &["sync", "songs", "2"],
        &["unset", "songs", "2", "title"],
        &["restore", "--point", "NOPE"],
    ] {
        let output = a.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 5, "{args:?}: {said}");
        assert!(said.contains("there is no"), "{args:?}: {said}");
    }
    // What is in the trash alone is there.
    assert_eq!(a.json(&["--json", "trash", "gone"]).as_array().unwrap().len(), 1);
    a.ok(&["undo", "gone", "1"]);
    // A version that was a deletion is one again, and that is said.
    let deleted = a.json(&["--json", "history", "gone", "1"])[1]["version"].as_str().unwrap().to_owned();
    let said = a.ok(&["restore", "gone", "1", "--version", &deleted]);
    assert!(said.contains("is deleted"), "{said}");
    a.ok(&["restore", "gone", "1"]);
    a.ok(&["export", "gone"]);
    a.ok(&["erase-remote", "gone"]);
}

/// Names from anywhere stand in one line, whatever they hold; scripts get ids as they are.
#[test]
fn names_stay_in_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let a = Cli::init(dir.path(), "a", "http://127.0.0.1:9");
    a.ok_with(&["put", "songs", "--id", "1"], r#"{"title":"mele"}"#);
    for args in [
        &["get", "songs", "x\n✓ all is well"][..],
        &["delete", "songs", "x\n✓ all is well"],
        &["status", "songs", "x\n✓ all is well"],
        &["set", "songs", "x\n✓ all is well", "a=1"],
        &["points", "--remove", "x\n✓ all is well"],
        &["lsit\u{9b}31m\u{2028}x"],
        &["get", "songs", "1", "--\u{9b}31m\u{202e}x"],
        &["lsit\n✓ all is well"],
        &["get", "songs", "1", "--no\n✓ all is well"],
        &["search", "songs", "x", "--limit=x\n✓ all is well"],
    ] {
        let output = a.run(args);
        assert!(matches!(code(&output), 2 | 5), "{args:?}");
        is_one_line_for_each(&output.stderr, args);
    }
    for args in [
        &["--listen", "x\u{1b}[2J\u{9b}31m\u{2028}\n✓ all is well"][..],
        &["--no\n✓ all is well"],
        &["--data", "x\n✓ all is well\u{1b}[2J/none", "verify"],
        &["--config", "x\n✓ all is well\u{1b}[2J/none"],
    ] {
        let output = Command::new(program("motet-relay")).args(args).output().unwrap();
        assert!(matches!(code(&output), 1 | 2), "{args:?}");
        is_one_line_for_each(&output.stderr, args);
    }
    let schema = dir.path().join("schema.toml");
    std::fs::write(&schema, "[collections.songs.fields]\n\"a\\u2028b\" = \"text\"\n").unwrap();
    a.ok(&["schema", "apply", schema.to_str().unwrap()]);
    let shown = a.ok(&["schema", "show"]);
    assert!(!shown.contains('\u{2028}') && shown.contains("text"), "{shown}");
    std::fs::write(&schema, shown).unwrap();
    a.ok(&["schema", "apply", schema.to_str().unwrap()]);
    let fields = a.json(&["--json", "schema", "show"])["collections"]["songs"]["fields"].clone();
    assert_eq!(fields.as_object().unwrap().len(), 1, "{fields}");
    std::fs::write(&schema, "[collections.\"a\\u001b[2Jb\".fields]\nlyrics = \"text\"\n").unwrap();
    let refused = a.run(&["schema", "apply", schema.to_str().unwrap()]);
    assert_eq!(code(&refused), 1);
    assert_eq!(a.json(&["--json", "schema", "show"])["collections"].as_object().unwrap().len(), 1);

    let turned = "Ka \u{202e}ʻŌ\u{2028}ʻō";
    for id in [
        a.ok_with(&["--json", "put", "songs", "--id", turned], r#"{"title":"mele"}"#),
        a.ok(&["--json", "set", "songs", turned, "title=hou"]),
        a.ok(&["--json", "unset", "songs", turned, "title"]),
    ] {
        assert_eq!(serde_json::from_str::<Value>(&id).unwrap(), json!({ "id": turned }));
    }
    let warned = a.run(&["--json", "init", "--device", "a", "--relay", "http://127.0.0.1:9", "--token", "x"]);
    let said = String::from_utf8(warned.stderr).unwrap();
    assert!(said.lines().count() > 0);
    for line in said.lines() {
        assert!(serde_json::from_str::<Value>(line).unwrap()["warning"].is_string(), "{line}");
    }
}

/// What an error says has no characters that steer a terminal, and no line that a name brought.
fn is_one_line_for_each(said: &[u8], args: &[&str]) {
    let said = std::str::from_utf8(said).unwrap();
    let is_plain = |c: char| c == '\n' || !c.is_control() && !['\u{2028}', '\u{202e}'].contains(&c);
    assert!(said.chars().all(is_plain), "{args:?}: {said:?}");
    assert!(!said.is_empty() && !said.lines().any(|line| line.starts_with('✓')), "{args:?}: {said}");
}

/// A query reads, and writes nowhere: a copy would hold what stays on this device.
#[test]
fn a_query_writes_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let a = Cli::init(dir.path(), "a", "http://127.0.0.1:9");
    a.ok_with(&["put", "songs", "--id", "1"], r#"{"title":"mele"}"#);
    assert!(a.ok(&["sql", "SELECT json FROM collection_songs"]).contains("mele"));
    let copy = dir.path().join("copy.db");
    for query in [
        format!("VACUUM INTO '{}'", copy.display()),
        format!("ATTACH '{}' AS copy", copy.display()),
        format!("ATTACH '{}' AS copy", a.db().display()),
        "VACUUM".to_owned(),
        "DELETE FROM meta".to_owned(),
        "PRAGMA user_version = 3".to_owned(),
    ] {
        let output = a.run(&["sql", &query]);
        assert_eq!(code(&output), 1, "{query}");
        assert!(!copy.exists(), "{query}");
    }
    a.ok(&["verify"]);
    // What is noted happens later, and is told although the relay was not reached.
    let output = a.run(&["erase-remote", "songs"]);
    assert_eq!(code(&output), 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("erases it with the next sync"));
}

/// A log that goes to a file is plain text.
#[test]
fn a_log_in_a_file_has_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut command = Command::new(program("motet-relay"));
    command.args(["--listen", "127.0.0.1:0", "--data"]).arg(dir.path().join("relay"));
    let mut relay = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let url = RelayProcess::url_of(&mut relay);
    let a = Cli::init(dir.path(), "a", &url);
    let noted = a.command(&["sync"]).env("RUST_LOG", "trace").output().unwrap();
    relay.kill().unwrap();
    relay.wait().unwrap();
    let log = std::fs::read(log).unwrap();
    assert!(!log.is_empty() && !noted.stderr.is_empty());
    assert!(![log, noted.stderr].concat().contains(&0x1b));
}

/// Help and lists of limits as well.
#[test]
fn help_that_cannot_be_printed_is_an_error() {
    for (name, args) in [
        ("motet", &["--help"][..]),
        ("motet", &["--version"]),
        ("motet", &["get", "--help"]),
        ("motet-relay", &["--help"]),
        ("motet-relay", &["--limits"]),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(program(name)).args(args).stdout(full).output().unwrap();
        assert_eq!(code(&output), 1, "{name} {args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{name} {args:?}");
        let output = Command::new(program(name)).args(args).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{name} {args:?}");
    }
}

#[test]
fn a_relay_that_cannot_print_what_it_found_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    drop(TestRelay::start(&data));
    for what in ["verify", "repair"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(program("motet-relay"));
        let output = command.arg("--data").arg(&data).arg(what).stdout(full).output().unwrap();
        assert_eq!(code(&output), 1, "{what}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{what}");
    }
}

/// A disk without a free byte, where a small one can be mounted: what is there is read, and what is refused says why.
#[cfg(target_os = "linux")]
#[test]
fn a_database_on_a_full_disk_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_mounted) = motet_tests::mount_small(&disk, "2m") else { return };
    let a = Cli::init(&disk, "a", "http://127.0.0.1:9");
    a.ok_with(&["put", "songs", "--id", "1"], r#"{"title":"Hoʻi mai"}"#);
    let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
    for bytes in [4_096, 1] {
        while std::io::Write::write_all(&mut filler, &vec![1; bytes]).is_ok() {}
    }
    for args in
        [&["list", "songs"][..], &["get", "songs", "1"], &["search", "songs", "mai"], &["export", "songs"]]
    {
        assert!(a.ok(args).contains("Hoʻi mai"), "{args:?}");
    }
    a.ok(&["verify"]);
    let opened = motet::Replica::open(a.db());
    assert!(matches!(opened, Err(motet::OpenError::Storage(motet::StorageError::DiskFull))), "{opened:?}");
    let refused = a.run(&["set", "songs", "1", "title=hou"]);
    assert_eq!(code(&refused), 1);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the disk is full"), "{refused:?}");
    drop(filler);
    std::fs::remove_file(disk.join("filler")).unwrap();
    a.ok(&["set", "songs", "1", "title=hou"]);
    assert_eq!(a.json(&["--json", "get", "songs", "1"])["title"], "hou");
}
