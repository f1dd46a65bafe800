//! A place in a remote's log.
//!
//! A position names a sequence number and the log it belongs to: its tag chains the ids of all entries up to there,
//! `tag_n = H(tag_{n-1}, id_n)`. A relay that was restored from a backup, wiped or swapped holds another chain, and
//! refuses the position instead of answering from the wrong place. To a device a position is opaque bytes.

use crate::ids::{EntryId, SpaceId, truncate};

/// Length of a tag in bytes. 128 bits: nobody gains by forging a tag, so chance is the only opponent.
pub const TAG_LEN: usize = 16;

/// A place in a log: everything up to and including `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Sequence number of the last entry before the place; 0 at the start.
    pub seq: u64,
    /// Chained hash of all entries up to `seq`.
    pub tag: [u8; TAG_LEN],
}

impl Position {
    /// The start of the log of `space`.
    pub fn start(space: SpaceId) -> Self {
        let hash = blake3::derive_key("motet 2026 position v1", &space.0);
        Self { seq: 0, tag: std::array::from_fn(|i| hash[i]) }
    }

    /// The place after the next entry, `id`.
    #[must_use]
    pub fn next(self, id: EntryId) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.tag);
        hash.update(&id.0);
        Self { seq: self.seq + 1, tag: truncate(hash.finalize()) }
    }

    /// The opaque bytes that a device keeps.
    pub fn to_bytes(self) -> [u8; 8 + TAG_LEN] {
        let mut bytes = [0; 8 + TAG_LEN];
        bytes[..8].copy_from_slice(&self.seq.to_be_bytes());
        bytes[8..].copy_from_slice(&self.tag);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `None` if the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (seq, tag) = bytes.split_first_chunk::<8>()?;
        Some(Self { seq: u64::from_be_bytes(*seq), tag: tag.try_into().ok()? })
    }
}

impl<C> minicbor::Encode<C> for Position {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Position {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_bytes(d.bytes()?)
            .ok_or_else(|| minicbor::decode::Error::message("wrong length of a position"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_chain() {
        let position = Position::start(SpaceId::DEFAULT).next(EntryId([1; 32])).next(EntryId([2; 32]));
        assert_eq!(position.seq, 2);
        assert_eq!(Position::from_bytes(&position.to_bytes()), Some(position));
        assert_eq!(
            u128::from_be_bytes(position.tag),
            138968501346283925650374764504046512019,
            "golden: position chain"
        );
    }

    #[test]
    fn order_matters() {
        let start = Position::start(SpaceId::DEFAULT);
        let (a, b) = (EntryId([1; 32]), EntryId([2; 32]));
        assert_ne!(start.next(a).next(b).tag, start.next(b).next(a).tag);
        assert_eq!(Position::from_bytes(&[0; 23]), None);
    }
}
