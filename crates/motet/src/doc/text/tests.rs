//! What becomes of the texts of two sides, on what Automerge makes of them.

mod lines;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT, ReadDoc};
use proptest::prelude::*;

use super::*;
use crate::doc::apart::{applied, edited};
use crate::doc::woven::woven_of;

fn apply(old: &str, splices: &[Splice]) -> String {
    let mut chars: Vec<char> = old.chars().collect();
    for splice in splices {
        chars.splice(splice.at..splice.at + splice.delete, splice.insert.chars());
    }
    chars.into_iter().collect()
}

/// What Automerge makes of both sides, and what each of them knows of it. `order` decides whose insertions come first.
fn automerge(old: &str, ours: &str, theirs: &str, order: bool) -> (String, Woven) {
    let mut base = Automerge::new();
    let mut tx = base.transaction();
    let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, old).unwrap();
    tx.commit();
    let actors: [u8; 2] = if order { [1, 2] } else { [2, 1] };
    let mut sides = [ours, theirs].into_iter().zip(actors).map(|(new, actor)| {
        let mut side = base.fork();
        side.set_actor(vec![actor; 4].into());
        let mut tx = side.transaction();
        crate::doc::edit::splice_all(&mut tx, &text, &diff(old, new)).unwrap();
        tx.commit();
        side
    });
    let (mut a, mut b) = (sides.next().unwrap(), sides.next().unwrap());
    let known = [a.get_heads(), b.get_heads()];
    a.merge(&mut b).unwrap();
    let (now, merged) = (a.get_heads(), a.text(&text).unwrap());
    let sides = [ours, theirs];
    let woven = crate::doc::woven::woven(&a, &text, (&now, &merged), [&known[0], &known[1]], sides).unwrap();
    // What the edits say is what Automerge says.
    let edits = known.map(|known| edited(&a, &text, &base.get_heads(), &known).unwrap());
    for (edits, side) in edits.iter().zip(sides) {
        assert_eq!(applied(old, edits).as_deref(), Some(side));
    }
    if let Some(of_edits) = woven_of(old, &merged, &edits, sides) {
        assert_eq!(of_edits, woven, "{old:?} {ours:?} {theirs:?}");
    }
    (merged, woven)
}

fn swapped(woven: &Woven) -> Woven {
    let Woven { chars, at: [a, b], sides: [x, y] } = woven;
    Woven { chars: chars.clone(), at: [b.clone(), a.clone()], sides: [y.clone(), x.clone()] }
}

/// What shows in the end, whichever side is ours; checked for both orders of Automerge.
fn reconciled(old: &str, ours: &str, theirs: &str) -> [String; 2] {
    [true, false].map(|order| {
        let (merged, woven) = automerge(old, ours, theirs, order);
        let result = apply(&merged, &fold(&woven, &meetings(old, [ours, theirs]).places).splices);
        let other = apply(&merged, &fold(&swapped(&woven), &meetings(old, [theirs, ours]).places).splices);
        assert_eq!(result, other, "{old:?} {ours:?} {theirs:?} depends on who is who");
        result
    })
}

/// The same where one side has put a new text in the place of the old one.
fn rewritten(old: &str, ours: &str, theirs: &str) -> String {
    let texts = [[ours, theirs], [theirs, ours]]
        .map(|sides| apply(ours, &carry_over(old, sides, ours, true).splices));
    assert_eq!(texts[0], texts[1], "{old:?} {ours:?} {theirs:?} depends on who is who");
    texts[0].clone()
}

fn one(old: &str, ours: &str, theirs: &str) -> String {
    let [a, b] = reconciled(old, ours, theirs);
    assert_eq!(a, b, "{old:?} {ours:?} {theirs:?}");
    a
}

#[track_caller]
fn either(old: &str, ours: &str, theirs: &str, results: [&str; 2]) {
    for result in reconciled(old, ours, theirs) {
        assert!(results.contains(&result.as_str()), "{old:?} {ours:?} {theirs:?}: {result:?}");
    }
}

