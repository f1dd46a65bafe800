//! Every size, count and time of the library. What both sides of the wire must agree on stands in
//! [`motet_proto::limits`]. This is one file, however long: a single list, which is read and searched as one.

use std::time::Duration;

/// Documents kept loaded, and as many again that another process may have changed since. A small document takes about 50 kB in memory,
/// so each of the two stays near 13 MB.
pub const CACHED_DOCUMENTS: usize = 256;

/// Operations of all documents that are kept loaded but for the latest: as many as 400 songs have, at 100 to 500 bytes of memory each.
pub const CACHED_OPERATIONS: u64 = 512 << 10;

/// Writes that one transaction takes in, at most. More would make the first of them wait too long for its fsync.
pub const GROUP_WRITES: usize = 256;

/// Writes handed to the writer and not yet taken up; a further one waits. Keeps bulk work from filling the memory.
pub const QUEUED_WRITES: usize = 1_024;

/// A counter counts from minus this to this, 2^53 - 1: exact wherever JSON is read, and so far from the ends of 64 bits that
/// a thousand concurrent writes of this size add up without an overflow. A write that leaves the bounds is refused; what
/// concurrent writes add up to beyond them is shown as the bound, on every device.
pub const COUNTER_MAX: i64 = 9_007_199_254_740_991;

/// How long the projection of an edited document may lag behind its changes while nobody reads it. Readers that are no
/// replica (plain SQL) see an edit after this time at the latest.
pub const PROJECTION_LAG: Duration = Duration::from_millis(50);

/// How long the projection of a document that another process has edited may lag behind before this one makes it, unasked. The other
/// holds the document in memory, and is quicker.
pub const FOREIGN_PROJECTION_LAG: Duration = Duration::from_secs(2);

/// Documents whose projection may lag behind. They stay in the cache until it has caught up.
pub const DOCUMENTS_BEHIND: usize = CACHED_DOCUMENTS / 2;

/// What is typed in an [`Editor`](crate::Editor) is written when typing has paused for this long.
pub const TYPING_PAUSE: Duration = Duration::from_millis(400);

/// While typing goes on, what was typed is written this often: a crash takes no more than that.
pub const TYPING_SAVED_EVERY: Duration = Duration::from_secs(2);

/// A day of the traffic counters, in milliseconds. Days are those of UTC.
pub const DAY_MS: i64 = 86_400_000;

/// Days that the traffic counters go back.
pub const TRAFFIC_DAYS: i64 = 400;

/// Documents whose words go into the full-text index in one transaction. About 25 ms of the writer's time.
pub const INDEX_BATCH: usize = 256;

/// Bytes of folded words that go into the full-text index in one transaction, at most: about 40,000 words. Takes about 100 ms where each
/// of them is another word. A document with more is taken in in several parts, one in a transaction, while others write in between.
pub const INDEX_STEP_BYTES: usize = 256 << 10;

/// Bytes of what documents show that are read at a time for the full-text index. A larger document is read alone.
pub const INDEX_READ_BYTES: usize = 1 << 20;

/// Matches of a full-text query that are compared, shared out among its words: about 1.5 us each. A search for a word that stands in
/// most of 100,000 documents takes about 6 ms then, and not 200. A search that asks for more is given more.
pub const SEARCH_CANDIDATES: usize = 4_000;

/// Values that the filter of a query compares with. SQLite takes 32,766 in one statement.
pub const QUERY_VALUES: usize = 10_000;

/// How deep conditions of a filter stand in each other. SQLite bounds an expression to 1,000 levels, of which a condition takes a few.
pub const QUERY_DEPTH: usize = 100;

/// Fields that a query is ordered by. SQLite takes 2,000.
pub const QUERY_ORDERS: usize = 100;

/// Declared fields that have a column in the view of their collection, by name; the others are in its `json`. SQLite takes 2,000 columns.
pub const VIEW_FIELDS: usize = 1_900;

/// Words of a full-text query; pairs of characters count as words. About 10 us each; more is a text, not a question.
pub const SEARCH_WORDS: usize = 1_000;

/// Words of a value that counts as short: a title, a name, a tag. Words of short values weigh more.
pub const SHORT_VALUE_WORDS: usize = 16;

