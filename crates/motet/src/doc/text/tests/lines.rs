//! Lines and line breaks.

use super::*;

#[test]
fn a_new_line_is_one_insertion() {
    let splices = diff("ʻekahi\nʻekolu\n", "ʻekahi\nʻelua\nʻekolu\n");
    assert_eq!(splices, [Splice { at: 7, delete: 0, insert: "ʻelua\n".into() }]);
}

#[test]
fn union_keeps_every_line_of_both_and_common_lines_once() {
    assert_eq!(union("a\nb\nc", "a\nx\nc"), "a\nb\nx\nc");
    assert_eq!(union("same", "same"), "same");
    assert_eq!(union("one", "two"), "one\ntwo");
    assert_eq!(union("", "two"), "two");
    assert_eq!(union("one", "one\ntwo"), "one\ntwo");
    assert_eq!(union("one\ntwo\n", "one"), "one\ntwo\n");
    assert_eq!(union("a\nb\nc\n", "a\r\nx\r\nc\r\n"), "a\nb\nx\nc\n");
}

#[test]
fn a_line_put_in_before_a_word_in_capitals_stands_before_it() {
    assert_eq!(one("hula\n", "mele\nhula\n", "HULA\n"), "mele\nHULA\n");
    assert_eq!(one("pua hula", "k pua hula", "mua hula"), "k mua hula");
    assert_eq!(one("one don't\ntwo\n", "one DON'T\ntwo\n", "two\n"), "DON'T\ntwo\n");
}

#[test]
fn a_word_in_capitals_is_whole_where_others_put_a_line_in_its_place() {
    either("lei\nnani", "lei\nmele\n", "lei\nNANI", ["lei\nNANI mele\n", "lei\nmele\nNANI"]);
    either("kai\nua", "kai\nʻāina\n", "kai\nUA", ["kai\nUA\nʻāina\n", "kai\nUA ʻāina\n"]);
}

#[test]
fn what_is_left_of_a_line_has_no_spaces_at_its_ends() {
    assert_eq!(one("one aloha\n", "one\n", "one k aloha\n"), "one k\n");
    assert_eq!(one("ka café ʻāina\nend\n", "ka ʻāina\nend\n", "ka café\nend\n"), "ka\nend\n");
    assert_eq!(one("ke\nmakani lei\n", "ke\nlei\n", "ke\nmakani\n"), "ke\n");
    assert_eq!(one("la one\nend\n", "la\nend\n", "one\nend\n"), "end\n");
    // What somebody wrote so stays.
    assert_eq!(one("a\n b\n\nc", "a\n b\n\nd", "x a\n b\n\nc"), "x a\n b\n\nd");
}

#[test]
fn the_last_line_keeps_its_line_break() {
    assert_eq!(one("ke ua\npua\n", "ke ua\nPUA\n", "ke ua\n"), "ke ua\nPUA\n");
    assert_eq!(one("ke ua\r\npua\r\n", "ke ua\r\nPUA\r\n", "ke ua\r\n"), "ke ua\r\nPUA\r\n");
    assert_eq!(one("a\nb\n", "a\n", "b\n"), "");
}

#[test]
fn a_part_of_a_line_stands_beside_what_it_goes_on_with() {
    for (old, ours, theirs, result) in [
        ("milk", "milk 2", "milk\nbread 2", "milk 2\nbread 2"),
        ("milk", "milk 2", "milk\r\nbread 3", "milk 2\r\nbread 3"),
        ("milk\ntea", "milk\ntea, green", "milk\ntea\n\nbread\n", "milk\ntea, green\n\nbread\n"),
        ("milk\ntea", "2 milk\ntea", "bread\nmilk\ntea", "bread\n2 milk\ntea"),
    ] {
        assert_eq!(one(old, ours, theirs), result);
    }
}

#[test]
fn the_same_lines_stand_there_once_whatever_they_end_with() {
    assert_eq!(one("", "a\nb\n", "a\r\nb\r\n"), "a\nb\n");
    assert_eq!(one("x\n", "x\nnew line\n", "x\nnew line\r\n"), "x\nnew line\n");
    assert_eq!(one("x\r\n", "x\r\nnew line\n", "x\r\nnew line\r\n"), "x\r\nnew line\r\n");
    // Of as many returns, each in another place, the same stays whoever looks.
    reconciled("", "a\r\nb\n", "a\nb\r\n");
    let texts = reconciled("x\n", "x\none\nnew\n", "x\nnew\r\ntwo\r\n");
    assert!(texts.iter().all(|text| text.matches("new").count() == 1), "{texts:?}");
}