#[test]
fn a_changed_vowel_touches_one_grapheme() {
    let old = "E hoʻi ke aloha\nI ka pō laʻi\n";
    let new = "E hoʻi ke alohā\nI ka pō laʻi\n";
    assert_eq!(diff(old, new), [Splice { at: 14, delete: 1, insert: "ā".into() }]);
}

#[test]
fn hundreds_of_places_of_a_long_text_are_too_many() {
    let places = |number: usize| -> Vec<Splice> {
        (0..number).map(|at| Splice { at, delete: 1, insert: "x".into() }).collect()
    };
    assert!(is_too_much(&places(1_000), 132_000, true) && !is_too_much(&places(1_000), 4_000, true));
    assert!(!is_too_much(&places(100), 132_000, true) && is_too_much(&places(100), 132_000, false));
}

#[test]
fn words_that_share_little_are_replaced_as_words() {
    let of = |old, new| -> Vec<(usize, usize, String)> {
        diff(old, new).into_iter().map(|s| (s.at, s.delete, s.insert)).collect()
    };
    assert_eq!(of("one two three", "four five six"), [(0, 13, "four five six".into())]);
    assert_eq!(of("I like one two today\n", "I like five six today\n"), [(7, 7, "five six".into())]);
    assert_eq!(
        of("cats and dogs for us here", "birds and fish for us here"),
        [(0, 13, "birds and fish".into())]
    );
    assert_eq!(of("the colour", "the color"), [(8, 1, String::new())]);
}

#[test]
fn the_same_edit_is_there_once() {
    for (old, new) in [
        ("verse one", "verse one\nverse two"),
        ("a\r\nb\r\nc\r\n", "a\nb\nc\n"),
        ("one two three four five six", "one two\nthree four\nfive six"),
        ("", "Aloha ʻoe\nEnd"),
        ("a\nb\n", "a\n\nb\n"),
        ("aloha ", "aloha k"),
        ("aloha", "aloha  "),
        ("a song", "a songs"),
    ] {
        assert_eq!(one(old, new, new), new);
    }
}

#[test]
fn what_both_did_alike_beside_other_edits_is_there_once() {
    assert_eq!(one("one (6)", "new one (66)", "one (66) too"), "new one (66) too");
    assert_eq!(one("a\nc\nb\n", "A\nc\nxyz\nb\n", "a\nc\nxyz\nb\n"), "A\nc\nxyz\nb\n");
    assert_eq!(one("verse one", "verse one\nverse two", "verse 1\nverse two"), "verse 1\nverse two");
    assert_eq!(
        one("verse one", "verse one\nverse two", "verse one\nverse two\nthree"),
        "verse one\nverse two\nthree"
    );
    assert_eq!(one("a\r\nb\r\nc\r\n", "a\nb\nc\n", "a\r\nbee\r\nc\r\n"), "a\nbee\nc\n");
    assert_eq!(
        one("one two three four", "one two\nthree four", "one two three fours"),
        "one two\nthree fours"
    );
    assert_eq!(one("a c", "a b c", "a b d"), "a b d");
}

#[test]
fn a_word_taken_out_without_its_spaces_goes_beside_new_words() {
    for (ours, merged) in
        [("one six seven two three", "one six seven  three"), ("one two six three", "one  six three")]
    {
        assert_eq!(diff("one two three", "one  three"), [Splice { at: 4, delete: 3, insert: String::new() }]);
        assert_eq!(one("one two three", ours, "one  three"), merged);
    }
}

