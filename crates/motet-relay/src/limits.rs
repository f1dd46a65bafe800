//! Every size, count and time of the relay. What both sides of the wire must agree on stands in
//! [`motet_proto::limits`].

use std::time::Duration;

/// Logs that a file can number: the row ids of an entry begin with the number of its log, and are positive.
pub const SPACES: u64 = (1 << 23) - 2;

/// Pushes that one transaction takes in, at most. More would make the first of them wait too long for its fsync.
pub const GROUP_PUSHES: usize = 128;

/// Entries that one transaction takes in from small pushes. About 3 ms of work.
pub const GROUP_ENTRIES: usize = 256;

/// Bytes that one transaction takes in from small pushes.
pub const GROUP_BYTES: usize = 1 << 20;

/// A push of at most this many bytes is small: it goes together with others.
pub const SMALL_BYTES: usize = 64 << 10;

/// A push of at most this many entries, its own and those that its snapshots name, is small.
pub const SMALL_ENTRIES: usize = 64;

/// Entries of a large push that one transaction takes in, so that nobody else waits for more than that. About 3 ms.
pub const STEP_ENTRIES: usize = 256;

/// Bytes of a large push that one transaction takes in, unless one entry has more.
pub const STEP_BYTES: usize = 512 << 10;

/// Entries named by snapshots that one transaction takes in. Each is looked for once, which takes some microseconds.
pub const STEP_NAMED: usize = 1_024;

/// Entries that one transaction takes out of a log, or marks as superseded. About 3 ms; what is more is left to the next.
pub const STEP_CHANGED: usize = 128;

/// Bytes that one transaction takes out of a log, unless one entry has more: what is deleted is overwritten, so they are written again.
pub const STEP_FREED_BYTES: usize = STEP_BYTES;

/// Bytes of pushes that may wait for the writer. What is beyond it is answered "busy", and its device comes back.
pub const QUEUED_BYTES: usize = 128 << 20;

/// Of those, bytes of one account.
pub const QUEUED_BYTES_PER_ACCOUNT: usize = 32 << 20;

/// An account with no more than this in the queue is never "busy", whatever others have queued: a full batch.
pub const QUEUED_BYTES_ALWAYS: usize = 1 << 20;

/// After a panic the writer waits this long before it goes on, so that one that repeats does not fill the log.
pub const WRITER_REVIVED_AFTER: Duration = Duration::from_millis(100);

/// A push of at most this many bytes may be written on the thread of its session: a few keystrokes.
pub const WRITTEN_AT_ONCE_BYTES: usize = 16 << 10;

/// As long as transactions take at most this long, small pushes that come alone are written on the thread of their session, and the
/// others of that thread wait meanwhile. Handing a push over and back takes 0.1 ms. One in some hundreds takes longer, when SQLite
/// moves the write-ahead log into the database.
pub const WRITTEN_AT_ONCE: Duration = Duration::from_millis(1);

/// Reader connections kept open.
pub const IDLE_READERS: usize = 4;

/// Reads that run at the same time. Two cores are kept busy by four; more only queue at the disk.
pub const CONCURRENT_READS: usize = 4;

/// Reads of one account that run, or wait for their turn among all, at the same time. Those of others have no more than a few before them
/// then, however much the account reads.
pub const READS_PER_ACCOUNT: usize = 2;

/// Rows of a log that one page looks at. Entries that have left the log are passed over, and this bounds how many.
pub const PAGE_ROWS: usize = 16_384;

/// How long an entry stays in the log after a snapshot has superseded it, unless the relay is told otherwise: time to notice a
/// snapshot that is no good.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How often the relay looks for entries whose time is over.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Entries that leave in one transaction. About 3 ms; pushes wait no longer than that.
pub const SWEPT_ENTRIES: usize = STEP_CHANGED;

/// Page cache of each connection in KiB.
pub const PAGE_CACHE_KIB: i64 = 2_048;

/// What is kept of a write-ahead log that a long read has made large, in bytes: twice what lies between two checkpoints.
pub const WAL_KEPT_BYTES: i64 = 8 << 20;

/// Of the file, this part in percent may be free; if more is, it is given back to the disk. What is less is soon used again.
pub const SHRINK_FROM_PERCENT: i64 = 25;

/// Then free pages are given back until this part in percent is left.
pub const SHRINK_TO_PERCENT: i64 = 10;

/// Fewer free pages than this are kept, whatever part of the file they are: 4 MiB.
pub const SHRINK_FROM_PAGES: i64 = 1_024;

