//! Foreign bytes, looked at before Automerge sees them.
//!
//! Automerge inflates without bound and does not check every checksum, so compressed chunks are refused (Motet
//! compresses around the payload, with a cap) and checksums are compared here.
//!
//! ```text
//! chunk    = magic:4 checksum:4 type:u8 length:uleb data
//! document = actors heads change-columns operation-columns data data …                        (type 0)
//! change   = dependencies actor sequence first-op time message other-actors columns data …     (type 1)
//! columns  = count:uleb (specification:uleb length:uleb)*         bit 3 of a specification: deflated
//! ```

mod foreign;
mod rows;

use std::collections::HashSet;

use automerge::Change;
use sha2::{Digest, Sha256};

use crate::limits;
pub(crate) use foreign::open_foreign;
use rows::{Columns, most_rows};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;

/// Why bytes are not handed to Automerge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChunkError {
    #[error("the bytes end in the middle of a chunk")]
    Truncated,
    #[error("the bytes are no Automerge chunk")]
    NoMagic,
    #[error("a chunk of type {0} is not accepted here")]
    WrongType(u8),
    #[error("a chunk with compressed columns is not accepted")]
    Deflated,
    #[error("a compressed part cannot be opened")]
    BadCompression,
    #[error("it opens to more than {0} bytes")]
    TooLarge(usize),
    #[error("a chunk's checksum does not match its data")]
    Checksum,
    #[error("a change cannot be read: {0}")]
    BadChange(String),
    #[error("there are no changes in it")]
    Empty,
    #[error("it opens to more than {0} operations, or to too long names")]
    TooManyOperations(u64),
}

/// Splits concatenated change chunks. The changes keep their original bytes.
pub(crate) fn split_changes(mut bytes: &[u8]) -> Result<Vec<Change>, ChunkError> {
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        let header = Header::parse(bytes)?;
        if header.kind != CHANGE {
            return Err(ChunkError::WrongType(header.kind));
        }
        let (chunk, rest) = bytes.split_at_checked(header.end).ok_or(ChunkError::Truncated)?;
        operations(&chunk[header.start..])?;
        // Parsing a change computes its hash from the data; the checksum is the hash's first four bytes.
        let change = std::panic::catch_unwind(|| Change::try_from(chunk))
            .map_err(|_| ChunkError::BadChange("the reader failed".into()))?
            .map_err(|e| ChunkError::BadChange(e.to_string()))?;
        if change.hash().0[..4] != header.checksum {
            return Err(ChunkError::Checksum);
        }
        changes.push(change);
        bytes = rest;
    }
    if changes.is_empty() { Err(ChunkError::Empty) } else { Ok(changes) }
}

/// What the header of a change says, its bytes checked against its hash.
pub(crate) struct ChangeHeader<'b> {
    pub(crate) bytes: &'b [u8],
    pub(crate) hash: [u8; 32],
    pub(crate) deps: Vec<[u8; 32]>,
}

/// Judges a change that this device has made, as the devices do that will receive it.
pub(crate) fn check_change(change: &Change) -> Result<(), ChunkError> {
    let bytes = change.raw_bytes();
    let header = Header::parse(bytes)?;
    operations(&bytes[header.start..]).map(drop)
}

/// How many operations the data of a change hold. An error if they are more than it may have.
fn operations(change: &[u8]) -> Result<u64, ChunkError> {
    let mut data = change;
    let most = most_rows(limits::CHANGE_EMPTY_OPERATIONS, data.len()).min(limits::CHANGE_OPERATIONS);
    skip_hashes(&mut data)?;
    let actor = uleb(&mut data)?;
    skip(&mut data, actor)?;
    for _number in ["sequence", "first op", "time"] {
        uleb(&mut data)?;
    }
    let message = uleb(&mut data)?;
    skip(&mut data, message)?;
    for _ in 0..uleb(&mut data)? {
        let actor = uleb(&mut data)?;
        skip(&mut data, actor)?;
    }
    let columns = Columns::parse(&mut data)?;
    if columns.are_deflated() {
        return Err(ChunkError::Deflated);
    }
    columns.rows(&mut data, most)
}