#[test]
fn unrelated_rewrites_keep_whole_words() {
    either(
        "one two three",
        "four five six",
        "seven eight nine",
        ["four five six seven eight nine", "seven eight nine four five six"],
    );
    either("1\n2\n3\n4\n", "1\nx\ny\n4\n", "1\np\nq\n4\n", ["1\nx\ny\np\nq\n4\n", "1\np\nq\nx\ny\n4\n"]);
    either(
        "a song here",
        "a songs here",
        "a songbook here",
        ["a songs songbook here", "a songbook songs here"],
    );
    either(
        "the colour red",
        "the colours red",
        "the shade red",
        ["the colours shade red", "the shade colours red"],
    );
    either("in <<_a>>,", "in <<_bee>>,", "in <<_cod>>,", ["in <<_bee _cod>>,", "in <<_cod _bee>>,"]);
    either("say ", "say h", "say w", ["say h w", "say w h"]);
    // What goes on with a mark has no space before it, and lines are parted as those around them are.
    either("a, b", "a, b, c", "a, b, d", ["a, b, c, d", "a, b, d, c"]);
    either("x (y)", "x (y, A)", "x (y, B)", ["x (y, A, B)", "x (y, B, A)"]);
    either("a", "a\r\nX", "a\r\nY", ["a\r\nX\r\nY", "a\r\nY\r\nX"]);
    // Of many equal lines the one that was changed is the one that has changed.
    let line = "E hoʻi ke aloha\n";
    let new = format!("E hoʻi ke alohā\n{}", line.repeat(9));
    assert_eq!(diff(&line.repeat(10), &new), [Splice { at: 14, delete: 1, insert: "ā".into() }]);
    assert_eq!(one("aloha oe", "Aloha oe", "alohā oe"), "Alohā oe");
}

#[test]
fn what_is_written_into_deleted_lines_stands_apart() {
    assert_eq!(one("a b\nc d\ne f\ng\n", "g\n", "a b\nc dear\ne f\ng\n"), "c dear\ng\n");
    assert_eq!(one("The quick brown fox", "The fox", "The quick red fox"), "The red fox");
    assert_eq!(one("a\nb\nc\nd\n", "a\nd\n", "a\nb\nnew\nc\nd\n"), "a\nnew\nd\n");
    assert_eq!(one("foo x bar", "foo bar", "foo bar"), "foo bar");
    // Of a word that somebody has corrected not only the new letters stay.
    assert_eq!(one("a b\nc dear e\nf\n", "f\n", "a b\nc dears e\nf\n"), "dears\nf\n");
    assert_eq!(one("a dear day", "a day", "a dears day"), "a dears day");
    assert_eq!(one("I ka makani nui", "I ka nui", "I ka makānī nui"), "I ka makānī nui");
}

#[test]
fn an_edit_outlives_a_rewrite_that_deletes_the_lines_around_it() {
    assert_eq!(rewritten("a b\nc d\ne f\ng\n", "g\n", "a b\nc dd\ne f\ng\n"), "c dd\ng\n");
    assert_eq!(rewritten("The quick brown fox", "The fox", "The quick red fox"), "The red fox");
    // Lines put between deleted lines are no edit of these.
    assert_eq!(rewritten("a\nb\nc\nd\n", "a\nd\n", "a\nb\nnew\nc\nd\n"), "a\nnew\nd\n");
    let overlaps = meetings("a\nb c\nd\n", ["a\nd\n", "a\nb see\nd\n"]).overlaps;
    assert!(overlaps.len() == 1 && overlaps[0].open[0].text == "b see\n");
}

#[test]
fn overlaps_are_places_that_both_sides_changed_and_not_alike() {
    let overlaps = |old: &str, ours: &str, theirs: &str| meetings(old, [ours, theirs]).overlaps;
    let old = "1\n2\n3\n4\n5\n6\n";
    assert_eq!(overlaps(old, "1\n2a\n3\n4\n5\n6\n", "1\n2\n3\n4\n5b\n6\n"), []);
    assert_eq!(overlaps(old, "1\n2a\n3\n4\n5\n6\n", "1\n2a\n3\n4\n5\n6\n"), []);
    let both = overlaps(old, "1\n2a\n3\n4\n5\n6\n", "1\n2b\n3b\n4\n5\n6\n");
    let versions = ["2a\n3\n".into(), "2b\n3b\n".into()];
    let open = vec![Open { text: "2a 2b".into(), new: [2..4, 2..4] }];
    assert_eq!(both, [Overlap { old: "2\n3\n".into(), versions, open }]);
    let next = overlaps(old, "1\n2a\n3\n4\n5\n6\n", "1\n2\n3b\n4\n5\n6\n");
    assert!(next.len() == 1 && next[0].open.is_empty());
    let versions = ["mine\n".into(), "theirs\n".into()];
    assert_eq!(overlaps("", "mine\n", "theirs\n"), [Overlap { old: String::new(), versions, open: vec![] }]);
}

