//! The grammar of the command line. Scripts rely on it; `docs/cli.md` describes it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Documents that merge: write offline, sync when you like, lose nothing.
#[derive(Parser)]
#[command(name = "motet", version, about, after_help = EXIT_CODES)]
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

const EXIT_CODES: &str = "\
Exit codes: 0 done (conflicts included), 1 other error, 2 usage, 3 offline, 4 sign-in needed, 5 not found

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
        /// Token for the relay
        #[arg(long, value_name = "T", env = "MOTET_TOKEN", hide_env_values = true)]
        token: Option<String>,
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
    /// Set single fields of a document
    Set {
        collection: String,
        id: String,
        /// The value is taken as JSON if it is JSON, else as a string
        #[arg(required = true, value_name = "FIELD=VALUE")]
        fields: Vec<String>,
    },
    /// Show a document
    Get { collection: String, id: String },
    /// Show all documents of a collection
    List { collection: String },
    /// Delete a document
    Delete { collection: String, id: String },
    /// Put every line of a JSONL file
    Import {
        collection: String,
        /// File of one JSON object per line, or - for standard input
        file: PathBuf,
    },
    /// Print documents as JSONL, as `import` takes it
    Export { collection: Option<String> },
    /// Send and receive now
    Sync,
    /// Show how syncing stands, or how one document stands
    Status {
        /// COLLECTION ID
        #[arg(num_args = 2, value_names = ["COLLECTION", "ID"])]
        document: Vec<String>,
    },
    /// Stay connected and print what happens, until Ctrl-C
    Watch,
    /// See two devices edit one song offline and merge
    Demo {
        /// Folder for the demo's files; without it a new one
        folder: Option<PathBuf>,
    },
    /// The demo's relay, in a process of its own
    #[command(name = "__relay", hide = true)]
    Relay {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        data: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum SchemaCommand {
    /// Apply a TOML file: a table [collections.NAME.fields] per collection
    Apply { file: PathBuf },
}
