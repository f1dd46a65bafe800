//! Texts that two devices edit in the same place.

use motet::{ConflictKind, Replica, Resolution};
use motet_tests::{TestRelay, device, sync};
use serde_json::json;

fn forked(dir: &std::path::Path, relay: &str, old: &str, ours: &str, theirs: &str) -> (Replica, Replica) {
    let (a, b) = (device(dir, "a"), device(dir, "b"));
    a.documents("pieces").upsert("1", &json!({ "lyrics": old })).unwrap();
    sync(&a, relay);
    sync(&b, relay);
    a.documents("pieces").patch("1", &json!({ "lyrics": ours })).unwrap();
    b.documents("pieces").patch("1", &json!({ "lyrics": theirs })).unwrap();
    for replica in [&a, &b, &a, &b] {
        sync(replica, relay);
    }
    (a, b)
}

fn lyrics(replica: &Replica) -> String {
    replica.documents("pieces").get("1").unwrap().unwrap()["lyrics"].as_str().unwrap().to_owned()
}

#[test]
fn both_versions_of_the_same_lines_stand_in_the_journal_of_both_devices() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let old = "ʻekahi\nPā mai ka makani\nʻekolu\nʻehā\n";
    let (ours, theirs) =
        ("ʻekahi\nPā mai ka ua\nʻekolu\nʻehā\n", "ʻekahi\nPā iho ka makani\nʻekolu\nʻehā\nʻelima\n");
    let (a, b) = forked(dir.path(), &relay.url(), old, ours, theirs);
    assert_eq!(lyrics(&a), "ʻekahi\nPā iho ka ua\nʻekolu\nʻehā\nʻelima\n");
    assert_eq!(lyrics(&b), lyrics(&a));
    let journal = a.documents("pieces").document("1").conflicts().unwrap();
    assert_eq!(journal.len(), 1);
    assert_eq!((journal[0].kind, journal[0].settled), (ConflictKind::Text, true));
    assert_eq!(journal[0].winner, "Pā mai ka makani\n");
    assert_eq!(journal[0].loser, json!(["Pā iho ka makani\n", "Pā mai ka ua\n"]));
    let ids = |replica: &Replica| -> Vec<String> {
        replica
            .documents("pieces")
            .document("1")
            .conflicts()
            .unwrap()
            .into_iter()
            .map(|conflict| conflict.loser_id)
            .collect()
    };
    assert_eq!(ids(&a), ids(&b));
    assert_eq!(a.counts().unwrap().conflicts, 0);
}

