//! How many rows the columns of a chunk open to, without opening them: a run of a few bytes may say a million operations.
//!
//! ```text
//! column = run*
//! run    = n value        n > 0: n times this value        (of booleans: a count alone, false and true in turn)
//!        | -n value{n}    n values
//!        | 0 n            n times nothing
//! ```

use super::foreign::{Inflater, push_uleb};
use super::{ChunkError, skip, uleb};
use crate::limits;

/// What columns there are, and how long each is.
pub(super) struct Columns(Vec<Column>);

struct Column {
    specification: u64,
    len: u64,
}

/// The lowest three bits of a specification.
const KIND: u64 = 0b111;
const GROUP: u64 = 0;
const DELTA: u64 = 3;
const BOOLEAN: u64 = 4;
const STRING: u64 = 5;
const RAW_VALUES: u64 = 7;
const DEFLATED: u64 = 0b1000;

impl Columns {
    pub(super) fn parse(bytes: &mut &[u8]) -> Result<Self, ChunkError> {
        let mut columns = Vec::new();
        for _ in 0..uleb(bytes)? {
            columns.push(Column { specification: uleb(bytes)?, len: uleb(bytes)? });
        }
        Ok(Self(columns))
    }

    pub(super) fn are_deflated(&self) -> bool {
        self.0.iter().any(|column| column.specification & DEFLATED != 0)
    }

    /// Rows of the longest of these columns, whose data stand at the start of `bytes` and are taken off it. An error if one has more than
    /// `most`, or opens to more strings than a payload may hold.
    pub(super) fn rows(&self, bytes: &mut &[u8], most: u64) -> Result<u64, ChunkError> {
        let mut longest = 0;
        for Column { specification, len } in &self.0 {
            let data = *bytes;
            skip(bytes, *len)?;
            let data = &data[..data.len() - bytes.len()];
            longest = longest.max(match specification & KIND {
                RAW_VALUES => 0,
                BOOLEAN => booleans(data, most)?,
                kind => runs(kind, data, most)?,
            });
        }
        Ok(longest)
    }
}

impl Columns {
    /// These columns, whose data stand at the start of `bytes` and are taken off it, with the compressed ones opened.
    pub(super) fn inflated(
        &self,
        bytes: &mut &[u8],
        inflater: &mut Inflater,
    ) -> Result<InflatedColumns, ChunkError> {
        let mut inflated = Vec::with_capacity(self.0.len());
        for Column { specification, len } in &self.0 {
            let data = *bytes;
            skip(bytes, *len)?;
            let data = &data[..data.len() - bytes.len()];
            inflated.push(match specification & DEFLATED {
                0 => (*specification, data.to_vec()),
                _ => (specification & !DEFLATED, inflater.inflate(data)?),
            });
        }
        Ok(InflatedColumns(inflated))
    }
}

/// Specifications and data of columns, none of them compressed.
pub(super) struct InflatedColumns(Vec<(u64, Vec<u8>)>);

impl InflatedColumns {
    /// Appends what stands before the data.
    pub(super) fn header(&self, bytes: &mut Vec<u8>) {
        push_uleb(bytes, self.0.len() as u64);
        for (specification, data) in &self.0 {
            push_uleb(bytes, *specification);
            push_uleb(bytes, data.len() as u64);
        }
    }

    pub(super) fn into_data(self) -> Vec<u8> {
        self.0.into_iter().flat_map(|(_, data)| data).collect()
    }
}

/// Rows that `len` bytes of a chunk may open to: what holds a character or a number takes a byte at least, and what takes none is bounded.
pub(super) fn most_rows(empty: u64, len: usize) -> u64 {
    empty.saturating_add(len as u64)
}

fn booleans(mut data: &[u8], most: u64) -> Result<u64, ChunkError> {
    let mut rows = 0;
    while !data.is_empty() {
        rows = bounded(rows, uleb(&mut data)?, most)?;
    }
    Ok(rows)
}

fn runs(kind: u64, mut data: &[u8], most: u64) -> Result<u64, ChunkError> {
    let (mut rows, mut grouped, mut string_bytes) = (0, 0, 0);
    let mut value = |data: &mut &[u8], times: u64| {
        match kind {
            STRING => {
                let len = uleb(data)?;
                skip(data, len)?;
                let all = len.checked_mul(times).ok_or(ChunkError::TooManyOperations(most))?;
                string_bytes = bounded(string_bytes, all, limits::COLUMN_STRING_BYTES)?;
            }
            GROUP => {
                let all = uleb(data)?.checked_mul(times).ok_or(ChunkError::TooManyOperations(most))?;
                grouped = bounded(grouped, all, most)?;
            }
            DELTA => _ = leb(data)?,
            _ => _ = uleb(data)?,
        }
        Ok(())
    };
    while !data.is_empty() {
        let count = leb(&mut data)?;
        let times = count.unsigned_abs();
        match count {
            0 => {
                rows = bounded(rows, uleb(&mut data)?, most)?;
            }
            1.. => {
                rows = bounded(rows, times, most)?;
                value(&mut data, times)?;
            }
            _ => {
                rows = bounded(rows, times, most)?;
                (0..times).try_for_each(|_| value(&mut data, 1))?;
            }
        }
    }
    Ok(rows)
}

fn bounded(sum: u64, more: u64, most: u64) -> Result<u64, ChunkError> {
    sum.checked_add(more).filter(|sum| *sum <= most).ok_or(ChunkError::TooManyOperations(most))
}

/// A signed number: its sign is bit 6 of the last byte.
fn leb(bytes: &mut &[u8]) -> Result<i64, ChunkError> {
    let mut value = 0i64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(ChunkError::Truncated)?;
        *bytes = rest;
        value |= i64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let is_negative = byte & 0x40 != 0 && shift + 7 < 64;
            return Ok(if is_negative { value | (-1 << (shift + 7)) } else { value });
        }
    }
    Err(ChunkError::Truncated)
}
