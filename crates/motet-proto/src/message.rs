//! What the two sides of a session say.
//!
//! Bodies are CBOR maps with integer keys; a reader ignores keys that it does not know, so a later version may add
//! fields to a message. Not inside an entry or a presence: a relay hands those on without keys that it does not know. [`frame`](crate::frame) turns messages into bytes.

use minicbor::{Decode, Encode};

/// An enum that is a number on the wire. A number of a newer version is kept: one that is not known here must not end a session that is
/// otherwise understood.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $number:literal => $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A number that this version does not know.
            Unknown(u32),
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.u32(match self {
                    $(Self::$variant => $number,)*
                    Self::Unknown(number) => *number,
                })?;
                Ok(())
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Ok(match d.u32()? {
                    $($number => Self::$variant,)*
                    number => Self::Unknown(number),
                })
            }
        }
    };
}

use crate::entry::Entry;
use crate::ids::{AccountId, DeviceId, DocumentId, EntryId, LogName, SpaceId};
use crate::position::Position;
use crate::presence::Presence;

/// Any message, of either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Device to relay, first: who speaks, and which versions.
    Hello(Hello),
    /// Relay to device: the version agreed on.
    Welcome(Welcome),
    /// Device to relay: entries to append.
    Push(Push),
    /// Relay to device: what became of a push. Sent only when it is durable.
    Receipt(Receipt),
    /// Device to relay: what lies after a position?
    Pull(Pull),
    /// Relay to device: entries, as the answer to a pull or as they commit.
    Page(Page),
    /// Relay to device: the position of a pull is not of this log.
    Refused(Refused),
    /// Either side: are you there?
    Ping(Ping),
    /// The answer to a ping.
    Pong(Ping),
    /// Relay to device, last: why the session ends.
    Error(ErrorMessage),
    /// Either side: where a device is at present.
    Presence(Presence),
    /// Device to relay: what does the log hold of one document?
    Fetch(Fetch),
    /// The answer to a fetch.
    Fetched(Fetched),
    /// Relay to device: a push was not stored. The session goes on.
    NotTaken(NotTaken),
}

/// First message of a device. Who the account is comes from the transport (`Authorization` header).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Oldest protocol version that the device speaks.
    #[n(0)]
    pub version_min: u16,
    /// Newest protocol version that the device speaks.
    #[n(1)]
    pub version_max: u16,
    /// The device.
    #[n(2)]
    pub device: DeviceId,
    /// The space that this session is about.
    #[n(3)]
    pub space: SpaceId,
    /// Software and version, for the relay's log.
    #[n(4)]
    pub agent: String,
    /// The account and the log that the device means, if it has met them: a relay that would answer for another account, or from another log, lets
    /// it in no further. Each exchange over `POST` is let in anew.
    #[n(5)]
    pub account: Option<AccountId>,
    /// As of `account`.
    #[n(6)]
    pub log: Option<LogName>,
}

/// Answer to [`Hello`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The version that both sides now speak: the newest in both ranges.
    #[n(0)]
    pub version: u16,
    /// Sequence number of the last entry of the log.
    #[n(1)]
    pub head: u64,
    /// Software and version of the relay.
    #[n(2)]
    pub agent: String,
    /// After the connection was lost, a device waits for a random part of this time before it comes back, in milliseconds: as long as
    /// the relay needs for all who are there now.
    #[n(3)]
    pub window_ms: Option<u32>,
    /// The account that the device speaks for; `None` where everybody is let in.
    #[n(4)]
    pub account: Option<AccountId>,
    /// The log of this session.
    #[n(5)]
    pub log: Option<LogName>,
    /// The relay's clock, in milliseconds since 1970.
    #[n(6)]
    pub time_ms: Option<i64>,
}

/// Entries to append, in order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Push {
    /// Chosen by the device; comes back in the receipt.
    #[n(0)]
    pub id: u32,
    /// At most [`PUSH_BATCH_ENTRIES`](crate::limits::PUSH_BATCH_ENTRIES).
    #[n(1)]
    pub entries: Vec<Entry>,
}

/// The durable answer to a push.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// Id of the push.
    #[n(0)]
    pub id: u32,
    /// One outcome for each entry of the push, in its order.
    #[n(1)]
    pub outcomes: Vec<Outcome>,
    /// The device's new position, if it held everything before the entries of this push.
    #[n(2)]
    pub position: Option<Position>,
    /// With a position: the sequence number up to which it held everything.
    #[n(3)]
    pub after: u64,
}

