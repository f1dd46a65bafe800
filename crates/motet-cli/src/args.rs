//! The grammar of the command line. Scripts rely on it; `docs/cli.md` describes it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use motet::SpaceId;

/// Documents that merge: write offline, sync when you like, lose nothing.
#[derive(Parser)]
#[command(name = "motet", version, about, before_help = GROUPS, after_help = EXIT_CODES, help_template = TEMPLATE)]
pub(crate) struct Args {
    /// The replica's database file
    #[arg(long, global = true, env = "MOTET_DB", value_name = "FILE")]
    pub(crate) db: Option<PathBuf>,
    /// Print JSON for scripts
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}";

/// The commands by what they are for; a test compares them with those that there are.
const GROUPS: &str = "\
Begin:          demo, init, schema
Documents:      put, set, unset, get, list, delete, search, sql, collections
Over time:      history, undo, redo, restore, points, trash, tail
Conflicts:      conflicts, resolve
Sync:           sync, status, watch, compact, quarantine
In and out:     import, export, adopt, change-log, automerge
Account:        login, account, device, identity, console, spaces, space, sign-out, clear-local, erase-remote
Maintenance:    verify, repair
Shell:          completions, man

What one of them does:  motet help COMMAND";

const EXIT_CODES: &str = "\
Exit codes: 0 done (conflicts included), 1 other error (rows that were refused included), 2 usage, 3 offline, 4 sign-in needed, 5 not found

