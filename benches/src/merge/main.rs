//! Merge throughput: changes that several devices have made meet in one, through a real relay, beside bare Automerge on the same changes.

mod bare;
mod floor;
mod plot;
mod reader;
mod replay;
mod shapes;
mod trace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use motet_benches::relay::{self, RelayProcess, again};
use motet_benches::{median, songs};
use motet_relay::Config;
use serde::Serialize;

use reader::{Machine, Read, Received};
use shapes::{Shape, Size};
use trace::Trace;

/// How fast concurrent changes are made, merged and stored
#[derive(Parser)]
struct Args {
    /// Editing trace to replay, in the public format of text CRDT benchmarks, compressed by gzip or not
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Work to measure: what others have changed while a device was away comes in at once
    #[arg(long, conflicts_with = "trace")]
    shape: Option<Shape>,
    /// People who write, each on a device
    #[arg(long, requires = "shape", value_parser = clap::value_parser!(u8).range(1..=50))]
    people: Option<u8>,
    /// Measure devices that have one core and 256 MB of memory (needs `prlimit` and `taskset`)
    #[arg(long, requires = "shape")]
    phone: bool,
    /// Measure how it grows with the number of changes and of documents, and draw it into an SVG file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "shape"])]
    plot: Option<PathBuf>,
    /// JSON Lines of songs to repeat; without it they are made up
    #[arg(long)]
    data: Option<PathBuf>,
    /// Devices that read in the end, one after the other; medians are shown
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Folder for the databases; without it a new one in the system's place for such
    #[arg(long)]
    folder: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    #[command(name = "__relay", hide = true)]
    Relay { data: PathBuf },
    #[command(name = "__reader", hide = true)]
    Reader { db: PathBuf, url: String },
    #[command(name = "__receiver", hide = true)]
    Receiver { db: PathBuf, url: String },
    #[command(name = "__follower", hide = true)]
    Follower { db: PathBuf, url: String, end: PathBuf },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.role {
        Some(Role::Relay { data }) => relay::serve(Config::new(data)),
        Some(Role::Reader { db, url }) => reader::read(db, url),
        Some(Role::Receiver { db, url }) => reader::receive(db, url),
        Some(Role::Follower { db, url, end }) => reader::follow(db, url, end),
        None => {
            let scratch = tempfile::tempdir().unwrap();
            let folder = args.folder.clone().unwrap_or_else(|| scratch.path().to_owned());
            if let Some(shape) = args.shape {
                return run_shape(&args, &folder, shape);
            }
            if let Some(file) = &args.plot {
                return run_plot(&args, &folder, file);
            }
            let Some(path) = &args.trace else {
                eprintln!("merge: give --shape SHAPE, --trace FILE or --plot FILE");
                return ExitCode::from(2);
            };
            return match Trace::read(path) {
                Ok(trace) => run_trace(&args, &folder, &trace),
                Err(error) => {
                    eprintln!("merge: {error}");
                    ExitCode::from(2)
                }
            };
        }
    }
    ExitCode::SUCCESS
}

/// What it took a device that was away to receive what others had changed. Times in seconds, medians of processes.
#[derive(Debug, Serialize)]
struct ShapeReport {
    shape: String,
    people: usize,
    documents: usize,
    changes: usize,
    change_bytes: usize,
    s: f64,
    cpu_s: f64,
    changes_per_s: f64,
    mb_per_s: f64,
    peak_mb: f64,
    /// Bare Automerge applies the changes to loaded documents.
    apply_s: f64,
    /// Bare Automerge and SQLite: load, apply, read, write.
    floor_one_core_s: f64,
    floor_all_cores_s: f64,
    file_bytes: u64,
    differ: usize,
}

