//! The conflict journal of one document, whatever others write: what it holds, and what it says of what it has no room for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use automerge::{Change, ExpandedChange};
use motet::{Conflict, ConflictKind, Replica, Resolution, limits};
use motet_proto::Kind;
use motet_tests::random::{Random, runs, seed};
use motet_tests::raw::push;
use motet_tests::{Cli, TestRelay, attack, contents, singer, sync};
use serde_json::{Value, json};

/// What writers, each without knowledge of the others, gave to fields. The later a writer comes, the later is its time.
type Written = Vec<BTreeMap<String, String>>;

fn change(writer: usize, fields: &BTreeMap<String, String>) -> Change {
    let set =
        |(key, value)| json!({ "action": "set", "obj": "_root", "key": key, "value": value, "pred": [] });
    let ops: Vec<Value> = fields.iter().map(set).collect();
    let change = json!({
        "actor": format!("{:032x}", writer + 1), "seq": 1, "startOp": 1, "time": 5 + writer,
        "message": null, "deps": [], "ops": ops,
    });
    Change::from(serde_json::from_value::<ExpandedChange>(change).unwrap())
}

fn send(url: &str, changes: &[Change]) -> usize {
    let bytes: Vec<u8> = changes.iter().flat_map(|change| change.raw_bytes().to_vec()).collect();
    let sent = bytes.len();
    push(url, vec![attack::stranger("songs", "1", Kind::Changes, bytes)]);
    sent
}

/// The losers of each field, the latest first.
fn losers(written: &Written) -> BTreeMap<String, Vec<String>> {
    let mut losers = BTreeMap::<String, Vec<String>>::new();
    for (field, value) in written.iter().rev().flatten() {
        losers.entry(field.clone()).or_default().push(value.clone());
    }
    losers.values_mut().for_each(|values| _ = values.remove(0));
    losers
}

fn rows(replica: &Replica) -> Vec<Conflict> {
    let mut rows = replica.documents("songs").document("1").conflicts().unwrap();
    rows.sort_by(|a, b| (&a.path, &a.loser_id).cmp(&(&b.path, &b.loser_id)));
    rows
}

/// How many open losers have no row.
fn open_more(rows: &[Conflict]) -> u64 {
    let more = rows.iter().find(|row| row.kind == ConflictKind::More && !row.settled);
    more.map_or(0, |more| more.loser.as_u64().unwrap())
}

/// What the journal takes, by SQLite's own pages.
fn journal_bytes(dir: &Path, name: &str) -> usize {
    let conn = rusqlite::Connection::open(dir.join(format!("{name}.db"))).unwrap();
    let sql = "SELECT COALESCE(SUM(2 * (octet_length(winner) + octet_length(loser) > 900) * 2048
                 + octet_length(winner) + octet_length(loser) + octet_length(path) + octet_length(op)), 0) FROM conflict";
    conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as usize
}

