//! A relay under attack: what a neighbour, another account that pushes one small entry every 20 ms, notices of it, and how much memory
//! the relay takes. The relay is a process of its own, and so is each attacker, which gives way to both (`nice`), so that the machine's
//! cores are not what is measured.
//!
//! `cargo run --release -p motet-benches --bin siege [-- --seconds 10] [--only NAME]`

mod attacks;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use attacks::Attack;
use clap::Parser;
use motet_benches::attack::{Latencies, neighbour};
use motet_benches::peak_rss_mb;
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
    (attack.prepare)(relay.address.clone()).await;
    let watch = async |time: Duration| neighbour(&relay.address, Some("good"), 9, time).await;
    let before = watch(QUIET).await;
    let memory = relay.reset_peak();
    let mut attacker = Command::new("nice")
        .args(["-n", "19"])
        .arg(std::env::current_exe().unwrap())
        .args(["--role", "attack", attack.name, &relay.address, &seconds.to_string()])
        .spawn()
        .unwrap();
    let during = watch(Duration::from_secs(seconds)).await;
    attacker.wait().unwrap();
    tokio::time::sleep(RECOVERY).await;
    let after = watch(QUIET).await;
    let peak = peak_rss_mb(relay.child.id()).unwrap_or_default();
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

/// A relay in a process of its own.
struct Relay {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Relay {
    fn start(folder: &Path) -> Self {
        std::fs::write(folder.join("tokens"), "bad -> attacker\ngood -> neighbour\n").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--role", "relay"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned(), folder: folder.to_owned() }
    }

    /// Memory in use now, in MB; the peak counts from here.
    fn reset_peak(&self) -> f64 {
        _ = std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
        peak_rss_mb(self.child.id()).unwrap_or_default()
    }

    fn file_mb(&self) -> f64 {
        let bytes =
            |name| std::fs::metadata(self.folder.join("data").join(name)).map_or(0, |file| file.len());
        (bytes("relay.db") + bytes("relay.db-wal")) as f64 / 1e6
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        _ = self.child.wait();
    }
}

/// Says its address, and serves until its input ends.
fn run_relay(folder: &Path) {
    motet_relay::runtime().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            _ = stop.send(());
        });
        let auth = Auth::from_file(&folder.join("tokens")).unwrap();
        let config = motet_relay::Config { auth, ..motet_relay::Config::new(folder.join("data")) };
        motet_relay::run(listener, config, async move { _ = stopped.await }).await.unwrap();
    });
}
