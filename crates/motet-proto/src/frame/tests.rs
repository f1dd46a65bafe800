use super::*;
use crate::entry::{Entry, Kind};
use crate::ids::{AccountId, DeviceId, DocumentId, EntryId, LogName, SpaceId};
use crate::message::*;
use crate::position::Position;
use crate::presence::Presence;
use proptest::prelude::*;

fn entry(payload: Vec<u8>) -> Entry {
    Entry::new(SpaceId::DEFAULT, DocumentId([1; 16]), DeviceId([2; 16]), Kind::Changes, 0, payload)
}

fn samples() -> Vec<Message> {
    let position = Position { seq: 7, tag: [9; 16] };
    let snapshot = Entry::new(
        SpaceId::DEFAULT,
        DocumentId([1; 16]),
        DeviceId([2; 16]),
        Kind::Snapshot { heads: vec![[3; 32]], supersedes: vec![EntryId([4; 32])] },
        0,
        vec![5],
    );
    vec![
        Message::Hello(Hello {
            version_min: 1,
            version_max: 1,
            device: DeviceId([2; 16]),
            space: SpaceId::DEFAULT,
            agent: "motet".into(),
            account: None,
            log: None,
        }),
        Message::Welcome(Welcome {
            version: 1,
            head: 3,
            agent: "relay".into(),
            window_ms: Some(500),
            account: Some(AccountId([4; 16])),
            log: Some(LogName([5; 16])),
            time_ms: Some(1_780_000_000_000),
        }),
        Message::Push(Push { id: 1, entries: vec![entry(vec![1, 2]), snapshot] }),
        Message::Receipt(Receipt {
            id: 1,
            outcomes: vec![Outcome::Stored(4), Outcome::Rejected(Rejection::Quota, "full".into())],
            position: Some(position),
            after: 3,
        }),
        Message::Pull(Pull { id: 2, after: None, live: true }),
        Message::Page(Page { id: Some(2), entries: vec![], position, more: false, head: 7, after: 3 }),
        Message::Refused(Refused { id: 2 }),
        Message::Ping(Ping { nonce: 5 }),
        Message::Pong(Ping { nonce: 5 }),
        Message::Error(ErrorMessage { code: ErrorCode::Busy, message: "later".into(), window_ms: Some(9) }),
        Message::NotTaken(NotTaken { id: 1, code: ErrorCode::Full, message: "full".into() }),
        Message::Presence(Presence { device: DeviceId([2; 16]), suite: 0, sealed: vec![0, 1] }),
        Message::Fetch(Fetch { id: 3, document: DocumentId([1; 16]), after: 2, whole: true }),
        Message::Fetched(Fetched {
            id: 3,
            entries: vec![Entry::new(
                SpaceId::DEFAULT,
                DocumentId([1; 16]),
                DeviceId([2; 16]),
                Kind::Erased,
                0,
                vec![],
            )],
            listed: vec![Listed { seq: 4, id: EntryId([4; 32]), bytes: 300 }],
            last: 4,
            more: true,
        }),
    ]
}

/// What a newer version says is known to be unknown, and no reason to end a session.
#[test]
fn codes_of_a_newer_version_are_kept() {
    let receipt = Receipt {
        id: 2,
        outcomes: vec![Outcome::Rejected(Rejection::Unknown(1 << 20), "something new".into())],
        position: None,
        after: 0,
    };
    let error =
        ErrorMessage { code: ErrorCode::Unknown(77), message: "something new".into(), window_ms: None };
    for message in [Message::Receipt(receipt), Message::Error(error)] {
        assert_eq!(decode(&encode(&message)).unwrap(), message);
    }
}

/// The wire format of version 1. A difference here breaks devices in the field.
#[test]
fn golden_frames() {
    let golden = include_str!("golden.txt");
    let actual: String = samples().iter().map(|message| hex(&encode(message)) + "\n").collect();
    if std::env::var_os("MOTET_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/frame/golden.txt"), &actual).unwrap();
    }
    assert_eq!(actual, golden);
    for (message, line) in samples().into_iter().zip(golden.lines()) {
        assert_eq!(decode(&unhex(line)).unwrap(), message);
    }
}

