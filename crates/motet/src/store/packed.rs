//! Changes and saved documents as they are stored: compressed, where that makes them shorter, and bound to their document. The rest of the
//! library sees them as Automerge made them.
//!
//! A compressed row is [`MARK`], the four bytes of the chunk's hash that stand in its header, and a zstd frame. An Automerge chunk begins otherwise. What
//! does not unpack to a chunk with that hash is handed out as it stands: it is no chunk, and whoever checks hashes finds it damaged.
//!
//! Nothing in a change says of which document it is. So the first four bytes of a row are combined with a number that follows from the id of its
//! document: a row that damage has put under another document does not begin like a chunk there, and is found damaged instead of merged.

use motet_proto::packing;
use rusqlite::types::{ToSql, ToSqlOutput};
use rusqlite::{Connection, Row};

use super::Result;
use crate::limits;

/// What a compressed row begins with.
const MARK: [u8; 4] = *b"ZMP1";

/// Where the first bytes of its hash stand in a chunk; in a compressed row as well.
const SUM: std::ops::Range<usize> = 4..8;

/// A chunk of a document that is written.
pub(super) struct Pack<'a> {
    pub(super) document: i64,
    pub(super) chunk: &'a [u8],
}

/// The chunk of a document that stands in a column.
pub(super) fn chunk_at(row: &Row<'_>, column: usize, document: i64) -> rusqlite::Result<Vec<u8>> {
    Ok(unpack(document, row.get(column)?))
}

/// Length of what a row unpacks to: `substr(bytes, 1, 32)` and `length(bytes)` tell it.
pub(super) fn unpacked_len(document: i64, head: &[u8], length: i64) -> i64 {
    let head = bound(document, head.to_vec());
    let claimed = head.strip_prefix(&MARK).and_then(|rest| packing::claimed_len(rest.get(SUM.len()..)?));
    claimed.and_then(|claimed| i64::try_from(claimed).ok()).unwrap_or(length)
}

/// The columns that [`unpacked_len`] needs.
macro_rules! head_and_length {
    ($bytes:literal) => {
        concat!("substr(", $bytes, ", 1, 32), length(", $bytes, ")")
    };
}
pub(super) use head_and_length;

impl ToSql for Pack<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let stored = pack(self.chunk).unwrap_or_else(|| self.chunk.to_vec());
        Ok(bound(self.document, stored).into())
    }
}

/// Binds the rows of a file to their documents that was written when they were not (format 11 and before).
pub(super) fn bind_all(conn: &Connection) -> Result<()> {
    for (select, update) in [
        (
            "SELECT id, id >> 24, bytes FROM change WHERE id > ? ORDER BY id LIMIT 1000",
            "UPDATE change SET bytes = ? WHERE id = ?",
        ),
        (
            "SELECT document, document, bytes FROM snapshot WHERE document > ? ORDER BY document LIMIT 100",
            "UPDATE snapshot SET bytes = ? WHERE document = ?",
        ),
    ] {
        let (mut select, mut update) = (conn.prepare(select)?, conn.prepare(update)?);
        let mut last = i64::MIN;
        loop {
            let rows = select.query_map([last], |row| {
                // A value of another type is damage, and stays what it is.
                Ok((row.get(0)?, row.get(1)?, row.get_ref(2)?.as_blob().ok().map(<[u8]>::to_vec)))
            })?;
            let rows: Vec<(i64, i64, Option<Vec<u8>>)> = rows.collect::<std::result::Result<_, _>>()?;
            let Some((end, ..)) = rows.last() else { break };
            last = *end;
            for (id, document, bytes) in rows {
                if let Some(bytes) = bytes {
                    update.execute((bound(document, bytes), id))?;
                }
            }
        }
    }
    Ok(())
}