/// A step that gives pages back takes about this long, and the fsync: then the next one has fewer pages, or more.
pub const SHRINK_STEP: Duration = Duration::from_millis(1);

/// Pages of such a step, at least.
pub const SHRINK_STEP_PAGES_LEAST: i64 = 16;

/// Pages of such a step, at most: what SQLite's log takes in of it, 1 MiB.
pub const SHRINK_STEP_PAGES_MOST: i64 = 256;

/// Between two steps the file is left to others for this long: most of the time there is no step under way.
pub const SHRINK_PAUSE: Duration = Duration::from_millis(10);

/// Write-ahead log size in pages at which SQLite checkpoints. 1,000 pages are 4 MB.
pub const CHECKPOINT_PAGES: i64 = 1_000;

/// How long a statement waits for another process that holds the database, for example a backup.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs that the hub keeps for a slow session of a space; one that falls further behind reads the log instead.
pub const HUB_RUNS: usize = 16;

/// Larger runs are not handed round; sessions read them from the log. With [`HUB_RUNS`] this bounds a space's hub to
/// a quarter of a MiB, and at rest to some kilobytes.
pub const HUB_RUN_BYTES: usize = 16 << 10;

/// Places that a device may tell within [`PLACES_COUNTED_OVER`]: twice as many as our devices do. More are not handed round.
pub const PLACES: u32 = 40;

/// The time over which [`PLACES`] are counted.
pub const PLACES_COUNTED_OVER: Duration = Duration::from_secs(1);

/// After a panic of what a relay does all the time, that begins anew after this time.
pub const ANEW_AFTER: Duration = Duration::from_secs(1);

/// An authenticator that has not answered after this time is not waited for: less than a device waits for a connection.
pub const AUTHENTICATE_TIMEOUT: Duration = Duration::from_secs(5);

/// When it could not be found out what an account may do with a space after something had changed, that is asked again after this time: soon enough
/// that whoever was removed is disconnected within seconds, and seldom enough for an authorizer in trouble.
pub const ACCESS_ASKED_AGAIN: Duration = Duration::from_secs(2);

/// A session is ended when it could not be found out for this long: it may be of somebody who was removed.
pub const ACCESS_UNKNOWN: Duration = Duration::from_secs(60);

/// A device from which no whole frame came for this long is nowhere for the others, unless the relay is told otherwise; its session
/// stays. It is frozen, or its connection is gone without a word. Who sends one frame for longer than that is back when it has arrived.
pub const PRESENT_SILENCE: Duration = Duration::from_secs(30);

/// A device that is somewhere and has been silent for this part of the time is asked whether it is still there: time for an answer over
/// a slow way.
pub const PROBED_AFTER: f64 = 0.6;

/// Frames queued for a slow connection, before its session stops taking in anything.
pub const QUEUED_FRAMES: usize = 8;

/// Largest body of a `POST`, in bytes: a full window of pushes.
pub const POST_BYTES: usize = 4 * motet_proto::limits::FRAME_BYTES;

/// What is reserved for a page before it is read, in bytes: it ends with the entry that makes it large enough.
pub const READ_BYTES: usize = motet_proto::limits::PAGE_BYTES + motet_proto::limits::FRAME_BYTES;

/// The answer to a `POST` goes out in parts of so many bytes.
pub const BODY_PART_BYTES: usize = 64 << 10;

/// Answer to one `POST` after which no more of its messages are taken in.
pub const POST_ANSWER_BYTES: usize = 4 * motet_proto::limits::PAGE_BYTES;

/// A new session must have introduced itself within this time, whatever else it sends.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection from which no whole frame came for this long is closed. Devices probe every 25 s, but the largest
/// frame takes 19 minutes over 8 kB/s.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// A connection that takes no frame for this long, and for what the frame takes at [`SEND_BYTES_PER_SECOND`], is closed.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The slowest way over which a connection is kept, in bytes a second: a page takes 64 s, and an entry of the largest size 18 minutes.
pub const SEND_BYTES_PER_SECOND: u64 = 8_000;

/// Logs whose end the writer remembers. Beyond it, it looks them up again.
pub const REMEMBERED_LOGS: usize = 10_000;

/// After the signal to stop, sessions get this long to finish what is under way.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Time that a relay needs for a device that comes back: it signs in, and asks what is new.
pub const COMES_BACK_IN: Duration = Duration::from_millis(2);

/// Devices come back over at least this time, and at most the other.
pub const COME_BACK_WITHIN: Duration = Duration::from_secs(1);

