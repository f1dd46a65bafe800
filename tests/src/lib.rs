//! What the integration tests share: real relays, real devices, real programs.

pub mod console;
pub mod fuzz;
pub mod issuer;
mod mounted;
pub mod openapi;
pub mod oracle;
pub mod people;
pub mod proxy;
pub mod random;
pub mod raw;
pub mod relay_file;
pub mod shuffle;
pub mod simulation;
pub mod web;

pub use motet_benches::attack;
#[cfg(unix)]
pub use motet_benches::servers;
pub use motet_benches::wait_until;
pub use mounted::{Mounted, mount_small};

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use motet::{FieldKind, Relay, Replica, Schema, SyncSummary};
use serde_json::Value;

/// A relay in this process, on a port of its own, until it is dropped.
pub struct TestRelay {
    address: std::net::SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TestRelay {
    /// Starts a relay with one local account.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, motet_relay::auth::Auth::Local, 0)
    }

    /// Starts a relay on a given port; 0 takes a free one.
    pub fn start_with(data: &Path, auth: motet_relay::auth::Auth, port: u16) -> Self {
        let auth = std::sync::Arc::new(auth);
        Self::run(motet_relay::Config { auth, ..motet_relay::Config::new(data) }, port)
    }

    /// Starts a relay for which these lines, `token -> account`, tell who comes.
    pub fn start_for(data: &Path, tokens: &str) -> Self {
        let file = data.with_extension("tokens");
        std::fs::write(&file, tokens).unwrap();
        Self::start_with(data, motet_relay::auth::Auth::from_file(&file).unwrap(), 0)
    }

    /// Starts a relay that lets superseded entries go as soon as it can.
    pub fn start_forgetful(data: &Path) -> Self {
        Self::run(motet_relay::Config { retention: Duration::ZERO, ..motet_relay::Config::new(data) }, 0)
    }

    /// Starts a relay for which a device is gone when nothing was heard of it for `silence`.
    pub fn start_impatient(data: &Path, silence: Duration) -> Self {
        Self::run(motet_relay::Config { present_silence: silence, ..motet_relay::Config::new(data) }, 0)
    }

    fn run(config: motet_relay::Config, port: u16) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = bind(port).await;
                tell.send(listener.local_addr().unwrap()).unwrap();
                motet_relay::run(listener, config, async move { _ = stopped.await }).await.unwrap();
            });
        });
        let relay = Self { address: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) };
        relay.wait_until_it_serves();
        relay
    }

    /// Connections wait in the socket from the moment it listens, so only an answer shows that the relay has its
    /// folder. Nothing is at this path: any answer will do, also from a relay over damaged files.
    fn wait_until_it_serves(&self) {
        let answer = std::net::TcpStream::connect(self.address).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            stream.read_to_end(&mut Vec::new())
        });
        answer.unwrap_or_else(|error| panic!("the relay at {} does not serve: {error}", self.address));
    }

    /// Starts a relay as a configuration says, on a free port.
    pub fn start_as(config: motet_relay::Config) -> Self {
        Self::run(config, 0)
    }

    /// Where devices find it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address it listens on.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// A port that was just given up may take a moment to be free again.
async fn bind(port: u16) -> tokio::net::TcpListener {
    for _ in 0..200 {
        match tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
    panic!("port {port} does not become free");
}

/// A device with `lyrics` and `notes` of `pieces` declared as texts.
pub fn device(dir: &Path, name: &str) -> Replica {
    declared(dir, name, &Schema::new().text("pieces", "lyrics").text("pieces", "notes"))
}

/// A device on which `songs` has a field of each kind.
pub fn singer(dir: &Path, name: &str) -> Replica {
    let schema = Schema::new()
        .text("songs", "lyrics")
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "verses", FieldKind::List)
        .field("songs", "tags", FieldKind::Set);
    declared(dir, name, &schema)
}

/// A device with these declarations.
pub fn declared(dir: &Path, name: &str, schema: &Schema) -> Replica {
    let replica = Replica::builder(dir.join(format!("{name}.db")))
        .device_name(name)
        .purge_grace(Duration::ZERO)
        .open()
        .unwrap();
    replica.apply_schema(schema).unwrap();
    replica
}

/// Deletes a song, and empties the trash of songs.
pub fn purge_song(replica: &Replica, id: &str) {
    replica.documents("songs").delete(id).unwrap();
    assert!(replica.documents("songs").purge_trash(i64::MAX).unwrap() > 0);
}

