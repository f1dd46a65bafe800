//! A relay under attack: what a neighbour, another account that pushes one small entry every 20 ms, notices of it, and how much memory
//! the relay takes. The relay is a process of its own, and so is each attacker, which gives way to both (`nice`), so that the machine's
//! cores are not what is measured.
//!
//! `cargo run --release -p motet-benches --bin siege [-- --seconds 10] [--only NAME]`

mod attacks;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attacks::Attack;
use clap::Parser;
use motet_benches::attack::{Latencies, neighbour};
use motet_benches::peak_rss_mb;
use motet_benches::relay::{self, RelayProcess, again};
use motet_relay::Config;
use motet_relay::auth::Auth;

/// How long the neighbour is watched before an attack, and after it.
const QUIET: Duration = Duration::from_secs(4);

/// How soon after an attack everything is to be as before.
const RECOVERY: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Args {
    /// How long each attack lasts, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only attacks whose name has this in it.
    #[arg(long)]
    only: Option<String>,
    /// What a child process is: `relay FOLDER` or `attack NAME ADDRESS SECONDS`.
    #[arg(long, hide = true, num_args = 1..)]
    role: Vec<String>,
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match args.role.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["relay", folder] => run_relay(Path::new(folder)),
        ["attack", name, address, seconds] => {
            let attack = attacks::ALL.iter().find(|attack| attack.name == name).unwrap();
            let stop = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
            runtime.block_on((attack.run)(address.to_owned(), stop));
        }
        _ => {
            println!(
                "| attack | before p50, p99 | during p50, p99 | after p50, p99 | memory before, peak | file |"
            );
            println!("|---|---|---|---|---|---|");
            let is_meant = |attack: &&Attack| {
                args.only
                    .as_deref()
                    .is_none_or(|only| attack.name.contains(only) || attack.what.contains(only))
            };
            for attack in attacks::ALL.iter().filter(is_meant) {
                runtime.block_on(siege(attack, args.seconds));
            }
        }
    }
}

/// Plays one attack on a new relay, and prints its row.
async fn siege(attack: &Attack, seconds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path());
    let address = &relay.process.address;
    if let Some(prepare) = attack.prepare {
        prepare(address.clone()).await;
    }
    let watch = async |time: Duration| neighbour(address, Some("good"), 9, time).await;
    let before = watch(QUIET).await;
    let memory = relay.reset_peak();
    let mut attacker = Command::new("nice")
        .args(["-n", "19"])
        .arg(std::env::current_exe().unwrap())
        .args(["--role", "attack", attack.name, address, &seconds.to_string()])
        .spawn()
        .unwrap();
    let during = watch(Duration::from_secs(seconds)).await;
    attacker.wait().unwrap();
    tokio::time::sleep(RECOVERY).await;
    let after = watch(QUIET).await;
    let peak = relay.peak();
    println!(
        "| {} | {} | {} | {} | {memory:.0}, {peak:.0} MB | {:.0} MB |",
        attack.what,
        shown(&before),
        shown(&during),
        shown(&after),
        relay.file_mb(),
    );
    std::io::stdout().flush().unwrap();
}

fn shown(latencies: &Latencies) -> String {
    let ms = |share| latencies.share(share).as_secs_f64() * 1e3;
    let refused = match latencies.refused {
        0 => String::new(),
        n => format!(", {n} of {} refused", n + latencies.times.len()),
    };
    format!("{:.1}, {:.1} ms{refused}", ms(0.5), ms(0.99))
}

/// A relay, and where its file is.
struct Relay {
    process: RelayProcess,
    data: PathBuf,
}

impl Relay {
    fn start(folder: &Path) -> Self {
        std::fs::write(folder.join("tokens"), "bad -> attacker\ngood -> neighbour\n").unwrap();
        let mut command = again();
        command.args(["--role", "relay"]).arg(folder).stderr(Stdio::null());
        Self { process: RelayProcess::start(&mut command), data: folder.join("data") }
    }

    /// Memory in use now, in MB; the peak counts from here.
    fn reset_peak(&self) -> f64 {
        _ = std::fs::write(format!("/proc/{}/clear_refs", self.process.pid()), "5");
        self.peak()
    }

    fn peak(&self) -> f64 {
        peak_rss_mb(self.process.pid()).unwrap_or_default()
    }

    fn file_mb(&self) -> f64 {
        let bytes = |name| std::fs::metadata(self.data.join(name)).map_or(0, |file| file.len());
        (bytes("relay.db") + bytes("relay.db-wal")) as f64 / 1e6
    }
}

fn run_relay(folder: &Path) {
    let auth = std::sync::Arc::new(Auth::from_file(&folder.join("tokens")).unwrap());
    relay::serve(Config { auth, ..Config::new(folder.join("data")) });
}