/// `None` if it is to be stored as it is.
fn pack(chunk: &[u8]) -> Option<Vec<u8>> {
    if chunk.len() < limits::PACK_FROM_BYTES || chunk.starts_with(&MARK) {
        return None;
    }
    let sum = chunk.get(SUM)?;
    let packed = packing::pack(chunk, limits::PACK_LEVEL)?;
    // What compresses too well would have to be believed when it is read.
    let is_shorter = MARK.len() + sum.len() + packed.len() < chunk.len();
    (is_shorter && chunk.len() <= most(packed.len())).then(|| [&MARK[..], sum, &packed].concat())
}

/// What stands in a row of a document, unpacked if it is packed.
pub(super) fn unpack(document: i64, row: Vec<u8>) -> Vec<u8> {
    let row = bound(document, row);
    let unpacked = || {
        let (sum, packed) = row.strip_prefix(&MARK)?.split_at_checked(SUM.len())?;
        let chunk = packing::unpack(packed, most(packed.len())).ok()?;
        (chunk.get(SUM)? == sum).then_some(chunk)
    };
    unpacked().unwrap_or(row)
}

/// Binds what is stored to a document, and what was bound to it is as before. Documents with ids below 2^32 have different numbers, since
/// the factor is odd.
fn bound(document: i64, mut row: Vec<u8>) -> Vec<u8> {
    const FACTOR: u32 = 0x9e37_79b1;
    let number = (document as u32).wrapping_mul(FACTOR).to_le_bytes();
    row.iter_mut().zip(number).for_each(|(byte, with)| *byte ^= with);
    row
}

/// The most that so many bytes may unpack to.
fn most(packed: usize) -> usize {
    packed.saturating_mul(limits::PACK_RATIO).max(limits::PACK_RATIO_FROM_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(document: i64, chunk: &[u8]) -> Vec<u8> {
        bound(document, pack(chunk).unwrap_or_else(|| chunk.to_vec()))
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(chunk: Vec<u8>, times in 1..200_usize, document in 0..1_i64 << 38) {
            let chunk = chunk.repeat(times);
            let row = stored(document, &chunk);
            prop_assert!(row.len() <= chunk.len());
            prop_assert_eq!(unpack(document, row.clone()), chunk.clone());
            let head = &row[..row.len().min(32)];
            prop_assert_eq!(unpacked_len(document, head, row.len() as i64), chunk.len() as i64);
        }

        /// Under another document it is no chunk, however it was stored.
        #[test]
        fn a_row_of_another_document_is_no_chunk(document in 1..1_i64 << 32, other in 1..1_i64 << 32, times in 1..50_usize) {
            prop_assume!(document != other);
            let chunk = [&b"\x85\x6f\x4a\x83sum!"[..], &b"E ho\xca\xbbi ke aloha. ".repeat(times)].concat();
            prop_assert!(!unpack(other, stored(document, &chunk)).starts_with(&chunk[..4]));
        }

        /// Whatever is changed in a row, what is read is as before, or no chunk.
        #[test]
        fn a_damaged_row_is_never_another_chunk(at: prop::sample::Index, bit in 0..8_u32) {
            let chunk = [&b"\x85\x6f\x4a\x83sum!"[..], &b"E ho\xca\xbbi ke aloha i ke kai. ".repeat(50)].concat();
            let mut row = pack(&chunk).unwrap();
            let at = at.index(row.len());
            row[at] ^= 1 << bit;
            let read = unpack(0, row.clone());
            prop_assert!(read == row || read[SUM] == chunk[SUM], "{at}");
        }
    }

    #[test]
    fn what_claims_to_be_huge_is_not_unpacked() {
        let huge = zstd_of(&vec![0; 64 << 20]);
        let row = [&MARK[..], &[0; 4], &huge].concat();
        assert_eq!(unpack(0, row.clone()), row);
        // And is not packed.
        assert!(pack(&vec![7; 64 << 20]).is_none());
        assert_eq!(unpack(3, stored(3, &MARK.repeat(500))), MARK.repeat(500));
    }

    fn zstd_of(bytes: &[u8]) -> Vec<u8> {
        packing::pack(bytes, 1).unwrap()
    }
}
