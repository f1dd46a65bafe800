//! The `motet` command. `docs/cli.md` is its reference.

mod args;
mod commands;
mod error;
mod output;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use error::CliError;
use output::Output;

fn main() -> ExitCode {
    // clap prints usage errors itself and exits with 2.
    let args = Args::parse();
    init_logging();
    let output = Output::new(args.json);
    match run(args, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: Args, output: &Output) -> Result<(), CliError> {
    let db = args.db.as_deref();
    match args.command {
        Command::Init { device, relay, token } => commands::setup::init(db, &device, relay, token, output),
        Command::Schema { command } => commands::setup::schema(db, &command, output),
        Command::Put { collection, id, base, file } => {
            commands::documents::put(db, &collection, id, base.as_deref(), &file, output)
        }
        Command::Set { collection, id, fields } => {
            commands::documents::set(db, &collection, &id, &fields, output)
        }
        Command::Get { collection, id } => commands::documents::get(db, &collection, &id, output),
        Command::List { collection } => commands::documents::list(db, &collection, output),
        Command::Delete { collection, id } => commands::documents::delete(db, &collection, &id),
        Command::Import { collection, file } => commands::transfer::import(db, &collection, &file, output),
        Command::Export { collection } => commands::transfer::export(db, collection.as_deref(), output),
        Command::Sync => commands::sync::sync(db, output),
        Command::Status { document } => commands::sync::status(db, &document, output),
        Command::Watch => commands::sync::watch(db, output),
        Command::Demo { folder } => commands::demo::demo(folder, output),
        Command::Relay { listen, data } => commands::demo::relay(listen, data),
    }
}

fn init_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
