//! The `motet` command. `docs/cli.md` is its reference.

mod args;
mod commands;
mod error;
mod output;

use std::process::ExitCode;

use motet_relay::terminal;

use args::{Args, Command, RELAY, RelayArgs};
use commands::account::Credential;
use error::CliError;
use output::Output;

fn main() -> ExitCode {
    let outcome = if std::env::args_os().nth(1).is_some_and(|first| first == RELAY) {
        terminal::init_logging("off");
        let args: Result<RelayArgs, _> = terminal::parse(std::env::args_os().skip(1));
        args.map(|args| (Output::new(false), commands::demo::relay(args.listen, args.data)))
    } else {
        terminal::parse(std::env::args_os()).map(|args: Args| {
            terminal::init_logging("off");
            let output = Output::new(args.json);
            let outcome = run(args, &output).map_err(commands::reason_of);
            (output, outcome)
        })
    };
    let (output, outcome) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return usage(&error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints what clap has to say: help, the version, or what is wrong with the arguments.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && wants_json {
        let text = error.render().to_string();
        let text = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Output::new(true).error(&CliError::Usage(text));
        return ExitCode::from(2);
    }
    terminal::usage("motet", error)
}

fn run(args: Args, output: &Output) -> Result<(), CliError> {
    let db = args.db.as_deref();
    match args.command {
        Command::Init { device, relay, token, token_file, space, space_id } => {
            let space = (space.as_deref(), space_id);
            commands::setup::init(db, (&device, space), relay, (token, token_file), output)
        }
        Command::Schema { command } => commands::setup::schema(db, &command, output),
        Command::Put { collection, id, base, file } => {
            commands::documents::put(db, &collection, id, base.as_deref(), &file, output)
        }
        Command::Set { collection, id, fields } => {
            commands::documents::set(db, &collection, &id, &fields, output)
        }
        Command::Get { collection, id } => commands::documents::get(db, &collection, &id, output),
        Command::Unset { collection, id, fields } => {
            commands::documents::unset(db, &collection, &id, &fields, output)
        }
        Command::List { collection: Some(collection) } => commands::documents::list(db, &collection, output),
        Command::List { collection: None } | Command::Collections => {
            commands::documents::collections(db, output)
        }
        Command::Delete { collection, id } => commands::documents::delete(db, &collection, &id),
        Command::Import { source, strict } => {
            commands::transfer::import(db, source, bad_rows(strict), output)
        }
        Command::Export { collection, all } => {
            commands::transfer::export(db, collection.as_deref(), all, output)
        }
        Command::Sync { document } => commands::sync::sync(db, &document, output),
        Command::Login { relay, nonce: true, .. } => commands::account::nonce(db, relay, output),
        Command::Login {
            relay,
            key,
            key_file,
            with,
            client_id,
            client_secret_file,
            identity_token_file,
            ..
        } => {
            let credential =
                Credential { key, key_file, identity_token_file, with, client_id, client_secret_file };
            commands::account::login(db, relay, credential, output)
        }
        Command::Spaces => commands::spaces::list(db, output),
        Command::Account(command) => commands::devices::account(db, command, output),
        Command::Device(command) => commands::devices::device(db, command, output),
        Command::Identity(command) => commands::devices::identity(db, command, output),
        Command::Console => commands::devices::console(db, output),
        Command::Space(command) => commands::spaces::run(db, command, output),
        Command::SignOut { wipe, unsent, release } => {
            commands::account::sign_out(db, wipe, unsent, release, output)
        }
        Command::ClearLocal { unsent } => commands::account::clear_local(db, unsent, output),
        Command::EraseRemote { collection } => commands::sync::erase_remote(db, &collection, output),
        Command::Compact { collection, id } => commands::sync::compact(db, &collection, &id, output),
        Command::Status { document } => commands::sync::status(db, &document, output),
        Command::Search { collection, words, limit } => {
            commands::find::search(db, &collection, &words.join(" "), limit, output)
        }
        Command::Sql { query } => commands::find::sql(db, &query, output),
        Command::Tail => commands::find::tail(db, output),
        Command::History { collection, id, limit, at } => {
            commands::history::history(db, &collection, &id, limit, at.as_deref(), output)
        }
        Command::Restore { document, version, point } => {
            commands::history::restore(db, &document, version.as_deref(), point.as_deref(), output)
        }
        Command::Points { create, remove } => commands::history::points(db, create, remove, output),
        Command::Undo(scope) => commands::history::undo(db, &scope, output),
        Command::Redo(scope) => commands::history::redo(db, &scope, output),
        Command::Trash { collection, purge } => commands::history::trash(db, &collection, purge, output),
        Command::Conflicts { document, all } => commands::care::conflicts(db, &document, all, output),
        Command::Resolve { collection, id, field, shown: _, loser, value } => {
            commands::care::resolve(db, &collection, &id, &field, loser, value, output)
        }
        Command::Adopt {
            collection,
            source,
            table,
            id,
            prefix,
            reference,
            updated_at,
            deleted_at,
            exclude,
            strict,
        } => {
            let adoption = motet::Adoption {
                id: id.into(),
                prefix,
                references: reference,
                updated_at,
                deleted_at,
                exclude,
                bad_rows: bad_rows(strict),
            };
            commands::transfer::adopt(db, &collection, &source, table.as_deref(), &adoption, output)
        }
        Command::Automerge { command } => commands::transfer::automerge(db, &command, output),
        Command::ChangeLog { command } => commands::transfer::change_log(db, &command, output),
        Command::Quarantine { retry } => commands::care::quarantine(db, retry, output),
        Command::Verify => commands::care::verify(db, output),
        Command::Repair => commands::care::repair(db, output),
        Command::Watch => commands::sync::watch(db, output),
        Command::Demo { folder } => commands::demo::demo(folder, output),
        Command::Completions { shell } => commands::shell::completions(shell, output),
        Command::Man { folder } => commands::shell::man(&folder, output),
    }
}

fn bad_rows(strict: bool) -> motet::BadRows {
    if strict { motet::BadRows::RefuseAll } else { motet::BadRows::Report }
}
