//! What foreign bytes meet, one function per kind of bytes. `cargo fuzz` calls them without end, a test calls them with the corpora and
//! with what a seed makes of them.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use motet::Replica;
use motet::simulation::hostile::Target;
use motet_proto::payload::Payload;
use motet_proto::session::{ClientSession, Opened, RelaySession};
use motet_proto::{DeviceId, DocumentId, Kind, Message, Position, SpaceId, envelope, frame};
use sha2::{Digest, Sha256};

use crate::simulation::disk::Disk;
use crate::simulation::vfs::Mount;

/// What takes in one kind of bytes.
pub type FuzzTarget = fn(&[u8]);

/// Names of the kinds, and what takes them in.
pub const TARGETS: [(&str, FuzzTarget); 6] = [
    ("frame", frame),
    ("entry", entry),
    ("headers", headers),
    ("apply", apply),
    ("snapshot", snapshot),
    ("import", import),
];

/// Bytes that arrive on a connection, at a device and at a relay.
pub fn frame(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(one)) = frame::split_delimited(&mut rest) {
        _ = frame::decode(one);
    }
    let Ok(message) = frame::decode(bytes) else { return };
    let again = frame::decode(&frame::encode(&message)).expect("what was read can be written and read");
    assert_eq!(message, again);
    let now = Duration::from_secs(1);
    let device = DeviceId([1; 16]);
    let mut client = ClientSession::new(device, SpaceId::DEFAULT, String::new(), None, false, true, now);
    let welcome = motet_proto::message::Welcome { version: 1, ..Default::default() };
    client.handle_message(Message::Welcome(welcome), now);
    client.handle_message(message.clone(), now);
    while client.poll_effect().is_some() {}
    let mut relay = RelaySession::new(1, String::new());
    relay.handle_message(message.clone());
    relay.handle_opened(Opened::default());
    relay.handle_message(message);
    while relay.poll_effect().is_some() {}
}

/// What lies in a log: kinds, positions, envelopes and payloads.
pub fn entry(bytes: &[u8]) {
    if let Some(kind) = Kind::from_bytes(bytes) {
        assert_eq!(Kind::from_bytes(&kind.to_bytes()), Some(kind));
    }
    if let Some(position) = Position::from_bytes(bytes) {
        assert_eq!(position.to_bytes(), bytes);
    }
    let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", "fuzz");
    for suite in [envelope::SUITE_PLAIN, 1, 255] {
        let Ok(opened) = envelope::open(suite, bytes) else { continue };
        _ = Payload::decode(&opened, SpaceId::DEFAULT, document);
    }
    if let Ok(payload) = Payload::decode(bytes, SpaceId::DEFAULT, document) {
        assert_eq!(Payload::decode(&payload.encode(), SpaceId::DEFAULT, document).ok(), Some(payload));
    }
}

/// Changes whose headers are all that is read.
pub fn headers(bytes: &[u8]) {
    target().read_headers(bytes);
    target().read_headers(&with_checksums(bytes));
}

/// Changes that are merged, as they are and with checksums that fit: who means harm can count.
pub fn apply(bytes: &[u8]) {
    target().merge(bytes);
    target().merge(&with_checksums(bytes));
}

/// Heads, 32 bytes each, their number first, and a saved document.
pub fn snapshot(bytes: &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return };
    let split = (usize::from(*count) * 32).min(rest.len() / 32 * 32);
    let (heads, body) = rest.split_at(split);
    let heads: Vec<[u8; 32]> = heads.chunks_exact(32).filter_map(|head| head.try_into().ok()).collect();
    target().load(body, &heads);
    target().load(&with_checksums(body), &heads);
}

/// JSON that somebody imports.
pub fn import(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    static DISK: LazyLock<Disk> = LazyLock::new(|| {
        // Made once: an empty database costs more than most imports.
        let disk = Disk::default();
        let mount = Mount::new("fuzz-template", &disk);
        drop(Replica::open(mount.path("motet.db")).expect("an empty replica opens"));
        disk
    });
    motet::simulation::begin(1);
    let mount = Mount::new(&format!("fuzz-{:?}", std::thread::current().id()), &DISK.as_written());
    let replica = Replica::open(mount.path("motet.db")).expect("a replica opens");
    let before = replica.counts().expect("it counts").documents;
    if replica.import_change_log(&json).is_err() {
        assert_eq!(
            replica.counts().expect("it counts").documents,
            before,
            "an import that failed left something"
        );
    }
    let rows = json.as_array().cloned().unwrap_or_else(|| vec![json]);
    _ = replica.adopt("songs", rows, &motet::Adoption::default());
    motet::simulation::catch_up(&replica).expect("what was taken in can be shown");
    let problems = replica.verify().expect("it can be verified").problems;
    assert!(problems.is_empty(), "{problems:?}");
    motet::simulation::end();
}

/// Gives every chunk (magic, checksum, type, length, content) the checksum that its content has, and a length that fits.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    const HEADER: usize = 9;
    let mut out = Vec::with_capacity(bytes.len());
    let starts: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&[0x85, 0x6f, 0x4a, 0x83])).collect();
    for (n, start) in starts.iter().enumerate() {
        let chunk = &bytes[*start..starts.get(n + 1).copied().unwrap_or(bytes.len())];
        if chunk.len() < HEADER + 1 {
            continue;
        }
        let length = 1 + chunk[HEADER..].iter().take(9).take_while(|byte| **byte & 0x80 != 0).count();
        let content = chunk.get(HEADER + length..).unwrap_or_default();
        let mut hashed = vec![chunk[HEADER - 1]];
        let mut left = content.len();
        loop {
            let more = left > 0x7f;
            hashed.push((left & 0x7f) as u8 | if more { 0x80 } else { 0 });
            left >>= 7;
            if !more {
                break;
            }
        }
        hashed.extend_from_slice(content);
        out.extend_from_slice(&chunk[..4]);
        out.extend_from_slice(&Sha256::digest(&hashed)[..4]);
        out.append(&mut hashed);
    }
    out
}

/// Original bytes of a small document of our own, with two devices in it.
pub const BASE: &[u8] = include_bytes!("../../fuzz/corpus/apply/base");

fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(|| Target::new(BASE))
}
