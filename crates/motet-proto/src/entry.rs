//! The unit of a space's log.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::ids::{DeviceId, DocumentId, EntryId, SpaceId};
use crate::limits;

/// Hash of an Automerge change: SHA-256, 32 bytes. To the relay it is just bytes in a snapshot header.
pub type ChangeHash = [u8; 32];

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Concatenated Automerge change chunks of one document.
    Changes,
    /// A whole saved document.
    Snapshot {
        /// Heads of the saved document, sorted.
        heads: Vec<ChangeHash>,
        /// The exact entries whose changes the snapshot contains, sorted, each once; never a range. A first push supersedes nothing.
        supersedes: Vec<EntryId>,
    },
    /// What the log holds of the document up to here leaves it at once: its owner wants none of it there. Devices keep what they have.
    Erased,
    /// Something that only later versions know, as its bytes. A relay keeps it and hands it out, a device sets it aside until it knows
    /// more.
    Other(Vec<u8>),
}

/// The kinds as they are written.
#[derive(Encode, Decode)]
enum Written {
    #[n(0)]
    Changes,
    #[n(1)]
    #[cbor(map)]
    Snapshot {
        #[cbor(n(0), with = "crate::entry::hashes")]
        heads: Vec<ChangeHash>,
        #[n(1)]
        supersedes: Vec<EntryId>,
    },
    #[n(2)]
    Erased,
}

/// First index of a kind that this version does not know.
const FIRST_OTHER: u32 = 3;

impl<C> Encode<C> for Kind {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, context: &mut C) -> Result<(), EncodeError<W::Error>> {
        let written = match self {
            Kind::Changes => Written::Changes,
            Kind::Snapshot { heads, supersedes } => {
                Written::Snapshot { heads: heads.clone(), supersedes: supersedes.clone() }
            }
            Kind::Erased => Written::Erased,
            Kind::Other(bytes) => return e.writer_mut().write_all(bytes).map_err(EncodeError::write),
        };
        written.encode(e, context)
    }
}

impl<'b, C> Decode<'b, C> for Kind {
    fn decode(d: &mut Decoder<'b>, context: &mut C) -> Result<Self, DecodeError> {
        let mut ahead = d.probe();
        if ahead.array()? == Some(0) {
            return Err(DecodeError::message("a kind without a number"));
        }
        if ahead.u32()? < FIRST_OTHER {
            return Ok(match Written::decode(d, context)? {
                Written::Changes => Kind::Changes,
                Written::Snapshot { heads, supersedes } => Kind::Snapshot { heads, supersedes },
                Written::Erased => Kind::Erased,
            });
        }
        let start = d.position();
        d.skip()?;
        Ok(Kind::Other(d.input()[start..d.position()].to_vec()))
    }
}

impl Kind {
    /// The kind as it is kept beside a payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Encoding into a Vec has no failing path.
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// [`Entry::size`] of an entry of this kind whose payload has so many bytes.
    pub fn size_with(&self, payload: usize) -> usize {
        let header = match self {
            Kind::Changes | Kind::Erased => 0,
            Kind::Snapshot { heads, supersedes } => 32 * (heads.len() + supersedes.len()),
            Kind::Other(bytes) => bytes.len(),
        };
        payload + header + 100
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `None` if it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    /// Hash over space, document, kind, suite and payload; see [`Entry::compute_id`].
    #[n(0)]
    pub id: EntryId,
    /// The document that the entry belongs to.
    #[n(1)]
    pub document: DocumentId,
    /// The device that sent the entry.
    #[n(2)]
    pub device: DeviceId,
    /// What the payload is.
    #[n(3)]
    pub kind: Kind,
    /// How the payload is sealed; see [`envelope`](crate::envelope).
    #[n(4)]
    pub suite: u8,
    /// The sealed bytes, at most [`limits::ENTRY_PAYLOAD_BYTES`].
    #[cbor(n(5), with = "minicbor::bytes")]
    pub payload: Vec<u8>,
}

/// Why an entry is not accepted, by either side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The id is not the hash of the content: damaged on the way, or meant for another space.
    #[error("the entry's id does not match its content")]
    WrongId,
    /// The payload is larger than [`limits::ENTRY_PAYLOAD_BYTES`].
    #[error("the entry's payload has {bytes} bytes, the limit is {}", limits::ENTRY_PAYLOAD_BYTES)]
    TooLarge {
        /// Size of the payload.
        bytes: usize,
    },
    /// The kind is larger than the protocol allows: a snapshot header names too many heads or superseded entries.
    #[error("the entry's header is too large")]
    HeaderTooLarge,
    /// A snapshot's header is not sorted, or names something twice. Repetitions compress to nothing on the way, and each would cost the
    /// remote a look-up.
    #[error("the heads or superseded entries of a snapshot are not sorted, each once")]
    Unsorted,
}