/// A document is about a word that makes up this part of its texts: one in sixteen. At most so many words of a document are that.
pub const MUCH_OF_A_TEXT: usize = 16;

/// Bytes of a text that are looked through for a snippet. Takes about 5 ms.
pub const SNIPPET_BYTES: usize = 256 << 10;

/// Words before and after a match in a snippet.
pub const SNIPPET_WORDS: usize = 8;

/// Adopted rows in one transaction.
pub const ADOPTED_ROWS: usize = 500;

/// Documents that are verified on one view of the file. Bounds how long a reader keeps the log from being reset.
pub const VERIFIED_DOCUMENTS: usize = 100;

/// Times that rows between damaged pages of a table are looked for. Each takes less than a millisecond, and one page needs none.
pub const SALVAGE_PROBES: usize = 4_096;

/// Times that SQLite's log is to be emptied after a purge while others read it, each [`BUSY_TIMEOUT`] long.
pub const EMPTY_LOG_ATTEMPTS: usize = 3;

/// How long a call that removes documents waits for those who read SQLite's log; later it is emptied beside it.
pub const EMPTY_LOG_WAIT: Duration = Duration::from_secs(1);

/// Pages of the full-text index that are merged in one transaction after a purge, so that no deleted word stays in it.
pub const SCRUB_PAGES: i64 = 500;

/// Times that a repair looks again for what damage it has put right had hidden.
pub const REPAIR_PASSES: usize = 3;

/// Times that a damaged file is read again because somebody has written to it meanwhile.
pub const SALVAGE_ATTEMPTS: usize = 5;

/// How long a damaged file that was kept is not replaced by another: somebody who repairs a file again soon does so because of what the first
/// repair could not read.
pub const DAMAGED_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of a row that is looked for in a damaged file: SQLite keeps no larger one.
pub const SALVAGE_ROW_BYTES: usize = 1_000_000_000;

/// How many times its own size a page of a damaged file may yield in rows: the rows of a sound one lie side by side.
pub const SALVAGE_OVERLAP: usize = 2;

/// Times that a page of a damaged file is read for rows that turn out to be none.
pub const SALVAGE_READS: u8 = 16;

/// Columns of a row that is looked for in a damaged file: SQLite has no more.
pub const SALVAGE_COLUMNS: usize = 2_000;

/// Changes after the snapshot from which a load writes a new snapshot. Loading changes costs about 10 us each.
pub const SNAPSHOT_AFTER_CHANGES: usize = 256;

/// Bytes of text from which a write of one document is composed before its transaction, so that others write meanwhile. Composing takes
/// about 1.5 us a byte: a smaller write keeps others waiting for 100 ms at most, and uses the document that is held in memory.
pub const COMPOSED_AHEAD_BYTES: usize = 64 << 10;

/// Stored bytes from which a document that is not in memory is loaded before the transaction that writes it. Loading takes about 1.5 us a
/// byte of text, of which a snapshot keeps a third: a smaller document keeps others waiting for 100 ms at most.
pub const LOADED_AHEAD_BYTES: i64 = 16 << 10;

/// Bytes of changes after the snapshot from which a load writes a new snapshot, if they are a quarter of it; and from which a
/// document that arrives as changes is saved. Loading changes takes three times the time and memory of loading a snapshot.
pub const SNAPSHOT_AFTER_BYTES: usize = 128 << 10;

/// Bytes of changes from which a new document is saved at once. A song of 1 kB loads in 150 us from a snapshot and in 370 us from
/// its changes; making the snapshot and loading it back costs as much as one load.
pub const SNAPSHOT_NEW_BYTES: usize = 512;

/// First pushes of documents with more changes than this go out as a snapshot. With few changes their original bytes
/// are as small, and cost neither a load nor a save (200 us for a song).
pub const FIRST_PUSH_CHANGES: usize = 32;

/// A document is looked at for compaction whenever it has had this many changes more.
pub const COMPACT_EVERY_CHANGES: usize = 64;

/// Fewer entries than this are not worth a snapshot.
pub const COMPACT_FROM_ENTRIES: usize = 8;

/// A snapshot is made if the entries that it supersedes have this many times its bytes: as everybody who is connected receives it, the
/// sum of all that is received grows by half at most.
pub const COMPACT_GAIN: u64 = 2;