/// A push was not stored, or not all of it: no room, too much to do, a limit of the account, a fault. Nothing of it is confirmed; the device
/// keeps it all and sends it again later. Everything else goes on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NotTaken {
    /// Id of the push.
    #[n(0)]
    pub id: u32,
    /// Machine-readable reason.
    #[n(1)]
    pub code: ErrorCode,
    /// The reason for a person.
    #[n(2)]
    pub message: String,
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// Durable under this sequence number; also for an entry that the log already held.
    #[n(0)]
    Stored(#[n(0)] u64),
    /// Never to be accepted as it is.
    #[n(1)]
    Rejected(#[n(0)] Rejection, #[n(1)] String),
}

codes! {
    /// Why an entry is rejected for good.
    Rejection {
        /// The id does not match the content.
        0 => WrongId,
        /// Larger than the protocol or the relay's configuration allows.
        1 => TooLarge,
        /// The account's storage is used up.
        2 => Quota,
        /// The account may not write to this space.
        3 => Forbidden,
        /// A snapshot of what is not in the log any more: somebody has had it erased, or another snapshot has taken its place.
        4 => Outdated,
        /// A snapshot whose header is not sorted, or names something twice.
        5 => Malformed,
        /// The way to the relay lets no message of its size through. A device says so to itself, when a proxy says so to it.
        6 => TooLargeForTheWay,
    }
}

/// A question for entries.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pull {
    /// Chosen by the device; comes back in the page.
    #[n(0)]
    pub id: u32,
    /// Everything after this; `None` from the start.
    #[n(1)]
    pub after: Option<Position>,
    /// Once the end is reached, keep sending entries as they commit.
    #[n(2)]
    pub live: bool,
}

/// Entries in log order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Page {
    /// Id of the pull that this answers; `None` for entries sent as they committed.
    #[n(0)]
    pub id: Option<u32>,
    /// The entries. Those that this very session pushed are left out.
    #[n(1)]
    pub entries: Vec<Entry>,
    /// The position after this page.
    #[n(2)]
    pub position: Position,
    /// There is more: pull again after `position`.
    #[n(3)]
    pub more: bool,
    /// Sequence number of the last entry of the log, for progress.
    #[n(4)]
    pub head: u64,
    /// Sequence number that this page follows: a device that has not read up to there has missed something.
    #[n(5)]
    pub after: u64,
}

/// A pull's position is not a place of this log: restored from a backup, wiped, or another log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// Id of the pull.
    #[n(0)]
    pub id: u32,
}

/// A question for one document, out of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Fetch {
    /// Chosen by the device; comes back in the answer.
    #[n(0)]
    pub id: u32,
    /// The document.
    #[n(1)]
    pub document: DocumentId,
    /// Only entries after this sequence number.
    #[n(2)]
    pub after: u64,
    /// The entries themselves; otherwise only which there are.
    #[n(3)]
    pub whole: bool,
}

/// What the log holds of one document, in its order. It says nothing about the rest of the log, so it moves no position.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Fetched {
    /// Id of the fetch.
    #[n(0)]
    pub id: u32,
    /// The entries, if they were asked for.
    #[n(1)]
    pub entries: Vec<Entry>,
    /// Which entries there are, if only that was asked for.
    #[n(2)]
    pub listed: Vec<Listed>,
    /// Sequence number of the last entry that is named.
    #[n(3)]
    pub last: u64,
    /// There is more: fetch again after `last`.
    #[n(4)]
    pub more: bool,
}

/// An entry of the log, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Listed {
    /// Its sequence number.
    #[n(0)]
    pub seq: u64,
    /// Its id.
    #[n(1)]
    pub id: EntryId,
    /// Size of its payload in bytes.
    #[n(2)]
    pub bytes: u64,
}

/// A probe and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ping {
    /// Comes back unchanged.
    #[n(0)]
    pub nonce: u64,
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ErrorMessage {
    /// Machine-readable reason.
    #[n(0)]
    pub code: ErrorCode,
    /// The reason for a person.
    #[n(1)]
    pub message: String,
    /// As of [`Welcome`].
    #[n(2)]
    pub window_ms: Option<u32>,
}

codes! {
    /// Machine-readable reasons to end a session, or not to take a push.
    ErrorCode {
        /// Bytes or messages that the protocol does not have.
        0 => Protocol,
        /// No version in both ranges.
        1 => Version,
        /// The relay failed; try again later.
        2 => Internal,
        /// The relay is stopping; connect again.
        3 => ShuttingDown,
        /// The relay has too much to do; try again later.
        4 => Busy,
        /// No room is left, on the relay's disk or for this account. What was sent is not stored; the device keeps it and tries again.
        5 => Full,
        /// The account has as many sessions, spaces or documents as it may have.
        6 => Limit,
        /// The token of this session is not valid any more.
        7 => Unauthorized,
        /// The device has opened newer sessions.
        8 => Replaced,
        /// The relay's file is damaged: whoever runs it has to repair it.
        9 => Damaged,
        /// The account or the log is not the one that the device has named.
        10 => Other,
        /// There is no such space, or the account may not do this with it.
        11 => Forbidden,
    }
}
