//! Edits of a text on the versions that several people see while changes of the others arrive: the text is what a model says that applies each
//! edit to the line that it was made in, whoever has received what.

use motet::{Replica, TextEdit, Version, WriteError};
use motet_tests::random::{Random, runs, seed};
use motet_tests::{TestRelay, singer, sync};
use serde_json::json;

/// What one person has made of each of their lines, step by step.
struct Person {
    device: Replica,
    /// Their lines after each of their steps; at first as all have them.
    lines: Vec<Vec<String>>,
    /// The version with each step alone and what it was made on.
    versions: Vec<Version>,
    /// Steps of everybody that each of their own steps was made on.
    bases: Vec<Vec<usize>>,
    /// Steps of everybody that they see, and that their device has at least.
    sees: Vec<usize>,
    has: Vec<usize>,
}

/// Lines of each person, who take turns in the text: in a short one all edits are near to each other, in a long one most are not.
const LINES: [usize; 2] = [3, 60];

/// The whole text, as somebody sees it who knows so many steps of each.
fn text(people: &[Person], sees: &[usize]) -> String {
    let line = |n: usize| &people[n % people.len()].lines[sees[n % people.len()]][n / people.len()];
    (0..people[0].lines[0].len() * people.len()).map(|n| format!("{}\n", line(n))).collect()
}

/// The version that has these steps. What another of them is made on is not named.
fn version(people: &[Person], sees: &[usize], start: &Version) -> Version {
    let is_in_another = |who: usize| {
        sees.iter()
            .enumerate()
            .any(|(other, step)| other != who && *step > 0 && people[other].bases[step - 1][who] >= sees[who])
    };
    let heads = (0..people.len()).filter(|who| sees[*who] > 0 && !is_in_another(*who));
    let heads: Vec<String> = heads.map(|who| people[who].versions[sees[who] - 1].to_string()).collect();
    if heads.is_empty() { start.clone() } else { heads.join(",").parse().unwrap() }
}

fn some(random: &mut Random) -> String {
    const WORDS: [&str; 8] = ["kai", "laʻi ", " pō", "🌊", "ʻ", "a", "ē ", "👩‍🚀"];
    (0..1 + random.below(3)).map(|_| WORDS[random.below(8) as usize]).collect()
}

/// One to three replacements in one line, each on what those before it have left. Returns them as positions in the whole text.
fn type_in(line: &mut Vec<char>, before: usize, random: &mut Random) -> Vec<TextEdit> {
    let mut edits = Vec::new();
    for _ in 0..1 + random.below(3) {
        let at = random.below(line.len() as u64 + 1) as usize;
        let delete = random.below((line.len() - at) as u64 + 1).min(random.below(8)) as usize;
        let insert = if delete > 0 && random.below(2) == 0 { String::new() } else { some(random) };
        line.splice(at..at + delete, insert.chars());
        edits.push(TextEdit::new(before + at, delete, insert));
    }
    edits
}

