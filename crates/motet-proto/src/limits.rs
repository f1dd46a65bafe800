//! Every size, count and time that the protocol fixes. Both sides know these numbers, so a device checks its content
//! before the local commit and never finds out from the relay that a document cannot be sent.

use std::time::Duration;

/// Oldest protocol version this build speaks.
pub const VERSION_MIN: u16 = 1;

/// Newest protocol version this build speaks.
pub const VERSION_MAX: u16 = 1;

/// Largest sealed payload of one entry, in bytes. 8 MiB: about a hundred times a long song with its history; what is
/// larger belongs into blobs.
pub const ENTRY_PAYLOAD_BYTES: usize = 8 << 20;

/// Largest opened (decompressed) payload, in bytes. 64 MiB: caps what a hostile entry can make a device allocate.
pub const PAYLOAD_INFLATED_BYTES: usize = 64 << 20;

/// A payload opens to at most this many times its own bytes, if it opens to more than [`PAYLOAD_RATIO_FROM_BYTES`]: whoever makes devices
/// open much has to send, and a relay to store, something for it. Text rarely compresses to less than a fiftieth; what would is
/// padded where it is sealed.
pub const PAYLOAD_RATIO: usize = 256;

/// Opened bytes up to which any ratio is taken: a single letter repeated through a text of usual size needs no padding.
pub const PAYLOAD_RATIO_FROM_BYTES: usize = 1 << 20;

/// Payloads from this size on are compressed, in bytes. Below it the zstd header eats the gain.
pub const COMPRESS_FROM_BYTES: usize = 256;

/// zstd level of payloads. 3 is zstd's own default: level 1 costs 8 % more bytes on song texts, 9 takes 5x the time.
pub const COMPRESS_LEVEL: i32 = 3;

/// Frames from this size on are compressed, in bytes. Their payloads are compressed already: what is left to gain is in the names and
/// headers of many entries, and nothing in a frame of one.
pub const COMPRESS_FRAME_FROM_BYTES: usize = 1_024;

/// zstd level of frames.
pub const COMPRESS_FRAME_LEVEL: i32 = 1;

/// Longest name of a collection or document, in bytes of UTF-8. Keys must fit into an index row.
pub const NAME_BYTES: usize = 512;

/// Longest device name, in bytes of UTF-8. It travels with every entry.
pub const DEVICE_NAME_BYTES: usize = 128;

/// Largest frame, in bytes as received, and also after inflation. One entry of the largest size and its headers fit.
pub const FRAME_BYTES: usize = ENTRY_PAYLOAD_BYTES + (1 << 20);

/// Largest message that carries neither entries nor receipts, in bytes after inflation. The longest honest one, a list of what was not taken, has
/// some 50 kB; a message of this size is decoded within some milliseconds, whatever it holds.
pub const MESSAGE_BYTES: usize = 256 << 10;

/// Entries that a device remembers to have received in a session, so that pages that cross bring nothing twice. As many as a push may have.
pub const RECENT_ENTRIES: usize = PUSH_BATCH_ENTRIES;

/// Most entries in one push batch. Small entries fill a batch by count, so that progress moves.
pub const PUSH_BATCH_ENTRIES: usize = 1_024;

/// A push batch closes at this size, in bytes of payload. Large enough that the relay's one fsync per batch is
/// cheap, small enough that a broken connection repeats little.
pub const PUSH_BATCH_BYTES: usize = 512 << 10;

/// Push batches sent and not yet acknowledged. Keeps the relay's disk busy while the next batch is sealed.
pub const PUSH_WINDOW_BATCHES: usize = 4;

/// Most entries in one page.
pub const PAGE_ENTRIES: usize = 1_024;

/// A page closes at this size, in bytes of payload.
pub const PAGE_BYTES: usize = 512 << 10;

/// How often the relay may say in one session that a position is none of its log: once after it was restored, and once more if that happened in
/// between.
pub const RESETS_OF_A_SESSION: u32 = 2;

/// Pages that a device holds and has not applied; beyond it, it stops reading from its connection.
pub const UNAPPLIED_PAGES: usize = 4;

/// Batches of received entries that a device works on at once: one is committed while the next is prepared.
pub const APPLIES_UNDER_WAY: usize = 2;

/// Heads in a snapshot header. A document with more concurrent heads is sent as changes.
pub const SNAPSHOT_HEADS: usize = 1_024;

/// Entries that one snapshot may supersede: many times what a document has had since its last snapshot. The remote looks for each, so
/// this bounds what one entry can cost; with the largest payload they still fit into one frame.
pub const SNAPSHOT_SUPERSEDES: usize = 1_024;

/// Largest kind of an entry that this version does not know, in bytes. As much as the largest snapshot header.
pub const OTHER_KIND_BYTES: usize = 32 * (SNAPSHOT_HEADS + SNAPSHOT_SUPERSEDES);

/// Ranges of own entries that a relay session remembers in order not to send them back. Beyond it the oldest is
/// forgotten, which costs bytes and nothing else.
pub const OWN_RANGES: usize = 1_024;

/// Pushes that a relay session takes in before it has answered the first: a device's window.
pub const PUSHES_IN_FLIGHT: usize = PUSH_WINDOW_BATCHES;

/// Documents that a session fetches at a time; further ones wait on the device.
pub const FETCHES_IN_FLIGHT: usize = 4;

/// Largest sealed place that a device tells of itself, in bytes: names of the longest kind hardly compress below that.
pub const PRESENCE_BYTES: usize = 2_048;

/// Devices of a space whose places are known at a time. More would only be a crowd.
pub const PRESENT_DEVICES: usize = 256;

/// An idle connection is probed after this time. Below the 60 s at which common proxies cut idle connections.
pub const PING_AFTER: Duration = Duration::from_secs(25);

/// A connection on which nothing was heard for this long although something was due is given up.
pub const SILENCE: Duration = Duration::from_secs(5);

/// How long before and after the time of a relay's clock a token of a device counts. It covers a connection that takes long, and clocks that
/// differ; one that differs by more is told the time.
pub const DEVICE_TOKEN_LIFETIME: Duration = Duration::from_secs(300);

/// Longest sign-in key or identity token, in bytes: a key is 32 random bytes as text; tokens with many claims have some kilobytes.
pub const CREDENTIAL_BYTES: usize = 8 << 10;

/// Longest registration of a device, in bytes of JSON: the sign-in key or identity token, and names of the longest kind, each character escaped.
pub const REGISTRATION_BYTES: usize = 16 << 10;
