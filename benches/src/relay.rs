//! A relay in a process of its own, which is the same program, started again.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The relay's process. Dropping it ends it.
pub struct RelayProcess {
    child: Child,
    /// Where it listens.
    pub address: String,
}

impl RelayProcess {
    /// Starts this program with arguments by which it is to [`serve`].
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a system does that needs the memory.
    ///
    /// # Panics
    /// If the system does not let that happen.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
    }

    /// Where devices find it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        _ = self.child.wait();
    }
}

/// This program.
///
/// # Panics
/// If the system does not say which that is.
pub fn again() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// The relay's process: says its address, serves until its input ends.
///
/// # Panics
/// If the relay does not start.
pub fn serve(config: motet_relay::Config) {
    serve_at(0, config);
}

/// The same at a port of this machine; 0 for any that is free.
///
/// # Panics
/// If the relay does not start.
pub fn serve_at(port: u16, config: motet_relay::Config) {
    motet_relay::runtime().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            _ = stop.send(());
        });
        motet_relay::run(listener, config, async move { _ = stopped.await }).await.unwrap();
    });
}