/// A session must have been idle for this long before it compacts a document; lengthened at random by as much again, so that of many
/// devices one does it and the others see that it is done.
pub const COMPACT_IDLE: Duration = Duration::from_secs(10);

/// Later times of the app's clock count as this one, and earlier than 1970 as the first of 1970: the end of the year 9999, in milliseconds.
pub const LATEST_TIME: i64 = 253_402_300_799_999;

/// What a relay holds of a purged document is erased there this long after the purge. A device that was away for longer has not read of
/// the purge: it keeps what it has, and brings the document back if it writes in it. As long as superseded entries stay.
pub const PURGE_GRACE: Duration = Duration::from_hours(30 * 24);

/// How long a document that another device has purged stays in the trash here, unless the app says otherwise: time to notice that it was
/// a mistake, or somebody else's device.
pub const PURGED_KEPT: Duration = Duration::from_hours(7 * 24);

/// How often it is looked whether the time of such documents is over, while there are any.
pub const PURGED_LOOK: Duration = Duration::from_hours(1);

/// As many of them go in one transaction.
pub const PURGED_BATCH: usize = 64;

/// Documents that are compacted in one go.
pub const COMPACT_DOCUMENTS: usize = 16;

/// How often everything is compared with the relay, unless the policy says otherwise. It costs a download of everything.
pub const COMPARE_EVERY: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The shortest time between two rounds that a policy may ask for. A round more often than that is what `Live` is for.
pub const SYNC_EVERY_LEAST: Duration = Duration::from_millis(500);

/// The longest time between two rounds or comparisons that a policy may ask for. Whoever wants them never says so instead.
pub const SYNC_EVERY_MOST: Duration = Duration::from_secs(366 * 24 * 3_600);

/// The shortest time between two comparisons that a policy may ask for, as each costs a download of everything.
pub const COMPARE_EVERY_LEAST: Duration = Duration::from_secs(60);

/// A connection that stays open looks this often whether a comparison is due.
pub const COMPARE_LOOKS_EVERY: Duration = Duration::from_secs(3_600);

/// Documents that a session asks for because changes of them wait for others. Further ones wait for the next session.
pub const ASKED_DOCUMENTS: usize = 1_000;

/// How long a statement waits for another process that holds the database.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the time is kept that a relay tells when it lets a device in: often enough for [`purge_trash`](crate::Collection::purge_trash),
/// which counts in days.
pub const RELAY_TIME_EVERY: Duration = Duration::from_secs(3_600);

/// How often a statement looks whether a database that another process holds is free. SQLite itself would wait up to 100 ms between two
/// looks, and find it held each time by somebody who writes without pause.
pub const BUSY_POLL: Duration = Duration::from_millis(1);

/// Reader connections kept open. More readers than cores only add memory.
pub const IDLE_READERS: usize = 4;

/// Page cache of each connection in KiB.
pub const PAGE_CACHE_KIB: i64 = 4_096;

/// Prepared statements kept by each connection: all that there are, so that none is parsed twice. About 5 kB each.
pub const CACHED_STATEMENTS: usize = 256;

/// Changes and saved documents from this size on are compressed in the file, in bytes. Below it little is gained, and most edits are smaller.
pub const PACK_FROM_BYTES: usize = 256;

/// zstd level of what is compressed in the file.
pub const PACK_LEVEL: i32 = 1;

/// What would open to more than this many times its bytes is stored as it is: a row that is damaged may claim any size.
pub const PACK_RATIO: usize = 256;

/// Opened bytes up to which any ratio is taken.
pub const PACK_RATIO_FROM_BYTES: usize = 1 << 20;

/// What is kept of a write-ahead log that a long read has made large, in bytes: twice what lies between two checkpoints. While somebody
/// reads, nothing of the log can be written over.
pub const WAL_KEPT_BYTES: i64 = 8 << 20;

/// A read that takes this long may have made the write-ahead log large: afterwards it is looked at.
pub const LONG_READ: Duration = Duration::from_secs(1);