/// Whether any file of a folder whose name begins so holds the bytes.
pub fn is_in_files(folder: &Path, prefix: &str, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().map(Result::unwrap).any(|file| {
        file.file_name().to_string_lossy().starts_with(prefix)
            && std::fs::read(file.path()).unwrap().windows(bytes.len()).any(|window| window == bytes)
    })
}

/// Copies the files of a folder into another one, as a backup does of what nobody has open.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Connects, runs a round, and disconnects.
pub fn sync(replica: &Replica, url: &str) -> SyncSummary {
    replica.connect(Relay::new(url)).unwrap();
    let summary = replica.sync_now().unwrap();
    replica.disconnect();
    summary
}

/// Every document of every collection as the app sees it, with its version.
pub fn contents(replica: &Replica) -> Vec<(String, String, String, Value)> {
    let mut all = Vec::new();
    for collection in replica.collections().unwrap() {
        for record in replica.documents(&collection).list().unwrap() {
            all.push((
                collection.clone(),
                record.id.clone(),
                record.version.to_string(),
                record.value.clone(),
            ));
        }
    }
    all
}

/// Brings all of SQLite's log into the file, also if another connection to it closes only a moment later.
pub fn empty_log(conn: &rusqlite::Connection) {
    let is_empty = || {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        conn.query_row(sql, [], |row| row.get::<_, i64>(0)).is_ok_and(|busy| busy == 0)
    };
    wait_until("the log is in the file", Duration::from_secs(20), is_empty);
}

/// A program of the workspace; `cargo xtask test` builds them before the tests run.
pub fn program(name: &str) -> PathBuf {
    // target/debug/deps/test-… -> target/debug/name
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not built; run the tests with `cargo xtask test`", path.display());
    path
}

/// The command line on one database.
pub struct Cli {
    db: PathBuf,
}

impl Cli {
    /// The command line on the database `name` in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { db: dir.join(format!("{name}.db")) }
    }

    /// The same, after `init` with a relay.
    pub fn init(dir: &Path, name: &str, relay: &str) -> Self {
        let cli = Self::new(dir, name);
        cli.ok(&["init", "--device", name, "--relay", relay]);
        cli
    }

    /// The database file.
    pub fn db(&self) -> &Path {
        &self.db
    }

    /// A command, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("motet"));
        command.arg("--db").arg(&self.db).args(args).env_remove("MOTET_DB").env("NO_COLOR", "1");
        command
    }

    /// Runs a command.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command with something on standard input.
    pub fn run_with(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early may not read its input.
        _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        success(args, self.run(args))
    }

    /// The same with standard input.
    pub fn ok_with(&self, args: &[&str], input: &str) -> String {
        success(args, self.run_with(args, input))
    }

    /// Runs a command that must succeed and reads its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

fn success(args: &[&str], output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?} failed with {:?}: {stderr}", output.status.code());
    String::from_utf8(output.stdout).unwrap()
}

/// The program `motet-relay` on a data folder.
pub struct Admin(pub PathBuf);

impl Admin {
    /// Runs a command.
    pub fn run(&self, args: &[&str]) -> Output {
        Command::new(program("motet-relay")).arg("--data").arg(&self.0).args(args).output().unwrap()
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs a command that must fail; returns what it said.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs a command that must succeed and reads each line of it as JSON.
    pub fn lines(&self, args: &[&str]) -> Vec<Value> {
        self.ok(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The relay as a process, killed when dropped.
pub struct RelayProcess {
    child: Child,
    address: String,
}

impl RelayProcess {
    /// Starts the relay and waits until it says where it listens.
    pub fn start(data: &Path, listen: &str, more: &[&str]) -> Self {
        let mut child = Command::new(program("motet-relay"))
            .args(["--listen", listen, "--data"])
            .arg(data)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = Self::url_of(&mut child)["http://".len()..].to_owned();
        Self { child, address }
    }

    /// Waits until a relay that was started with its output piped says where it listens.
    pub fn url_of(child: &mut Child) -> String {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next());
        format!("http://{}", address.unwrap_or_else(|| panic!("the relay said {line:?}")))
    }

    /// Where devices find it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns how long it took to end.
    pub fn terminate(&mut self) -> (Duration, std::process::ExitStatus) {
        let start = Instant::now();
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let status = self.child.wait().unwrap();
        (start.elapsed(), status)
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