Try it:  motet demo";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a replica, or change its device name and relay (needs no network)
    Init {
        /// Name of this device, as other devices see it
        #[arg(long, value_name = "NAME")]
        device: String,
        /// Address of the relay, http:// or https://
        #[arg(long, value_name = "URL")]
        relay: Option<String>,
        /// Token for the relay; others on this machine can see it here, so better MOTET_TOKEN or --token-file
        #[arg(long, value_name = "T")]
        token: Option<String>,
        /// File with the token for the relay, or - for standard input
        #[arg(long, value_name = "FILE", conflicts_with = "token")]
        token_file: Option<PathBuf>,
        /// Which space of the account a new database holds: devices of the account that give the same name share it; without it the personal
        /// one. A space that accounts share has an id: see --space-id
        #[arg(long, value_name = "NAME")]
        space: Option<String>,
        /// The same by the id of a shared space, as `motet spaces` prints it
        #[arg(long, value_name = "ID", conflicts_with = "space")]
        space_id: Option<SpaceId>,
    },
    /// Declare kinds of fields
    Schema {
        #[command(subcommand)]
        command: SchemaCommand,
    },
    /// Make a document from a JSON object, or change the fields that the object names; prints the id
    Put {
        collection: String,
        /// Id of the document; without it the object's `id`, or a new one
        #[arg(long)]
        id: Option<String>,
        /// The version that the new values are based on, as `motet status` prints it
        #[arg(long, value_name = "HEADS")]
        base: Option<String>,
        /// File with the object, or - for standard input
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Set single fields of a document, add to sets and counters
    Set {
        collection: String,
        id: String,
        /// FIELD=VALUE sets a field; FIELD+=VALUE adds to a set or a counter, FIELD-=VALUE takes from it. A value is taken as JSON if it is
        /// JSON, else as a string
        #[arg(required = true, value_name = "FIELD=VALUE")]
        fields: Vec<String>,
    },
    /// Remove single fields of a document
    Unset {
        collection: String,
        id: String,
        #[arg(required = true, value_name = "FIELD")]
        fields: Vec<String>,
    },
    /// Show a document
    Get { collection: String, id: String },
    /// Show all documents of a collection; without COLLECTION the collections
    List { collection: Option<String> },
    /// Show the collections, and how many documents each has
    Collections,
    /// Delete a document
    Delete { collection: String, id: String },
    /// Put every line of a JSONL file
    Import {
        /// COLLECTION and a FILE of one JSON object per line, or - for standard input; without COLLECTION the input is an export of
        /// several collections
        #[arg(num_args = 0..=2, value_names = ["COLLECTION", "FILE"])]
        source: Vec<OsString>,
        /// Import nothing if one line cannot be imported
        #[arg(long)]
        strict: bool,
    },
    /// Print documents as JSONL, as `import` takes it
    Export {
        /// Without it all collections; if there are several, every line names its own
        collection: Option<String>,
        /// Let every line name its collection, even if there is only one, and print what is declared first
        #[arg(long, conflicts_with = "collection")]
        all: bool,
    },
    /// Send and receive now: everything, or one document before all others
    Sync {
        /// COLLECTION ID
        #[arg(num_args = 2, value_names = ["COLLECTION", "ID"])]
        document: Vec<String>,
    },
    /// Sign this device in to a relay: with a sign-in key, which the relay's operator makes with `motet-relay key create`, or with another service
    Login {
        /// Address of the relay, http:// or https://; without it the one that is known
        #[arg(long, value_name = "URL")]
        relay: Option<String>,
        /// The key; others on this machine can see it here, so better MOTET_SIGN_IN_KEY or --key-file
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// File with the key, or - for standard input
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        key_file: Option<PathBuf>,
        /// A service whose people the relay knows, as `google`; a person opens a page of it and enters a code
        #[arg(long, value_name = "NAME", conflicts_with_all = ["key", "key_file"])]
        with: Option<String>,
        /// Who asks the service, if not the first app whose tokens the relay accepts
        #[arg(long, value_name = "ID", requires = "with")]
        client_id: Option<String>,
        /// File with the secret that some services want to be told as well, or - for standard input
        #[arg(long, value_name = "FILE", requires = "with")]
        client_secret_file: Option<PathBuf>,
        /// File with an identity token of a service that the relay accepts, or - for standard input
        #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "key_file", "with"])]
        identity_token_file: Option<PathBuf>,
        /// Print what an identity token has to name (`nonce`) so that this device can sign in with it, and end
        #[arg(long, conflicts_with_all = ["key", "key_file", "with", "identity_token_file"])]
        nonce: bool,
    },
    /// Show the spaces that are shared with the account of this device, or by it
    Spaces,
    /// The account of this device: what the relay has of it, who has done what, erase it
    #[command(subcommand)]
    Account(AccountCommand),
    /// The devices that are signed in to the account of this one
    #[command(subcommand)]
    Device(DeviceCommand),
    /// With which services devices sign in to the account of this one
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Print a link that signs a browser in to the console of the relay, once; whoever has the link can use it
    Console,
    /// Share a space with other accounts: make one, invite, join, change who may do what
    #[command(subcommand)]
    Space(SpaceCommand),
    /// Forget the token, or the key of this device; what is here stays for the same account, or goes, or is given to the next account
    SignOut {
        /// Remove what was shared; refused while something was not sent
        #[arg(long)]
        wipe: bool,
        /// With --wipe: remove everything, also what was not sent and what is local
        #[arg(long, requires = "wipe")]
        unsent: bool,
        /// Give what is here to the next account that signs in
        #[arg(long, conflicts_with = "wipe")]
        release: bool,
    },
    /// Remove what the relay holds whole from this device; the next sync downloads it again
    ClearLocal {
        /// Also what was not sent, which is given up: the edits of somebody who may only read, for example
        #[arg(long)]
        unsent: bool,
    },
    /// Stop sending a collection and have the relay forget it; devices keep their copies
    EraseRemote { collection: String },
    /// Make what the relay holds of a document one snapshot
    Compact { collection: String, id: String },
    /// Show how syncing stands, or how one document stands
    Status {
        /// COLLECTION ID
        #[arg(num_args = 2, value_names = ["COLLECTION", "ID"])]
        document: Vec<String>,
    },
    /// Find documents by their words: without regard to case, diacritics and how an ʻokina was typed
    Search {
        collection: String,
        /// All of them must occur; "two words" stand side by side, alo* begins a word
        #[arg(required = true)]
        words: Vec<String>,
        #[arg(long, default_value_t = 20)]
        limit: u64,
    },
    /// Run a query in SQL, read only; every collection is a view: collection_NAME
    Sql { query: String },
    /// Print changes as they are made, by this or any other program, until Ctrl-C
    Tail,
    /// Show who changed a document when, the latest first
    History {
        collection: String,
        id: String,
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Show the document as it was at this version
        #[arg(long, value_name = "VERSION")]
        at: Option<String>,
    },
    /// Bring a document back from the trash, to a version, or everything to a restore point
    Restore {
        /// COLLECTION ID
        #[arg(num_args = 2, value_names = ["COLLECTION", "ID"], required_unless_present = "point")]
        document: Vec<String>,
        /// The version to go back to
        #[arg(long, conflicts_with = "point")]
        version: Option<String>,
        /// The restore point to go back to, for one document or for all
        #[arg(long, value_name = "NAME")]
        point: Option<String>,
    },
    /// List restore points, or make or forget one
    Points {
        #[arg(long, value_name = "NAME")]
        create: Option<String>,
        #[arg(long, value_name = "NAME", conflicts_with = "create")]
        remove: Option<String>,
    },
    /// Take back the latest transaction of this device, and say what it was
    Undo(UndoArgs),
    /// Do again what the latest undo took back, and say what it was
    Redo(UndoArgs),
    /// Show deleted documents, or remove them for good
    Trash {
        collection: String,
        /// Remove what was deleted more than so many days ago, here and on every device
        #[arg(long, value_name = "DAYS")]
        purge: Option<u32>,
    },
    /// Show concurrent writes that lost, of one document or of all
    Conflicts {
        /// COLLECTION ID
        #[arg(num_args = 2, value_names = ["COLLECTION", "ID"])]
        document: Vec<String>,
        /// Show settled ones as well
        #[arg(long)]
        all: bool,
    },
    /// Settle a conflict, for every device
    #[command(group(ArgGroup::new("choice").required(true).args(["shown", "loser", "value"])))]
    Resolve {
        collection: String,
        id: String,
        /// The field, as `motet conflicts` prints it
        field: String,
        /// Keep the value that shows
        #[arg(long)]
        shown: bool,
        /// Restore the loser with this id, as `motet conflicts` prints it
        #[arg(long)]
        loser: Option<String>,
        /// Neither; taken as JSON if it is JSON, else as a string
        #[arg(long)]
        value: Option<String>,
    },
    /// Take up rows of another database as documents: an SQLite table, or a file of JSON objects
    Adopt {
        collection: String,
        /// SQLite database (with --table), JSON array, or JSONL
        source: PathBuf,
        #[arg(long)]
        table: Option<String>,
        /// A column that names a row, several for a composite key; without it the table's primary key, else `id`
        #[arg(long, value_name = "COLUMN")]
        id: Vec<String>,
        /// Put before every id and reference; numbers of different databases mean different rows
        #[arg(long, default_value = "")]
        prefix: String,
        /// A column that holds the id of another row
        #[arg(long, value_name = "COLUMN")]
        reference: Vec<String>,
        /// The column that says when a row was last changed
        #[arg(long, default_value = "updated_at", value_name = "COLUMN")]
        updated_at: String,
        /// The column that is set in rows that are deleted
        #[arg(long, default_value = "deleted_at", value_name = "COLUMN")]
        deleted_at: String,
        /// A column that is not taken up
        #[arg(long, value_name = "COLUMN")]
        exclude: Vec<String>,
        /// Take up nothing if one row cannot be taken up
        #[arg(long)]
        strict: bool,
    },
    /// Give a document with its history to other programs that use Automerge, or take it back from them
    Automerge {
        #[command(subcommand)]
        command: AutomergeCommand,
    },
    /// Write or read change logs in JSON
    ChangeLog {
        #[command(subcommand)]
        command: ChangeLogCommand,
    },
    /// List what was received and could not be applied
    Quarantine {
        /// Have all of it tried again with the next sync
        #[arg(long)]
        retry: bool,
    },
    /// Check everything in the file
    Verify,
    /// Make anew what `verify` finds damaged
    Repair,
    /// Stay connected and print what happens, until Ctrl-C
    Watch,
    /// See two devices edit one song offline and merge
    Demo {
        /// Folder for the demo's files; without it a new one
        folder: Option<PathBuf>,
    },
    /// Print what makes a shell complete commands and options
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Folder for the pages; it must be there
        folder: PathBuf,
    },
}