/// Write-ahead log size in pages at which SQLite checkpoints. 1,000 pages are 4 MB. Once the log has its size, commits
/// overwrite it; as long as a file grows, each fsync also has to write down its new size, which doubles its cost.
pub const CHECKPOINT_PAGES: i64 = 1_000;

/// What an Automerge document of another program may open to, in bytes. 64 MiB: as much as a document that comes from a relay.
pub const FOREIGN_DOCUMENT_BYTES: usize = motet_proto::limits::PAYLOAD_INFLATED_BYTES;

/// Operations that an Automerge document of another program may have, changes counted as well. Each takes some 500 bytes of memory while it is
/// merged: a kilobyte may hold a million.
pub const FOREIGN_OPERATIONS: u64 = 1_000_000;

/// Nesting of arrays and objects inside a field. What is deeper is refused on write, and set aside when it arrives.
pub const VALUE_DEPTH: usize = 64;

/// What an error shows of a name, in characters. A hostile one could fill the screen.
pub const SHOWN_NAME_CHARS: usize = 80;

/// Rows that a summary names because they were refused. Further ones are counted: whoever has so many looks at the source.
pub const LISTED_REFUSALS: usize = 100;

/// Rows of JSONL that are imported together. One fsync for many, and still others may write in between.
pub const IMPORTED_ROWS: usize = 250;

/// Bytes of text in rows from which those that were read are written. Their documents are in memory meanwhile, at some tens of bytes for
/// each.
pub const IMPORTED_BYTES: usize = 1 << 20;

/// How long a transaction with many rows takes up further ones. Another process waits for its end, and for one row more: 100 ms at most, if
/// rows are small.
pub const WRITE_TURN: Duration = Duration::from_millis(40);

/// How long a process that has written for a whole [`WRITE_TURN`] leaves the database to others before it writes again: longer than
/// [`BUSY_POLL`], so that whoever waits sees it.
pub const TURN_PAUSE: Duration = Duration::from_micros(1_500);

/// Bytes of text in the big entries of a change log up to which they are composed before its transaction. All of them are in memory then.
pub const CHANGE_LOG_AHEAD_BYTES: usize = 4 << 20;

/// A BLOB column is taken up with at most so many bytes. Larger ones are left out and reported: they belong into files.
pub const ADOPTED_BLOB_BYTES: usize = 64 << 10;

/// Fields of a deleted document that is made again which are taken out, or counted anew, alike on every device; more go by the change
/// that makes it. Each costs a look at the document's history.
pub const ANEW_FIELDS: usize = 16;

/// Counts of a counter that are taken back one by one where its document is made again; if there are more, all are taken back at once, and two
/// devices that know of different ones take back twice what both know of. Each costs a small change of the document.
pub const ANEW_COUNTS: usize = 64;

/// Changes that are looked at to find the history of one field. In a document with more, a row is taken up on all that
/// the device holds: two devices that hold the same still make the same change.
pub const ALIKE_CHANGES: usize = 1_000;

/// A change with more operations than this counts as one that wrote to every field: to look would cost more than it is worth.
pub const ALIKE_CHANGE_OPS: u64 = 10_000;

/// Characters of a declared text, unless the field declares `max_len`: 2 Mi. Automerge takes about 300 bytes of memory for each while
/// it is put, so that a phone survives it; a larger text belongs into a register or a blob.
pub const TEXT_CHARS: u64 = 2 << 20;

/// Elements of an array, list or set, unless the field declares `max_len`. Each takes as much memory as a character of a text, and an
/// object as much as each of its fields.
pub const LIST_ELEMENTS: u64 = 100_000;

/// Fields of a document, and of an object in it: 10,000. Each takes about 300 bytes of memory and a place in every comparison; whoever has
/// more has rows, which are documents of their own. Refused on write. What two devices add up to beyond it by merging stays.
pub const OBJECT_FIELDS: usize = 10_000;

/// Characters that a rewrite deletes from a text one by one. Automerge takes about 7 us for each; where more would go, a new text is put
/// in the place of the old one. Edits that others made of the old one meanwhile are carried over when they arrive.
pub const TEXT_DELETES: usize = 32 << 10;

/// Work that a rewrite may take if it is written place by place: the square of the number of places times the characters of the text.
/// Automerge finds each place the more slowly the more of them a change has; this is about half a second (195 places in 132,000 characters).
/// What would take more is put as a new text, as with [`TEXT_DELETES`].
pub const TEXT_SPLICE_WORK: u64 = 5_000_000_000;

