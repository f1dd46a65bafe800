//! zstd, with one context for each thread and direction: making one costs more than packing a small entry.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

/// Begins a frame that carries no data (RFC 8878, 3.1.2); its length follows, in four bytes as well.
const SKIPPED_FRAME: u32 = 0x184d_2a50;

/// Bytes before what is in it.
const SKIPPED_HEADER: usize = 8;

/// Why something cannot be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnpackError {
    /// It is not what it should be.
    Damaged(&'static str),
    /// It would be larger than it may be.
    TooLarge,
}

thread_local! {
    static PACK: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static UNPACK: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Packs bytes at a level; `None` if zstd fails, and they go as they are.
pub fn pack(plain: &[u8], level: i32) -> Option<Vec<u8>> {
    PACK.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(of, _)| *of != level) {
            *kept = Some((level, Compressor::new(level).ok()?));
        }
        kept.as_mut()?.1.compress(plain).ok()
    })
}

/// Makes packed bytes longer, to `length` at least, with a frame that those who unpack skip.
pub fn pad(packed: &mut Vec<u8>, length: usize) {
    let more = length.saturating_sub(packed.len() + SKIPPED_HEADER);
    packed.extend_from_slice(&SKIPPED_FRAME.to_le_bytes());
    packed.extend_from_slice(&(more as u32).to_le_bytes());
    packed.resize(packed.len() + more, 0);
}

/// The size that zstd data claims to inflate to, if it does.
pub fn claimed_len(packed: &[u8]) -> Option<usize> {
    let claimed = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    claimed.map(|size| usize::try_from(size).unwrap_or(usize::MAX))
}

/// Inflates zstd data of at most `cap` bytes. The size that the data claims is checked before anything is allocated.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(packed: &[u8], cap: usize) -> Result<Vec<u8>, UnpackError> {
    let Some(size) = claimed_len(packed) else {
        return Err(UnpackError::Damaged("zstd frame without a size"));
    };
    if size > cap {
        return Err(UnpackError::TooLarge);
    }
    UNPACK.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Decompressor::new().ok();
        }
        let unpacked = kept.as_mut().and_then(|unpack| unpack.decompress(packed, size).ok());
        unpacked.ok_or(UnpackError::Damaged("not zstd"))
    })
}
