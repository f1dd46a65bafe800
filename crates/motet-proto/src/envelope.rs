//! The envelope around a payload: a suite id, and bytes that only the devices of a space can open.
//!
//! Suite 0 is plain. The field is on the wire from the first version on, so that encryption is one more suite and no
//! new format. The relay treats all suites alike. [`Sealer`] is what devices use: [`Plain`], or one that the app brings.

use crate::ids::{DocumentId, SpaceId};
use crate::limits;
use crate::packing::{self, UnpackError};

/// Suite 0: the payload is readable by whoever holds the log. Compressed from
/// [`limits::COMPRESS_FROM_BYTES`] on.
pub const SUITE_PLAIN: u8 = 0;

/// Suites from this one on are the app's own: no version of Motet gives them a meaning.
pub const SUITES_OF_APPS: u8 = 128;

/// Bytes by which a [`Sealer`] may make a payload longer than [`seal_plain`] makes it.
pub const SEALER_BYTES: usize = 1_024;

/// How many times its bytes a payload of an app's suite is taken to open to: more than text does.
pub const OPENED_TIMES: usize = 8;

const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// Seals payloads so that only the devices of a space open them, and opens them. Called on several threads, while other writes wait: a call must
/// be quick, and must not call the replica.
pub trait Sealer: Send + Sync + 'static {
    /// The suite that it seals with, which stands beside each payload: 0, or from [`SUITES_OF_APPS`] on.
    fn suite(&self) -> u8;

    /// Seals a payload. The result has at most [`SEALER_BYTES`] more than the payload. One that encrypts encrypts what [`seal_plain`] makes of it: it is
    /// compressed.
    ///
    /// # Errors
    /// [`SealError`]; what was to be sent waits, and is tried again.
    fn seal(&self, about: About, plain: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Opens what a device of the space has sealed, with whatever suite. One that encrypts decides whether it still takes what is plain.
    ///
    /// # Errors
    /// [`OpenError`]; the entry is then kept in quarantine, and tried again by `retry_quarantined`.
    fn open(&self, about: About, suite: u8, sealed: &[u8]) -> Result<Vec<u8>, OpenError>;

    /// About how many bytes a payload opens to; nothing is opened for that. As many payloads are opened at once as open to
    /// some megabytes together. Unless the sealer knows better, that is [`OPENED_TIMES`] its bytes.
    fn opened_len(&self, suite: u8, sealed: &[u8]) -> usize {
        match suite {
            SUITE_PLAIN => opened_len(suite, sealed),
            _ => sealed.len().saturating_mul(OPENED_TIMES).min(limits::PAYLOAD_INFLATED_BYTES),
        }
    }
}

/// What a payload is about: to be bound to it, so that nobody can put it in another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct About {
    /// The space.
    pub space: SpaceId,
    /// The document; `None` for the place of a device, which is not stored.
    pub document: Option<DocumentId>,
}

/// Why a payload is not sealed, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is to be sent cannot be sealed: {0}")]
pub struct SealError(pub String);

/// Suite 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl About {
    /// An entry of a document.
    pub fn entry(space: SpaceId, document: DocumentId) -> Self {
        Self { space, document: Some(document) }
    }

    /// The place of a device.
    pub fn place(space: SpaceId) -> Self {
        Self { space, document: None }
    }
}

impl Sealer for Plain {
    fn suite(&self) -> u8 {
        SUITE_PLAIN
    }

    fn seal(&self, _: About, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        Ok(seal_plain(plain))
    }

    fn open(&self, _: About, suite: u8, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        open(suite, sealed)
    }

    fn opened_len(&self, suite: u8, sealed: &[u8]) -> usize {
        opened_len(suite, sealed)
    }
}

/// Why a payload does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The app's own sealer does not open it: it has another key, or the payload was changed or moved.
    #[error("the payload does not open: {0}")]
    Sealed(String),
    /// Sealed by a suite that this build does not know: written by a newer app.
    #[error("the payload is sealed with suite {0}, which this version does not know; update the app")]
    UnknownSuite(u8),
    /// No bytes, or a form byte that suite 0 does not have.
    #[error("the payload is damaged: {0}")]
    Damaged(&'static str),
    /// Opened it would be larger than [`limits::PAYLOAD_INFLATED_BYTES`].
    #[error("the payload would open to more than {} bytes", limits::PAYLOAD_INFLATED_BYTES)]
    TooLarge,
    /// Opened it would be larger than [`limits::PAYLOAD_RATIO`] allows for its size.
    #[error(
        "the payload of {sealed} bytes would open to {opened}: more than {} times as many",
        limits::PAYLOAD_RATIO
    )]
    TooDense {
        /// Bytes of the payload.
        sealed: usize,
        /// Bytes that it claims to open to.
        opened: usize,
    },
}

impl From<UnpackError> for OpenError {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Damaged(detail) => Self::Damaged(detail),
            UnpackError::TooLarge => Self::TooLarge,
        }
    }
}