#[test]
fn conflicts_go_to_a_file_of_json_lines_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let log = dir.path().join("conflicts.log");
    let (a, b) = forked(dir.path(), &relay.url(), "one\ntwo\n", "one\ntwo!\n", "one\ntwo?\n");
    drop(b);
    let b = Replica::builder(dir.path().join("b.db")).conflict_log(&log).open().unwrap();
    a.documents("pieces").patch("1", &json!({ "title": "from a", "lyrics": "one!\ntwo!?\n" })).unwrap();
    b.documents("pieces").patch("1", &json!({ "title": "from b", "lyrics": "one?\ntwo!?\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    // Whatever a name or a value holds, a conflict is one line.
    let steering = "line\nbreak \u{1b}[31m";
    a.documents("pieces").patch("1", &json!({ steering: "x".repeat(100_000) })).unwrap();
    b.documents("pieces").patch("1", &json!({ steering: "y".repeat(100_000) })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(!log.contains('\u{1b}') && log.len() < 20_000, "{} bytes", log.len());
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |path: &str| lines.iter().find(|line| line["path"] == path && line["id"] == "1").unwrap();
    let title = find("/title");
    let both = [&title["shown"], &title["lost"]];
    assert!(both.contains(&&json!("from a")) && both.contains(&&json!("from b")), "{title}");
    let device = a.device_id().to_string();
    assert!([&title["shown_by"], &title["lost_by"]].contains(&&json!(device)), "{title}");
    assert!(find("/lyrics")["lost"].to_string().contains("one!"));
    assert!(find(&format!("/{steering}"))["lost"].as_str().unwrap().ends_with('…'));
    // The journal keeps what was lost whole, and of what shows the beginning.
    let row = b
        .documents("pieces")
        .document("1")
        .conflicts()
        .unwrap()
        .into_iter()
        .find(|row| row.path == format!("/{steering}"))
        .unwrap();
    assert_eq!(row.loser.as_str().unwrap().len(), 100_000);
    assert!(row.winner.as_str().unwrap().ends_with('…'));
}

#[test]
fn the_same_line_added_on_two_devices_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = forked(
        dir.path(),
        &relay.url(),
        "aloha ʻoe\nend\n",
        "aloha ʻoe\nnew line\nend\n",
        "aloha ʻoe\nnew line\nend!\n",
    );
    assert_eq!(lyrics(&a), "aloha ʻoe\nnew line\nend!\n");
    assert_eq!(lyrics(&b), lyrics(&a));
    assert!(a.documents("pieces").document("1").conflicts().unwrap().is_empty());
    let version = |replica: &Replica| replica.documents("pieces").get("1").unwrap().unwrap().version;
    assert_eq!(version(&a), version(&b));
    // Nobody did that: undo takes back what this device wrote.
    assert!(a.undo().unwrap().is_some());
    assert!(lyrics(&a).ends_with("end!\n"));
}

#[test]
fn the_same_correction_inside_a_line_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let old = "Kaulana na pua o Hawaii\nKupaa mahope o ka aina\n\nHiki mai ka elele\n";
    let ours = "Kaulana nā pua aʻo Hawaiʻi\nKūpaʻa ma hope o ka ʻāina\n\nHiki mai ka ʻelele\n";
    let theirs = "Kaulana nā pua aʻo Hawaiʻi!\nKūpaʻa ma hope o ka ʻāina\n\nHiki mai ka elele\nʻEnd\n";
    let (a, b) = forked(dir.path(), &relay.url(), old, ours, theirs);
    let merged = "Kaulana nā pua aʻo Hawaiʻi!\nKūpaʻa ma hope o ka ʻāina\n\nHiki mai ka ʻelele\nʻEnd\n";
    assert_eq!(lyrics(&a), merged);
    assert_eq!(lyrics(&b), merged);
}

#[test]
fn three_devices_with_the_same_line_keep_one_of_it_in_any_order() {
    for order in [[0, 1, 2, 0, 1, 2], [2, 0, 1, 1, 0, 2], [1, 2, 0, 2, 1, 0]] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let all = ["a", "b", "c"].map(|name| device(dir.path(), name));
        all[0].documents("pieces").upsert("1", &json!({ "lyrics": "aloha\n" })).unwrap();
        all.iter().for_each(|replica| _ = sync(replica, &relay.url()));
        for replica in &all {
            replica.documents("pieces").patch("1", &json!({ "lyrics": "aloha\nʻoe nō\n" })).unwrap();
        }
        for at in order.into_iter().chain([0, 1, 2, 0, 1, 2]) {
            sync(&all[at], &relay.url());
        }
        assert!(
            all.iter().all(|replica| lyrics(replica) == "aloha\nʻoe nō\n"),
            "{order:?}: {}",
            lyrics(&all[0])
        );
    }
}

#[test]
fn everyday_edits_made_alike_are_there_once() {
    for (old, new) in [
        ("verse one", "verse one\nverse two"),
        ("a\r\nb\r\nc\r\n", "a\nb\nc\n"),
        ("one two three four five six", "one two\nthree four\nfive six"),
        ("", "Aloha ʻoe\nAloha ʻoe"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let (a, b) = forked(dir.path(), &relay.url(), old, new, new);
        assert_eq!((lyrics(&a).as_str(), lyrics(&b).as_str()), (new, new));
        assert!(a.documents("pieces").document("1").conflicts().unwrap().is_empty());
    }
}

#[test]
fn a_corrected_word_survives_that_line_ends_are_normalised() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = forked(dir.path(), &relay.url(), "a\r\nb\r\nc\r\n", "a\nb\nc\n", "a\r\nbee\r\nc\r\n");
    assert_eq!((lyrics(&a).as_str(), lyrics(&b).as_str()), ("a\nbee\nc\n", "a\nbee\nc\n"));
}