/// Each loser has a row, or is one of those that are counted, and all of it takes no more than it may.
fn check(dir: &Path, (replica, name): (&Replica, &str), written: &Written) {
    let (losers, rows) = (losers(written), rows(replica));
    let total: usize = losers.values().map(Vec::len).sum();
    let listed: Vec<&Conflict> = rows.iter().filter(|row| row.kind == ConflictKind::Value).collect();
    let open = listed.iter().filter(|row| !row.settled).count();
    assert_eq!(open as u64 + open_more(&rows), total as u64);
    assert_eq!(replica.counts().unwrap().conflicts, total as u64);
    assert_eq!(replica.documents("songs").document("1").status().unwrap().unwrap().conflicts, total as u64);
    let mut seen = BTreeSet::new();
    for row in listed.iter().filter(|row| !row.settled) {
        let shown = row.loser.as_str().unwrap();
        let cut = shown.strip_suffix('…');
        let is_it = |value: &&String| match cut {
            Some(beginning) => value.starts_with(beginning) && value.len() > limits::CONFLICT_LOSER_BYTES - 2,
            None => *value == shown,
        };
        let value = losers[&row.path[1..]]
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{} {}", row.path, row.loser_id));
        assert!(seen.insert((&row.path, value)), "{} twice", row.path);
    }
    let bytes = journal_bytes(dir, name);
    assert!(bytes <= limits::CONFLICT_BYTES + limits::CONFLICT_BYTES / 8, "{bytes} bytes");
    // What is of honest size is all there; and of each field something is, as long as there is room for one of each.
    let row = limits::CONFLICT_WINNER_BYTES + limits::CONFLICT_ROW_BYTES + 100;
    let paged =
        |value: &String| (value.len().min(limits::CONFLICT_LOSER_BYTES) + row).next_multiple_of(4_096);
    let size = |values: &Vec<String>| values.iter().map(paged).sum::<usize>();
    if losers.values().map(size).sum::<usize>() <= limits::CONFLICT_BYTES {
        assert_eq!(open_more(&rows), 0);
    }
    let paths: BTreeSet<&str> = listed.iter().map(|row| &row.path[1..]).collect();
    let first: usize = losers.values().filter_map(|values| values.first()).map(paged).sum();
    for (field, _) in
        losers.iter().filter(|(_, values)| !values.is_empty() && first <= limits::CONFLICT_BYTES)
    {
        assert!(paths.contains(&**field), "{field} is not told of");
    }
}

#[test]
fn made_up_conflicts_take_a_bounded_part_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let cli = Cli::init(dir.path(), "program", &relay.url());
    let victim = singer(dir.path(), "victim");
    // Every field shows 16 kB, which all of its losers were told beside.
    let value = |writer, field| match writer {
        899 => "w".repeat(16_000),
        _ => format!("{writer} {field}"),
    };
    let fields = |writer| (0..8).map(|field| (format!("f{field}"), value(writer, field))).collect();
    let mut written: Written = (0..900).map(fields).collect();
    // What somebody means is told of beside all that.
    written[0].insert("title".into(), "mine".into());
    written[1].insert("title".into(), "yours".into());
    let changes: Vec<Change> = written.iter().enumerate().map(|(n, fields)| change(n, fields)).collect();
    let sent = send(&relay.url(), &changes);
    assert!(sent < 300_000, "{sent} bytes");
    sync(&victim, &relay.url());
    check(dir.path(), (&victim, "victim"), &written);
    assert!(open_more(&rows(&victim)) > 1_000);
    assert!(rows(&victim).iter().any(|row| row.path == "/title" && row.loser == "mine"));
    // A field of which not all losers have rows is settled as any other, and others get the room.
    let songs = victim.documents("songs");
    songs.document("1").resolve("/f5", Resolution::Shown).unwrap();
    songs.document("1").resolve("/title", Resolution::Loser(loser_id(&victim, "/title", "mine"))).unwrap();
    assert_eq!(songs.get("1").unwrap().unwrap()["title"], "mine");
    let left: usize = losers(&written)
        .iter()
        .filter(|(field, _)| !["f5", "title"].contains(&&***field))
        .map(|(_, values)| values.len())
        .sum();
    assert_eq!(victim.counts().unwrap().conflicts, left as u64);
    let all: Vec<(String, String)> = (0..8).map(|n| (format!("f{n}"), "one".into())).collect();
    songs.patch("1", &json!(all.into_iter().collect::<BTreeMap<_, _>>())).unwrap();
    assert_eq!(victim.counts().unwrap().conflicts, 0);
    // What had no row is not forgotten without a word.
    let rows = rows(&victim);
    assert_eq!(open_more(&rows), 0);
    let past = rows.iter().filter(|row| row.kind == ConflictKind::More && row.settled);
    let past: u64 = past.map(|row| row.loser.as_u64().unwrap()).sum();
    let listed = rows.iter().filter(|row| row.kind == ConflictKind::Value).count() as u64;
    assert_eq!(listed + past, losers(&written).values().map(Vec::len).sum::<usize>() as u64);
    // The command line says so as well.
    cli.ok(&["sync"]);
    let listed = cli.ok(&["conflicts"]);
    assert!(listed.contains("more, for which the journal has no room"), "{}", &listed[listed.len() - 500..]);
    assert!(cli.ok(&["status", "songs", "1"]).contains("more, for which the journal has no room"));
    sync(&victim, &relay.url());
    cli.ok(&["sync"]);
    assert!(cli.json(&["--json", "conflicts"]).as_array().unwrap().is_empty());
    assert!(victim.verify().unwrap().problems.is_empty());
}

