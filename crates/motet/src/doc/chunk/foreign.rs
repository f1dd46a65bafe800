//! What other programs save: chunks one after the other, with compressed parts. Opened within a limit, they are chunks like those that
//! a relay sends.

use std::io::Read;

use flate2::read::DeflateDecoder;
use sha2::{Digest, Sha256};

use super::rows::Columns;
use super::{
    CHANGE, ChunkError, DOCUMENT, Header, MAGIC, operations, skip, skip_hashes, snapshot_operations, uleb,
};
use crate::limits;

/// A change whose data are compressed as a whole. Its checksum is that of the data.
const COMPRESSED_CHANGE: u8 = 2;

/// Chunks without compressed parts.
#[derive(Debug, Default)]
pub(crate) struct OpenedDocument {
    /// The saved document, if there is one.
    pub(crate) saved: Option<Vec<u8>>,
    /// Changes beside it, one chunk each.
    pub(crate) changes: Vec<Vec<u8>>,
}

/// Opens what [`save`](https://automerge.org/docs/reference/documents/) and its like have made: a saved document, changes, or one after
/// the other. All of it may open to [`limits::FOREIGN_DOCUMENT_BYTES`].
pub(crate) fn open_foreign(mut bytes: &[u8]) -> Result<OpenedDocument, ChunkError> {
    let (mut opened, mut inflater) = (OpenedDocument::default(), Inflater::default());
    while !bytes.is_empty() {
        let header = Header::parse(bytes)?;
        let (chunk, rest) = bytes.split_at(header.end);
        let data = &chunk[header.start..];
        match header.kind {
            DOCUMENT if opened.saved.is_none() => {
                header.check(chunk)?;
                let data = inflater.document(data)?;
                let checksum = checksum(DOCUMENT, &data);
                opened.saved = Some(chunk_of(checksum, DOCUMENT, &data));
            }
            CHANGE => opened.changes.push(chunk.to_vec()),
            COMPRESSED_CHANGE => {
                let data = inflater.inflate(data)?;
                opened.changes.push(chunk_of(header.checksum, CHANGE, &data));
            }
            other => return Err(ChunkError::WrongType(other)),
        }
        bytes = rest;
    }
    if opened.saved.is_none() && opened.changes.is_empty() {
        return Err(ChunkError::Empty);
    }
    opened.check_operations()?;
    Ok(opened)
}

impl OpenedDocument {
    /// Nobody has judged them before, and they are taken apart all at once.
    fn check_operations(&self) -> Result<(), ChunkError> {
        let mut count = self.saved.as_deref().map_or(Ok(0), snapshot_operations)?;
        for change in &self.changes {
            count += operations(&change[Header::parse(change)?.start..])?;
        }
        match count > limits::FOREIGN_OPERATIONS {
            true => Err(ChunkError::TooManyOperations(limits::FOREIGN_OPERATIONS)),
            false => Ok(()),
        }
    }
}

#[derive(Default)]
pub(super) struct Inflater {
    opened: usize,
}

impl Inflater {
    pub(super) fn inflate(&mut self, packed: &[u8]) -> Result<Vec<u8>, ChunkError> {
        let left = limits::FOREIGN_DOCUMENT_BYTES.saturating_sub(self.opened);
        let mut plain = Vec::new();
        let read = DeflateDecoder::new(packed).take(left as u64 + 1).read_to_end(&mut plain);
        read.map_err(|_| ChunkError::BadCompression)?;
        if plain.len() > left {
            return Err(ChunkError::TooLarge(limits::FOREIGN_DOCUMENT_BYTES));
        }
        self.opened += plain.len();
        Ok(plain)
    }

