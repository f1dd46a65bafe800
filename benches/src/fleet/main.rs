//! The fleet job: a relay and two devices, each a process of its own, on real disks and a real socket.
//!
//! Device A makes N songs, is reopened, and uploads them. A fresh device B downloads. Then live edits go from A
//! to B, and 2,000 pipelined edits of one document. At the end heads and texts of both are compared.

mod device;
mod floor;
mod measure;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use measure::{Report, cpu_ms, files_mb, folder_mb, fsync_ms};
use motet_benches::process::DeviceProcess;
use motet_benches::relay::{self, RelayProcess, again};
use motet_benches::{median, peak_rss_mb, songs};
use motet_relay::Config;

/// Single edits that are timed one by one.
const LIVE_EDITS: usize = 200;

/// Edits of one document that are handed over without waiting.
const PIPELINED_EDITS: usize = 2_000;

/// Songs of which one is changed.
const DELTA_DOCUMENTS: usize = 100;

/// Rounds on an open session with nothing to do.
const NOOP_ROUNDS: usize = 20;

/// Upload, download, live edits and pipelined edits between three processes.
#[derive(Parser)]
struct Args {
    /// Number of songs
    #[arg(long, default_value_t = 1_000)]
    documents: usize,
    /// JSONL file of songs; repeated with changes if it holds fewer. Without it songs are made up
    #[arg(long)]
    data: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
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
    Relay { data: PathBuf },
    #[command(name = "__device", hide = true)]
    Device { db: PathBuf, name: String },
    #[command(name = "__floor", hide = true)]
    Floor { folder: PathBuf },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.role {
        Some(Role::Relay { data }) => relay::serve(Config::new(data)),
        Some(Role::Device { db, name }) => device::run(db, name),
        Some(Role::Floor { folder }) => floor::run(folder),
        None => return fleet(&args),
    }
    ExitCode::SUCCESS
}

fn device_process(db: &Path, name: &str) -> DeviceProcess {
    DeviceProcess::start(again().arg("__device").arg(db).arg(name))
}