/// The demo's relay, in a process of its own: `motet __relay`. It is no command for people, so no help and no completion has it.
#[derive(Parser)]
pub(crate) struct RelayArgs {
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    #[arg(long)]
    pub(crate) data: PathBuf,
}

/// The first argument of such a process.
pub(crate) const RELAY: &str = "__relay";

/// What an undo or a redo is limited to.
#[derive(clap::Args)]
pub(crate) struct UndoArgs {
    /// Only what was done in this collection
    pub(crate) collection: Option<String>,
    /// Only what was done to this document
    pub(crate) id: Option<String>,
    /// The transactions that an app has given this label; without it those that have none
    #[arg(long, value_name = "L")]
    pub(crate) label: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum AutomergeCommand {
    /// Write a document as Automerge saves it, without what stays on this device
    Export {
        collection: String,
        id: String,
        /// `-` is standard output
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Merge a document that another program has saved; one that is not here is made
    Import {
        collection: String,
        id: String,
        /// `-` is standard input
        file: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum ChangeLogCommand {
    /// Print what changed since a time, or after an earlier log
    Export {
        /// Milliseconds since 1970, as an earlier log's `timestamp`
        #[arg(long, default_value_t = 0, value_name = "MS")]
        since: i64,
        /// What follows an earlier log, whatever the clock says: its `cursor`
        #[arg(long, value_name = "CURSOR", conflicts_with = "since")]
        after: Option<u64>,
    },
    /// Carry a change log out
    Import {
        file: PathBuf,
        /// Change nothing if one entry cannot be carried out
        #[arg(long)]
        strict: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum SchemaCommand {
    /// Apply a TOML file: a table [collections.NAME.fields] per collection
    Apply { file: PathBuf },
    /// Show what is declared
    Show,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_its_place_in_the_help() {
        Args::command().debug_assert();
        let lines = GROUPS.lines().take_while(|line| !line.is_empty());
        let named = lines
            .flat_map(|line| line.split_once(':').map(|(_, names)| names).unwrap_or_default().split(','));
        let mut named: Vec<_> = named.map(str::trim).collect();
        let command = Args::command();
        let mut known: Vec<_> =
            command.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name()).collect();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
    }
}

#[derive(Subcommand)]
pub(crate) enum SpaceCommand {
    /// Make one, which this account owns
    Create {
        /// What people call it
        name: String,
    },
    /// Give one another name
    Rename {
        /// Its name, its id, or the beginning of that
        space: String,
        /// What people call it from now on
        name: String,
    },
    /// End the sharing of one for everybody; what devices have stays on them
    Delete {
        /// Its name, its id, or the beginning of that
        space: String,
    },
    /// Show who shares one
    Members {
        /// Its name, its id, or the beginning of that
        space: String,
    },
    /// Change what a member may do; one that becomes the owner takes the space over
    Role {
        /// Its name, its id, or the beginning of that
        space: String,
        /// The member
        account: String,
        /// What it may do
        #[arg(value_enum)]
        role: Role,
    },
    /// Take one from a member; what its devices have stays on them
    Remove {
        /// Its name, its id, or the beginning of that
        space: String,
        /// The member
        account: String,
    },
    /// Leave one; what is here stays
    Leave {
        /// Its name, its id, or the beginning of that
        space: String,
    },
    /// Make a code with which another account joins, and print it: the only time that it is shown
    Invite {
        /// Its name, its id, or the beginning of that
        space: String,
        /// What whoever joins may do
        #[arg(long, value_enum, default_value_t = InvitedRole::Writer)]
        role: InvitedRole,
        /// How long it is good: `30m`, `12h`, `7d`; two days if nothing is said, and 30 at most
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires: Option<u64>,
        /// Any number of accounts may join with it, and not just one
        #[arg(long)]
        reusable: bool,
    },
    /// Make all codes of one worthless
    RevokeInvites {
        /// Its name, its id, or the beginning of that
        space: String,
    },
    /// Show what a code is for, without joining
    Show {
        /// The code
        code: String,
    },
    /// Join the space that a code is for
    Join {
        /// The code
        code: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Show what the relay has of it, how much it may have, and when it is erased if somebody has asked for that
    Show,
    /// Show who has done what to it, its devices and its spaces, the latest first
    Audit {
        /// Only records with a lower number
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
    },
    /// Have the relay erase it after some days, with everything that the relay has of it; what devices have stays on them
    Erase {
        /// Days in which `account keep` takes that back
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=30))]
        days: u8,
    },
    /// Keep it after all
    Keep,
}

#[derive(Subcommand)]
pub(crate) enum DeviceCommand {
    /// Show them: this one, and then the one seen last, to within some minutes
    List,
    /// Give one another name
    Rename {
        /// The beginning of its id
        device: String,
        /// What people call it from now on
        name: String,
    },
    /// Sign one out, if it is lost for example; what it has not sent stays on it
    SignOut {
        /// The beginning of its id
        device: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum IdentityCommand {
    /// Show them
    List,
    /// Let devices sign in with another identity as well, so that the account outlives a service
    #[command(group = ArgGroup::new("how").required(true).args(["with", "identity_token_file"]))]
    Link {
        /// A service whose people the relay knows, as `google`; a person opens a page of it and enters a code
        #[arg(long, value_name = "NAME")]
        with: Option<String>,
        /// Who asks the service, if not the first app whose tokens the relay accepts
        #[arg(long, value_name = "ID", requires = "with")]
        client_id: Option<String>,
        /// File with the secret that some services want to be told as well, or - for standard input
        #[arg(long, value_name = "FILE", requires = "with")]
        client_secret_file: Option<PathBuf>,
        /// File with an identity token of a service that the relay accepts, or - for standard input
        #[arg(long, value_name = "FILE")]
        identity_token_file: Option<PathBuf>,
    },
    /// Let no device sign in with one any more; those that have stay signed in
    Unlink {
        /// The address of the service
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// Its number or name for this person
        subject: String,
    },
}

/// What whoever is invited may do with a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InvitedRole {
    /// Read
    Reader,
    /// Read and write
    Writer,
}

/// What an account may do with a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Read
    Reader,
    /// Read and write
    Writer,
    /// Everything
    Owner,
}

fn seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let found = units.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    match found.and_then(|(number, seconds)| number.parse::<u64>().ok()?.checked_mul(seconds)) {
        None | Some(0) => Err("a number and its unit, as `30m`, `12h` or `7d`".into()),
        Some(seconds) if seconds > 30 * 86_400 => Err("30 days at most".into()),
        Some(seconds) => Ok(seconds),
    }
}