/// See [`COME_BACK_WITHIN`].
pub const COME_BACK_LONGEST: Duration = Duration::from_secs(30);

/// At a planned stop the sessions are closed in steps over at most this time, so that they are done within [`SHUTDOWN_GRACE`].
pub const STOPPED_WITHIN: Duration = Duration::from_secs(3);

/// Longest token in bytes. Common JWTs have up to 4 kB.
pub const TOKEN_BYTES: usize = 8 << 10;

/// What `/readyz` has found out is good for this long: whoever asks more often costs nothing.
pub const HEALTH_KNOWN_FOR: Duration = Duration::from_secs(1);

/// A writer that has not come to a question of `/readyz` after this time is not well. Longer than anything it does.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection must have sent a whole request within this time, however it dribbles; also for the next one after an answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How often connections are looked at whose time may be over.
pub const REQUESTS_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// Largest head of a request, in bytes: the longest token, and what proxies add.
pub const REQUEST_HEAD_BYTES: usize = 32 << 10;

/// Connections that are being closed while others have already come in their place, at most.
pub const EVICTED_AT_A_TIME: u64 = 32;

/// Descriptors that are kept for the store, the log and what is just being closed.
pub const RESERVED_DESCRIPTORS: u64 = 96;

/// Of a connection this many bytes may always be under way, whatever others send: small messages get through.
pub const INCOMPLETE_ALWAYS: u64 = 64 << 10;

/// Bytes that a WebSocket reads at a time, and keeps room for. A session at rest costs little more than that.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 10;

/// A body that brings nothing for this long is given up.
pub const BODY_SILENCE: Duration = Duration::from_secs(10);

/// A body must bring this many bytes a second on average, beyond [`BODY_SILENCE`].
pub const BODY_BYTES_PER_SECOND: u64 = 2_000;

/// Frames from this size on are decoded and encoded while other sessions of the thread go on elsewhere. Below it that costs more than it saves.
pub const LARGE_FRAME_BYTES: usize = 256 << 10;

/// Accounts of which is remembered how much they have sent lately, after their last session has gone.
pub const REMEMBERED_ACCOUNTS: usize = 10_000;

/// Addresses with wrong tokens that are remembered.
pub const REMEMBERED_STRANGERS: usize = 10_000;

/// Every so often one refused token of an address is forgiven.
pub const REFUSAL_FORGIVEN_AFTER: Duration = Duration::from_secs(5);

/// How late a refusal is when an address has had too many.
pub const LATE_ANSWER_AFTER: Duration = Duration::from_secs(1);

/// Late answers that one address waits for at a time; beyond it, it is turned away.
pub const LATE_ANSWERS: usize = 32;

/// How often the log speaks of an address with wrong tokens.
pub const STRANGER_TOLD_EVERY: Duration = Duration::from_secs(60);

/// How often the room on the disk is looked at.
pub const ROOM_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// How often the tokens file is looked at for changes. What was removed is closed within five seconds.
pub const TOKENS_LOOKED_AT_EVERY: Duration = Duration::from_secs(2);

/// Times that entries between damaged pages of a log are looked for. Each takes less than a millisecond, and one page needs none.
pub const SALVAGE_PROBES: usize = 4_096;

/// Kinds of sealing that are tried for an entry whose own cannot be read. They are numbered from zero.
pub const SUITES_TRIED: u8 = 16;

/// Entries of a log that are looked at to find out of which space it is. One that is sound is enough.
pub const SPACE_PROBES: usize = 16;

/// The last second of the year 9999: no clock is later, so what is later is no time.
pub const LAST_SECOND: i64 = 253_402_300_799;

/// Bytes by which the count of an account may be off after crashes: what it can send between two times that counts are written down
/// ([`SWEEP_EVERY`]), at 16 MiB a second.
pub const USAGE_OFF_BYTES: u64 = 1 << 30;

/// Documents by which the count of an account may be too low after crashes, likewise: 2,000 frames a second.
pub const USAGE_OFF_DOCUMENTS: u64 = 120_000;

/// Bytes by which an entry may be counted differently when it comes and when it is looked at again: its kind is counted as it is stored,
/// or as it is sent.
pub const USAGE_OFF_BYTES_PER_ENTRY: u64 = 64;

/// Bytes that a file may lack at its end and is filled up with when it is repaired, if they are more than all that is left of it. A
/// damaged header may name any size.
pub const CUT_OFF_BYTES: u64 = 64 << 20;