/// The same as [`TEXT_DELETES`] for a change that is made on an older version: there the time grows with the square of the number, to half a
/// second for this many and 40 s for 16,000.
pub const OLDER_VERSION_DELETES: usize = 2 << 10;

/// How many times the work of [`TEXT_SPLICE_WORK`] a change takes that is made on an older version of the document: Automerge leaves out
/// what was written since each time that it looks for a place. Measured: five times, seven where the text was rewritten since, and fifty
/// where others have replaced most of it.
pub const OLDER_VERSION_WORK: u64 = 64;

/// Changes that are brought into a version that is kept because edits are made on it. Beyond that it is put together anew, which costs about
/// as much.
pub const BRANCH_CHANGES: usize = 1_000;

/// Operations of a document of which an older version is kept while edits are made on it: 32 MiB at [`OPERATION_BYTES`] each. Of a larger one it
/// would take as much memory once more.
pub const BRANCH_OPERATIONS: u64 = 256 << 10;

/// Characters between edits of two sides of a merge, with a whole line among them, from which on the edits have nothing to do with each other. It
/// is as far as two equal insertions may be from each other and still be taken for one (a verse that begins and ends alike).
pub const APART_CHARACTERS: usize = 256;

/// Bytes that are kept of each version of a place in a text that two devices edited; the document itself keeps them while the
/// conflict is open. Longer ones are cut in the journal, never in the text.
pub const OVERLAP_BYTES: usize = 16 << 10;

/// Failed attempts to apply parts of one batch to one document before the rest is set aside. Bounds the work that
/// hostile changes can cause.
pub const APPLY_FAILURES: usize = 16;

/// By how much the numbers of operations may exceed how many operations a document has. Whoever writes numbers them above all that there are, and
/// may know of some that have not arrived here. Automerge counts to 2^32.
pub const OPERATION_NUMBERS: u64 = 1 << 20;

/// Milliseconds before or after 1970 that a change may have been made. Beyond it differences of times overflow. No device writes a later
/// time itself, whatever its clock or an adopted row says.
pub const CHANGE_TIME: i64 = 1 << 53;

/// Changes of one document that were refused before and are tried again when it receives more, taking turns; and how many of these attempts
/// may fail. Each that fails costs a merge.
pub const REFUSED_RETRIES: usize = 4;

/// Changes of one document, waiting in quarantine for others, that are tried again at once.
pub const WAITING_CHANGES: usize = 4_096;

/// Bytes that the quarantine keeps. What has to make room is fetched again when it is tried again.
pub const QUARANTINE_BYTES: usize = 64 << 20;

/// Items that the quarantine tells of. An item without its bytes takes about 150.
pub const QUARANTINE_ROWS: usize = 100_000;

/// A sync round that was asked for gives up after this time, unless something still arrives. A command that waits for a relay
/// which is not there ends within 30 s.
pub const ROUND_TIMEOUT: Duration = Duration::from_secs(25);

/// After [`ROUND_TIMEOUT`], a round goes on while the relay is heard at least this often; what is being sent is given its time.
pub const ROUND_SILENCE: Duration = Duration::from_secs(5);

/// How long taking in a slice of what was received counts as progress of a round: a text that fills a payload takes about 15 s on a slow phone.
pub const SLICE_TIME: Duration = Duration::from_secs(60);

/// A round that was asked for ends after this time, whatever still arrives; what is under way goes on.
pub const ROUND_LONGEST: Duration = Duration::from_secs(15 * 60);

/// After a relay has said that it takes no more, it is not asked again for this time, unless somebody wants it; what it has is received meanwhile.
pub const FULL_PAUSE: Duration = Duration::from_secs(60);

/// A provider of tokens that has not answered after this time is not waited for: it may have to ask somebody else over the network, and a
/// round that waits for it has [`ROUND_TIMEOUT`].
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls of a provider of tokens that may be under way, each on a thread of its own. Beyond it the provider is not asked.
pub const TOKEN_CALLS: usize = 8;