#[test]
fn what_people_type_on_what_they_see_is_where_they_typed_it() {
    let mut random = Random(seed());
    for _ in 0..runs(20) {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let count = 2 + random.below(2) as usize;
        let own_lines = LINES[random.below(2) as usize];
        let mut people: Vec<Person> = (0..count)
            .map(|who| Person {
                device: singer(dir.path(), &who.to_string()),
                lines: vec![(0..own_lines).map(|n| format!("laina {who}.{n} o ke mele")).collect()],
                versions: Vec::new(),
                bases: Vec::new(),
                sees: vec![0; count],
                has: vec![0; count],
            })
            .collect();
        let song = json!({ "lyrics": text(&people, &vec![0; count]) });
        let start = people[0].device.documents("songs").upsert("1", &song).unwrap();
        people.iter().for_each(|person| _ = sync(&person.device, &relay.url()));
        let mut at_relay = vec![0; count];
        for _ in 0..30 {
            let who = random.below(count as u64) as usize;
            if random.below(3) == 0 {
                sync(&people[who].device, &relay.url());
                at_relay[who] = people[who].versions.len();
                people[who].has.clone_from(&at_relay);
            }
            // Somebody sees what has arrived sooner or later.
            if random.below(2) == 0 {
                people[who].sees = people[who].has.clone();
            }
            people[who].sees[who] = people[who].versions.len();
            let sees = people[who].sees.clone();
            let base = version(&people, &sees, &start);
            let shown = text(&people, &sees);
            let line = random.below(own_lines as u64) as usize;
            let before =
                shown.split('\n').take(line * count + who).map(|line| line.chars().count() + 1).sum();
            let mut lines = people[who].lines.last().unwrap().clone();
            let mut chars: Vec<char> = lines[line].chars().collect();
            let edits = type_in(&mut chars, before, &mut random);
            lines[line] = chars.into_iter().collect();
            let document = people[who].device.documents("songs").document("1");
            let edited = document.edit_text("lyrics", &edits, Some(&base)).unwrap();
            people[who].lines.push(lines);
            people[who].versions.push(edited.branch.clone());
            people[who].bases.push(sees);
            let steps = people[who].versions.len();
            (people[who].sees[who], people[who].has[who]) = (steps, steps);
            let branch = document.at(&edited.branch).unwrap();
            assert_eq!(branch["lyrics"], text(&people, &people[who].sees), "{edits:?}");
            let now = document.get().unwrap().unwrap();
            assert_eq!(now.version, edited.version);
            assert_eq!(now["lyrics"], text(&people, &people[who].has), "{edits:?}");
        }
        for person in people.iter().chain(&people).chain(&people) {
            sync(&person.device, &relay.url());
        }
        let all: Vec<usize> = people.iter().map(|person| person.versions.len()).collect();
        for person in &people {
            let song = person.device.documents("songs").get("1").unwrap().unwrap();
            assert_eq!(song["lyrics"], text(&people, &all));
            assert_eq!(person.device.verify().unwrap().problems, []);
        }
    }
}

#[test]
fn edits_that_do_not_fit_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = singer(dir.path(), "a");
    let songs = replica.documents("songs");
    let first = songs.upsert("1", &json!({ "lyrics": "ʻĀina 🌊", "title": "t" })).unwrap();
    let song = songs.document("1");
    song.splice_text("lyrics", 5, 2, "").unwrap();
    let edit = |at, delete| TextEdit::new(at, delete, "x");
    // What is made on the first version fits that, and not what there is now.
    for (edits, base) in [
        (vec![edit(0, 0), edit(9, 0)], None),
        (vec![edit(6, 1)], None),
        (vec![edit(0, usize::MAX)], None),
        (vec![edit(5, 3)], Some(&first)),
    ] {
        let error = song.edit_text("lyrics", &edits, base).unwrap_err();
        assert!(matches!(error, WriteError::BadValue { .. }), "{edits:?}: {error}");
    }
    assert!(matches!(song.edit_text("title", &[edit(0, 0)], None), Err(WriteError::BadValue { .. })));
    let unknown = "ab".repeat(32).parse().unwrap();
    let error = song.edit_text("lyrics", &[edit(0, 0)], Some(&unknown)).unwrap_err();
    assert!(matches!(error, WriteError::UnknownVersion { .. }), "{error}");
    let error = songs.document("2").edit_text("lyrics", &[edit(0, 0)], None).unwrap_err();
    assert!(matches!(error, WriteError::NotFound { .. }), "{error}");
    assert_eq!(song.get().unwrap().unwrap()["lyrics"], "ʻĀina");
    // Nothing at all is no change, and the version stays.
    let before = song.get().unwrap().unwrap().version;
    let nothing = song.edit_text("lyrics", &[], Some(&first)).unwrap();
    assert_eq!((nothing.version, nothing.branch), (before, first.clone()));
    let edited = song.edit_text("lyrics", &[edit(6, 1)], Some(&first)).unwrap();
    assert_eq!(song.at(&edited.branch).unwrap()["lyrics"], "ʻĀina x");
    // Several documents in one transaction do the same.
    let versions = replica.transaction(|tx| {
        tx.documents("songs").edit_text("1", "lyrics", &[edit(0, 1), edit(1, 1)], Some(&first))
    });
    assert_eq!(song.at(&versions.unwrap().branch).unwrap()["lyrics"], "xxina 🌊");
}
