//! SQLite's log (`-wal`) as it stands beside a file: which pages it holds as of the last commit, and whether anything in it is damaged.
//!
//! SQLite reads a log up to the first frame that is not what was written, and passes over the rest. Here each frame is judged by itself:
//! its checksum goes on from the one that stands in the frame before it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Result};
use std::path::Path;

use super::number;

/// Bytes of the header of a log, as of SQLite's file format.
const HEADER_BYTES: usize = 32;

/// Bytes before the page in each frame.
const FRAME_BYTES: usize = 24;

/// How a log begins; the last bit says that its checksums are of big-endian numbers.
const MAGIC: u32 = 0x377f_0682;

type Sums = (u32, u32);

#[derive(Debug, Default)]
pub(super) struct Log {
    /// Where the newest committed version of each page stands.
    pub(super) pages: HashMap<u32, u64>,
    /// Pages of the database as of the last commit.
    pub(super) count: Option<u32>,
    /// Something of it is not what was written. Frames of an earlier round behind the last of this one are no damage: they differ in their
    /// salt, and stand in the database. The end of a log that was cut off by a loss of power cannot be told from damage.
    pub(super) is_damaged: bool,
}

impl Log {
    /// Reads a log of a database whose pages have `size` bytes. None is an empty one.
    pub(super) fn read(path: &Path, size: usize) -> Result<Self> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            file => file?,
        };
        let mut file = BufReader::new(file);
        let mut log = Self::default();
        let mut header = [0; HEADER_BYTES];
        let Some(()) = filled(&mut file, &mut header)? else { return Ok(log) };
        let known = Header::read(&header, size);
        log.is_damaged = known.is_none();
        log.read_frames(&mut file, known, size)?;
        Ok(log)
    }

    fn read_frames(&mut self, file: &mut impl Read, known: Option<Header>, size: usize) -> Result<()> {
        let mut salt = known.as_ref().map(|header| header.salt);
        let is_big = known.as_ref().map_or(cfg!(target_endian = "big"), |header| header.is_big);
        let mut sums = known.map(|header| header.sums);
        let (mut at, mut uncommitted, mut is_gap) = (HEADER_BYTES as u64, Vec::new(), false);
        let mut frame = vec![0; FRAME_BYTES + size];
        while filled(file, &mut frame)?.is_some() {
            let own = [number(&frame, 8), number(&frame, 12)];
            let (page, count) = (number(&frame, 0), number(&frame, 4));
            let place = at + FRAME_BYTES as u64;
            at += frame.len() as u64;
            // Without a header, those of the first frame are the ones of this round.
            if *salt.get_or_insert(own) != own || page == 0 {
                (sums, is_gap) = (None, true);
                continue;
            }
            self.is_damaged |= is_gap;
            let stored = (number(&frame, 16), number(&frame, 20));
            // Behind a frame that is gone nothing says what it should be: it counts if what it holds may be a page.
            let is_sound = match sums {
                Some(before) => {
                    let sums = sum(before, &frame[..8], is_big);
                    sum(sums, &frame[FRAME_BYTES..], is_big) == stored
                }
                None => page == 1 || matches!(frame[FRAME_BYTES], 0 | 2 | 5 | 10 | 13),
            };
            sums = Some(stored);
            if !is_sound {
                self.is_damaged = true;
                continue;
            }
            uncommitted.push((page, place));
            if count > 0 {
                self.pages.extend(uncommitted.drain(..));
                self.count = Some(count);
            }
        }
        Ok(())
    }
}

struct Header {
    salt: [u32; 2],
    sums: Sums,
    is_big: bool,
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES], size: usize) -> Option<Self> {
        let magic = number(bytes, 0);
        let is_big = magic & 1 == 1;
        let sums = (number(bytes, 24), number(bytes, 28));
        let is_sound = magic & !1 == MAGIC
            && number(bytes, 8) as usize == size
            && sum((0, 0), &bytes[..24], is_big) == sums;
        is_sound.then(|| Self { salt: [number(bytes, 16), number(bytes, 20)], sums, is_big })
    }
}

/// The checksum of SQLite's log, going on from another.
fn sum(sums: Sums, bytes: &[u8], is_big: bool) -> Sums {
    bytes.as_chunks::<8>().0.iter().fold(sums, |(first, second), eight| {
        let [a, b, c, d, e, f, g, h] = *eight;
        let word = |bytes| if is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        let first = first.wrapping_add(word([a, b, c, d])).wrapping_add(second);
        (first, second.wrapping_add(word([e, f, g, h])).wrapping_add(first))
    })
}

/// Fills a buffer; `None` if there is not enough for it any more.
fn filled(file: &mut impl Read, buffer: &mut [u8]) -> Result<Option<()>> {
    match file.read_exact(buffer) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(Some),
    }
}
