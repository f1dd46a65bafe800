//! The relay as a program.

mod admin;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use motet_relay::config::Limits;
use motet_relay::directory::Directory;
use motet_relay::metrics::Metrics;
use motet_relay::notifier::nats::Nats;
use motet_relay::notifier::{Alone, Notifier};
use motet_relay::reload::Files;
use motet_relay::store::LogStore;
use motet_relay::store::postgres::{Migrated, PostgresStore, migrate};
use motet_relay::store::sqlite::{SqliteStore, care};
use motet_relay::terminal::{self, Breaks, complain, printable};
use motet_relay::tls::{Tls, TlsError, TlsFiles};
use motet_relay::{Config, RunError, limits, run};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// Passes changes between the devices of an account and keeps them until a device asks.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Address to listen on. Port 0 takes a free one.
    #[arg(long, env = "MOTET_RELAY_LISTEN", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Folder of the relay's data; created if needed by a relay that starts.
    #[arg(long, env = "MOTET_RELAY_DATA", default_value = "relay-data", global = true)]
    data: PathBuf,
    #[command(flatten)]
    logs: Logs,
    /// File of lines `token -> account`. Without it, and without accounts, only this machine is served, as one local account.
    #[arg(long, env = "MOTET_RELAY_TOKENS", global = true)]
    tokens: Option<PathBuf>,
    /// Days that an entry stays after a snapshot of its document has superseded it.
    #[arg(long, env = "MOTET_RELAY_RETENTION", default_value_t = DAYS, value_name = "DAYS")]
    retention: u16,
    /// File of limits, proxies and issuers of identity tokens, in TOML; see `--limits`. SIGHUP reads it again, and the tokens too.
    #[arg(long, env = "MOTET_RELAY_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// File of a certificate in PEM, with those that lead to its authority: TLS is spoken then. Read again every minute, and on SIGHUP.
    #[arg(long, env = "MOTET_RELAY_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// File of the private key of the certificate, in PEM and not encrypted.
    #[arg(long, env = "MOTET_RELAY_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Address for Prometheus, as 127.0.0.1:9464: `/metrics` there answers whoever can connect.
    #[arg(long, env = "MOTET_RELAY_METRICS", value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Serves the console below /console/: pages for the operator and for holders of accounts. `console link` signs in.
    #[cfg(feature = "console")]
    #[arg(long, env = "MOTET_RELAY_CONSOLE", value_parser = clap::builder::BoolishValueParser::new())]
    console: bool,
    /// Form of the log on stderr: lines of text, or a JSON object on each line.
    #[arg(long, env = "MOTET_RELAY_LOG", value_name = "FORM", default_value = "text", global = true)]
    log: LogForm,
    /// Prints all limits with their units, defaults and reasons, and ends.
    #[arg(long)]
    limits: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the logs are, if not in the data folder.
