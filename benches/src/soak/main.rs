//! A relay and many devices, each a process of its own, for an hour or longer: people edit, devices and the relay are restarted and killed.
//! Prints each minute what they hold of memory, descriptors and disk; at the end all devices rest and must show the same.

mod device;
mod random;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use motet_benches::process::DeviceProcess;
use motet_benches::relay::{RelayProcess, again, serve_at};
use motet_benches::{descriptors, rss_mb};
use motet_relay::Config;
use random::Random;
use serde_json::{Value, json};

/// What a snapshot supersedes leaves the relay after so long: within the run.
const RETENTION: Duration = Duration::from_secs(120);

/// Time between two looks at what is to be restarted.
const TICK: Duration = Duration::from_secs(1);

/// Rounds in which all devices send and receive at the end, so that each has what the others sent last.
const LAST_ROUNDS: usize = 3;

/// A relay and many devices with edits, restarts and kills; memory, descriptors and disk over time.
#[derive(Parser)]
struct Args {
    /// How long people edit
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Devices, each a process of its own
    #[arg(long, default_value_t = 20)]
    devices: usize,
    /// Time between two edits of a device, on average, in milliseconds
    #[arg(long, default_value_t = 4_000)]
    pause: u64,
    /// Folder for the databases; without it a new one in the system's place for such
    #[arg(long)]
    folder: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it starts itself again.
#[derive(Subcommand)]
enum Role {
    #[command(name = "__relay", hide = true)]
    Relay { data: PathBuf, port: u16 },
    #[command(name = "__device", hide = true)]
    Device { db: PathBuf, name: String, url: String, pause: u64 },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.role {
        Some(Role::Relay { data, port }) => {
            serve_at(*port, Config { retention: RETENTION, ..Config::new(data) });
        }
        Some(Role::Device { db, name, url, pause }) => device::run(db, name, url, *pause),
        None => return soak(&args),
    }
    ExitCode::SUCCESS
}

fn soak(args: &Args) -> ExitCode {
    let scratch = tempfile::tempdir().unwrap();
    let folder = args.folder.clone().unwrap_or_else(|| scratch.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    let mut crowd = Crowd::start(&folder, args);
    println!(
        "{:>6} {:>22} {:>32} {:>34}",
        "minute",
        "relay: MB, open files",
        "relay disk: MB, of it the WAL",
        "devices: MB mean, most, open files"
    );
    let begun = Instant::now();
    let mut minute = 0;
    while begun.elapsed() < Duration::from_secs(60 * args.minutes) {
        std::thread::sleep(TICK);
        crowd.disturb();
        if begun.elapsed().as_secs() / 60 > minute {
            minute = begun.elapsed().as_secs() / 60;
            crowd.print(minute);
        }
    }
    crowd.rest()
}

/// The relay and the devices.
struct Crowd {
    folder: PathBuf,
    pause: u64,
    relay: Option<RelayProcess>,
    port: u16,
    devices: Vec<Option<DeviceProcess>>,
    random: Random,
    /// Kills and restarts so far, of devices and of the relay.
    killed: [usize; 2],
    restarted: [usize; 2],
    /// Devices that ended by themselves.
    died: usize,
}

impl Crowd {
    fn start(folder: &Path, args: &Args) -> Self {
        let relay = RelayProcess::start(again().arg("__relay").arg(folder.join("relay")).arg("0"));
        let port = relay.address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap();
        let mut crowd = Self {
            folder: folder.to_owned(),
            pause: args.pause,
            relay: Some(relay),
            port,
            devices: (0..args.devices).map(|_| None).collect(),
            random: Random::of("soak"),
            killed: [0, 0],
            restarted: [0, 0],
            died: 0,
        };
        (0..args.devices).for_each(|n| crowd.start_device(n));
        crowd
    }

    fn start_device(&mut self, n: usize) {
        let (name, url) = (format!("device-{n}"), format!("http://127.0.0.1:{}", self.port));
        let db = self.folder.join(format!("{name}.db"));
        let mut command = again();
        command.arg("__device").arg(db).args([name, url, self.pause.to_string()]);
        self.devices[n] = Some(DeviceProcess::start(&mut command));
    }

    fn start_relay(&mut self) {
        let (data, port) = (self.folder.join("relay"), self.port.to_string());
        self.relay = Some(RelayProcess::start(again().arg("__relay").arg(data).arg(port)));
    }

    /// What happens in a second: what is down may come back, a device or the relay may be ended or killed.
    fn disturb(&mut self) {
        for n in 0..self.devices.len() {
            if self.devices[n].as_mut().is_some_and(DeviceProcess::has_ended) {
                self.died += 1;
                self.devices[n] = None;
            }
            if self.devices[n].is_none() && self.random.below(4) == 0 {
                self.start_device(n);
            }
        }
        if self.relay.is_none() && self.random.below(3) == 0 {
            self.start_relay();
        }
        let n = self.random.below(self.devices.len() as u64) as usize;
        match self.random.below(60) {
            0..3 => {
                if let Some(device) = self.devices[n].take() {
                    self.killed[0] += 1;
                    device.kill();
                }
            }
            3..5 => self.restarted[0] += usize::from(self.devices[n].take().is_some()),
            5 => {
                if let Some(relay) = self.relay.take() {
                    self.killed[1] += 1;
                    relay.kill();
                }
            }
            6 => self.restarted[1] += usize::from(self.relay.take().is_some()),
            _ => {}
        }
    }

    fn print(&self, minute: u64) {
        let relay = self.relay.as_ref().map(RelayProcess::pid);
        let devices: Vec<u32> = self.devices.iter().flatten().map(DeviceProcess::pid).collect();
        let memory: Vec<f64> = devices.iter().filter_map(|pid| rss_mb(*pid)).collect();
        let open = devices.iter().filter_map(|pid| descriptors(*pid)).max().unwrap_or_default();
        let files = |names: &mut dyn Iterator<Item = PathBuf>| -> f64 {
            names.map(|path| std::fs::metadata(path).map_or(0.0, |data| data.len() as f64 / 1e6)).sum()
        };
        let relay_file = |end: &str| self.folder.join("relay").join(format!("relay.db{end}"));
        let device_files = |end: &'static str| {
            (0..self.devices.len()).map(move |n| self.folder.join(format!("device-{n}.db{end}")))
        };
        let [db, wal] = ["", "-wal"].map(|end| files(&mut [relay_file(end)].into_iter()));
        let [dbs, wals] = ["", "-wal"].map(|end| files(&mut device_files(end)) / self.devices.len() as f64);
        println!(
            "{minute:>6} {:>12.1} {:>9} {db:>22.1} {wal:>9.1} {:>20.1} {:>6.1} {open:>6}   disk of one: {dbs:.1}, WAL {wals:.1}",
            relay.and_then(rss_mb).unwrap_or_default(),
            relay.and_then(descriptors).unwrap_or_default(),
            memory.iter().sum::<f64>() / memory.len().max(1) as f64,
            memory.iter().copied().fold(0.0, f64::max),
        );
    }

    /// Everybody sends and receives what is left, and shows the same.
    fn rest(mut self) -> ExitCode {
        if self.relay.is_none() {
            self.start_relay();
        }
        for n in 0..self.devices.len() {
            if self.devices[n].is_none() {
                self.start_device(n);
            }
        }
        self.devices.iter_mut().flatten().for_each(|device| _ = device.call(&json!({ "do": "stop" })));
        let mut told: Vec<Value> = Vec::new();
        for _ in 0..LAST_ROUNDS {
            told = self
                .devices
                .iter_mut()
                .flatten()
                .map(|device| device.call(&json!({ "do": "rest" })))
                .collect();
        }
        let hashes: HashSet<String> = told.iter().map(|told| told["hash"].to_string()).collect();
        let sum = |what: &str| told.iter().filter_map(|told| told[what].as_u64()).sum::<u64>();
        let [pending, quarantined, problems] = ["pending", "quarantined", "problems"].map(sum);
        println!(
            "devices killed {}, restarted {}, ended by themselves {}; relay killed {}, restarted {}",
            self.killed[0], self.restarted[0], self.died, self.killed[1], self.restarted[1]
        );
        println!(
            "{} devices show {} documents in {} ways; pending {pending}, set aside {quarantined}, problems {problems}",
            told.len(),
            told[0]["documents"],
            hashes.len()
        );
        told.iter().filter(|told| !told["error"].is_null()).for_each(|told| println!("  {}", told["error"]));
        let is_good = hashes.len() == 1 && pending + quarantined + problems == 0 && self.died == 0;
        if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
