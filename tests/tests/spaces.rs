//! Several spaces of one account: a file holds one, its documents stay in it, and it keeps its name.

use std::path::Path;

use motet::{OpenError, Relay, Replica, SpaceId, json};
use motet_tests::{Cli, TestRelay};
use rusqlite::Connection;
use serde_json::Value;

/// The space that the tests call `band`.
fn band() -> SpaceId {
    SpaceId::named("band")
}

fn open(dir: &Path, name: &str, space: Option<SpaceId>) -> Replica {
    let builder = Replica::builder(dir.join(format!("{name}.db"))).device_name(name);
    match space {
        Some(space) => builder.space(space),
        None => builder,
    }
    .open()
    .unwrap()
}

fn sync(replica: &Replica, url: &str) {
    replica.connect(Relay::new(url)).unwrap();
    replica.sync_now().unwrap();
    replica.disconnect();
}

fn title(replica: &Replica) -> Option<String> {
    let song = replica.documents("songs").get("1").unwrap();
    song.map(|song: motet::Record<Value>| song["title"].as_str().unwrap().to_owned())
}

#[test]
fn spaces_of_an_account_stay_apart() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let at = |place: &str| {
        let folder = dir.path().join(place);
        std::fs::create_dir_all(&folder).unwrap();
        [open(&folder, "own", None), open(&folder, "band", Some(band()))]
    };
    let here = at("here");
    for (replica, title) in here.iter().zip(["Pua Ana", "Hanohano"]) {
        replica.documents("songs").upsert("1", &json!({ "title": title })).unwrap();
        sync(replica, &relay.url());
    }
    let there = at("there");
    for (replica, expected) in there.iter().zip(["Pua Ana", "Hanohano"]) {
        sync(replica, &relay.url());
        assert_eq!(title(replica).as_deref(), Some(expected));
        assert_eq!(replica.counts().unwrap().documents, 1);
    }
    // An edit, a delete and a purge reach the same space alone.
    there[1].documents("songs").patch("1", &json!({ "title": "Hanohano nō" })).unwrap();
    there[0].documents("songs").delete("1").unwrap();
    there[0].documents("songs").purge_trash(i64::MAX).unwrap();
    there.iter().chain(&here).for_each(|replica| sync(replica, &relay.url()));
    assert_eq!((title(&here[0]), title(&here[1]).as_deref()), (None, Some("Hanohano nō")));
    for replica in there.iter().chain(&here) {
        assert_eq!((replica.counts().unwrap().quarantined, replica.status().pending), (0, 0));
        assert_eq!(replica.verify().unwrap().problems, []);
    }
}

#[test]
fn a_file_keeps_its_space() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(format!("{name}.db"));
    for (name, space, other) in [
        ("own", None, band()),
        ("band", Some(band()), SpaceId::DEFAULT),
        ("two", Some(band()), SpaceId::named("")),
    ] {
        let made = space.unwrap_or(SpaceId::DEFAULT);
        drop(open(dir.path(), name, space));
        let refused = Replica::builder(file(name)).space(other).open().unwrap_err();
        assert!(
            matches!(refused, OpenError::OtherSpace { found, wanted } if (found, wanted) == (made, other)),
            "{refused}"
        );
        assert_eq!((refused.code(), refused.is_retryable()), ("open-other-space", false));
        assert!(refused.to_string().contains(&made.to_string()), "{refused}");
        for again in [None, Some(made)] {
            assert_eq!(open(dir.path(), name, again).space(), made);
        }
    }
    let replica = open(dir.path(), "band", None);
    replica.documents("songs").upsert("1", &json!({ "title": "Hanohano" })).unwrap();
    replica.backup(file("copy")).unwrap();
    let read_only = Replica::builder(file("band")).read_only().space(band()).open().unwrap();
    for copy in [open(dir.path(), "copy", Some(band())), read_only] {
        assert_eq!((copy.space(), title(&copy).as_deref()), (band(), Some("Hanohano")));
        assert_eq!(copy.verify().unwrap().problems, []);
    }
}

/// Of processes that make one file for different spaces, all that succeed find the same.
#[test]
fn a_file_that_is_made_twice_at_once_has_one_space() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..20 {
        let cli = Cli::new(dir.path(), &n.to_string());
        let init = |space: &[&str]| {
            let mut command = cli.command(&[&["--json", "init", "--device", "a"], space].concat());
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let made = [init(&["--space", "alpha"]), init(&["--space", "beta"]), init(&[])];
        let made: Vec<String> = made
            .into_iter()
            .filter_map(|made| {
                let out = made.wait_with_output().unwrap();
                let report: Option<Value> = serde_json::from_slice(&out.stdout).ok();
                let report = report.filter(|_| out.status.success());
                report.map(|report| report["space"].as_str().unwrap().to_owned())
            })
            .collect();
        let found = Replica::open(cli.db()).unwrap().space().to_string();
        assert!(!made.is_empty() && made.iter().all(|space| *space == found), "{made:?} {found}");
    }
}

