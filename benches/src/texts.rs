//! Big texts: put, sent, received, and another field of their document changed, beside bare Automerge on the same text.
//!
//! Each stage runs in a process of its own, so that its peak is its own. Ratios are those of processor time and of peak memory: put beside
//! splice, the others beside load.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT};
use clap::{Parser, ValueEnum};
use motet::{Field, Relay, Replica, Schema};
use motet_benches::{peak_rss_mb, songs};
use serde_json::json;

/// A file that tells the neighbour to stop.
const STOP: &str = "stop";

/// How fast big texts are put, sent and received, and how much memory that takes.
#[derive(Parser)]
struct Args {
    /// Sizes of the texts in MB of 10^6 bytes
    #[arg(long, value_delimiter = ',', default_value = "1,5")]
    sizes: Vec<f64>,
    /// Folder for the databases; without it a new one in the system's place for such
    #[arg(long)]
    folder: Option<PathBuf>,
    #[arg(long, hide = true)]
    stage: Option<Stage>,
    #[arg(long, hide = true, default_value = "")]
    url: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stage {
    Splice,
    Load,
    Put,
    Send,
    Receive,
    Field,
    Rewrite,
    Neighbour,
}

fn main() {
    let args = Args::parse();
    if let (Some(stage), Some(folder)) = (args.stage, &args.folder) {
        return run(stage, folder, &args.url);
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = args.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    for size in &args.sizes {
        let folder = folder.join(size.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(text_of(&folder), songs::prose((size * 1e6) as usize)).unwrap();
        measure(&folder, *size);
    }
}

fn measure(folder: &Path, size: f64) {
    let url = relay(&folder.join("relay"));
    println!("text of {size} MB");
    let [spliced, loaded] = [Stage::Splice, Stage::Load].map(|stage| child(stage, folder, &url));
    let show = |name: &str, [wall, busy, peak]: [f64; 3], bare: [f64; 3]| {
        let (time, memory) = (busy / bare[1], peak / bare[2]);
        println!(
            "  {name:<30} {wall:>6.2} s, busy {busy:>6.2} s {peak:>6.0} MB   {time:>5.2}x {memory:>5.2}x"
        );
    };
    show("bare Automerge: splice, save", spliced, spliced);
    show("bare Automerge: load", loaded, loaded);
    show("put", child(Stage::Put, folder, &url), spliced);
    show("send, after a start", child(Stage::Send, folder, &url), loaded);
    show("receive", child(Stage::Receive, folder, &url), loaded);
    show("another field, after a start", child(Stage::Field, folder, &url), loaded);
    // Another process reads and writes the same file meanwhile.
    let stop = folder.join(STOP);
    let (neighbour, rewritten) = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| child(Stage::Neighbour, folder, &url));
        let rewritten = child(Stage::Rewrite, folder, &url);
        std::fs::write(&stop, "").unwrap();
        (neighbour.join().unwrap(), rewritten)
    });
    show("rewrite in capitals", rewritten, spliced);
    let [puts, gets, _] = neighbour;
    println!("  meanwhile another process waits at most {puts:.0} ms for a put, {gets:.0} ms for a get");
}

/// Runs a stage in a process of its own. Returns its seconds, those of the processor, and its peak in MB.
fn child(stage: Stage, folder: &Path, url: &str) -> [f64; 3] {
    let name = stage.to_possible_value().unwrap().get_name().to_owned();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--stage", &name, "--url", url, "--folder"]).arg(folder);
    let output = command.stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{name} failed");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut numbers = said.split_whitespace().map(|number| number.parse::<f64>().unwrap());
    [(); 3].map(|()| numbers.next().unwrap())
}

fn run(stage: Stage, folder: &Path, url: &str) {
    let saved = folder.join("bare");
    let ((begun, busy), _kept): ((Instant, f64), Box<dyn std::any::Any>) = match stage {
        Stage::Splice => {
            let text = std::fs::read_to_string(text_of(folder)).unwrap();
            let begun = (Instant::now(), busy());
            let mut document = Automerge::new();
            let mut tx = document.transaction();
            let object = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
            tx.splice_text(&object, 0, 0, &text).unwrap();
            tx.commit();
            std::fs::write(saved, document.save_nocompress()).unwrap();
            (begun, Box::new(document))
        }
        Stage::Load => {
            let bytes = std::fs::read(saved).unwrap();
            let begun = (Instant::now(), busy());
            (begun, Box::new(Automerge::load(&bytes).unwrap()))
        }
        Stage::Put => {
            let text = std::fs::read_to_string(text_of(folder)).unwrap();
            let replica = open(folder, "a");
            let begun = (Instant::now(), busy());
            replica.documents("texts").upsert("1", &json!({ "title": "one", "text": text })).unwrap();
            (begun, Box::new(replica))
        }
        Stage::Send | Stage::Receive => {
            let replica = open(folder, if matches!(stage, Stage::Send) { "a" } else { "b" });
            let begun = (Instant::now(), busy());
            replica.connect(Relay::new(url)).unwrap();
            replica.sync_now().unwrap();
            assert!(replica.documents("texts").get("1").unwrap().is_some());
            (begun, Box::new(replica))
        }
        Stage::Neighbour => return neighbour(folder),
        Stage::Rewrite => {
            let replica = open(folder, "b");
            let text = std::fs::read_to_string(text_of(folder)).unwrap().to_uppercase();
            let begun = (Instant::now(), busy());
            replica.documents("texts").patch("1", &json!({ "text": text })).unwrap();
            (begun, Box::new(replica))
        }
        Stage::Field => {
            let replica = open(folder, "b");
            let begun = (Instant::now(), busy());
            replica.documents("texts").patch("1", &json!({ "title": "two" })).unwrap();
            (begun, Box::new(replica))
        }
    };
    let (wall, busy) = (begun.elapsed().as_secs_f64(), self::busy() - busy);
    println!("{wall} {busy} {}", peak_rss_mb(std::process::id()).unwrap());
}

/// Reads and writes until it is told to stop; prints the longest time that a write and a read took, in milliseconds.
fn neighbour(folder: &Path) {
    let replica = open(folder, "b");
    let (small, mut longest, mut number) = (replica.documents("small"), [0.0_f64; 2], 0);
    while !folder.join(STOP).exists() {
        let writes = Instant::now();
        number += 1;
        small.upsert("1", &json!({ "number": number })).unwrap();
        longest[0] = longest[0].max(writes.elapsed().as_secs_f64() * 1e3);
        let reads = Instant::now();
        assert!(small.get("1").unwrap().is_some());
        longest[1] = longest[1].max(reads.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    println!("{} {} 0", longest[0], longest[1]);
}

/// Seconds that this process has kept processors busy: on a machine that has other work as well they say more than the clock.
fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn open(folder: &Path, name: &str) -> Replica {
    let schema = Schema::new().field("texts", "text", Field::text().max_len(100_000_000));
    let builder = Replica::builder(folder.join(format!("{name}.db"))).device_name(name);
    let replica = builder.open().unwrap();
    replica.apply_schema(&schema).unwrap();
    replica
}

fn text_of(folder: &Path) -> PathBuf {
    folder.join("text")
}

/// A relay of this process. Returns its address.
fn relay(data: &Path) -> String {
    let data = data.to_owned();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        motet_relay::runtime().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            motet_relay::run(listener, motet_relay::Config::new(&data), std::future::pending())
                .await
                .unwrap();
        });
    });
    format!("http://{}", receiver.recv().unwrap())
}