#[test]
fn corrections_of_one_word_stay_one_word_or_become_two() {
    either("kupuna aina", "kupuna ʻaina", "kupuna āina", ["kupuna ʻāina"; 2]);
    either("aloha oe now", "aloha Oe now", "aloha ʻoe now", ["aloha ʻOe now", "aloha Oʻe now"]);
    either(
        "I walk home",
        "I walking home",
        "I walked home",
        ["I walking walked home", "I walked walking home"],
    );
    either("total 100 now", "total 150 now", "total 200 now", ["total 150 200 now", "total 200 150 now"]);
    either("total 100 now", "total 110 now", "total 120 now", ["total 110 120 now", "total 120 110 now"]);
    either("tempo 72 now", "tempo 76 now", "tempo 82 now", ["tempo 76 82 now", "tempo 82 76 now"]);
    // What is put in before a line comes before what replaces its first word.
    assert_eq!(one("alpha beta\n", "new line\nalpha beta\n", "xkrxdjj beta\n"), "new line\nxkrxdjj beta\n");
    assert_eq!(one("one two\r\nend\r\n", "one two\nend\n", "one two x\r\nend\r\n"), "one two x\nend\n");
    // The other way: words at the end of a line, whole or of a word, stand before the new line end.
    for (other, expected) in [
        ("a\nb two x\nc\n", "a\r\nb two x\r\nc\r\n"),
        ("a\nb twoxy\nc\n", "a\r\nb twoxy\r\nc\r\n"),
        ("a\nb two.\nc\n", "a\r\nb two.\r\nc\r\n"),
        ("a\nb two\nc d\n", "a\r\nb two\r\nc d\r\n"),
        ("a\nB two\nc\n", "a\r\nB two\r\nc\r\n"),
    ] {
        assert_eq!(one("a\nb two\nc\n", "a\r\nb two\r\nc\r\n", other), expected, "{other:?}");
    }
}

/// Prose of one line, too long to be compared by word: an edit of it is small, and two edits at different places are two.
#[test]
fn a_long_line_is_edited_where_it_is_edited() {
    for (word, count) in [("makani ", 6_000), ("風は山から吹く。", 5_000), ("xyzzy", 9_000)] {
        let old = word.repeat(count);
        let at = old.floor_char_boundary(old.len() / 2);
        let at = old[..at].rfind(word).unwrap();
        let ours = format!("{}kai {}", &old[..at], &old[at..]);
        let theirs = format!("{old} pau");
        for (new, inserted) in [(&ours, "kai "), (&theirs, " pau")] {
            let splices = diff(&old, new);
            assert_eq!(&apply(&old, &splices), new);
            let deleted: usize = splices.iter().map(|splice| splice.delete).sum();
            let put_in: usize = splices.iter().map(|splice| splice.insert.chars().count()).sum();
            if word != "xyzzy" {
                assert!(deleted < 50 && put_in < 50, "{inserted}: {deleted} for {put_in}");
            }
        }
        if word == "makani " {
            assert!(one(&old, &ours, &theirs) == format!("{}kai {} pau", &old[..at], &old[at..]));
        }
    }
}

#[test]
fn big_rewrites_are_compared_in_bounded_work() {
    let line = |n: usize| format!("{n} ʻo ka makani ke ala nui\n");
    let old: String = (0..4_000).map(line).collect();
    let reversed: String = (0..4_000).rev().map(line).collect();
    for new in [old.to_uppercase(), reversed, "x".repeat(80_000), "y z\n".repeat(24_000)] {
        assert_eq!(apply(&old, &diff(&old, &new)), new);
        let merged = format!("{}{new}", &old[..old.floor_char_boundary(1_000)]);
        carry_over(&old, [&new, &old.to_lowercase().replace("nui", "iki")], &merged, true);
    }
}

/// Words of a text.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn edit(text: String, edits: &[(usize, usize, String)]) -> String {
    let mut parts: Vec<String> =
        text.split_inclusive(' ').flat_map(|p| p.split_inclusive('\n')).map(str::to_owned).collect();
    for (at, delete, insert) in edits {
        let at = at % (parts.len() + 1);
        let end = (at + delete).min(parts.len());
        parts.splice(at..end, [insert.clone()]);
    }
    parts.concat()
}