/// Devices that are signed in to an account at a time; as many that were signed out are remembered. People have a few, and each takes
/// 0.2 kB of memory.
pub const DEVICES_PER_ACCOUNT: i64 = 1_000;

/// Accounts that one space is shared with. A choir has a hundred; each is looked at when a session begins.
pub const MEMBERS_PER_SPACE: i64 = 1_000;

/// Longest request of a device beside syncing and registering, in bytes of JSON: an identity token, or names of the longest kind.
pub const JSON_BYTES: usize = 12 << 10;

/// Spaces that one account shares as their owner, beside those that an operator makes for it.
pub const SHARED_SPACES_PER_ACCOUNT: i64 = 100;

/// Invitations of one space that are good at a time.
pub const INVITES_PER_SPACE: i64 = 100;

/// How long an invitation is good unless something else is said: until tomorrow evening.
pub const INVITE_LIFETIME: Duration = Duration::from_secs(48 * 3_600);

/// How long one is good at most: a code that was forgotten somewhere opens nothing for ever.
pub const INVITE_LONGEST: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What was done to accounts is noted for so long: two years, in which somebody may ask.
pub const AUDIT_KEPT: Duration = Duration::from_secs(2 * 365 * 24 * 3_600);

/// Records of an account that are kept at most: nobody fills a disk by renaming devices.
pub const AUDIT_RECORDS_PER_ACCOUNT: i64 = 10_000;

/// Records in an answer.
pub const AUDIT_PAGE: usize = 200;

/// After how long a device can have its account erased at the earliest: whoever has found a device that was lost does not do it before somebody notices.
pub const ERASURE_LEAST: Duration = Duration::from_secs(24 * 3_600);

/// After how long if it does not say.
pub const ERASURE_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);

/// After how long at the latest: it is not forgotten.
pub const ERASURE_LONGEST: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How often the relay looks for accounts whose time has come.
pub const ERASURES_LOOKED_AT_EVERY: Duration = Duration::from_secs(10);

/// The logs of an account that is erased leave after this time, in which the sessions of its devices end on all relays.
pub const ERASURE_GRACE: Duration = Duration::from_secs(5);

/// When a device was last seen is written down to within this time: nobody needs it finer, and each is a write.
pub const SEEN_KEPT_EVERY: Duration = Duration::from_secs(600);

/// The keys of an issuer of identity tokens are asked for anew after this time: one that was taken back is good for no longer.
pub const KEYS_KEPT: Duration = Duration::from_secs(300);

/// For a token that names an unknown key they are asked for before that, at most once in this time: anybody can make such tokens up.
pub const KEYS_ASKED_AGAIN: Duration = Duration::from_secs(30);

/// The same, as long as none are known: nobody can sign in meanwhile.
pub const KEYS_TRIED_AGAIN: Duration = Duration::from_secs(5);

/// While an issuer does not answer, its keys stay good for this time after it last did: an outage of a day keeps nobody out, and a relay that is cut off
/// does not trust keys for ever.
pub const KEYS_KEPT_WITHOUT_ISSUER: Duration = Duration::from_secs(24 * 3_600);

/// An issuer that has not answered after this time is not waited for. Two answers are needed at most, within
/// [`AUTHENTICATE_TIMEOUT`].
pub const KEYS_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest key set, or configuration of an issuer, in bytes. Large ones have some 20 kB.
pub const KEYS_BYTES: usize = 256 << 10;

/// Keys of one issuer. They have two to ten.
pub const KEYS_PER_ISSUER: usize = 100;

/// By how much the clock of an issuer may be off.
pub const IDENTITY_LEEWAY: Duration = Duration::from_secs(60);

/// Longest subject of an identity, in bytes: what OpenID Connect allows.
pub const SUBJECT_BYTES: usize = 255;

/// What is shown of an identity, in characters.
pub const SHOWN_CHARS: usize = 120;

/// A registration whose body has not arrived whole after this time is given up.
pub const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Upper bounds of the buckets in which the metrics count how long pushes take, in seconds: from one fsync of a fast disk to the time that
/// a statement waits for another process.
pub const PUSH_SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 4.0, 16.0];

/// Connections to the address of the metrics at a time: some scrapers, and somebody who looks.
pub const METRICS_CONNECTIONS: u64 = 32;

/// A TLS handshake must be done within this time. The connection counts as half-open meanwhile.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the files of the certificate are looked at for changes. Whoever renews them has days left for it.
pub const TLS_LOOKED_AT_EVERY: Duration = Duration::from_secs(60);