/// The open conflicts of a text.
fn open(replica: &Replica) -> Vec<motet::Conflict> {
    let all = replica.documents("pieces").document("1").conflicts().unwrap();
    all.into_iter().filter(|conflict| !conflict.settled).collect()
}

#[test]
fn unrelated_rewrites_keep_whole_words_and_are_an_open_conflict_until_it_is_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = forked(dir.path(), &relay.url(), "one two three", "four five six", "seven eight nine");
    let both = ["four five six seven eight nine", "seven eight nine four five six"];
    assert!(both.contains(&lyrics(&a).as_str()), "{}", lyrics(&a));
    assert_eq!(lyrics(&a), lyrics(&b));
    // A device that was not there knows of it too.
    let c = device(dir.path(), "c");
    sync(&c, &relay.url());
    for replica in [&a, &b, &c] {
        let open = open(replica);
        assert_eq!(open.len(), 1);
        assert_eq!((open[0].kind, open[0].path.as_str()), (ConflictKind::Text, "/lyrics"));
        assert_eq!(open[0].winner, "one two three");
        assert_eq!(open[0].loser, json!(["four five six", "seven eight nine"]));
        assert_eq!(replica.counts().unwrap().conflicts, 1);
        assert_eq!(open[0].loser_id, self::open(&a)[0].loser_id);
        let fields = replica.documents("pieces").get("1").unwrap().unwrap();
        assert_eq!(fields.as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "lyrics"]);
    }
    b.documents("pieces").document("1").resolve("/lyrics", motet::Resolution::Shown).unwrap();
    for replica in [&b, &a, &c] {
        sync(replica, &relay.url());
        assert!(open(replica).is_empty());
        assert_eq!(replica.counts().unwrap().conflicts, 0);
        assert!(both.contains(&lyrics(replica).as_str()));
    }
}

#[test]
fn an_open_conflict_of_a_text_is_settled_by_a_value_or_by_an_edit_of_the_place() {
    for by_value in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let old = "verse\none two three\nend\n";
        let (a, b) = forked(
            dir.path(),
            &relay.url(),
            old,
            "verse\nfour five six\nend\n",
            "verse\nseven eight nine\nend\n",
        );
        assert_eq!((open(&a).len(), open(&b).len()), (1, 1));
        // Another place is another matter.
        let text = lyrics(&a).replace("verse", "Verse");
        a.documents("pieces").patch("1", &json!({ "lyrics": text })).unwrap();
        assert_eq!(open(&a).len(), 1);
        let text = "Verse\nfour five six\nend\n";
        if by_value {
            a.documents("pieces")
                .document("1")
                .resolve("/lyrics", motet::Resolution::Value(json!(text)))
                .unwrap();
        } else {
            a.documents("pieces").patch("1", &json!({ "lyrics": text })).unwrap();
        }
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        for replica in [&a, &b] {
            assert_eq!(lyrics(replica), text);
            assert!(open(replica).is_empty());
        }
    }
}

#[test]
fn two_people_who_resolve_at_the_same_time_lose_neither_choice() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    for (id, end) in [("1", "end\n"), ("2", "")] {
        let (a, b) = (device(dir.path(), &format!("a{id}")), device(dir.path(), &format!("b{id}")));
        let text = |line: &str| json!({ "lyrics": format!("{line}\n{end}") });
        a.documents("pieces").upsert(id, &text("hello world")).unwrap();
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        a.documents("pieces").patch(id, &text("goodbye moon")).unwrap();
        b.documents("pieces").patch(id, &text("greetings stars")).unwrap();
        [&a, &b, &a].iter().for_each(|replica| _ = sync(replica, &relay.url()));
        for (replica, line) in [(&a, "goodbye moon"), (&b, "greetings stars")] {
            let value = text(line)["lyrics"].clone();
            replica
                .documents("pieces")
                .document(id)
                .resolve("/lyrics", motet::Resolution::Value(value))
                .unwrap();
        }
        [&a, &b, &a, &b].iter().for_each(|replica| _ = sync(replica, &relay.url()));
        for replica in [&a, &b] {
            let shown = replica.documents("pieces").get(id).unwrap().unwrap()["lyrics"].clone();
            let shown = shown.as_str().unwrap();
            assert!(["goodbye moon", "greetings stars"].iter().all(|line| shown.contains(line)), "{shown:?}");
            assert!(replica.counts().unwrap().conflicts > 0);
        }
    }
}

