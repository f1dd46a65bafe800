//! Foreign bytes, looked at before Automerge sees them.
//!
//! Automerge inflates without bound and does not check every checksum, so compressed chunks are refused (Motet
//! compresses around the payload, with a cap) and checksums are compared here.
//!
//! ```text
//! chunk    = magic:4 checksum:4 type:u8 length:uleb data
//! document = actors heads change-columns operation-columns …      (type 0)
//! columns  = count:uleb (specification:uleb length:uleb)*         bit 3 of a specification: deflated
//! ```

use std::collections::HashSet;

use automerge::Change;
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const DEFLATED: u64 = 0b1000;

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
    #[error("a chunk's checksum does not match its data")]
    Checksum,
    #[error("a change cannot be read: {0}")]
    BadChange(String),
    #[error("there are no changes in it")]
    Empty,
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
    deps: Vec<[u8; 32]>,
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
        // The hash is taken over type, length and data.
        let hash: [u8; 32] = Sha256::digest(&chunk[8..]).into();
        if hash[..4] != header.checksum {
            return Err(ChunkError::Checksum);
        }
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

/// Checks that bytes are exactly one uncompressed document chunk. Automerge checks its checksum and heads itself.
pub(crate) fn check_snapshot(bytes: &[u8]) -> Result<(), ChunkError> {
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
    let heads = uleb(&mut data)?;
    skip(&mut data, heads.checked_mul(32).ok_or(ChunkError::Truncated)?)?;
    for _columns in ["changes", "operations"] {
        for _ in 0..uleb(&mut data)? {
            if uleb(&mut data)? & DEFLATED != 0 {
                return Err(ChunkError::Deflated);
            }
            uleb(&mut data)?;
        }
    }
    Ok(())
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

fn skip(bytes: &mut &[u8], len: u64) -> Result<(), ChunkError> {
    let len = usize::try_from(len).map_err(|_| ChunkError::Truncated)?;
    *bytes = bytes.get(len..).ok_or(ChunkError::Truncated)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::transaction::Transactable;
    use automerge::{Automerge, ROOT};
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

    proptest! {
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