/// Seals `plain` with suite 0.
pub fn seal_plain(plain: &[u8]) -> Vec<u8> {
    if plain.len() >= limits::COMPRESS_FROM_BYTES
        && let Some(mut packed) = packing::pack(plain, limits::COMPRESS_LEVEL)
        && packed.len() < plain.len()
    {
        if is_too_dense(packed.len(), plain.len()) {
            packing::pad(&mut packed, plain.len() / limits::PAYLOAD_RATIO + 1);
        }
        return prefixed(ZSTD, &packed);
    }
    prefixed(RAW, plain)
}

/// Opens what a device of this space sealed.
///
/// # Errors
/// [`OpenError`]; the entry is then kept aside by the caller, never dropped.
pub fn open(suite: u8, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    if suite != SUITE_PLAIN {
        return Err(OpenError::UnknownSuite(suite));
    }
    match sealed.split_first() {
        Some((&RAW, plain)) => Ok(plain.to_vec()),
        Some((&ZSTD, packed)) => {
            let opened = packing::claimed_len(packed).unwrap_or(0);
            if opened <= limits::PAYLOAD_INFLATED_BYTES && is_too_dense(packed.len(), opened) {
                return Err(OpenError::TooDense { sealed: packed.len(), opened });
            }
            Ok(packing::unpack(packed, limits::PAYLOAD_INFLATED_BYTES)?)
        }
        Some(_) => Err(OpenError::Damaged("unknown form")),
        None => Err(OpenError::Damaged("empty")),
    }
}

/// Bytes that a payload says it opens to; the most that there may be if it does not say, or is sealed with a suite that this build does not
/// know. Nothing is opened for that.
pub fn opened_len(suite: u8, sealed: &[u8]) -> usize {
    let claimed = match sealed.split_first() {
        _ if suite != SUITE_PLAIN => None,
        Some((&RAW, plain)) => Some(plain.len()),
        Some((&ZSTD, packed)) => packing::claimed_len(packed),
        _ => Some(0),
    };
    claimed.unwrap_or(limits::PAYLOAD_INFLATED_BYTES).min(limits::PAYLOAD_INFLATED_BYTES)
}

fn is_too_dense(packed: usize, plain: usize) -> bool {
    plain > limits::PAYLOAD_RATIO_FROM_BYTES && plain / limits::PAYLOAD_RATIO > packed
}

fn prefixed(form: u8, bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(bytes.len() + 1);
    sealed.push(form);
    sealed.extend_from_slice(bytes);
    sealed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_small_and_large() {
        for plain in ["", "kō", &"E hoʻi ke aloha i ke kai. ".repeat(100)] {
            let sealed = seal_plain(plain.as_bytes());
            assert_eq!(open(SUITE_PLAIN, &sealed).unwrap(), plain.as_bytes());
            assert_eq!(opened_len(SUITE_PLAIN, &sealed), plain.len());
        }
        assert!(seal_plain("E hoʻi ke aloha i ke kai. ".repeat(100).as_bytes()).len() < 200);
    }

    #[test]
    fn what_compresses_too_well_is_padded_and_only_so_it_opens() {
        let lengths =
            [limits::PAYLOAD_RATIO_FROM_BYTES, limits::PAYLOAD_RATIO_FROM_BYTES + 1, 5 << 20, 64 << 20];
        for length in lengths {
            let plain = vec![b'a'; length];
            let sealed = seal_plain(&plain);
            assert!(open(SUITE_PLAIN, &sealed).unwrap() == plain, "{length}");
            assert_eq!(opened_len(SUITE_PLAIN, &sealed), length);
            assert!(sealed.len() < length / 200, "{length}: {}", sealed.len());
            let dense = prefixed(ZSTD, &zstd::bulk::compress(&plain, 3).unwrap());
            assert_eq!(
                open(SUITE_PLAIN, &dense).is_ok(),
                length <= limits::PAYLOAD_RATIO_FROM_BYTES,
                "{length}"
            );
        }
    }

    #[test]
    fn bombs_and_garbage_are_refused() {
        let bomb = zstd::bulk::compress(&vec![0; limits::PAYLOAD_INFLATED_BYTES + 1], 1).unwrap();
        assert_eq!(open(SUITE_PLAIN, &prefixed(ZSTD, &bomb)), Err(OpenError::TooLarge));
        assert_eq!(open(SUITE_PLAIN, b""), Err(OpenError::Damaged("empty")));
        assert!(matches!(open(SUITE_PLAIN, &[ZSTD, 1, 2, 3]), Err(OpenError::Damaged(_))));
        assert!(matches!(open(SUITE_PLAIN, &[7, 1]), Err(OpenError::Damaged(_))));
        assert_eq!(open(9, b"x"), Err(OpenError::UnknownSuite(9)));
        assert_eq!(opened_len(SUITE_PLAIN, &prefixed(ZSTD, &bomb)), limits::PAYLOAD_INFLATED_BYTES);
        assert_eq!((opened_len(SUITE_PLAIN, b""), opened_len(9, b"x")), (0, limits::PAYLOAD_INFLATED_BYTES));
    }
}
