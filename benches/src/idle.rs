//! What a connected device costs that has nothing to do: how often it wakes up, and processor time. A relay and a device, each a process of
//! its own, on a real socket; the device is connected and live, and nobody asks it anything.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::{Parser, Subcommand};
use motet::{Relay, Replica, Schema};
use motet_benches::process::DeviceProcess;
use motet_benches::relay::{self, RelayProcess, again};
use motet_relay::Config;
use serde_json::{Value, json};

/// Wake-ups and processor time of a connected device at rest.
#[derive(Parser)]
struct Args {
    /// Seconds for which it is measured
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds before that; what was just written makes a device look more often for a minute
    #[arg(long, default_value_t = 70)]
    settle: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it starts itself again.
#[derive(Subcommand)]
enum Role {
    #[command(name = "__relay", hide = true)]
    Relay { data: PathBuf },
    #[command(name = "__device", hide = true)]
    Device { db: PathBuf, url: String },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.role {
        Some(Role::Relay { data }) => relay::serve(Config::new(data)),
        Some(Role::Device { db, url }) => device(db.clone(), url),
        None => return idle(&args),
    }
    ExitCode::SUCCESS
}

/// A device that is connected until its input ends.
fn device(db: PathBuf, url: &str) {
    let replica = Replica::builder(db).device_name("at rest").open().unwrap();
    replica.apply_schema(&Schema::new().text("songs", "lyrics")).unwrap();
    let song = json!({ "id": "1", "title": "Hoʻi", "lyrics": "E hoʻi ke aloha\n" });
    replica.documents("songs").insert(&song).unwrap();
    replica.connect(Relay::new(url)).unwrap();
    replica.sync_now().unwrap();
    println!("{}", json!({ "state": replica.status().to_string() }));
    _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

fn idle(args: &Args) -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let relay = RelayProcess::start(again().arg("__relay").arg(folder.path().join("relay")));
    let db = folder.path().join("a.db");
    let mut device = DeviceProcess::start(again().arg("__device").arg(db).arg(relay.url()));
    let state: Value = device.receive();
    sleep(Duration::from_secs(args.settle));
    let before = Used::of(device.pid());
    sleep(Duration::from_secs(args.seconds));
    let after = Used::of(device.pid());
    let wakeups = (after.switches - before.switches) as f64 / args.seconds as f64;
    let cpu_ms = (after.cpu_ns - before.cpu_ns) as f64 / 1e6 * 60.0 / args.seconds as f64;
    match args.json {
        true => println!("{}", json!({ "wakeups_per_s": wakeups, "cpu_ms_per_minute": cpu_ms })),
        false => println!(
            "a device that is connected ({}): {wakeups:.2} wake-ups a second, {cpu_ms:.1} ms of processor a minute",
            state["state"].as_str().unwrap_or_default(),
        ),
    }
    ExitCode::SUCCESS
}

/// What the threads of a process have used since they began.
struct Used {
    /// Times that a thread began to wait, and so that one was woken.
    switches: u64,
    cpu_ns: u64,
}

impl Used {
    fn of(pid: u32) -> Self {
        let mut used = Self { switches: 0, cpu_ns: 0 };
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let thread = thread.unwrap().path();
            let status = std::fs::read_to_string(thread.join("status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            used.switches += line.unwrap().trim().parse::<u64>().unwrap();
            let times = std::fs::read_to_string(thread.join("schedstat")).unwrap();
            used.cpu_ns += times.split_whitespace().next().unwrap().parse::<u64>().unwrap();
        }
        used
    }
}
