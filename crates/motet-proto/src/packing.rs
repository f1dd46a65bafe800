//! zstd, with one context for each thread and direction: making one costs more than packing a small entry.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::envelope::OpenError;

thread_local! {
    static PACK: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static UNPACK: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Packs bytes at a level; `None` if zstd fails, and they go as they are.
pub(crate) fn pack(plain: &[u8], level: i32) -> Option<Vec<u8>> {
    PACK.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(of, _)| *of != level) {
            *kept = Some((level, Compressor::new(level).ok()?));
        }
        kept.as_mut()?.1.compress(plain).ok()
    })
}

/// The size that zstd data claims to inflate to, if it does.
pub(crate) fn claimed_len(packed: &[u8]) -> Option<usize> {
    let claimed = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    claimed.map(|size| usize::try_from(size).unwrap_or(usize::MAX))
}

/// Inflates zstd data of at most `cap` bytes. The size that the data claims is checked before anything is allocated.
pub(crate) fn unpack(packed: &[u8], cap: usize) -> Result<Vec<u8>, OpenError> {
    let Some(size) = claimed_len(packed) else {
        return Err(OpenError::Damaged("zstd frame without a size"));
    };
    if size > cap {
        return Err(OpenError::TooLarge);
    }
    UNPACK.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Decompressor::new().ok();
        }
        let unpacked = kept.as_mut().and_then(|unpack| unpack.decompress(packed, size).ok());
        unpacked.ok_or(OpenError::Damaged("not zstd"))
    })
}