/// How long a keyring of the system may take to answer. It may ask a person to unlock it first.
pub const KEYRING_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of a secret that is kept in a file. A token is shorter.
pub const SECRET_BYTES: u64 = 64 << 10;

/// Bytes of the name of a secret, as it becomes part of the name of a file.
pub const SECRET_NAME_BYTES: usize = 64;

/// While `POST` is in use because no WebSocket came about, one is tried after this time: as long as the wait between two polls.
pub const UPGRADE_TRIED_AGAIN_FIRST: Duration = POST_POLL;

/// Each time it does not, it is tried after twice the time, up to this.
pub const UPGRADE_TRIED_AGAIN_LAST: Duration = Duration::from_secs(10 * 60);

/// How often a round looks whether that is so.
pub const ROUND_LOOKS_AGAIN: Duration = Duration::from_secs(1);

/// Opening a connection to a relay gives up after this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// The slowest connection over which an exchange by `POST` is waited for, in bytes a second; what is sent is given this much time.
pub const SLOWEST_BYTES_PER_SECOND: u64 = 4_096;

/// Waits before an exchange over `POST` that was lost on the way is tried again. A round as a whole has
/// [`ROUND_TIMEOUT`].
pub const EXCHANGE_RETRY_DELAYS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(2)];

/// After a connection is lost, the first wait is a random part of this time, if the relay has not named another one.
pub const COME_BACK_WITHIN: Duration = Duration::from_secs(2);

/// The longest such time that a relay can name: nobody is away for longer because of a number.
pub const COME_BACK_LONGEST: Duration = Duration::from_secs(60);

/// Waits between further attempts: 4, 8, 16 s, then the last value for good. Each is between half of it and all of it, at random, so that
/// devices do not come back in step.
pub const RETRY_DELAYS: [Duration; 4] =
    [Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(16), Duration::from_secs(30)];

/// The longest time for which an answer (`Retry-After`) can keep a device from trying again by itself.
pub const RETRY_AFTER_LONGEST: Duration = Duration::from_secs(15 * 60);

/// Pages of 4 KiB of a database that are copied at once, where it can only be read: all of it as of one moment.
pub const COPIED_PAGES: std::ffi::c_int = std::ffi::c_int::MAX;

/// How often a replica looks whether the process that syncs its file still does.
pub const SYNC_LOCK_POLL: Duration = Duration::from_secs(2);

/// How often a process that has the right to sync says that it runs: more than twice within [`SYNC_LOCK_SILENCE`].
pub const SYNC_LOCK_BEAT: Duration = Duration::from_secs(4);

/// A process that holds the right to sync and has not said for this long that it runs is taken for frozen.
pub const SYNC_LOCK_SILENCE: Duration = Duration::from_secs(10);

/// How often a replica that is connected, or listened to, looks whether another process has written to the database.
pub const FOREIGN_WRITE_POLL: Duration = Duration::from_millis(500);

/// The same when no process has written for [`FOREIGN_WRITE_RECENT`]: a device at rest is woken by little.
pub const FOREIGN_WRITE_POLL_AT_REST: Duration = Duration::from_secs(3);

/// For this long after a write, of whichever process, another is expected.
pub const FOREIGN_WRITE_RECENT: Duration = Duration::from_secs(60);

/// Bytes that a file may lack at its end and is filled up with when it is repaired, if they are more than all that is left of it.
pub const CUT_OFF: u64 = 64 << 20;

/// Who has asked for the status within this time may ask again: until then it is looked for what other processes have written.
pub const STATUS_ASKED: Duration = Duration::from_secs(10);

/// Where this device is, is told to others at most this often. Faster than the eye follows a cursor.
pub const PRESENCE_EVERY: Duration = Duration::from_millis(50);

/// Events that a slow listener may fall behind before it is told that it missed some.
pub const EVENT_BACKLOG: usize = 1_024;

/// Steps of this device that can be undone, at least. A step takes about 150 bytes, and 40 more for each further document of it.
pub const UNDO_STEPS: i64 = 10_000;

/// Steps after which those beyond [`UNDO_STEPS`] are forgotten: looking after each would cost as much as the step.
pub const UNDO_SWEEP: i64 = 256;

/// Steps that are read at once when something is undone. The one that is meant is usually the first.
pub const UNDO_READ: usize = 64;

