//! Devices as processes: this program, started again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A device in a process of its own, spoken to in lines of JSON.
pub struct DeviceProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl DeviceProcess {
    /// Starts this program with arguments by which it is to be a device.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command, and waits for the answer.
    ///
    /// # Panics
    /// If the device is gone.
    pub fn call(&mut self, command: &Value) -> Value {
        self.send(command);
        self.receive()
    }

    /// Sends a command.
    ///
    /// # Panics
    /// If the device is gone.
    pub fn send(&mut self, command: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    /// Waits for an answer.
    ///
    /// # Panics
    /// If the device is gone, or says something else.
    pub fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("a device said {line:?}: {e}"))
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// If the system does not say.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends it at once, as a system does that needs the memory.
    ///
    /// # Panics
    /// If the system does not let that happen.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for DeviceProcess {
    fn drop(&mut self) {
        drop(self.input.take());
        _ = self.child.wait();
    }
}
