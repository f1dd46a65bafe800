//! Devices as processes: this program, started again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use motet_benches::relay::again;
use serde_json::Value;

/// A device in a process of its own, spoken to in lines of JSON.
pub(crate) struct DeviceProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl DeviceProcess {
    pub(crate) fn start(db: &Path, name: &str) -> Self {
        let mut child = again()
            .arg("__device")
            .arg(db)
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
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
