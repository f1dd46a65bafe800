//! Relay and devices as processes: this program, started again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A relay in a process of its own.
pub(crate) struct RelayProcess {
    child: Child,
    pub(crate) url: String,
}

/// A device in a process of its own, spoken to in lines of JSON.
pub(crate) struct DeviceProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl RelayProcess {
    pub(crate) fn start(data: &Path) -> Self {
        let mut child = again().arg("__relay").arg(data).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, url: format!("http://{}", line.trim()) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        _ = self.child.wait();
    }
}

impl DeviceProcess {
    pub(crate) fn start(db: &Path, name: &str) -> Self {
        let mut child = again().arg("__device").arg(db).arg(name).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn call(&mut self, command: &Value) -> Value {
        self.send(command);
        self.receive()
    }

    pub(crate) fn send(&mut self, command: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    pub(crate) fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("a device said {line:?}: {e}"))
    }
}

impl Drop for DeviceProcess {
    fn drop(&mut self) {
        drop(self.input.take());
        _ = self.child.wait();
    }
}

/// The relay's process: says its address, serves until its input ends.
pub(crate) fn run_relay(data: &Path) {
    let runtime = motet_relay::runtime().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            _ = stop.send(());
        });
        let shutdown = async move { _ = stopped.await };
        motet_relay::run(listener, motet_relay::Config::new(data), shutdown).await.unwrap();
    });
}

fn again() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}