#[derive(clap::Args)]
struct Logs {
    /// Postgres database for logs and accounts, as postgres://USER:PASSWORD@HOST/DATABASE, which several relays may serve; without it they are in the
    /// folder of --data.
    #[arg(long, env = "MOTET_RELAY_STORE", value_name = "URL", hide_env_values = true, global = true)]
    store: Option<String>,
    /// Connections to the database that may be open at a time.
    #[arg(long, env = "MOTET_RELAY_STORE_CONNECTIONS", default_value_t = limits::POSTGRES_CONNECTIONS, value_name = "COUNT", requires = "store")]
    store_connections: usize,
    /// NATS server through which the relays of one database notify each other, as nats://HOST:4222. Without it they look there every 20 s.
    #[arg(long, env = "MOTET_RELAY_NATS", value_name = "URL", hide_env_values = true, requires = "store")]
    nats: Option<String>,
    /// File of credentials for NATS.
    #[arg(long, env = "MOTET_RELAY_NATS_CREDENTIALS", value_name = "FILE", requires = "nats")]
    nats_credentials: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogForm {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Care(Care),
    #[command(flatten)]
    Admin(admin::Admin),
    /// Copies logs and accounts of the folder of --data, whose relay does not run, into the empty database of --store. Devices go on with it as
    /// they did before.
    Migrate,
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Reads the file of --config, and those that it names, and says what is wrong with them. Nothing is asked of any network.
    Check,
}

/// What is done to the data of a relay, which must not run meanwhile if nothing else is said.
#[derive(Subcommand)]
enum Care {
    /// Looks whether all logs are what they were.
    Verify,
    /// Copies the data into a new folder while the relay runs, and looks whether the copy is sound.
    Backup {
        /// Where to; created, and empty so far.
        folder: PathBuf,
    },
    /// Puts a backup in the place of the data of a relay that does not run. What was there is put aside; devices send what the backup lacks.
    Restore {
        /// Where the backup is.
        folder: PathBuf,
        /// Also the accounts, in the place of those that are there; without it only if those are missing or damaged.
        #[arg(long)]
        accounts: bool,
    },
    /// Makes damaged logs of what is left of them, and puts the damaged file aside. Devices then send what is missing.
    Repair,
}

const PROGRAM: &str = "motet-relay";
const DAY: Duration = Duration::from_secs(24 * 3_600);
const DAYS: u16 = (limits::RETENTION.as_secs() / DAY.as_secs()) as u16;

fn main() -> ExitCode {
    let args: Args = match terminal::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => return terminal::usage(PROGRAM, &error),
    };
    if args.limits {
        return terminal::finish(PROGRAM, print_limits());
    }
    match args.log {
        LogForm::Text => motet_relay::init_logging(),
        LogForm::Json => motet_relay::init_json_logging(),
    }
    match args.command {
        Some(Command::Migrate) => {
            let Some(url) = args.logs.store else {
                return fail("where to: --store postgres://USER:PASSWORD@HOST/DATABASE");
            };
            return match migrate_to(&args.data, &url) {
                Ok(lines) => terminal::finish(PROGRAM, print_lines(&lines)),
                Err(error) => fail(&error.to_string()),
            };
        }
        Some(Command::Care(_)) if args.logs.store.is_some() => {
            return fail("what is in a database is backed up and repaired with its own tools, not with this");
        }
        Some(Command::Care(command)) => return look_after(&args.data, &command),
        Some(Command::Admin(command)) => return administer(&args.data, args.logs.store.as_deref(), &command),
        Some(Command::Config(ConfigCommand::Check)) => return check(args.config, args.tokens),
        None => {}
    }
    let runtime = match motet_relay::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let served = runtime.block_on(serve(args));
    // What still waits for a disk or a database is not waited for without end.
    runtime.shutdown_timeout(limits::SHUTDOWN_GRACE);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// Says why the program ends. Reasons may have lines of a file of limits; those of paths, which come from the arguments, are escaped.
fn fail(reason: &str) -> ExitCode {
    let mut reason = reason.to_owned();
    for arg in std::env::args_os() {
        let arg = arg.to_string_lossy();
        reason = reason.replace(&*arg, &printable(&arg, &[], Breaks::Escaped));
    }
    complain(&printable(&format!("{PROGRAM}: {reason}"), &[], Breaks::Kept));
    ExitCode::FAILURE
}

/// Reads what a relay would read, but for its data.
fn check(config: Option<PathBuf>, tokens: Option<PathBuf>) -> ExitCode {
    if config.is_none() && tokens.is_none() {
        return fail("nothing to check: --config FILE, --tokens FILE");
    }
    match (Files { tokens, config, ..Files::default() }).read() {
        Ok(_) => terminal::finish(PROGRAM, print_lines(&["it can be used".to_owned()])),
        Err(error) => fail(&error.to_string()),
    }
}

fn administer(data: &Path, database: Option<&str>, command: &admin::Admin) -> ExitCode {
    match admin::run(data, database, command) {
        Ok(lines) => terminal::finish(PROGRAM, print_lines(&lines)),
        Err(error) => fail(&error.to_string()),
    }
}

/// Copies logs and accounts into a database.
fn migrate_to(data: &Path, url: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    // The accounts first: the logs go in one transaction, and what came before may be done again.
    let to = Directory::connect(url)?;
    let accounts = Directory::open_existing(data)?.map_or(Ok(0), |accounts| accounts.copy_to(&to))?;
    let Migrated { logs, entries, .. } = migrate(data, url)?;
    Ok(vec![
        format!("copied {logs} logs, {entries} entries, {accounts} accounts"),
        "give --store to the relay and to all commands from now on; the folder is not served any more".into(),
    ])
}

fn print_lines(lines: &[String]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{}", printable(line, &[], Breaks::Escaped))?;
    }
    out.flush()
}

