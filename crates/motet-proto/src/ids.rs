//! Ids: fixed-size bytes, shown as lower-case hex.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};

/// The text given was not an id: wrong length, or a character that is no hex digit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} is {expected} hex digits, got {got:?}")]
pub struct ParseIdError {
    kind: &'static str,
    expected: usize,
    got: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes, as stored and sent.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Reads an id back from bytes; `None` if the length is wrong.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = || ParseIdError { kind: stringify!($name), expected: 2 * $len, got: text.to_owned() };
                // `from_str_radix` would take a sign for a digit.
                if text.len() != 2 * $len || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(error());
                }
                let mut bytes = [0; $len];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| error())?;
                }
                Ok(Self(bytes))
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                let at = d.position();
                Self::from_slice(d.bytes()?)
                    .ok_or_else(|| DecodeError::message(concat!("wrong length of ", stringify!($name))).at(at))
            }
        }
    };
}

id!(
    /// A space: documents that share members, keys and one log on the remote.
    SpaceId, 16
);
id!(
    /// A document as the remote knows it: derived from space, collection and the app's own id, which stay sealed.
    DocumentId, 16
);
id!(
    /// A device: a durable identity (a UUID made on first open), never derived from hardware.
    DeviceId, 16
);
id!(
    /// An entry: a hash over what the entry says, so that it can be checked and recognised again.
    EntryId, 32
);

id!(
    /// An account as its devices know it: a hash of its name, the same at every relay that calls it so.
    AccountId, 16
);
id!(
    /// What tells the data of one relay from those of another. It is made with the data, goes where they are moved to, and is lost with
    /// them.
    RelayId, 16
);
id!(
    /// A log, by the relay's data, the account and the space: whoever meets it again at another address knows it.
    LogName, 16
);

impl AccountId {
    /// The id of the account that a relay calls `name`.
    pub fn derive(name: &str) -> Self {
        Self(short(blake3::Hasher::new_derive_key("motet 2026 account id v1").update(name.as_bytes())))
    }
}

impl LogName {
    /// The name of the log of a space of an account.
    pub fn derive(relay: RelayId, account: &str, space: SpaceId) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("motet 2026 log name v1");
        hash.update(&relay.0);
        hash.update(&space.0);
        Self(short(hash.update(account.as_bytes())))
    }
}

fn short(hash: &blake3::Hasher) -> [u8; 16] {
    let mut bytes = [0; 16];
    hash.finalize_xof().fill(&mut bytes);
    bytes
}

/// What the ids of shared spaces begin with.
const SHARED: &[u8; 6] = b"shared";

impl SpaceId {
    /// The personal space, which every account has; all devices of the account join it. It is the same constant
    /// everywhere, because a device writes documents before it has ever met a relay.
    pub const DEFAULT: SpaceId = SpaceId([0; 16]);

    /// A space that accounts share, of 10 random bytes. It can be told from an own one by its beginning, so that a relay which does not know it takes
    /// it for nobody's own.
    pub fn shared(random: [u8; 10]) -> Self {
        let mut id = [0; 16];
        id[..6].copy_from_slice(SHARED);
        id[6..].copy_from_slice(&random);
        Self(id)
    }

    /// Whether it was made to be shared.
    pub fn is_shared(&self) -> bool {
        self.0.starts_with(SHARED)
    }

    /// The space that the devices of an account call `name`: the same everywhere, without asking a relay. The
    /// name counts byte by byte: an app that lets users type it brings it to one form first.
    pub fn named(name: &str) -> Self {
        Self(short(blake3::Hasher::new_derive_key("motet 2026 space id v1").update(name.as_bytes())))
    }
}

impl DocumentId {
    /// The id of the document `name` in `collection`. Two devices that make the same collection and name make the
    /// same document.
    ///
    /// ```
    /// use motet_proto::{DocumentId, SpaceId};
    /// let a = DocumentId::derive(SpaceId::DEFAULT, "pieces", "aloha-oe");
    /// assert_eq!(a, DocumentId::derive(SpaceId::DEFAULT, "pieces", "aloha-oe"));
    /// assert_ne!(a, DocumentId::derive(SpaceId::DEFAULT, "piece", "saloha-oe"));
    /// ```
    pub fn derive(space: SpaceId, collection: &str, name: &str) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("motet 2026 document id v1");
        hash.update(&space.0);
        hash.update(&(collection.len() as u64).to_le_bytes());
        hash.update(collection.as_bytes());
        hash.update(name.as_bytes());
        Self(truncate(hash.finalize()))
    }
}

/// The first `N` bytes of a hash.
pub(crate) fn truncate<const N: usize>(hash: blake3::Hash) -> [u8; N] {
    std::array::from_fn(|i| hash.as_bytes()[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_errors() {
        let id = DocumentId::derive(SpaceId::DEFAULT, "pieces", "Ka ʻŌʻō");
        assert_eq!(id.to_string().parse::<DocumentId>().unwrap(), id);
        assert_eq!(id.to_string(), "ba528dbe80c98bd99b72a68e392d91c4", "golden: derivation of document ids");
        for bad in [
            "",
            "00",
            "zz528dbe80c98bd99b72a68e392d91c4",
            "+a528dbe80c98bd99b72a68e392d91c4",
            "ʻʻʻʻʻʻʻʻʻʻʻʻʻʻʻʻ",
        ] {
            let message = bad.parse::<DocumentId>().unwrap_err().to_string();
            assert!(message.contains("32 hex digits"), "{message}");
        }
    }
}