proptest! {
    #[test]
    fn splices_turn_old_into_new(old in "[ab \nāʻ👩‍🎤e\u{301}]{0,40}", new in "[ab \nāʻ👩‍🎤e\u{301}]{0,40}") {
        prop_assert_eq!(apply(&old, &diff(&old, &new)), new);
    }

    #[test]
    fn no_word_is_lost_and_it_does_not_matter_who_is_who(
        old in "([a-d]{1,3}( |\n)){0,12}",
        ours in prop::collection::vec((0_usize..20, 0_usize..3, "([p-r]{1,4}( |\n)){0,2}"), 0..3),
        theirs in prop::collection::vec((0_usize..20, 0_usize..3, "([p-r]{1,4}( |\n)){0,2}"), 0..3),
        order: bool,
    ) {
        let (ours, theirs) = (edit(old.clone(), &ours), edit(old.clone(), &theirs));
        let (merged, woven) = automerge(&old, &ours, &theirs, order);
        let result = apply(&merged, &fold(&woven, &meetings(&old, [&ours, &theirs]).places).splices);
        let other = meetings(&old, [&theirs, &ours]).places;
        prop_assert_eq!(&result, &apply(&merged, &fold(&swapped(&woven), &other).splices));
        // New words have letters of their own here.
        for side in [&ours, &theirs] {
            for word in words(side).into_iter().filter(|word| word.contains(['p', 'q', 'r'])) {
                prop_assert!(words(&result).contains(&word), "{:?} is lost: {:?}", word, result);
            }
        }
        if ours == theirs || theirs == old {
            prop_assert_eq!(&result, &ours);
        }
        if ours == old {
            prop_assert_eq!(&result, &theirs);
        }
        // Where one side puts a new text, it gets what the other wrote.
        let result = rewritten(&old, &ours, &theirs);
        for word in words(&theirs).into_iter().filter(|word| word.contains(['p', 'q', 'r'])) {
            prop_assert!(words(&result).contains(&word), "{:?} is lost: {:?}", word, result);
        }
    }

    #[test]
    fn what_one_side_takes_out_goes_whatever_the_other_puts_beside_it(
        puts in prop::collection::btree_map(0_usize..9, 1_usize..3, 1..4),
        takes in prop::collection::btree_map(1_usize..8, prop::bool::ANY, 1..4),
    ) {
        // No two words have letters in common.
        let old = ["alo", "kem", "pun", "wih", "dus", "fyg", "tzb", "rxc", "vjq"];
        let new = ["ĀĒĪ", "ŌŪʔ", "ÑŁĐ", "ØÆß", "ÇŠŽ", "ĆĘĄ"];
        let mut new = new.iter().cycle();
        let mut inserted = Vec::new();
        let (mut ours, mut theirs) = (String::new(), String::new());
        for (at, word) in old.iter().enumerate() {
            for word in new.by_ref().take(*puts.get(&at).unwrap_or(&0)) {
                ours += &format!("{word} ");
                inserted.push(word);
            }
            ours += &format!("{word} ");
            // Its space goes with it or stays.
            match takes.get(&at) {
                None => theirs += &format!("{word} "),
                Some(true) => {}
                Some(false) => theirs.push(' '),
            }
        }
        let base: String = old.iter().map(|word| format!("{word} ")).collect();
        for result in [one(&base, &ours, &theirs), one(&base, &theirs, &ours)] {
            for (at, word) in old.iter().enumerate() {
                prop_assert_eq!(words(&result).contains(word), !takes.contains_key(&at), "{} in {:?}", word, result);
            }
            for word in &inserted {
                prop_assert!(words(&result).contains(word), "{} is lost: {:?}", word, result);
            }
        }
    }
}