fn loser_id(replica: &Replica, path: &str, value: &str) -> String {
    rows(replica).into_iter().find(|row| row.path == path && row.loser == value).unwrap().loser_id
}

fn some_value(random: &mut Random, writer: usize, field: usize) -> String {
    let length = [4, 4, 900, 5_000, 60_000, 300_000][random.below(6) as usize];
    format!("{writer}-{field}-{}", "ʻo ".repeat(length / 4))
}

#[test]
fn each_loser_has_a_row_or_is_counted_on_every_device() {
    let seed = seed();
    for run in 0..runs(5) {
        let mut random = Random(seed + run);
        let fields = 1 + random.below(30) as usize;
        let written: Written = (0..2 + random.below(9) as usize)
            .map(|writer| {
                let of: Vec<usize> = (0..fields).filter(|_| random.below(3) > 0).collect();
                of.into_iter().map(|f| (format!("f{f}"), some_value(&mut random, writer, f))).collect()
            })
            .collect();
        let mut changes: Vec<Change> =
            written.iter().enumerate().map(|(n, fields)| change(n, fields)).collect();
        for n in (1..changes.len()).rev() {
            changes.swap(n, random.below(n as u64 + 1) as usize);
        }
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let [one, all] = ["one", "all"].map(|name| singer(dir.path(), name));
        for changes in changes.chunks(1 + random.below(3) as usize) {
            send(&relay.url(), changes);
            sync(&one, &relay.url());
        }
        sync(&all, &relay.url());
        let open = |replica: &Replica| -> Vec<Conflict> {
            rows(replica).into_iter().filter(|row| !row.settled).collect()
        };
        check(dir.path(), (&one, "one"), &written);
        check(dir.path(), (&all, "all"), &written);
        assert_eq!(open(&one), open(&all));
        // A loser of which the journal has the beginning is restored as a whole.
        let mut long =
            open(&one).into_iter().filter(|row| row.loser.as_str().is_some_and(|loser| loser.ends_with('…')));
        let Some(long) = long.next_back() else { continue };
        one.documents("songs")
            .document("1")
            .resolve(&long.path, Resolution::Loser(long.loser_id.clone()))
            .unwrap();
        let restored = one.documents("songs").get("1").unwrap().unwrap()[&long.path[1..]].clone();
        assert!(losers(&written)[&long.path[1..]].iter().any(|loser| restored == **loser));
        let again =
            one.documents("songs").document("1").resolve(&long.path, Resolution::Loser(long.loser_id));
        assert!(again.unwrap_err().to_string().contains("history"));
        for device in [&one, &all] {
            sync(device, &relay.url());
        }
        assert_eq!(open(&one), open(&all));
        assert_eq!(contents(&one), contents(&all));
    }
}

#[test]
fn what_is_known_is_not_logged_again() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let log = dir.path().join("conflicts.log");
    let device = Replica::builder(dir.path().join("logs.db")).conflict_log(&log).open().unwrap();
    for writer in 0..20 {
        let fields = (0..5).map(|field| (format!("f{field}"), format!("{writer} {field}"))).collect();
        send(&relay.url(), &[change(writer, &fields)]);
        sync(&device, &relay.url());
    }
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.lines().count(), 19 * 5);
}
