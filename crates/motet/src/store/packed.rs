//! Changes and saved documents as they are stored: compressed, where that makes them shorter. The rest of the library sees them as Automerge
//! made them.
//!
//! A compressed row is [`MARK`], the four bytes of the chunk's hash that stand in its header, and a zstd frame. An Automerge chunk begins otherwise. What
//! does not unpack to a chunk with that hash is handed out as it stands: it is no chunk, and whoever checks hashes finds it damaged.

use motet_proto::packing;
use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::limits;

/// What a compressed row begins with.
const MARK: [u8; 4] = *b"ZMP1";

/// Where the first bytes of its hash stand in a chunk; in a compressed row as well.
const SUM: std::ops::Range<usize> = 4..8;

/// A chunk that is written.
pub(super) struct Pack<'a>(pub(super) &'a [u8]);

/// A chunk that is read.
pub(super) struct Unpacked(pub(super) Vec<u8>);

/// Length of what a row unpacks to: `substr(bytes, 1, 32)` and `length(bytes)` tell it.
pub(super) fn unpacked_len(head: &[u8], length: i64) -> i64 {
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
        Ok(match pack(self.0) {
            Some(packed) => packed.into(),
            None => ToSqlOutput::Borrowed(ValueRef::Blob(self.0)),
        })
    }
}

impl FromSql for Unpacked {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(unpack(value.as_blob()?)))
    }
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

/// What stands in a row, unpacked if it is packed.
pub(super) fn unpack(row: &[u8]) -> Vec<u8> {
    let unpacked = || {
        let (sum, packed) = row.strip_prefix(&MARK)?.split_at_checked(SUM.len())?;
        let chunk = packing::unpack(packed, most(packed.len())).ok()?;
        (chunk.get(SUM)? == sum).then_some(chunk)
    };
    unpacked().unwrap_or_else(|| row.to_vec())
}

/// The most that so many bytes may unpack to.
fn most(packed: usize) -> usize {
    packed.saturating_mul(limits::PACK_RATIO).max(limits::PACK_RATIO_FROM_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(chunk: &[u8]) -> Vec<u8> {
        pack(chunk).unwrap_or_else(|| chunk.to_vec())
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(chunk: Vec<u8>, times in 1..200_usize) {
            let chunk = chunk.repeat(times);
            let row = stored(&chunk);
            prop_assert!(row.len() <= chunk.len());
            prop_assert_eq!(unpack(&row), chunk.clone());
            let head = &row[..row.len().min(32)];
            prop_assert_eq!(unpacked_len(head, row.len() as i64), chunk.len() as i64);
        }

        /// Whatever is changed in a row, what is read is as before, or no chunk.
        #[test]
        fn a_damaged_row_is_never_another_chunk(at: prop::sample::Index, bit in 0..8_u32) {
            let chunk = [&b"\x85\x6f\x4a\x83sum!"[..], &b"E ho\xca\xbbi ke aloha i ke kai. ".repeat(50)].concat();
            let mut row = pack(&chunk).unwrap();
            let at = at.index(row.len());
            row[at] ^= 1 << bit;
            let read = unpack(&row);
            prop_assert!(read == row || read[SUM] == chunk[SUM], "{at}");
        }
    }

    #[test]
    fn what_claims_to_be_huge_is_not_unpacked() {
        let huge = zstd_of(&vec![0; 64 << 20]);
        let row = [&MARK[..], &[0; 4], &huge].concat();
        assert_eq!(unpack(&row), row);
        // And is not packed.
        assert!(pack(&vec![7; 64 << 20]).is_none());
        assert_eq!(unpack(&stored(&MARK.repeat(500))), MARK.repeat(500));
    }

    fn zstd_of(bytes: &[u8]) -> Vec<u8> {
        packing::pack(bytes, 1).unwrap()
    }
}