#[test]
fn an_undo_after_a_merge_leaves_what_the_other_wrote_and_puts_nothing_in_twice() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = forked(dir.path(), &relay.url(), "hello world\n", "goodbye moon\n", "greetings stars\n");
    a.undo().unwrap().unwrap();
    [&a, &b].iter().for_each(|replica| _ = sync(replica, &relay.url()));
    let mut lines: Vec<String> = lyrics(&b).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["greetings stars", "hello world"]);
    b.undo().unwrap().unwrap();
    [&b, &a].iter().for_each(|replica| _ = sync(replica, &relay.url()));
    assert_eq!((lyrics(&a).as_str(), lyrics(&b).as_str()), ("hello world\n", "hello world\n"));
}

/// What one device shows after two edits of the same version.
fn twice(old: &str, first: &str, second: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let pieces = a.documents("pieces");
    pieces.upsert("1", &json!({ "lyrics": old })).unwrap();
    let [mut one, mut two] = [(); 2].map(|()| pieces.get("1").unwrap().unwrap());
    (one.value["lyrics"], two.value["lyrics"]) = (first.into(), second.into());
    pieces.update(&mut one).unwrap();
    pieces.update(&mut two).unwrap();
    assert!(a.verify().unwrap().problems.is_empty());
    lyrics(&a)
}

#[test]
fn what_one_device_writes_on_an_older_version_merges_like_what_others_write() {
    assert_eq!(
        twice("verse one\n", "verse one\nverse two\n", "verse one\nverse two\n"),
        "verse one\nverse two\n"
    );
    assert_eq!(twice("recieve", "receive", "receive"), "receive");
    let both = ["goodbye moon greetings stars", "greetings stars goodbye moon"];
    assert!(both.contains(&twice("hello world", "goodbye moon", "greetings stars").as_str()));
}

#[test]
fn what_was_written_in_a_line_outlives_a_delete_of_its_verse() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = forked(dir.path(), &relay.url(), "a b\nc d\ne f\ng\n", "g\n", "a b\nc dear\ne f\ng\n");
    assert_eq!(lyrics(&a), lyrics(&b));
    assert!(lyrics(&a).contains("dear") && lyrics(&a).contains('g'), "{}", lyrics(&a));
    // Both versions can be looked at.
    let told = |replica: &Replica| replica.documents("pieces").document("1").conflicts().unwrap().len();
    assert_eq!((told(&a), told(&b)), (1, 1));
}

#[test]
fn a_word_edited_while_a_big_text_is_rewritten_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let line = |n: usize| format!("{n} e hoʻi ke aloha\n");
    let old: String = (0..1_800).map(line).collect();
    let theirs = old.replace("900 e hoʻi", "900 e hele");
    let (a, b) = forked(dir.path(), &relay.url(), &old, &old.to_uppercase(), &theirs);
    assert_eq!(lyrics(&a), lyrics(&b));
    let edited = "900 e hele ke aloha\n";
    assert!(lyrics(&a).contains(edited), "the edit is lost");
    let (merged, upper) = (lyrics(&a), old.to_uppercase());
    let rest: Vec<&str> = merged.lines().filter(|line| !edited.starts_with(line)).collect();
    let wrong = rest.iter().zip(upper.lines()).find(|(line, right)| *line != right);
    assert_eq!(wrong, None, "{} lines", rest.len());
    assert_eq!(rest.len(), 1_800);
    assert_eq!((open(&a).len(), open(&b).len()), (1, 1));
}

