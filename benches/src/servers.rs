//! Servers that a test starts for itself: private instances on free ports, gone with the test.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wait_until;

/// A Postgres of a test, on a port of this machine and in a folder of its own.
pub struct Postgres {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    programs: PathBuf,
    is_durable: bool,
}

impl Postgres {
    /// Makes a cluster and starts it; `None` if Postgres is not installed, which `cargo xtask test` says. It does not wait for the disk: what is committed
    /// survives its processes, and no test has the machine crash.
    pub fn start() -> Option<Self> {
        Self::start_with(false)
    }

    /// The same; `is_durable`: each commit waits for the disk.
    pub fn start_with(is_durable: bool) -> Option<Self> {
        let programs = postgres_programs()?;
        let folder = tempfile::tempdir().unwrap();
        if let Some((user, group)) = server_user() {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let data = folder.path().join("data");
        let mut init = server(&programs.join("initdb"), folder.path());
        init.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "--pgdata"])
            .arg(&data);
        let output = init.output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let port = free_port();
        let child = run_postgres(&programs, folder.path(), port, is_durable);
        let mut started = Self { child, port, folder, programs, is_durable };
        started.wait();
        Some(started)
    }

    /// The address of a database, which is made.
    pub fn database(&self, name: &str) -> String {
        let mut create = server(&self.programs.join("createdb"), self.folder.path());
        let port = self.port.to_string();
        create.args(["--host=127.0.0.1", "--username=postgres", "--port", &port, name]);
        let output = create.output().unwrap();
        assert!(output.status.success(), "createdb: {}", String::from_utf8_lossy(&output.stderr));
        self.url(name)
    }

    /// The address of a database that is there.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements, and returns what they print, a line for each row.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let mut psql = server(&self.programs.join("psql"), self.folder.path());
        let port = self.port.to_string();
        psql.args([
            "--host=127.0.0.1",
            "--username=postgres",
            "--port",
            &port,
            "--no-psqlrc",
            "-At",
            "-c",
            sql,
        ]);
        let output = psql.arg(database).output().unwrap();
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Somebody who runs statements and keeps the connection, with a transaction that it has begun, until it is killed.
    pub fn open_session(&self, database: &str, sql: &str) -> Session {
        let mut psql = server(&self.programs.join("psql"), self.folder.path());
        psql.args(["--no-psqlrc", "--quiet"])
            .arg(self.url(database))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = psql.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(format!("{sql}\n\\echo begun\n").as_bytes()).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "begun"));
        Session(child)
    }

    /// Stops all of its processes where they are, or lets them go on.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let own = self.child.id();
        let mut pids = vec![own];
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // Behind the name, which may hold anything: state, parent.
            let parent =
                stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
            let pid = process.file_name().to_str().and_then(|pid| pid.parse::<u32>().ok());
            pids.extend(pid.filter(|_| parent == Some(own)));
        }
        let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
        assert!(Command::new("kill").arg(signal).args(&pids).status().unwrap().success());
    }

    /// Its processes are gone at once, as when the machine of the database crashes, and it is started again.
    pub fn crash(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Its processes are gone at once.
    pub fn kill(&mut self) {
        // The others notice that it is gone, and end.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`kill`](Self::kill).
    pub fn start_again(&mut self) {
        _ = std::fs::remove_file(self.folder.path().join("data/postmaster.pid"));
        wait_until("the memory of the one before is free", Duration::from_secs(60), || {
            self.child = run_postgres(&self.programs, self.folder.path(), self.port, self.is_durable);
            loop {
                if self.answers() {
                    return true;
                }
                if self.child.try_wait().unwrap().is_some() {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }

    fn wait(&mut self) {
        wait_until("Postgres answers", Duration::from_secs(60), || {
            assert!(self.child.try_wait().unwrap().is_none(), "Postgres has ended");
            self.answers()
        });
    }

    fn answers(&self) -> bool {
        let mut ready = server(&self.programs.join("pg_isready"), self.folder.path());
        let port = self.port.to_string();
        let ready = ready.args(["--host=127.0.0.1", "--port", &port]).stdout(Stdio::null()).status();
        ready.unwrap().success()
    }
}

/// A connection that is open until this is dropped.
pub struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A NATS server of a test.
pub struct Nats {
    child: Child,
    port: u16,
}

impl Nats {
    /// Starts one on a free port; `None` if it is not installed, which `cargo xtask test` says.
    pub fn start() -> Option<Self> {
        let port = free_port();
        Some(Self { child: run_nats(port)?, port })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// It is gone at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, at the same address.
    pub fn start_again(&mut self) {
        self.child = run_nats(self.port).unwrap();
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run_nats(port: u16) -> Option<Child> {
    let mut command = Command::new("nats-server");
    command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    wait_until("NATS listens", Duration::from_secs(20), || {
        assert!(child.try_wait().unwrap().is_none(), "nats-server has ended");
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Some(child)
}

fn run_postgres(programs: &Path, folder: &Path, port: u16, is_durable: bool) -> Child {
    let mut command = server(&programs.join("postgres"), folder);
    command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]);
    let fsync = if is_durable { "fsync=on" } else { "fsync=off" };
    for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", fsync, "max_connections=100"] {
        command.args(["-c", setting]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A program that refuses to run as root, as the user that the package has made for it.
fn server(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = server_user() {
        command.uid(user).gid(group);
    }
    command.current_dir(folder).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Whom Postgres runs as, if the test runs as root.
fn server_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self").ok()?;
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find(|fields| fields.first() == Some(&"postgres"))?;
    (own.uid() == 0).then_some(())?;
    Some((found.get(2)?.parse().ok()?, found.get(3)?.parse().ok()?))
}

/// Where Debian has the programs of the newest version.
fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let number = |folder: &PathBuf| -> Option<u32> { folder.parent()?.file_name()?.to_str()?.parse().ok() };
    folders.filter(|folder| folder.join("initdb").is_file()).max_by_key(number)
}