/// Splits concatenated change chunks without reading what is in them, which costs a tenth.
pub(crate) fn split_headers(mut bytes: &[u8]) -> Result<Vec<ChangeHeader<'_>>, ChunkError> {
    let mut headers = Vec::new();
    while !bytes.is_empty() {
        let header = Header::parse(bytes)?;
        if header.kind != CHANGE {
            return Err(ChunkError::WrongType(header.kind));
        }
        let (chunk, rest) = bytes.split_at(header.end);
        let hash = header.check(chunk)?;
        operations(&chunk[header.start..])?;
        let mut data = &chunk[header.start..];
        let count = usize::try_from(uleb(&mut data)?).map_err(|_| ChunkError::Truncated)?;
        let len = count.checked_mul(32).ok_or(ChunkError::Truncated)?;
        let deps = data.get(..len).ok_or(ChunkError::Truncated)?.as_chunks::<32>().0.to_vec();
        headers.push(ChangeHeader { bytes: chunk, hash, deps });
        bytes = rest;
    }
    if headers.is_empty() { Err(ChunkError::Empty) } else { Ok(headers) }
}

/// The heads of a document of which these are all the changes, sorted; `None` if they depend on others, or on later ones, or
/// if one is there twice.
pub(crate) fn heads_of(changes: &[ChangeHeader<'_>]) -> Option<Vec<[u8; 32]>> {
    let mut known = HashSet::new();
    for change in changes {
        if !change.deps.iter().all(|dep| known.contains(dep)) || !known.insert(change.hash) {
            return None;
        }
    }
    for dep in changes.iter().flat_map(|change| &change.deps) {
        known.remove(dep);
    }
    let mut heads: Vec<_> = known.into_iter().collect();
    heads.sort_unstable();
    Some(heads)
}

/// Checks that bytes are exactly one uncompressed document chunk, and hold no more operations than a document may have. Automerge checks its checksum and heads itself.
pub(crate) fn check_snapshot(bytes: &[u8]) -> Result<(), ChunkError> {
    snapshot_operations(bytes).map(drop)
}

/// How many operations and changes a saved document holds.
fn snapshot_operations(bytes: &[u8]) -> Result<u64, ChunkError> {
    let header = Header::parse(bytes)?;
    if header.kind != DOCUMENT {
        return Err(ChunkError::WrongType(header.kind));
    }
    if header.end != bytes.len() {
        return Err(ChunkError::Truncated);
    }
    let mut data = &bytes[header.start..];
    for _ in 0..uleb(&mut data)? {
        let len = uleb(&mut data)?;
        skip(&mut data, len)?;
    }
    skip_hashes(&mut data)?;
    let columns = [Columns::parse(&mut data)?, Columns::parse(&mut data)?];
    if columns.iter().any(Columns::are_deflated) {
        return Err(ChunkError::Deflated);
    }
    let most = most_rows(limits::DOCUMENT_EMPTY_OPERATIONS, bytes.len()).min(limits::DOCUMENT_OPERATIONS);
    columns.iter().try_fold(0, |all, columns| Ok(all + columns.rows(&mut data, most)?))
}

/// Operations of changes or of a saved document. 0 of what will be refused.
pub(crate) fn operations_in(body: &[u8]) -> usize {
    let (mut rest, mut all) = (body, 0_u64);
    while let Ok(header) = Header::parse(rest) {
        let Some((chunk, later)) = rest.split_at_checked(header.end) else { break };
        let found = match header.kind == CHANGE {
            true => operations(&chunk[header.start..]),
            false => snapshot_operations(chunk),
        };
        all = all.saturating_add(found.unwrap_or_default());
        rest = later;
    }
    usize::try_from(all).unwrap_or(usize::MAX)
}

/// Whether a saved document is what was saved.
pub(crate) fn is_intact(saved: &[u8]) -> bool {
    check_snapshot(saved).and_then(|()| Header::parse(saved)?.check(saved)).is_ok()
}

struct Header {
    checksum: [u8; 4],
    kind: u8,
    start: usize,
    end: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, ChunkError> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(ChunkError::Truncated)?;
        if *magic != MAGIC {
            return Err(ChunkError::NoMagic);
        }
        let (checksum, rest) = rest.split_first_chunk::<4>().ok_or(ChunkError::Truncated)?;
        let (kind, mut rest) = rest.split_first().ok_or(ChunkError::Truncated)?;
        let len = usize::try_from(uleb(&mut rest)?).map_err(|_| ChunkError::Truncated)?;
        let start = bytes.len() - rest.len();
        let end = start.checked_add(len).filter(|end| *end <= bytes.len()).ok_or(ChunkError::Truncated)?;
        Ok(Self { checksum: *checksum, kind: *kind, start, end })
    }

    /// The hash of the chunk that it stands before, taken over type, length and data: the checksum is the beginning of it.
    fn check(&self, chunk: &[u8]) -> Result<[u8; 32], ChunkError> {
        let hash: [u8; 32] = Sha256::digest(&chunk[8..self.end]).into();
        if hash[..4] == self.checksum { Ok(hash) } else { Err(ChunkError::Checksum) }
    }
}