#[test]
fn a_line_added_while_a_text_is_put_anew_is_carried_over() {
    let line = |n: usize| format!("{n} e hoʻi ke aloha\n");
    let old: String = (0..1_800).map(line).collect();
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    // The rewrite leaves the end of the text alone, which is where the other writes.
    let (head, tail) = old.split_at(old.find("1790 ").unwrap());
    let ours = head.to_uppercase() + tail;
    let (a, b) = forked(dir.path(), &relay.url(), &old, &ours, &format!("{old}hou\n"));
    assert!(lyrics(&a) == format!("{ours}hou\n"), "{}", &lyrics(&a)[ours.len() - 40..]);
    assert_eq!(lyrics(&a), lyrics(&b));
}

#[test]
fn both_big_rewrites_are_there_and_alike_ones_once() {
    let line = |n: usize| format!("{n} e hoʻi ke aloha\n");
    let old: String = (0..1_800).map(line).collect();
    let (upper, other) = (old.to_uppercase(), old.replace("e hoʻi ke aloha", "pā mai ka makani"));
    for (theirs, lines) in [(&upper, 1_800), (&other, 3_600)] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let (a, b) = forked(dir.path(), &relay.url(), &old, &upper, theirs);
        assert_eq!(lyrics(&a), lyrics(&b));
        assert_eq!(lyrics(&a).lines().count(), lines);
    }
}

#[test]
fn a_text_that_no_device_could_bear_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    a.documents("pieces").upsert("1", &json!({ "lyrics": "aloha" })).unwrap();
    let long = "x".repeat(motet::limits::TEXT_CHARS as usize + 1);
    let error = a.documents("pieces").patch("1", &json!({ "lyrics": long })).unwrap_err().to_string();
    assert!(error.contains("lyrics") && error.contains("2097152"), "{error}");
    assert_eq!(lyrics(&a), "aloha");
}

#[test]
fn what_went_well_together_stands_in_the_journal_of_who_receives_the_merge_with_the_edit() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    // The line that both added is taken out once: whoever merges writes something, and the other receives that with the edit.
    let (ours, theirs) = ("one TWO three\nx\nsame new\n", "one two THREE\nx\nsame new\n");
    let (a, b) = forked(dir.path(), &relay.url(), "one two three\nx\n", ours, theirs);
    assert_eq!(lyrics(&a), "one TWO THREE\nx\nsame new\n");
    let rows = |replica: &Replica| {
        let rows = replica.documents("pieces").document("1").conflicts().unwrap().into_iter();
        rows.map(|row| (row.loser_id, row.settled, row.loser)).collect::<Vec<_>>()
    };
    let [(_, settled, versions)] = &rows(&a)[..] else { panic!("{:?}", rows(&a)) };
    assert!(settled);
    assert_eq!(*versions, json!(["one TWO three\n", "one two THREE\n"]));
    assert_eq!(rows(&a), rows(&b));
}

#[test]
fn lines_that_two_devices_put_into_a_numbered_list_stay_lines() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (ours, theirs) = ("1. x\n2. a\n3. b\n", "1. a\n2. y\n3. b\n");
    let (a, b) = forked(dir.path(), &relay.url(), "1. a\n2. b\n", ours, theirs);
    assert_eq!(lyrics(&a), lyrics(&b));
    let text = lyrics(&a);
    let mut lines: Vec<_> =
        text.lines().map(|line| line.trim_start_matches(|c: char| !c.is_alphabetic())).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a", "b", "x", "y"], "{text:?}");
    assert!(text.ends_with("3. b\n"), "{text:?}");
}

#[test]
fn an_undo_of_a_deletion_puts_what_the_other_wrote_where_they_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = forked(dir.path(), &relay.url(), "a b c\n", "", "a b c d\n");
    a.undo().unwrap().unwrap();
    [&a, &b].iter().for_each(|replica| _ = sync(replica, &relay.url()));
    assert_eq!((lyrics(&a).as_str(), lyrics(&b).as_str()), ("a b c d\n", "a b c d\n"));
}