#[test]
fn unknown_keys_are_ignored() {
    // Ping { 0: 5, 17: "new" }
    let frame = checked(8, 0, &[0xa2, 0x00, 0x05, 0x11, 0x63, b'n', b'e', b'w']);
    assert_eq!(decode(&frame), Ok(Message::Ping(Ping { nonce: 5 })));
}

#[test]
fn large_repetitive_frames_are_compressed() {
    let message = Message::Push(Push { id: 1, entries: vec![entry(vec![7; 100_000])] });
    let frame = encode(&message);
    assert!(frame.len() < 1_000);
    assert_eq!(decode(&frame), Ok(message));
}

#[test]
fn bad_frames_are_named() {
    assert_eq!(decode(&[]), Err(FrameError::Truncated));
    assert_eq!(decode(&[8, 0, 1, 2, 3]), Err(FrameError::Truncated));
    assert_eq!(decode(&[8, 0, 1, 2, 3, 4]), Err(FrameError::Check));
    assert_eq!(decode(&checked(99, 0, &[])), Err(FrameError::UnknownType(99)));
    assert_eq!(decode(&checked(8, 3, &[1])), Err(FrameError::BadForm));
    assert!(matches!(decode(&checked(8, 0, &[0xff])), Err(FrameError::BadBody { kind: 8, .. })));
    assert_eq!(decode(&vec![0; limits::FRAME_BYTES + 1]), Err(FrameError::TooLarge));
    let bomb = zstd::bulk::compress(&vec![0; limits::FRAME_BYTES + 1], 1).unwrap();
    assert_eq!(decode(&checked(8, 1, &bomb)), Err(FrameError::TooLarge));
    assert_eq!(decode(&checked(3, 1, &bomb)), Err(FrameError::TooLarge));
    assert_eq!(decode(&checked(8, 1, &[1, 2, 3])), Err(FrameError::BadForm));
    // A message without entries is small.
    let much = vec![0; limits::MESSAGE_BYTES + 1];
    assert_eq!(decode(&checked(8, 0, &much)), Err(FrameError::TooLarge));
    let packed = zstd::bulk::compress(&much, 1).unwrap();
    assert_eq!(decode(&checked(8, 1, &packed)), Err(FrameError::TooLarge));
    assert_eq!(opened_len(&checked(8, 1, &packed)), much.len());
    assert_eq!(opened_len(&checked(8, 0, &[1, 2])), HEADER + 2);
}

#[test]
fn delimited_bodies_split_again() {
    let mut body = Vec::new();
    samples().iter().for_each(|message| write_delimited(message, &mut body));
    let mut rest = &body[..];
    let mut decoded = Vec::new();
    while let Some(frame) = split_delimited(&mut rest).unwrap() {
        decoded.push(decode(frame).unwrap());
    }
    assert_eq!(decoded, samples());
    assert_eq!(split_delimited(&mut &body[..body.len().min(3)]), Err(FrameError::Truncated));
    assert_eq!(split_delimited(&mut &[0xff; 8][..]), Err(FrameError::TooLarge));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..12) {
        _ = decode(&bytes);
        _ = decode(&checked(kind, 0, &bytes));
        _ = decode(&checked(kind, 1, &bytes));
    }

    #[test]
    fn damaged_frames_never_panic(at in 0usize..400, flip in 1u8..) {
        for message in samples() {
            let mut frame = encode(&message);
            let at = at % frame.len();
            frame[at] ^= flip;
            prop_assert_eq!(decode(&frame), Err(FrameError::Check));
        }
    }
}

/// A frame whose check is right.
fn checked(kind: u8, form: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, form], &check(kind, form, body)[..], body].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}