fn look_after(data: &Path, command: &Care) -> ExitCode {
    let report = match command {
        Care::Verify => care::verify(data),
        Care::Repair => care::repair(data),
        Care::Backup { folder } => care::backup(data, folder).inspect(|_| {
            say(&format!(
                "copied to {}, with the accounts if there are any; files of tokens and limits are not in it",
                folder.display()
            ));
        }),
        Care::Restore { folder, accounts } => {
            return match care::restore(data, folder, *accounts) {
                Ok(report) => terminal::finish(PROGRAM, tell_restored(&report)),
                Err(error) => fail(&error.to_string()),
            };
        }
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => return fail(&error.to_string()),
    };
    let is_sound = report.put_aside.is_some() || report.problems.is_empty();
    let told = terminal::finish(PROGRAM, tell(&report));
    if is_sound { told } else { ExitCode::FAILURE }
}

/// Prints what was found and done.
fn tell(report: &care::CareReport) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    let (logs, entries, problems) = (report.logs, report.entries, report.problems.len());
    writeln!(out, "{logs} logs, {entries} entries, {problems} problems")?;
    if let Some((before, after)) = report.compacted {
        writeln!(
            out,
            "the file was written anew and can get smaller from now on: {before} bytes before, {after} now"
        )?;
    }
    if let Some(aside) = &report.put_aside {
        let aside = aside.display().to_string();
        let aside = printable(&aside, &[], Breaks::Escaped);
        writeln!(out, "repaired; the damaged file is {aside}, remove it when all devices have synced")?;
    }
    out.flush()
}

fn tell_restored(report: &care::RestoreReport) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let (logs, entries) = (report.restored.logs, report.restored.entries);
    writeln!(out, "restored {logs} logs, {entries} entries")?;
    if report.erased > 0 {
        writeln!(
            out,
            "{} of these logs were erased with their accounts since, and are erased again",
            report.erased
        )?;
    }
    if let Some(accounts) = &report.accounts {
        writeln!(
            out,
            "the accounts are those of the backup: what was signed out, removed or shared since then is not; look at `account list`, `device list` and `space list`"
        )?;
        writeln!(out, "{} sign-in key(s) are not good any more: make others", accounts.voided_keys)?;
    }
    if let Some(aside) = &report.put_aside {
        let aside = aside.display().to_string();
        let aside = printable(&aside, &[], Breaks::Escaped);
        writeln!(out, "what was there before is {aside}; remove it when all devices have synced")?;
    }
    out.flush()
}

async fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let tls = tls(&args)?;
    let accounts = Some(args.data.clone());
    let files =
        Files { accounts, database: args.logs.store.clone(), tokens: args.tokens, config: args.config };
    // A database is asked as files are read: not on a thread that others wait for.
    let reading = files.clone();
    let found = tokio::task::spawn_blocking(move || reading.read()).await??;
    let (auth, access, terms) = (found.auth.clone(), found.access.clone(), found.terms.clone());
    let directory = found.directory();
    #[cfg(feature = "console")]
    let has_console = args.console || found.has_console;
    // Before anything else: a signal that nobody waits for would end the process.
    let asked = hang_up();
    let open = auth.is_open();
    let listener = bind(args.listen).await?;
    let address = listener.local_addr()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    if open && !address.ip().is_loopback() {
        return Err(RunError::OpenToTheWorld(address).into());
    }
    // Whoever reads that it is there finds it there: a relay that is refused its folder says so, and nothing else.
    let (store, notifier, place) = store(&args.logs, &args.data, &terms.limits).await?;
    say(&format!("motet-relay {} on {scheme}://{address}, data in {place}", env!("CARGO_PKG_VERSION")));
    if open {
        say("no accounts and no tokens: this machine only, everybody on it is the account `local`");
    }
    let metrics = Metrics::new();
    if let Some(address) = args.metrics {
        let listener = bind(address).await?;
        say(&format!("metrics on http://{}/metrics", listener.local_addr()?));
        tokio::spawn(motet_relay::serve_metrics(listener, metrics.clone(), std::future::pending()));
    }
    #[cfg(feature = "console")]
    if has_console {
        say(&format!("console on {scheme}://{address}/console/; `motet-relay console link` signs in"));
    }
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.follow(hang_up()));
    }
    let (told, changes) = watch::channel((auth.clone(), terms.clone()));
    tokio::spawn(files.follow(found, asked, told));
    let retention = u32::from(args.retention) * DAY;
    #[cfg(feature = "console")]
    let console = has_console.then(|| motet_relay::console::Console::new(directory.clone()));
    let changes = Some(changes);
    let config = Config {
        auth,
        access,
        terms,
        retention,
        changes,
        metrics,
        #[cfg(feature = "console")]
        console,
        tls,
        notifier,
        accounts: Some(directory),
        ..Config::with_store(store)
    };
    run(listener, config, stop_signal()).await?;
    Ok(())
}

/// Opens the logs, and says where they are.
async fn store(
    logs: &Logs,
    data: &Path,
    limits: &Limits,
) -> Result<(Arc<dyn LogStore>, Arc<dyn Notifier>, String), Box<dyn std::error::Error>> {
    let Some(url) = &logs.store else {
        let store = SqliteStore::open_with(data, limits)?;
        return Ok((Arc::new(store), Arc::new(Alone), data.display().to_string()));
    };
    let store = PostgresStore::open(url, logs.store_connections, limits).await?;
    let notifier: Arc<dyn Notifier> = match &logs.nats {
        Some(nats) => Nats::connect(nats, logs.nats_credentials.as_deref(), store.id()).await?,
        None => Arc::new(Alone),
    };
    let place = store.place();
    Ok((Arc::new(store), notifier, place))
}

/// The certificate that the arguments name, if they name one.
fn tls(args: &Args) -> Result<Option<Tls>, TlsError> {
    let (Some(certificate), Some(key)) = (args.tls_certificate.clone(), args.tls_key.clone()) else {
        return Ok(None);
    };
    Tls::open(TlsFiles { certificate, key }).map(Some)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| format!("cannot listen on {address}: {e}"))
}

/// Prints a line. A relay serves whether or not somebody reads what it prints.
fn say(line: &str) {
    _ = writeln!(std::io::stdout(), "{}", printable(line, &[], Breaks::Escaped));
}

fn print_limits() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "[limits]")?;
    for (name, unit, default, reason) in motet_relay::config::TABLE {
        writeln!(out, "# {reason} In {unit}.\n{name} = {default}")?;
    }
    out.flush()
}

/// Says so on each SIGHUP.
fn hang_up() -> mpsc::Receiver<()> {
    let (ask, asked) = mpsc::channel(1);
    #[cfg(unix)]
    if let Ok(mut signals) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        tokio::spawn(async move { while signals.recv().await.is_some() && ask.send(()).await.is_ok() {} });
    }
    asked
}

/// Resolves on SIGTERM and on Ctrl-C.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    _ = tokio::signal::ctrl_c().await;
}