fn fleet(args: &Args) -> ExitCode {
    let scratch = tempfile::tempdir().unwrap();
    let folder = args.folder.clone().unwrap_or_else(|| scratch.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    let (db_a, db_b, relay_data) = (folder.join("a.db"), folder.join("b.db"), folder.join("relay"));
    let mut report = Report { fsync_ms: fsync_ms(&folder), ..Report::default() };

    eprintln!("making {} songs on A", args.documents);
    songs::write(&folder.join("songs.jsonl"), args.data.as_deref(), args.documents);
    let mut a = device_process(&db_a, "a");
    let made = a.call(&json!({ "do": "create", "file": folder.join("songs.jsonl") }));
    eprintln!("  {:.2} s", made["s"].as_f64().unwrap());
    drop(a);

    eprintln!("upload");
    let relay = start_relay(&relay_data);
    let mut a = device_process(&db_a, "a");
    let upload = a.call(&json!({ "do": "sync", "url": relay.url() }));
    report.upload_s = upload["s"].as_f64();
    report.wire_up_mb = upload["summary"]["bytes_up"].as_f64().map(|b| b / 1e6);

    eprintln!("download on a fresh B");
    let mut b = device_process(&db_b, "b");
    let download = b.call(&json!({ "do": "download", "url": relay.url(), "documents": args.documents }));
    report.list_open_s = download["list_open_s"].as_f64();
    report.search_s = download["search_s"].as_f64();
    report.merged_s = download["merged_s"].as_f64();
    report.wire_down_mb = download["summary"]["bytes_down"].as_f64().map(|b| b / 1e6);

    report.client_disk_mb = Some(files_mb(&db_b));

    eprintln!("{NOOP_ROUNDS} rounds with nothing to do");
    a.call(&json!({ "do": "sync" }));
    noop(&mut a, &mut report);

    eprintln!("{LIVE_EDITS} live edits");
    live(&mut a, &mut b, relay.pid(), &mut report);

    if let Some((cpu, time)) = floor::floor(&folder) {
        (report.floor_cpu_ms, report.floor_ms) = (Some(cpu), Some(time));
    }

    eprintln!("{PIPELINED_EDITS} pipelined edits of one document");
    pipelined(&mut a, &mut b, &mut report);

    eprintln!("one of {DELTA_DOCUMENTS} songs changed");
    delta(&folder, args.data.as_deref(), &mut report);

    a.call(&json!({ "do": "sync" }));
    b.call(&json!({ "do": "sync" }));
    let same = a.call(&json!({ "do": "digest" })) == b.call(&json!({ "do": "digest" }));
    report.relay_rss_mb = peak_rss_mb(relay.pid());
    report.client_rss_mb = peak_rss_mb(b.pid());
    drop((a, b, relay));
    report.relay_disk_mb = Some(folder_mb(&relay_data));

    if args.json {
        println!("{}", serde_json::to_string(&report).unwrap());
    } else {
        report.print(args.documents);
    }
    if same {
        ExitCode::SUCCESS
    } else {
        eprintln!("heads or texts of A and B differ");
        ExitCode::FAILURE
    }
}

fn start_relay(data: &Path) -> RelayProcess {
    RelayProcess::start(again().arg("__relay").arg(data))
}

/// Bytes both ways of a round after one edit, as a part of those of the first round.
fn delta(folder: &Path, data: Option<&Path>, report: &mut Report) {
    let file = folder.join("few.jsonl");
    songs::write(&file, data, DELTA_DOCUMENTS);
    let relay = start_relay(&folder.join("relay of few"));
    let mut device = device_process(&folder.join("few.db"), "few");
    device.call(&json!({ "do": "create", "file": file }));
    let bytes = |round: Value| {
        let of = |key: &str| round["summary"][key].as_f64().unwrap();
        of("bytes_up") + of("bytes_down")
    };
    let full = bytes(device.call(&json!({ "do": "sync", "url": relay.url() })));
    let id = device.call(&json!({ "do": "ids", "count": 1 }))[0].clone();
    device.call(&json!({ "do": "edit", "id": id }));
    report.delta_percent = Some(bytes(device.call(&json!({ "do": "sync" }))) * 100.0 / full);
}

fn noop(a: &mut DeviceProcess, report: &mut Report) {
    let rounds: Vec<Value> = (0..NOOP_ROUNDS).map(|_| a.call(&json!({ "do": "sync" }))).collect();
    let of = |read: &dyn Fn(&Value) -> f64| median(rounds.iter().map(read).collect());
    report.noop_ms = Some(of(&|r| r["s"].as_f64().unwrap() * 1e3));
    let bytes =
        |r: &Value| r["summary"]["bytes_up"].as_f64().unwrap() + r["summary"]["bytes_down"].as_f64().unwrap();
    report.noop_bytes = Some(of(&bytes));
    report.noop_round_trips = Some(of(&|r| r["summary"]["messages_up"].as_f64().unwrap()));
}

/// Edits one after the other, each when the one before has arrived: of a song that both have open, then of another song each time,
/// which both have to load first.
fn live(a: &mut DeviceProcess, b: &mut DeviceProcess, relay: u32, report: &mut Report) {
    let ids = a.call(&json!({ "do": "ids", "count": LIVE_EDITS }));
    let ids = ids.as_array().unwrap();
    let before = cpu_ms(relay);
    report.live_ms = Some(live_edits(a, b, &vec![ids[LIVE_EDITS - 1].clone(); LIVE_EDITS]));
    report.relay_cpu_ms_per_edit = Some((cpu_ms(relay) - before) / LIVE_EDITS as f64);
    report.live_cold_ms = Some(live_edits(a, b, ids));
}

fn live_edits(a: &mut DeviceProcess, b: &mut DeviceProcess, ids: &[Value]) -> f64 {
    let mut times = Vec::new();
    for id in ids {
        b.call(&json!({ "do": "expect", "id": id }));
        let committed = a.call(&json!({ "do": "edit", "id": id }))["at_us"].as_i64().unwrap();
        let told = b.receive()["at_us"].as_i64().unwrap();
        times.push((told - committed) as f64 / 1e3);
    }
    median(times)
}

fn pipelined(a: &mut DeviceProcess, b: &mut DeviceProcess, report: &mut Report) {
    let id = a.call(&json!({ "do": "ids", "count": 1 }))[0].clone();
    let before = b.call(&json!({ "do": "changes", "id": id })).as_u64().unwrap();
    let all = before + PIPELINED_EDITS as u64;
    b.call(&json!({ "do": "expect_changes", "id": id, "count": all }));
    let begun = Instant::now();
    a.send(&json!({ "do": "pipeline", "id": id, "edits": PIPELINED_EDITS }));
    b.receive();
    report.pipelined_per_s = Some(PIPELINED_EDITS as f64 / begun.elapsed().as_secs_f64());
    a.receive();
}