fn run_shape(args: &Args, folder: &Path, shape: Shape) -> ExitCode {
    let report = measure(args, folder, shape, shape.size());
    match args.json {
        true => println!("{}", serde_json::to_string(&report).unwrap()),
        false => report.print(),
    }
    if report.differ == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures twice as much each time, of one text and of many, and draws it.
fn run_plot(args: &Args, folder: &Path, file: &Path) -> ExitCode {
    let of_text = [1_250, 2_500, 5_000, 10_000, 20_000].map(|changes| Size { documents: 1, changes });
    let of_many = [75, 150, 300, 600, 1_200].map(|documents| Size { documents, changes: 30 });
    let mut differ = 0;
    let mut measure = |shape: Shape, sizes: &[Size], number: fn(&Size) -> usize| -> Vec<plot::Point> {
        let points = sizes.iter().map(|size| {
            let folder = folder.join(format!("{shape:?}-{}-{}", size.documents, size.changes));
            let report = measure(args, &folder, shape, *size);
            differ += report.differ;
            let (motet, bare) = (report.changes_per_s, report.changes as f64 / report.apply_s);
            println!("{:?}: {motet:.0} changes/s, bare apply {bare:.0}", size);
            plot::Point { number: number(size) as f64, motet, bare }
        });
        points.collect()
    };
    let panels = [
        plot::Panel {
            title: "one text, by two people",
            axis: "changes",
            points: measure(Shape::Text, &of_text, |size| size.changes),
        },
        plot::Panel {
            title: "many documents, 30 changes of each",
            axis: "documents",
            points: measure(Shape::Documents, &of_many, |size| size.documents),
        },
    ];
    std::fs::write(file, plot::draw(&panels)).unwrap();
    if differ == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(args: &Args, folder: &Path, shape: Shape, size: Size) -> ShapeReport {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("songs.jsonl");
    songs::write(&path, args.data.as_deref(), size.documents.max(100));
    let text = std::fs::read_to_string(&path).unwrap();
    let songs: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let relay = start_relay(&folder.join("relay"));
    eprintln!("others change it");
    let people = args.people.map_or(shape.people(), usize::from);
    shape.make(size, people, folder, &songs, &relay.url());
    let (author, away) = (folder.join("author-0.db"), folder.join("away.db"));
    let expected = shapes::digest(&shapes::open(&author));

    eprintln!("bare Automerge and SQLite");
    let work = floor::work(&away, &author);
    let floor = floor::floor(&work, folder, args.runs);

    eprintln!("a device that was away");
    let machine = if args.phone { Machine::Phone } else { Machine::Whole };
    let runs: Vec<Received> = (0..args.runs.max(1))
        .map(|run| {
            let db = folder.join(format!("was-away-{run}.db"));
            std::fs::copy(&away, &db).unwrap();
            reader::start_receiver(&db, &relay.url(), machine)
        })
        .collect();
    let median = |of: fn(&Received) -> f64| median(runs.iter().map(of).collect());
    let s = median(|run| run.s);
    ShapeReport {
        shape: format!("{shape:?}").to_lowercase(),
        people,
        documents: work.len(),
        changes: floor.changes,
        change_bytes: floor.bytes,
        s,
        cpu_s: median(|run| run.cpu_s),
        changes_per_s: floor.changes as f64 / s,
        mb_per_s: floor.bytes as f64 / 1e6 / s,
        peak_mb: median(|run| run.peak_mb),
        apply_s: floor.apply_s,
        floor_one_core_s: floor.one_core_s,
        floor_all_cores_s: floor.all_cores_s,
        file_bytes: runs.iter().map(|run| run.file_bytes).max().unwrap_or_default(),
        differ: runs.iter().filter(|run| run.digest != expected).count(),
    }
}

impl ShapeReport {
    fn print(&self) {
        println!(
            "{}: {} changes of {} documents by {} device(s), {:.2} MB",
            self.shape,
            self.changes,
            self.documents,
            self.people,
            self.change_bytes as f64 / 1e6
        );
        println!(
            "received, merged, stored  {:>8.0} changes/s  {:>6.2} MB/s  {:>7.3} s, processor {:>7.3} s, {:.0} MB",
            self.changes_per_s, self.mb_per_s, self.s, self.cpu_s, self.peak_mb
        );
        for (what, s) in [
            ("bare apply", self.apply_s),
            ("floor, one core", self.floor_one_core_s),
            ("floor, all cores", self.floor_all_cores_s),
        ] {
            println!(
                "{what:<25} {:>8.0} changes/s               {s:>7.3} s   {:>6.2}x",
                self.changes as f64 / s,
                self.s / s
            );
        }
        if self.differ > 0 {
            println!("{} devices show something else than the author", self.differ);
        }
    }
}

/// What a replayed trace took. Times in seconds, of one process each.
#[derive(Debug, Serialize)]
struct TraceReport {
    agents: usize,
    steps: usize,
    edits: usize,
    chars: usize,
    /// Replacements made in a second, each step a change on the disk.
    edits_per_s: f64,
    bare_edits_per_s: f64,
    sync_rounds: usize,
    sync_s: f64,
    /// The same between bare documents, in memory.
    bare_sync_s: f64,
    settle_s: f64,
    late_s: f64,
    late_changes_per_s: f64,
    bare_load_s: f64,
    away_s: f64,
    away_changes_per_s: f64,
    bare_apply_s: f64,
    bare_changes_per_s: f64,
    live_s: f64,
    live_changes_per_s: f64,
    file_bytes: u64,
    late_file_bytes: u64,
    relay_bytes: u64,
    bare_saved_bytes: usize,
    late_peak_mb: f64,
    away_peak_mb: f64,
    /// Devices whose text was not what the trace ends with.
    differ: Vec<String>,
}

fn run_trace(args: &Args, folder: &Path, trace: &Trace) -> ExitCode {
    std::fs::create_dir_all(folder).unwrap();
    eprintln!("bare Automerge");
    let bare = bare::replay(trace);
    let mut differ = Vec::new();
    let mut check = |who: &str, text: &str| {
        if text != trace.end {
            eprintln!("{who}: {}", difference(text, &trace.end));
            differ.push(who.to_owned());
        }
    };
    check("bare Automerge", &bare.text);

    eprintln!("{} steps of {} devices", trace.steps.len(), trace.agents);
    let relay = start_relay(&folder.join("relay"));
    let agents = trace.names();
    let names: Vec<&str> = agents.iter().map(String::as_str).chain(["away"]).collect();
    let start = replay::begin(folder, &names, &trace.start, &relay.url());
    let replayed = replay::replay(trace, folder, &start, &relay);
    for (name, text) in agents.iter().zip(&replayed.texts) {
        check(name, text);
    }

    eprintln!("a device that joins late, and one that was away");
    let read = |name: &str, from: Option<&Path>| -> Vec<Read> {
        let runs = (0..args.runs.max(1)).map(|run| {
            let db = replay::file(folder, &format!("{name}-{run}"));
            if let Some(from) = from {
                std::fs::copy(from, &db).unwrap();
            }
            reader::start(&db, &relay.url())
        });
        runs.collect()
    };
    let (late, away) = (read("late", None), read("was-away", Some(&replay::file(folder, "away"))));
    for (name, runs) in [("late", &late), ("away", &away)] {
        runs.iter().for_each(|read| check(name, &read.text));
    }
    let relay_bytes = folder_bytes(&folder.join("relay"));
    drop(relay);

    eprintln!("a device that follows");
    let live_s = follow(trace, &folder.join("live"), &mut check);

    let changes = bare.changes as f64;
    let (late_s, away_s) = (Read::median_s(&late), Read::median_s(&away));
    let report = TraceReport {
        agents: trace.agents,
        steps: trace.steps.len(),
        edits: trace.edits(),
        chars: trace.end.chars().count(),
        edits_per_s: trace.edits() as f64 / replayed.writing.as_secs_f64(),
        bare_edits_per_s: trace.edits() as f64 / bare.writing.as_secs_f64(),
        sync_rounds: replayed.rounds,
        sync_s: replayed.syncing.as_secs_f64(),
        bare_sync_s: bare.merging.as_secs_f64(),
        settle_s: replayed.settling.as_secs_f64(),
        late_s,
        late_changes_per_s: changes / late_s,
        bare_load_s: bare.loading.as_secs_f64(),
        away_s,
        away_changes_per_s: changes / away_s,
        bare_apply_s: bare.applying.as_secs_f64(),
        bare_changes_per_s: changes / bare.applying.as_secs_f64(),
        live_s,
        live_changes_per_s: changes / live_s,
        file_bytes: replayed.file_bytes,
        late_file_bytes: late.iter().map(|read| read.file_bytes).max().unwrap_or_default(),
        relay_bytes,
        bare_saved_bytes: bare.saved_bytes,
        late_peak_mb: Read::peak_mb(&late),
        away_peak_mb: Read::peak_mb(&away),
        differ,
    };
    if args.json {
        println!("{}", serde_json::to_string(&report).unwrap());
    } else {
        report.print();
    }
    if report.differ.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Replays the trace once more while another device is connected. Returns the seconds from the first edit until it shows the end.
fn follow(trace: &Trace, folder: &Path, check: &mut impl FnMut(&str, &str)) -> f64 {
    std::fs::create_dir_all(folder).unwrap();
    let relay = start_relay(&folder.join("relay"));
    let agents = trace.names();
    let names: Vec<&str> = agents.iter().map(String::as_str).chain(["follower"]).collect();
    let start = replay::begin(folder, &names, &trace.start, &relay.url());
    let end = folder.join("end");
    std::fs::write(&end, &trace.end).unwrap();
    let mut follower = reader::start_follower(&replay::file(folder, "follower"), &relay.url(), &end);
    let begun = std::time::Instant::now();
    let replayed = replay::replay(trace, folder, &start, &relay);
    for (name, text) in agents.iter().zip(&replayed.texts) {
        check(&format!("{name}, live"), text);
    }
    match follower.wait() {
        Ok(()) => {}
        Err(text) => check("follower", &text),
    }
    begun.elapsed().as_secs_f64()
}

impl TraceReport {
    fn print(&self) {
        let ratio = |ours: f64, bare: f64| ours / bare;
        println!(
            "{} edits in {} changes by {} devices, a text of {} characters",
            self.edits, self.steps, self.agents, self.chars
        );
        println!(
            "made, durable         {:>9.0} edits/s     bare, in memory {:>9.0}/s   {:>5.2}x",
            self.edits_per_s,
            self.bare_edits_per_s,
            ratio(self.edits_per_s, self.bare_edits_per_s)
        );
        println!(
            "rounds between them   {:>9} in {:.2} s, {:.2} s to settle   bare, in memory {:.2} s",
            self.sync_rounds, self.sync_s, self.settle_s, self.bare_sync_s
        );
        println!(
            "joins late            {:>9.0} changes/s, {:>6.3} s   bare load  {:>6.3} s   {:>5.2}x   {:.0} MB",
            self.late_changes_per_s,
            self.late_s,
            self.bare_load_s,
            ratio(self.late_s, self.bare_load_s),
            self.late_peak_mb
        );
        println!(
            "was away              {:>9.0} changes/s, {:>6.3} s   bare apply {:>6.3} s   {:>5.2}x   {:.0} MB",
            self.away_changes_per_s,
            self.away_s,
            self.bare_apply_s,
            ratio(self.away_s, self.bare_apply_s),
            self.away_peak_mb
        );
        println!("follows, live         {:>9.0} changes/s, {:>6.3} s", self.live_changes_per_s, self.live_s);
        println!(
            "files: author {:.2} MB, late {:.2} MB, relay {:.2} MB; bare, saved {:.2} MB",
            self.file_bytes as f64 / 1e6,
            self.late_file_bytes as f64 / 1e6,
            self.relay_bytes as f64 / 1e6,
            self.bare_saved_bytes as f64 / 1e6
        );
    }
}

fn start_relay(data: &Path) -> RelayProcess {
    RelayProcess::start(again().arg("__relay").arg(data))
}

fn folder_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}

/// Where two texts differ first.
fn difference(found: &str, expected: &str) -> String {
    let same = found.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| text.chars().skip(same.saturating_sub(20)).take(60).collect::<String>();
    format!(
        "differs from character {same} on, {} characters instead of {}: {:?} instead of {:?}",
        found.chars().count(),
        expected.chars().count(),
        part(found),
        part(expected)
    )
}