#[test]
fn an_open_text_says_how_it_is_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, _b) = forked(dir.path(), &relay.url(), "hello world\n", "goodbye moon\n", "greetings stars\n");
    let row = a.documents("pieces").document("1").conflicts().unwrap().remove(0);
    let refused = a
        .documents("pieces")
        .document("1")
        .resolve("/lyrics", motet::Resolution::Loser(row.loser_id))
        .unwrap_err();
    assert!(refused.to_string().contains("both versions"), "{refused}");
    a.documents("pieces")
        .document("1")
        .resolve("/lyrics", motet::Resolution::Value(json!("one line\n")))
        .unwrap();
    assert_eq!(lyrics(&a), "one line\n");
}

/// Lines of a text long enough that many changed places are written as a new text.
fn long(mark: impl Fn(usize) -> &'static str) -> String {
    (0..600).map(|n| format!("ka laina {n} o kēia mele lōʻihi loa, he nui nā huaʻōlelo ma laila, a hiki i ka hopena o ke mele a pau me ke aloha nui a me ka mahalo{}\n", mark(n))).collect()
}

#[test]
fn two_who_change_hundreds_of_lines_each_have_every_line_once() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let ours = long(|n| if n % 2 == 0 { " ʻae" } else { "" });
    let theirs = long(|n| if n % 2 == 1 { " ʻaʻole" } else { "" });
    let (a, b) = forked(dir.path(), &relay.url(), &long(|_| ""), &ours, &theirs);
    let both = long(|n| if n % 2 == 0 { " ʻae" } else { " ʻaʻole" });
    assert!(lyrics(&a) == both, "{} lines", lyrics(&a).lines().count());
    assert!(lyrics(&b) == both);
    assert!(twice(&long(|_| ""), &ours, &theirs) == both);
}

#[test]
fn a_deletion_on_an_older_version_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let pieces = a.documents("pieces");
    let text = long(|_| "").chars().take(16_000).collect::<String>();
    pieces.upsert("1", &json!({ "lyrics": text })).unwrap();
    let mut record = pieces.get("1").unwrap().unwrap();
    pieces.document("1").splice_text("lyrics", 0, 0, "X").unwrap();
    record["lyrics"] = "".into();
    pieces.update(&mut record).unwrap();
    // The line in which somebody wrote meanwhile stays.
    assert!(lyrics(&a).starts_with('X') && lyrics(&a).lines().count() == 1, "{}", lyrics(&a));
}

#[test]
fn words_of_both_are_words_that_somebody_wrote() {
    let cases = [
        ("a red fox", "a blue fox", "a grey fox", &["a", "blue", "fox", "grey"][..], true),
        ("my cat is", "my dog is", "my scatty is", &["dog", "is", "my", "scatty"], true),
        ("my cats sleep", "my cat sleep", "my dogs sleep", &["cat", "dogs", "my", "sleep"], true),
        ("the line is", "the lines is", "the aina is", &["aina", "is", "lines", "the"], true),
        ("hope", "hoped", "house", &["hoped", "house"], true),
        ("one two", "one tow", "one too", &["one", "too", "tow"], true),
        ("abcd", "abdc", "abdd", &["abdc", "abdd"], true),
        ("hoi", "hoʻi", "hōʻi", &["hōʻi"], false),
        ("aina", "ʻaina", "ʻāina", &["ʻāina"], false),
        ("adress", "address", "Address", &["Address"], false),
        ("5", "6", "5 eggs", &["6", "eggs"], false),
        ("12.50", "13.50", "12.75", &["12.75", "13.50"], true),
        ("10:30", "10:45", "11:30", &["10:45", "11:30"], true),
        ("2024-01-05", "2024-01-06", "2024-02-05", &["2024-01-06", "2024-02-05"], true),
        ("-5", "5", "-6", &["-6", "5"], true),
        ("v1.2.3", "v1.2.4", "v1.3.0", &["v1.2.4", "v1.3.0"], true),
        ("cafe", "café", "café!", &["café!"], false),
        ("verse\nend", "verse\nA\nB\nend", "verse\nB\nA\nend", &["A", "B", "end", "verse"], false),
    ];
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let put = |replica: &Replica, version: usize| {
        for (n, (old, ours, theirs, ..)) in cases.iter().enumerate() {
            let lyrics = [old, ours, theirs][version];
            replica.documents("pieces").upsert(&n.to_string(), &json!({ "lyrics": lyrics })).unwrap();
        }
    };
    put(&a, 0);
    [&a, &b].iter().for_each(|replica| _ = sync(replica, &relay.url()));
    put(&a, 1);
    put(&b, 2);
    [&a, &b, &a, &b].iter().for_each(|replica| _ = sync(replica, &relay.url()));
    for (n, (old, ours, theirs, words, is_open)) in cases.iter().enumerate() {
        for replica in [&a, &b] {
            let shown = replica.documents("pieces").get(&n.to_string()).unwrap().unwrap()["lyrics"].clone();
            let mut shown: Vec<&str> = shown.as_str().unwrap().split_whitespace().collect();
            shown.sort_unstable();
            assert_eq!(shown, *words, "{old:?} {ours:?} {theirs:?}");
            let rows = replica.documents("pieces").document(&n.to_string()).conflicts().unwrap();
            assert_eq!(rows.iter().any(|row| !row.settled), *is_open, "{old:?} {ours:?} {theirs:?}");
        }
    }
}