/// Length of the message of a transaction, in bytes. It goes with every change of it to every device.
pub const MESSAGE_BYTES: usize = 4 << 10;

/// Length of a label of an undo history, in bytes.
pub const UNDO_LABEL_BYTES: usize = 256;

/// Rows of the sync history that are kept.
pub const HISTORY_ROWS: i64 = 1_000;

/// New documents in a batch from which they are shown as they came and merged afterwards. Fewer are merged at once, which
/// takes a few milliseconds.
pub const PREVIEW_FROM_DOCUMENTS: usize = 32;

/// What a first push tells of what its document shows, in bytes of JSON. A longer text is worth waiting for.
pub const PREVIEW_BYTES: usize = 64 << 10;

/// Documents that a core merges between two commits after they were shown as they came. About 3 MB while they are loaded.
pub const MERGED_BEHIND: usize = 64;

/// Documents that wait to be merged, whose row ids are read at once.
pub const UNMERGED_READ: usize = 16_384;

/// Documents in a batch from which parallel work is worth a thread.
pub const PARALLEL_FROM_DOCUMENTS: usize = 8;

/// Entries, or rows of the outbox, that the sync task works on by itself: handing a few over to another thread and back would take
/// longer than the work.
pub const SMALL_WORK: u64 = 7;

/// Bytes of entries from which they are merged before the transaction, however few they are: 16 KiB, compressed, can be a text of
/// 100 kB, which takes about 100 ms. Fewer are merged with the document that is held in memory.
pub const MERGED_AHEAD_BYTES: usize = 16 << 10;

/// Bytes, as opened, of received entries that are opened and merged at a time: 161 kB of payloads can open to 5 GB, and a loaded text takes 90
/// times its size. An entry that is larger by
/// itself, up to [`PAYLOAD_INFLATED_BYTES`](motet_proto::limits::PAYLOAD_INFLATED_BYTES), is opened alone.
pub const OPENED_BYTES: usize = 4 << 20;

/// Bytes, as opened, from which received entries are written down before they are opened, so that the next process knows what this one
/// ended with. 1 MiB of a text takes about 90 MB: what is smaller ends no process, and one row more for each would cost.
pub const NOTED_OPENING_BYTES: usize = 1 << 20;

/// Memory, in bytes, that an operation without content is counted as, where it is decided what is opened together and what is written down
/// first: a change of 118 bytes may hold a list of 120,000 nulls, which takes 50 MB.
pub const OPERATION_BYTES: usize = 128;

/// Operations from which an entry is written down before it is opened, whatever its bytes: an element of a list takes one byte and 450 bytes of
/// memory, so these take as much as a text of 1 MiB.
pub const NOTED_OPERATIONS: usize = 192 << 10;

/// The same of entries of one document that are opened together although they take much.
pub const HEAVY_BYTES: usize = 64 << 20;

/// Processes that may end while they open an entry: the first time it may have been one of several that were opened together, or somebody
/// ended the process. Then it is set aside untried.
pub const OPENING_DEATHS: u32 = 2;

/// The same in bytes of entries: an entry of hundreds of edits is merged while the next arrives.
pub const SMALL_WORK_BYTES: usize = 4 << 10;

/// The first batch of a connection, in bytes of payload. Later ones are twice as large, or half as large, as receipts come back within
/// [`BATCH_TAKES`], up to the limit of the protocol. Over 8 kB/s a batch of the largest size would take a minute.
pub const FIRST_BATCH_BYTES: usize = 64 << 10;

/// The smallest batch, in bytes of payload: over 8 kB/s it takes two seconds.
pub const SMALLEST_BATCH_BYTES: usize = 16 << 10;

/// A receipt that takes longer than this halves the next batch.
pub const BATCH_TAKES: Duration = Duration::from_secs(2);

/// Frames queued between a session and its socket. The protocol's own windows keep the queue shorter.
pub const QUEUED_FRAMES: usize = 16;

/// Connections for `POST` that are kept while they are not in use: one exchange follows the other.
pub const POST_CONNECTIONS: usize = 1;

/// What is read of an answer that refuses, in bytes: a sentence.
pub const REFUSAL_BYTES: usize = 1_024;