/// What the id of a space stands for is found again, whichever of its places is damaged.
#[test]
fn a_damaged_id_of_a_space_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let other = format!("UPDATE meta SET value = '{0}{0}' WHERE key = 'space'", SpaceId::named("choir"));
    let damages = [
        "UPDATE space SET uuid = zeroblob(16)",
        "UPDATE space SET uuid = x'0102030405060708090a0b0c0d0e0f10'",
        "UPDATE space SET uuid = x'ff'",
        "PRAGMA foreign_keys = OFF; DELETE FROM space",
        "DELETE FROM meta WHERE key = 'space'",
        "UPDATE meta SET value = 'ʻodd' WHERE key = 'space'",
        &other,
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        for (space, is_empty) in [(Some(band()), false), (None, false), (Some(band()), true), (None, true)] {
            let name = format!("{n}-{}-{is_empty}", space.is_some());
            let replica = open(dir.path(), &name, space);
            let made = replica.space();
            if !is_empty {
                replica.documents("songs").upsert("1", &json!({ "title": "Hanohano" })).unwrap();
                sync(&replica, &relay.url());
            }
            drop(replica);
            let file = dir.path().join(format!("{name}.db"));
            Connection::open(&file).unwrap().execute_batch(damage).unwrap();

            let replica = open(dir.path(), &name, None);
            assert_eq!(replica.space(), made, "{damage}");
            let is_whole = replica.verify().unwrap().problems.is_empty();
            // The personal space is zeros; a copy that is gone is written when the file is opened.
            assert!(!is_whole || space.is_none() && n == 0 || damage.starts_with("DELETE"), "{damage}");
            replica.repair().unwrap();
            assert_eq!(replica.verify().unwrap().problems, [], "{damage}");
            replica.documents("songs").upsert("1", &json!({ "title": "Pua Ana" })).unwrap();
            sync(&replica, &relay.url());
            drop(replica);
            let replica = open(dir.path(), &name, Some(made));
            assert_eq!(
                (replica.verify().unwrap().problems, title(&replica).as_deref()),
                (vec![], Some("Pua Ana"))
            );
        }
    }
}

/// A relay that passes on entries of one space as those of another moves no document.
#[test]
fn entries_of_another_space_are_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    let own = open(dir.path(), "own", None);
    own.documents("songs").upsert("1", &json!({ "title": "Pua Ana" })).unwrap();
    sync(&own, &relay.url());
    let url = relay.url();
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    drop(relay);
    let conn = Connection::open(data.join("relay.db")).unwrap();
    conn.execute("UPDATE space SET uuid = ?", [band().as_bytes()]).unwrap();
    drop(conn);

    let relay = TestRelay::start_with(&data, motet_relay::auth::Auth::Local, port);
    let replica = open(dir.path(), "band", Some(band()));
    replica.connect(Relay::new(&relay.url())).unwrap();
    _ = replica.sync_now();
    assert_eq!((title(&replica), replica.counts().unwrap().documents), (None, 0));
    assert_eq!(replica.verify().unwrap().problems, []);
}

#[test]
fn the_command_line_makes_files_of_a_space() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let init = |name: &str, space: &[&str]| {
        let cli = Cli::new(dir.path(), name);
        let out = cli.run(&[&["init", "--device", name, "--relay", &relay.url()], space].concat());
        assert!(out.status.success(), "{out:?}");
        cli
    };
    let (own, a, b) = (init("own", &[]), init("a", &["--space", "band"]), init("b", &["--space", "band"]));
    for cli in [&own, &a] {
        let put = cli.run_with(&["put", "songs", "--id", "1"], r#"{"title": "Hanohano"}"#);
        assert!(put.status.success(), "{put:?}");
        cli.ok(&["sync"]);
    }
    b.ok(&["sync"]);
    assert!(b.ok(&["list", "songs"]).contains("Hanohano"));
    let id = band().to_string();
    assert!(b.ok(&["status"]).contains(&id) && !own.ok(&["status"]).contains("space"));
    let status: Value = serde_json::from_str(&b.ok(&["--json", "status"])).unwrap();
    assert_eq!(status["space"], id);
    for odd in ["", " ", "a\nb"] {
        let out = Cli::new(dir.path(), "odd").run(&["init", "--device", "odd", "--space", odd]);
        assert_eq!((out.status.code(), dir.path().join("odd.db").exists()), (Some(2), false));
    }
    // A second `init` keeps the space, and another one is refused.
    b.ok(&["init", "--device", "b"]);
    let refused = b.run(&["init", "--device", "b", "--space", "choir"]);
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains(&format!("the file holds the space {id}")), "{message}");
}