fn uleb(bytes: &mut &[u8]) -> Result<u64, ChunkError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(ChunkError::Truncated)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ChunkError::Truncated)
}

fn skip_hashes(bytes: &mut &[u8]) -> Result<(), ChunkError> {
    let count = uleb(bytes)?;
    skip(bytes, count.checked_mul(32).ok_or(ChunkError::Truncated)?)
}

fn skip(bytes: &mut &[u8], len: u64) -> Result<(), ChunkError> {
    let len = usize::try_from(len).map_err(|_| ChunkError::Truncated)?;
    *bytes = bytes.get(len..).ok_or(ChunkError::Truncated)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::transaction::Transactable;
    use automerge::{Automerge, ROOT, ReadDoc};
    use proptest::prelude::*;

    fn document() -> Automerge {
        let mut am = Automerge::new();
        let mut tx = am.transaction();
        tx.put(ROOT, "lyrics", "E hoʻi ke aloha ".repeat(50)).unwrap();
        tx.commit();
        am
    }

    #[test]
    fn changes_split_and_keep_their_bytes() {
        let am = document();
        let bytes = am.save_after(&[]);
        let changes = split_changes(&[&bytes[..], &bytes[..]].concat()).unwrap();
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[0].raw_bytes(), bytes);
    }

    #[test]
    fn headers_say_what_changes_are() {
        let mut am = document();
        let mut other = am.fork();
        for (am, value) in [(&mut am, 1), (&mut other, 2)] {
            let mut tx = am.transaction();
            tx.put(ROOT, "n", value).unwrap();
            tx.commit();
        }
        am.merge(&mut other).unwrap();
        let bytes = am.save_after(&[]);
        let headers = split_headers(&bytes).unwrap();
        let changes = split_changes(&bytes).unwrap();
        assert_eq!(headers.len(), 3);
        for (header, change) in headers.iter().zip(&changes) {
            assert_eq!((header.hash, header.bytes), (change.hash().0, change.raw_bytes()));
        }
        let mut heads: Vec<_> = am.get_heads().iter().map(|head| head.0).collect();
        heads.sort_unstable();
        assert_eq!(heads_of(&headers), Some(heads));
        assert_eq!(heads_of(&headers[1..]), None);
        let mut lying = bytes.clone();
        *lying.last_mut().unwrap() ^= 1;
        assert!(split_headers(&lying).is_err());
    }

    #[test]
    fn what_could_inflate_or_lie_is_refused() {
        let am = document();
        let bytes = am.save_after(&[]);
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(split_changes(&damaged).is_err());
        let mut lying = bytes.clone();
        lying[4] ^= 1;
        assert_eq!(split_changes(&lying).unwrap_err(), ChunkError::Checksum);
        assert_eq!(split_changes(&bytes[..bytes.len() - 1]).unwrap_err(), ChunkError::Truncated);
        assert_eq!(split_changes(b"").unwrap_err(), ChunkError::Empty);
        let compressed = am.get_changes(&[])[0].clone().bytes().into_owned();
        assert_eq!(split_changes(&compressed).unwrap_err(), ChunkError::WrongType(2));
        assert_eq!(check_snapshot(&am.save()), Err(ChunkError::Deflated));
        assert_eq!(check_snapshot(&am.save_nocompress()), Ok(()));
        assert_eq!(check_snapshot(&bytes), Err(ChunkError::WrongType(1)));
    }

    /// A change that puts nothing into one field `count` times.
    fn bomb(count: u64) -> Vec<u8> {
        let run = |value: &[u8]| [&signed(count as i64)[..], value].concat();
        // Key, insert, action, value's length, predecessors.
        let columns =
            [(21, run(b"\x01k")), (52, unsigned(count)), (66, run(&[1])), (86, run(&[0])), (112, run(&[0]))];
        // No dependencies, an actor, sequence 1, first op 1, time 0, no message, no other actors.
        let mut data = vec![0, 1, 7, 1, 1, 0, 0, 0, columns.len() as u8];
        columns.iter().for_each(|(kind, column)| data.extend([*kind, column.len() as u8]));
        columns.iter().for_each(|(_, column)| data.extend(column));
        let chunk = [&[CHANGE][..], &unsigned(data.len() as u64), &data].concat();
        [&MAGIC[..], &Sha256::digest(&chunk)[..4], &chunk].concat()
    }

    fn unsigned(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn signed(value: i64) -> Vec<u8> {
        // A zero byte more never changes a number that is not negative.
        let mut bytes = unsigned(value as u64);
        if let Some(last) = bytes.last_mut().filter(|last| **last & 0x40 != 0) {
            *last |= 0x80;
            bytes.push(0);
        }
        bytes
    }

    #[test]
    fn operations_are_counted_before_they_are_read() {
        for count in [1, 63, 64, 65, 1_000, 100_000] {
            let changes = split_changes(&bomb(count)).unwrap();
            assert_eq!(changes[0].len() as u64, count);
            assert_eq!(check_change(&changes[0]), Ok(()));
            let bytes = bomb(count);
            let header = Header::parse(&bytes).unwrap();
            assert_eq!(operations(&bytes[header.start..]), Ok(count));
        }
        for count in
            [limits::CHANGE_EMPTY_OPERATIONS + 100, 1_000_000, 50_000_000, u64::from(u32::MAX), 1 << 62]
        {
            let bytes = bomb(count);
            assert!(bytes.len() < 120);
            assert!(matches!(split_changes(&bytes), Err(ChunkError::TooManyOperations(_))), "{count}");
            assert!(matches!(split_headers(&bytes), Err(ChunkError::TooManyOperations(_))), "{count}");
        }
    }

    #[test]
    fn what_holds_something_may_have_many_operations() {
        let mut am = Automerge::new();
        let mut tx = am.transaction();
        let text = tx.put_object(ROOT, "lyrics", automerge::ObjType::Text).unwrap();
        tx.splice_text(&text, 0, 0, &"y".repeat(300_000)).unwrap();
        tx.commit();
        assert_eq!(split_changes(&am.save_after(&[])).unwrap()[0].len(), 300_001);
        assert_eq!(check_snapshot(&am.save_nocompress()), Ok(()));
    }

    proptest! {
        #[test]
        fn as_many_operations_are_counted_as_automerge_reads(
            puts in prop::collection::vec((0..4u8, 0..3u8, -3..300i64), 1..60), deletes in 0..4usize) {
            let mut am = Automerge::new();
            for part in puts.chunks(7) {
                let mut tx = am.transaction();
                for (key, kind, value) in part {
                    let key = ["a", "ʻokina", "b", "long name"][usize::from(*key)];
                    match kind {
                        0 => tx.put(ROOT, key, *value).unwrap(),
                        1 => tx.put(ROOT, key, ()).unwrap(),
                        _ => {
                            let text = tx.put_object(ROOT, key, automerge::ObjType::Text).unwrap();
                            tx.splice_text(&text, 0, 0, &"aʻb".repeat(value.unsigned_abs() as usize % 9)).unwrap();
                            let len = tx.length(&text);
                            tx.splice_text(&text, 0, deletes.min(len) as isize, "").unwrap();
                        }
                    }
                }
                tx.commit();
            }
            for change in am.get_changes(&[]) {
                let bytes = change.raw_bytes();
                let header = Header::parse(bytes).unwrap();
                prop_assert_eq!(operations(&bytes[header.start..]), Ok(change.len() as u64));
            }
            prop_assert_eq!(check_snapshot(&am.save_nocompress()), Ok(()));
        }

        #[test]
        fn damaged_bytes_never_panic(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
            let am = document();
            for mut bytes in [am.save_after(&[]), am.save_nocompress()] {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                _ = split_changes(&bytes);
                _ = split_headers(&bytes);
                _ = check_snapshot(&bytes);
                bytes.truncate(cut.index(bytes.len()));
                _ = split_changes(&bytes);
                _ = split_headers(&bytes);
                _ = check_snapshot(&bytes);
            }
        }
    }
}
