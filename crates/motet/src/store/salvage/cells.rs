//! What stands in one page of a b-tree, as SQLite's file format has it. Each length and place is checked before it is believed.

use std::collections::{HashMap, HashSet};

use rusqlite::types::Value;

use super::number;
use super::pages::{HEADER_BYTES, Pages};
use crate::limits;

/// What a page of a b-tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    IndexInterior,
    TableInterior,
    IndexLeaf,
    TableLeaf,
}

/// A row as it stands in a page. Of a table by row ids its key is beside it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) rowid: Option<i64>,
    pub(super) values: Vec<Value>,
}

/// What is known of the pages on which rows go on that are longer than a page.
#[derive(Default)]
pub(super) struct Chains {
    /// Pages of rows that were read, each of one row alone.
    used: HashSet<u32>,
    /// How often a page was read for nothing: what leads to it is no row.
    failed: HashMap<u32, u8>,
}

/// A page of a b-tree.
pub(super) struct Page {
    pub(super) kind: Kind,
    bytes: Vec<u8>,
    /// Where its header begins.
    start: usize,
}

impl Page {
    /// `None` if there is no such page, or it is none of a b-tree.
    pub(super) fn read(pages: &Pages, page: u32) -> Option<Self> {
        let bytes = pages.read(page)?;
        let start = if page == 1 { HEADER_BYTES } else { 0 };
        let kind = match bytes[start] {
            2 => Kind::IndexInterior,
            5 => Kind::TableInterior,
            10 => Kind::IndexLeaf,
            13 => Kind::TableLeaf,
            _ => return None,
        };
        Some(Self { kind, bytes, start })
    }

    fn is_interior(&self) -> bool {
        matches!(self.kind, Kind::IndexInterior | Kind::TableInterior)
    }

    /// Where its cells begin. What no pointer leads to is not in use any more.
    fn cells(&self, usable: usize) -> Vec<usize> {
        let at = self.start + if self.is_interior() { 12 } else { 8 };
        let count = short(&self.bytes, self.start + 3);
        let end = at + 2 * count;
        if end > usable {
            return Vec::new();
        }
        let mut seen = HashSet::new();
        let places = (0..count).map(|n| short(&self.bytes, at + 2 * n));
        let is_inside = |place: &usize| (end..usable.saturating_sub(3)).contains(place);
        places.filter(is_inside).filter(|place| seen.insert(*place)).collect()
    }

    /// Pages below this one.
    pub(super) fn children(&self, usable: usize) -> Vec<u32> {
        if !self.is_interior() {
            return Vec::new();
        }
        let last = number(&self.bytes, self.start + 8);
        self.cells(usable).into_iter().map(|place| number(&self.bytes, place)).chain([last]).collect()
    }

    /// All rows that can be read.
    pub(super) fn records(&self, pages: &Pages, chains: &mut Chains) -> Vec<Record> {
        if self.kind == Kind::TableInterior {
            return Vec::new();
        }
        // Rows of a sound page lie side by side. Of a made-up one the same bytes may be named again and again.
        let mut left = pages.usable * limits::SALVAGE_OVERLAP;
        let cells = self.cells(pages.usable).into_iter();
        cells.filter_map(|place| self.record(pages, place, &mut left, chains)).collect()
    }

    fn record(&self, pages: &Pages, place: usize, left: &mut usize, chains: &mut Chains) -> Option<Record> {
        let bytes = self.bytes.get(..pages.usable)?;
        let mut at = place + if self.is_interior() { 4 } else { 0 };
        let len =
            usize::try_from(varint(bytes, &mut at)?).ok().filter(|len| *len <= limits::SALVAGE_ROW_BYTES)?;
        let is_table = self.kind == Kind::TableLeaf;
        let rowid = if is_table { Some(varint(bytes, &mut at)?.cast_signed()) } else { None };
        let local = local_bytes(len, pages.usable, is_table);
        let mut payload = bytes.get(at..at + local)?.to_vec();
        *left = left.checked_sub(local)?;
        if local < len {
            chains.follow(pages, number(bytes.get(at + local..at + local + 4)?, 0), &mut payload, len)?;
        }
        Some(Record { rowid, values: values(&payload)? })
    }
}

impl Chains {
    /// Reads on from a page until a row has its `len` bytes. Each page is read a bounded number of times for nothing.
    fn follow(&mut self, pages: &Pages, first: u32, payload: &mut Vec<u8>, len: usize) -> Option<()> {
        let (mut next, mut chain) = (first, HashSet::new());
        let is_whole = loop {
            if payload.len() >= len {
                break true;
            }
            let is_hopeless = self.failed.get(&next).is_some_and(|times| *times >= limits::SALVAGE_READS);
            if is_hopeless || self.used.contains(&next) || !chain.insert(next) {
                break false;
            }
            let Some(page) = pages.read(next) else { break false };
            next = number(&page, 0);
            let more = (len - payload.len()).min(pages.usable - 4);
            payload.extend_from_slice(&page[4..4 + more]);
        };
        if is_whole {
            self.used.extend(chain);
            return Some(());
        }
        chain.into_iter().for_each(|page| *self.failed.entry(page).or_default() += 1);
        None
    }
}

/// How many bytes of a row stand in its own page.
fn local_bytes(len: usize, usable: usize, is_table: bool) -> usize {
    let most = if is_table { usable - 35 } else { (usable - 12) * 64 / 255 - 23 };
    if len <= most {
        return len;
    }
    let least = (usable - 12) * 32 / 255 - 23;
    let fitting = least + (len - least) % (usable - 4);
    if fitting <= most { fitting } else { least }
}

/// The values of a record; none if it is not exactly as long as they are together.
fn values(payload: &[u8]) -> Option<Vec<Value>> {
    let mut at = 0;
    let header = usize::try_from(varint(payload, &mut at)?).ok().filter(|len| *len <= payload.len())?;
    let mut rest = payload.get(header..)?;
    let mut values = Vec::new();
    while at < header && values.len() <= limits::SALVAGE_COLUMNS {
        let kind = varint(&payload[..header], &mut at)?;
        let len = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let bytes = rest.get(..len)?;
        rest = &rest[len..];
        values.push(match kind {
            0 => Value::Null,
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            7 => Value::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
            1..=6 => Value::Integer(signed(bytes)),
            _ if kind % 2 == 0 => Value::Blob(bytes.to_vec()),
            _ => Value::Text(std::str::from_utf8(bytes).ok()?.to_owned()),
        });
    }
    (at >= header && rest.is_empty()).then_some(values)
}

fn signed(bytes: &[u8]) -> i64 {
    let first = bytes.first().map_or(0, |byte| i64::from(byte.cast_signed()));
    bytes.iter().skip(1).fold(first, |number, byte| number << 8 | i64::from(*byte))
}

fn short(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 2).map_or(0, |two| usize::from(two[0]) << 8 | usize::from(two[1]))
}

/// A number in as many bytes as it needs: seven bits in each, eight in the ninth.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0u64;
    for n in 0..9 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if n == 8 {
            return Some(number << 8 | u64::from(byte));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}