impl Entry {
    /// Makes an entry of sealed bytes, sorts what a snapshot names, and computes the id.
    pub fn new(
        space: SpaceId,
        document: DocumentId,
        device: DeviceId,
        mut kind: Kind,
        suite: u8,
        payload: Vec<u8>,
    ) -> Self {
        if let Kind::Snapshot { heads, supersedes } = &mut kind {
            heads.sort_unstable();
            heads.dedup();
            supersedes.sort_unstable();
            supersedes.dedup();
        }
        let mut entry = Self { id: EntryId([0; 32]), document, device, kind, suite, payload };
        entry.id = entry.compute_id(space);
        entry
    }

    /// The id that this content has in `space`. The device is not part of it: the same content sent by two devices
    /// is the same entry.
    pub fn compute_id(&self, space: SpaceId) -> EntryId {
        let mut hash = blake3::Hasher::new_derive_key("motet 2026 entry id v1");
        hash.update(&space.0);
        hash.update(&self.document.0);
        hash.update(&[self.suite]);
        match &self.kind {
            Kind::Changes => {
                hash.update(&[0]);
            }
            Kind::Snapshot { heads, supersedes } => {
                hash.update(&[1]);
                hash.update(&(heads.len() as u64).to_le_bytes());
                heads.iter().for_each(|head| _ = hash.update(head));
                hash.update(&(supersedes.len() as u64).to_le_bytes());
                supersedes.iter().for_each(|id| _ = hash.update(&id.0));
            }
            Kind::Erased => {
                hash.update(&[2]);
            }
            // So that a relay can check entries of later versions.
            Kind::Other(bytes) => {
                hash.update(&[255]);
                hash.update(&(bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            }
        }
        hash.update(&self.payload);
        EntryId(*hash.finalize().as_bytes())
    }

    /// About the bytes that the entry takes in a frame or in memory.
    pub fn size(&self) -> usize {
        self.kind.size_with(self.payload.len())
    }

    /// Checks sizes and id, as the remote does before it stores an entry and a device before it opens one.
    ///
    /// # Errors
    /// The first rule that the entry breaks.
    pub fn check(&self, space: SpaceId) -> Result<(), EntryError> {
        if self.payload.len() > limits::ENTRY_PAYLOAD_BYTES {
            return Err(EntryError::TooLarge { bytes: self.payload.len() });
        }
        let is_small = match &self.kind {
            Kind::Changes | Kind::Erased => true,
            Kind::Snapshot { heads, supersedes } => {
                heads.len() <= limits::SNAPSHOT_HEADS && supersedes.len() <= limits::SNAPSHOT_SUPERSEDES
            }
            Kind::Other(bytes) => bytes.len() <= limits::OTHER_KIND_BYTES,
        };
        if !is_small {
            return Err(EntryError::HeaderTooLarge);
        }
        if let Kind::Snapshot { heads, supersedes } = &self.kind
            && !(heads.is_sorted_by(|a, b| a < b) && supersedes.is_sorted_by(|a, b| a < b))
        {
            return Err(EntryError::Unsorted);
        }
        if self.compute_id(space) != self.id { Err(EntryError::WrongId) } else { Ok(()) }
    }
}

/// Change hashes as CBOR byte strings.
pub(crate) mod hashes {
    use super::ChangeHash;
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    pub(crate) fn encode<C, W: Write>(
        hashes: &[ChangeHash],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(hashes.as_flattened())?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<ChangeHash>, DecodeError> {
        let (hashes, rest) = d.bytes()?.as_chunks::<32>();
        if rest.is_empty() {
            Ok(hashes.to_vec())
        } else {
            Err(DecodeError::message("heads are 32 bytes each"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind) -> Entry {
        Entry::new(SpaceId::DEFAULT, DocumentId([1; 16]), DeviceId([2; 16]), kind, 0, b"payload".to_vec())
    }

    #[test]
    fn golden_ids() {
        let changes = entry(Kind::Changes);
        let snapshot = entry(Kind::Snapshot { heads: vec![[3; 32]], supersedes: vec![EntryId([4; 32])] });
        assert_eq!(
            changes.id.to_string(),
            "5ce5fac45702533336214848750c6f9bba22127372a6ea1e9ccb35438cff209f"
        );
        assert_eq!(
            snapshot.id.to_string(),
            "eb0971e544c999544e7677e4bc904fd63d32096f19965b41bf4ad8ea860b4de5"
        );
    }

    #[test]
    fn a_kind_of_a_later_version_goes_through_as_it_is() {
        // [7, {0: "new"}]
        let bytes = vec![0x82, 0x07, 0xa1, 0x00, 0x63, b'n', b'e', b'w'];
        let kind = Kind::from_bytes(&bytes).unwrap();
        assert_eq!((&kind, kind.to_bytes()), (&Kind::Other(bytes.clone()), bytes.clone()));
        let entry = entry(kind);
        assert_eq!(entry.check(SpaceId::DEFAULT), Ok(()));
        let again: Entry = minicbor::decode(&minicbor::to_vec(&entry).unwrap()).unwrap();
        assert_eq!(again, entry);
        for damaged in [&bytes[..7], &[0x82, 0x01, 0x00], &[0x07], &[], &[0x80, 0x02, 0x80]] {
            assert_eq!(Kind::from_bytes(damaged), None, "{damaged:?}");
        }
        let huge = [&[0x82, 0x07, 0x5a, 0x00, 0x10, 0x00, 0x00][..], &vec![0; 1 << 20]].concat();
        assert_eq!(self::entry(Kind::Other(huge)).check(SpaceId::DEFAULT), Err(EntryError::HeaderTooLarge));
    }

    #[test]
    fn what_a_snapshot_names_is_sorted_and_there_once() {
        let (a, b) = (EntryId([1; 32]), EntryId([2; 32]));
        let sorted = entry(Kind::Snapshot { heads: vec![[3; 32], [1; 32]], supersedes: vec![b, a, b] });
        assert_eq!(sorted.check(SpaceId::DEFAULT), Ok(()), "it is made so");
        let heads = vec![[1; 32]];
        for (heads, supersedes) in [
            (heads.clone(), vec![b, a]),
            (heads.clone(), vec![a, a]),
            (vec![[1; 32], [1; 32]], vec![a]),
            (vec![[2; 32], [1; 32]], vec![]),
        ] {
            let mut bad = sorted.clone();
            bad.kind = Kind::Snapshot { heads, supersedes };
            bad.id = bad.compute_id(SpaceId::DEFAULT);
            assert_eq!(bad.check(SpaceId::DEFAULT), Err(EntryError::Unsorted), "{:?}", bad.kind);
        }
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        let mut entry = entry(Kind::Changes);
        assert_eq!(entry.check(SpaceId::DEFAULT), Ok(()));
        assert_eq!(entry.check(SpaceId([9; 16])), Err(EntryError::WrongId));
        entry.payload[0] ^= 1;
        assert_eq!(entry.check(SpaceId::DEFAULT), Err(EntryError::WrongId));
    }
}