/// The same word at the end of something longer that was put in beside it is another word.
#[test]
fn what_replaces_a_word_is_no_part_of_what_is_put_in_behind_it() {
    for (old, ours, theirs, result) in [
        ("milk 1", "milk 2", "milk 1, bread 2", "milk 2, bread 2"),
        ("on Monday.", "on Friday.", "on Monday and Friday.", "on Friday and Friday."),
        ("at 12:30", "at 13:00", "at 12:30 or 13:00", "at 13:00 or 13:00"),
        ("{\"a\":1}", "{\"a\":2}", "{\"a\":1,\"b\":2}", "{\"a\":2,\"b\":2}"),
        ("f(x)", "f(y)", "f(x, y)", "f(y, y)"),
        ("const A = 1;\n", "const A = 3;\n", "const A = 1 + 3;\n", "const A = 3 + 3;\n"),
        ("I saw Tom", "I saw Ann", "I saw Tom and Ann", "I saw Ann and Ann"),
        ("tel 555", "tel 777", "tel 555 / 777", "tel 777 / 777"),
        ("see Tom", "see Ann", "see Ann or Tom", "see Ann or Ann"),
    ] {
        assert_eq!(one(old, ours, theirs), result);
    }
    either("milk", "milk 2", "milk, bread 2", ["milk, bread 2 2", "milk 2, bread 2"]);
    either(
        "paid 10",
        "paid 10 EUR",
        "paid 10 USD and 5 EUR",
        ["paid 10 EUR USD and 5 EUR", "paid 10 USD and 5 EUR EUR"],
    );
    // Before what it belongs to.
    assert_eq!(one("a car", "a red car", "a big red car"), "a big red car");
    assert_eq!(one("the first", "the first verse", "the first verse again"), "the first verse again");
}

/// Whatever one side puts beside a word that the other replaces, both are there.
#[test]
fn a_word_replaced_beside_words_put_in() {
    let words = ["w0", "w1", "w2"];
    let mut all: Vec<Vec<&str>> = vec![Vec::new()];
    for n in 0..3 {
        let longer = all.iter().filter(|put| put.len() == n);
        let longer: Vec<_> =
            longer.flat_map(|put| ["x", "y"].map(|word| [&put[..], &[word]].concat())).collect();
        all.extend(longer);
    }
    for (at, put) in (0..3).flat_map(|at| all[1..].iter().map(move |put| (at, put))) {
        for (is_behind, space, end) in
            [(true, " ", ""), (false, " ", "."), (true, ", ", "\n"), (false, "\n", "\n")]
        {
            let line = |replaced: bool, is_put: bool| {
                let mut line: Vec<String> = words.map(str::to_owned).to_vec();
                if replaced {
                    line[at] = "x".into();
                }
                if is_put {
                    let place = at + usize::from(is_behind);
                    line.splice(place..place, put.iter().map(|word| (*word).to_owned()));
                }
                line.join(space) + end
            };
            assert_eq!(one(&line(false, false), &line(true, false), &line(false, true)), line(true, true));
        }
    }
}

proptest! {
    #[test]
    fn whole_lines_put_in_stay_whole_lines(
        lines in prop::collection::vec("[a-c][0-9]( [a-c]{2,5}){0,2}", 1..7),
        rewritten_at in (0_usize..7, 1_usize..4),
        instead in prop::collection::vec("[d-f][0-9]( [d-f]{2,5}){0,2}", 0..3),
        put_in in prop::collection::vec(0_usize..8, 1..4),
    ) {
        let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let old = text(&lines);
        let start = rewritten_at.0.min(lines.len());
        let end = (start + rewritten_at.1).min(lines.len());
        let mut ours = lines.clone();
        ours.splice(start..end, instead);
        let mut theirs = lines.clone();
        for (n, at) in put_in.iter().enumerate() {
            theirs.insert((*at).min(theirs.len()), format!("put in {n}"));
        }
        let (ours, theirs) = (text(&ours), text(&theirs));
        let [one, other] = reconciled(&old, &ours, &theirs);
        for result in [one, other, rewritten(&old, &ours, &theirs)] {
            for n in 0..put_in.len() {
                let line = format!("put in {n}");
                prop_assert!(result.lines().any(|other| other == line), "{:?} {:?} {:?} -> {:?}", old, ours, theirs, result);
            }
        }
    }
}
