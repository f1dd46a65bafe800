//! `motet demo`: a relay, two devices, one song; edited offline on both, merged.

mod story;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use motet::{Relay, Replica};
use tokio::net::TcpListener;

use super::RELAY_URL;
use crate::error::{CliError, file_error};
use crate::output::Output;
use story::Story;

/// Runs the demo in `folder`, which must be new or empty.
pub(crate) fn demo(folder: Option<PathBuf>, output: &Output) -> Result<(), CliError> {
    let folder = match folder {
        Some(folder) => folder,
        None => tempfile::Builder::new()
            .prefix("motet-demo-")
            .tempdir()
            .map_err(|e| CliError::Other(e.to_string()))?
            .keep(),
    };
    std::fs::create_dir_all(&folder).map_err(|e| file_error(&folder, &e))?;
    let mut entries = std::fs::read_dir(&folder).map_err(|e| file_error(&folder, &e))?;
    if entries.next().is_some() {
        return Err(CliError::Usage(format!(
            "{} is not empty; the demo wants a new folder",
            folder.display()
        )));
    }
    let relay = RelayProcess::start(&folder.join("relay"))?;
    let phone = device(&folder.join("phone.db"), "Keola's phone", &relay.url)?;
    let laptop = device(&folder.join("laptop.db"), "Leilani's laptop", &relay.url)?;
    Story { output, folder: &folder, relay: &relay, phone: &phone, laptop: &laptop }.tell()
}

/// The relay as the demo's child process; ends when its standard input does, so it never outlives the demo.
pub(crate) fn relay(listen: SocketAddr, data: PathBuf) -> Result<(), CliError> {
    let other = |e: &dyn std::fmt::Display| CliError::Other(e.to_string());
    let runtime = motet_relay::runtime().map_err(|e| other(&e))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.map_err(|e| other(&e))?;
        let address = listener.local_addr().map_err(|e| other(&e))?;
        println!("{address}");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            _ = stop.send(());
        });
        let shutdown = async move { _ = stopped.await };
        motet_relay::run(listener, motet_relay::Config::new(data), shutdown).await.map_err(|e| other(&e))
    })
}

/// A relay in a process of its own.
struct RelayProcess {
    child: Child,
    url: String,
    address: String,
}

impl RelayProcess {
    fn start(data: &Path) -> Result<Self, CliError> {
        let failed = |what: String| CliError::Other(format!("the relay does not start: {what}"));
        let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
        let mut child = Command::new(program)
            .args([crate::args::RELAY, "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|e| failed(e.to_string()))?;
        }
        let address = line.trim().to_owned();
        if address.is_empty() {
            _ = child.kill();
            return Err(failed("it said nothing".into()));
        }
        Ok(Self { child, url: format!("http://{address}"), address })
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // Closing its input asks it to stop.
        drop(self.child.stdin.take());
        _ = self.child.wait();
    }
}

fn device(path: &Path, name: &str, url: &str) -> Result<Replica, CliError> {
    let replica = Replica::builder(path).device_name(name).open()?;
    replica.use_relay(&Relay::new(url))?;
    replica.set_setting(RELAY_URL, Some(url))?;
    Ok(replica)
}

fn connected(replica: &Replica, url: &str) -> Result<motet::SyncSummary, CliError> {
    replica.connect(Relay::new(url))?;
    Ok(replica.sync_now()?)
}