/// So much is rewritten that the text is put anew: an edit beside it is an open conflict all the same, in lines of those that are there.
#[test]
fn a_line_edited_in_a_long_text_that_another_rewrites_in_every_line() {
    for lines in [500, 800] {
        for edit in ["", "something else entirely\n"] {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let of = |line: &dyn Fn(usize) -> String| (0..lines).map(line).collect::<String>();
            let old = of(&|n| format!("line {n} of the long text\n"));
            let ours = of(&|n| format!("row {n} of another text\n"));
            let theirs = old.replace("line 250 of the long text\n", edit);
            let (a, b) = forked(dir.path(), &relay.url(), &old, &ours, &theirs);
            let text = lyrics(&a);
            assert_eq!(text, lyrics(&b));
            let all: Vec<&str> = text.lines().collect();
            assert_eq!(all.len(), lines, "{lines} {edit:?}");
            for (line, row) in all.iter().zip(ours.lines()) {
                assert!(
                    line.starts_with(row) && (*line == row || line.ends_with(edit.trim_end())),
                    "{line:?}"
                );
            }
            assert!(text.contains(edit.trim_end()));
            assert!(
                a.documents("pieces").document("1").conflicts().unwrap().iter().any(|row| !row.settled),
                "{lines} {edit:?}"
            );
        }
    }
}

/// Whoever takes back what he wrote elsewhere in the text has chosen nothing.
#[test]
fn an_undo_of_something_else_leaves_a_place_open() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let old = "one\ntwo words\nthree\nfour\n";
    let (a, b) =
        forked(dir.path(), &relay.url(), old, "one\nours\nthree\nfour\n", "one\ntheirs\nthree\nfour\n");
    let open = || [&a, &b].map(|replica| replica.counts().unwrap().conflicts);
    let before = lyrics(&a);
    assert_eq!(open(), [1, 1]);
    for (replica, line) in [(&a, "by a\n"), (&b, "by b\n")] {
        replica.documents("pieces").document("1").splice_text("lyrics", 0, 0, line).unwrap();
        replica.undo().unwrap().unwrap();
        assert_eq!(lyrics(replica), before);
    }
    assert_eq!(open(), [1, 1]);
    a.documents("pieces").patch("1", &json!({ "lyrics": before.clone() + "five\n" })).unwrap();
    for replica in [&a, &b, &a, &b] {
        sync(replica, &relay.url());
    }
    assert_eq!([lyrics(&a), lyrics(&b)], [before.clone() + "five\n", before + "five\n"]);
    assert_eq!(open(), [1, 1]);
    // It can be settled still.
    let row = a
        .documents("pieces")
        .document("1")
        .conflicts()
        .unwrap()
        .into_iter()
        .find(|row| !row.settled)
        .unwrap();
    a.documents("pieces")
        .document("1")
        .resolve(&row.path, Resolution::Value(json!("one\nours\nthree\nfour\n")))
        .unwrap();
    assert_eq!(a.counts().unwrap().conflicts, 0);
}