/// Answer to one `POST`, in bytes: a few pages and receipts.
pub const EXCHANGE_BYTES: usize = 4 * motet_proto::limits::FRAME_BYTES;

/// Over a live connection, how often it is looked whether something waits to be sent that nobody has reported.
pub const LIVE_POLL: Duration = Duration::from_secs(60);

/// Over `POST`, how often a connected replica asks for what other devices have sent.
pub const POST_POLL: Duration = Duration::from_secs(10);

/// Threads of the sync task for work that blocks: preparing pages.
pub const BLOCKING_THREADS: usize = 4;

/// Sessions in a row that one round may use up when connections break and nothing is settled, before it fails.
pub const ROUND_ATTEMPTS: usize = 4;

/// How often the time of the last sync is written down while a connection stays open.
pub const SYNCED_AT_KEPT_EVERY: Duration = Duration::from_secs(5);

/// Bytes that the conflict journal of one document takes in the file, nearly: see [`CONFLICT_ROW_BYTES`]. A few hundred losers of 10 kB, or as many
/// thousands of short ones: far more than devices leave which anybody uses, and what a file takes for a document that others have made
/// conflicts in on purpose. Others are counted.
pub const CONFLICT_BYTES: usize = 4 << 20;

/// What a row of the conflict journal counts for beside its texts, in bytes.
pub const CONFLICT_ROW_BYTES: usize = 128;

/// Bytes of a row of the conflict journal from which SQLite gives it pages of its own, of 4 KiB: it counts for these then.
pub const CONFLICT_PAGED_BYTES: usize = 960;

/// Bytes of JSON up to which a loser stands in the conflict journal as a whole. A longer one is shown by its beginning, so that a few of them
/// do not take the room of all others.
pub const CONFLICT_LOSER_BYTES: usize = 256 << 10;

/// Bytes of the value that shows, in each row of the conflict journal: there may be a row for each of [`CONCURRENT_VALUES`]. Enough to tell
/// it by, and so few that a row with a short loser needs no page of its own; as a whole it is in the document.
pub const CONFLICT_WINNER_BYTES: usize = 512;

/// Bytes of a value in the conflict log, which is for people.
pub const CONFLICT_LOG_BYTES: usize = 4 << 10;

/// Concurrent values that a field may have. Each that does not show has a row in the journal; as many devices would have to write one field
/// while none of them syncs.
pub const CONCURRENT_VALUES: usize = 1_024;

/// Operations that a change may have beyond one for each of its bytes. What holds a character or a number takes a byte at least; deletions and
/// nulls take none, so that 95 bytes could hold fifty million operations, at 100 to 500 bytes of memory each. As many as a list of the
/// largest kind has elements, and some more.
pub const CHANGE_EMPTY_OPERATIONS: u64 = 128 << 10;

/// Operations that a change may have, however large it is: each takes about 90 bytes of memory. As many as the characters of a text that fills a
/// payload.
pub const CHANGE_OPERATIONS: u64 = motet_proto::limits::ENTRY_PAYLOAD_BYTES as u64 + CHANGE_EMPTY_OPERATIONS;

/// Operations that a saved document may have: twice that.
pub const DOCUMENT_OPERATIONS: u64 = 2 * CHANGE_OPERATIONS;

/// The same of a whole document, in operations beyond one for each byte that it is saved as.
pub const DOCUMENT_EMPTY_OPERATIONS: u64 = 1 << 20;

/// What the names in one column of a change may open to, in bytes: as much as a payload.
pub const COLUMN_STRING_BYTES: u64 = motet_proto::limits::PAYLOAD_INFLATED_BYTES as u64;

/// Bytes of the name of a database file: file systems take 255, of which the names of the files that SQLite keeps beside it (`-journal`) have
/// 8 more.
pub const FILE_NAME_BYTES: usize = 247;

/// Bytes of the whole path of a database file: SQLite takes 512, of which 8 are for the files beside it.
pub const FILE_PATH_BYTES: usize = 504;

/// How long signing in waits for the relay's answer: it may answer late on purpose where wrong keys came before.
pub const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest answer of a relay to the question which spaces are shared, in bytes: some ten thousand of them.
pub const SPACES_BYTES: usize = 2 << 20;