    /// The data of a saved document with its columns opened.
    fn document(&mut self, data: &[u8]) -> Result<Vec<u8>, ChunkError> {
        let mut rest = data;
        for _actor in 0..uleb(&mut rest)? {
            let len = uleb(&mut rest)?;
            skip(&mut rest, len)?;
        }
        skip_hashes(&mut rest)?;
        let mut opened = data[..data.len() - rest.len()].to_vec();
        let columns = [Columns::parse(&mut rest)?, Columns::parse(&mut rest)?];
        let mut contents = Vec::new();
        for columns in columns {
            let inflated = columns.inflated(&mut rest, self)?;
            inflated.header(&mut opened);
            contents.extend(inflated.into_data());
        }
        opened.extend(contents);
        // Where the heads stand among the changes.
        opened.extend_from_slice(rest);
        Ok(opened)
    }
}

/// Appends a number of unsigned LEB128.
pub(super) fn push_uleb(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn checksum(kind: u8, data: &[u8]) -> [u8; 4] {
    let mut length = Vec::new();
    push_uleb(&mut length, data.len() as u64);
    let hash = Sha256::new().chain_update([kind]).chain_update(length).chain_update(data).finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn chunk_of(checksum: [u8; 4], kind: u8, data: &[u8]) -> Vec<u8> {
    let mut chunk = [&MAGIC[..], &checksum, &[kind]].concat();
    push_uleb(&mut chunk, data.len() as u64);
    chunk.extend_from_slice(data);
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::transaction::Transactable;
    use automerge::{Automerge, ObjType, ROOT};

    fn document() -> Automerge {
        let mut am = Automerge::new();
        for n in 0..60 {
            let mut tx = am.transaction();
            tx.put(ROOT, format!("field {n}"), "E hoʻi ke aloha i ke kai ".repeat(30)).unwrap();
            let list = tx.put_object(ROOT, "list", ObjType::List).unwrap();
            (0..n).for_each(|n| tx.insert(&list, 0, n as i64).unwrap());
            tx.commit();
        }
        am
    }

    fn loaded(opened: &OpenedDocument) -> Automerge {
        let mut am = Automerge::load(opened.saved.as_deref().unwrap_or_default()).unwrap();
        am.load_incremental(&opened.changes.concat()).unwrap();
        am
    }

    #[test]
    fn what_is_opened_is_the_same_document() {
        let am = document();
        let changes: Vec<u8> =
            am.get_changes(&[]).into_iter().flat_map(|mut change| change.bytes().into_owned()).collect();
        let first = am.get_changes(&[])[..40].to_vec();
        let mut early = Automerge::new();
        early.apply_changes(first).unwrap();
        let parts = [early.save(), am.save_after(&early.get_heads())].concat();
        for saved in [am.save(), am.save_nocompress(), changes, parts] {
            let opened = open_foreign(&saved).unwrap();
            assert!(opened.saved.as_ref().is_none_or(|saved| super::super::check_snapshot(saved).is_ok()));
            assert!(opened.changes.iter().all(|change| super::super::split_changes(change).is_ok()));
            let found = loaded(&opened);
            assert_eq!(found.get_heads(), am.get_heads());
            assert_eq!(found.hydrate(None), am.hydrate(None));
        }
    }

    #[test]
    fn what_opens_to_too_much_or_is_damaged_is_refused() {
        let saved = document().save();
        for at in 0..saved.len() {
            let mut damaged = saved.clone();
            damaged[at] ^= 0x20;
            assert!(open_foreign(&damaged).is_err(), "byte {at}");
            assert!(open_foreign(&saved[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(
            open_foreign(&[saved.clone(), saved].concat()).unwrap_err(),
            ChunkError::WrongType(DOCUMENT)
        );
        let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        for _ in 0..=limits::FOREIGN_DOCUMENT_BYTES >> 20 {
            std::io::Write::write_all(&mut packed, &zeros).unwrap();
        }
        let bomb = chunk_of([0; 4], COMPRESSED_CHANGE, &packed.finish().unwrap());
        let error = open_foreign(&bomb).unwrap_err();
        assert_eq!(error, ChunkError::TooLarge(limits::FOREIGN_DOCUMENT_BYTES));
        assert_eq!(
            open_foreign(&chunk_of([0; 4], COMPRESSED_CHANGE, b"x")).unwrap_err(),
            ChunkError::BadCompression
        );
        assert_eq!(open_foreign(b"").unwrap_err(), ChunkError::Empty);
    }
}