/// Largest file of a certificate, or of a key, in bytes: a chain has some kilobytes.
pub const TLS_FILE_BYTES: u64 = 1 << 20;

/// Longest id of a request that a proxy may give it, in bytes: a UUID has 36.
pub const REQUEST_ID_BYTES: usize = 64;

/// A call to a Postgres database must be done within this time, with all attempts; then its device is told "busy" and comes back. Statements are given up by
/// the database a little sooner.
pub const POSTGRES_TIMEOUT: Duration = Duration::from_secs(9);

/// The same for a statement that copies a part of a folder: nobody waits for it but whoever moves a relay.
pub const POSTGRES_MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);

/// Where accounts are in a database, an unknown device, or one without rights, has them looked at once more, at most so often: it may have been let in at
/// another relay a moment ago.
pub const ACCOUNTS_LOOKED_AT_AGAIN: Duration = Duration::from_millis(250);

/// A connection to a Postgres database must be there within this time, unless its address says otherwise.
pub const POSTGRES_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to a Postgres database on which nothing happens is probed after this time, so that a dead one is noticed.
pub const POSTGRES_KEEPALIVE: Duration = Duration::from_secs(30);

/// Between two attempts of a call to a Postgres database this time passes, twice as long each time.
pub const POSTGRES_PAUSE: Duration = Duration::from_millis(10);

/// But no longer than this.
pub const POSTGRES_PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Rows of a log in a Postgres database that one page looks at: all that a page can hold, and as many that have left the log.
pub const POSTGRES_PAGE_ROWS: usize = 2 * motet_proto::limits::PAGE_ENTRIES;

/// Connections to a Postgres database that one relay keeps at most, unless it is told otherwise: a database has a hundred for all who use it.
pub const POSTGRES_CONNECTIONS: usize = 16;

/// Entries that one statement appends to a log in a Postgres database from pushes that have waited for each other. One push may have as many.
pub const POSTGRES_GROUP_ENTRIES: usize = 1_024;

/// When other relays have appended before this one so many times in a row, it keeps them from it while it appends.
pub const POSTGRES_RACES: usize = 3;

/// Entries that one transaction takes out of a log in a Postgres database: some tens of milliseconds, in which nobody else appends to that log.
pub const POSTGRES_REMOVED: usize = 2_048;

/// How often a Postgres database is asked how large its tables are.
pub const POSTGRES_MEASURED_EVERY: Duration = Duration::from_secs(60);

/// Where several relays serve one store, each looks this often whether the logs of its sessions have grown: so long does it take at most to hear of
/// an entry when notices are lost.
pub const HEADS_LOOKED_AT_EVERY: Duration = Duration::from_secs(20);

/// Logs of sessions that the store is asked about at a time.
pub const HEADS_AT_A_TIME: usize = 1_000;

/// Notices that wait for NATS. What is more is dropped, and the others are told so.
pub const NATS_QUEUED: usize = 1_024;
/// How long a link to the console is good, if nobody uses it before: time to bring it from one screen to another.
pub const CONSOLE_LINK_LIFETIME: Duration = Duration::from_secs(600);

/// Links to the console of one account, or of the operator, that are good at a time. The oldest goes for a new one.
pub const CONSOLE_LINKS: i64 = 20;

/// How long somebody stays signed in to the console: a working day.
pub const CONSOLE_SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// Sign-ins to the console at a time, in all. The oldest goes for a new one. Each takes 0.3 kB of memory.
pub const CONSOLE_SESSIONS: usize = 1_000;

/// Of those, of one account, or of the operator: some browsers on some devices.
pub const CONSOLE_SESSIONS_PER_HOLDER: usize = 20;

/// Longest form of the console, in bytes: names of the longest kind, each byte written as three.
pub const CONSOLE_FORM_BYTES: usize = 8 << 10;

/// Pages of the console that read the accounts at a time. Others wait, so that they leave threads to devices that sign in.
pub const CONSOLE_READS: usize = 4;

/// Accounts on one page of the console.
pub const CONSOLE_ROWS: usize = 100;

/// How often the console looks at the metrics.
pub const CONSOLE_SAMPLED_EVERY: Duration = Duration::from_secs(60);

/// What it has seen that is kept: a day at one a minute, in 0.3 MB.
pub const CONSOLE_SAMPLES: usize = 1_440;

/// Refused sign-ins that the console shows, counted together by address and reason. The oldest goes for a new one.
pub const REFUSALS_KEPT: usize = 100;
