//! The token for the relay in the keyring of the system: a private one, on a bus of its own.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use motet_tests::{TestRelay, is_in_files, program};

/// A bus that starts no services: whoever asks for the keyring too early would get another one, which is locked.
const BUS: &str = r#"<busconfig><type>session</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"#;

/// A bus with an unlocked keyring.
struct Keyring {
    address: String,
    children: Vec<Child>,
    home: PathBuf,
}

impl Keyring {
    /// `None` if the machine lacks what it takes; `cargo xtask test` installs that, or says so.
    fn start(dir: &Path) -> Option<Self> {
        let home = dir.join("home");
        std::fs::create_dir_all(&home).unwrap();
        let config = dir.join("bus.conf");
        std::fs::write(&config, BUS.replace("SOCKET", &dir.join("bus").display().to_string())).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .args(["--nofork", "--print-address=1", "--config-file"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let mut keyring = Self { address: address.trim().to_owned(), children: vec![bus], home };
        let mut daemon = Command::new("gnome-keyring-daemon");
        daemon.args(["--foreground", "--unlock", "--components=secrets"]);
        let mut daemon = keyring
            .on_bus(&mut daemon)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        _ = daemon.stdin.take().unwrap().write_all(b"a password");
        keyring.children.push(daemon);
        let comes = |keyring: &Self| {
            let mut ask = Command::new("dbus-send");
            ask.args([
                "--session",
                "--print-reply",
                "--dest=org.freedesktop.secrets",
                "/org/freedesktop/secrets",
            ]);
            ask.args(["org.freedesktop.Secret.Service.ReadAlias", "string:default"]);
            // A path that is more than `/`: it has a place for what is kept.
            let answer = keyring.on_bus(&mut ask).output();
            answer.is_ok_and(|answer| {
                String::from_utf8_lossy(&answer.stdout).contains("/org/freedesktop/secrets/")
            })
        };
        let begun = Instant::now();
        while !comes(&keyring) {
            if begun.elapsed() > Duration::from_secs(20) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(keyring)
    }

    fn on_bus<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.address).env("HOME", &self.home);
        command.env("XDG_DATA_HOME", &self.home).env("XDG_RUNTIME_DIR", &self.home).env_remove("DISPLAY")
    }

    fn stop(&mut self) {
        for mut child in self.children.drain(..).rev() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A database, and the command line that is built with the feature.
struct Motet<'k> {
    keyring: &'k Keyring,
    db: PathBuf,
}

impl Motet<'_> {
    fn run_as(&self, name: &str, args: &[&str], token: Option<&str>) -> Output {
        let mut command = Command::new(program(name));
        command.arg("--db").arg(&self.db).args(args).env("NO_COLOR", "1").env_remove("MOTET_TOKEN");
        command.envs(token.map(|token| ("MOTET_TOKEN", token))).stdin(Stdio::null());
        self.keyring.on_bus(&mut command).output().unwrap()
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        told(self.run_as("motet-with-keyring", args, None))
    }

    fn file(&self) -> PathBuf {
        format!("{}-token", self.db.display()).into()
    }

    fn init(&self, dir: &Path, relay: &str, token: &str) -> (i32, String) {
        let file = dir.join("token");
        std::fs::write(&file, token).unwrap();
        self.run(&["init", "--device", "phone", "--relay", relay, "--token-file", file.to_str().unwrap()])
    }
}

fn told(output: Output) -> (i32, String) {
    let both = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(both).unwrap())
}

fn song(dir: &Path) -> PathBuf {
    let file = dir.join("song.json");
    std::fs::write(&file, "{\"title\":\"one\"}").unwrap();
    file
}

fn relay(dir: &Path) -> TestRelay {
    TestRelay::start_for(&dir.join("relay"), "zztokenonezz -> me\nzztokentwozz -> me\n")
}

#[test]
fn the_token_is_kept_in_the_keyring_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let Some(keyring) = Keyring::start(dir.path()) else {
        return eprintln!("SKIPPED: no keyring can be started on this machine");
    };
    let relay = relay(dir.path());
    let motet = Motet { keyring: &keyring, db: dir.path().join("songs.db") };
    let song = song(dir.path());
    let (code, said) = motet.init(dir.path(), &relay.url(), "zztokenonezz\n");
    assert!(code == 0 && said.contains("token in the keyring of the system"), "{said}");
    assert_eq!(motet.run(&["put", "songs", "--id", "1", song.to_str().unwrap()]).0, 0);
    assert_eq!(motet.run(&["sync"]).0, 0);
    assert!(!motet.file().exists() && !is_in_files(dir.path(), "songs.db", b"zztoken"));

    // Another token takes its place, and a copy of the database has none.
    assert_eq!(motet.init(dir.path(), &relay.url(), "no-such-token").0, 0);
    let (code, said) = motet.run(&["sync"]);
    assert_eq!(code, 4, "{said}");
    assert_eq!(motet.init(dir.path(), &relay.url(), "zztokentwozz").0, 0);
    assert_eq!(motet.run(&["sync"]).0, 0);
    let copy = Motet { keyring: &keyring, db: dir.path().join("copy.db") };
    std::fs::copy(&motet.db, &copy.db).unwrap();
    assert_eq!(copy.run(&["sync"]).0, 4);

    // A build without the feature says why it has none.
    let (code, said) = told(motet.run_as("motet", &["sync"], None));
    assert!(code == 1 && said.contains("keyring") && said.contains("MOTET_TOKEN"), "{code} {said}");
    assert_eq!(told(motet.run_as("motet", &["sync"], Some("zztokenonezz"))).0, 0);

    assert_eq!(motet.run(&["sign-out"]).0, 0);
    assert_eq!(motet.run(&["sync"]).0, 4);
    assert_eq!(motet.init(dir.path(), &relay.url(), "zztokenonezz").0, 0);
    // Another relay is not given it.
    assert_eq!(motet.run(&["init", "--device", "phone", "--relay", "http://127.0.0.1:9"]).0, 0);
    assert_eq!(motet.run(&["init", "--device", "phone", "--relay", &relay.url()]).0, 0);
    assert_eq!(motet.run(&["sync"]).0, 4);
}

#[test]
fn without_a_keyring_the_token_is_in_a_file_and_what_was_kept_is_said_to_be_out_of_reach() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut keyring) = Keyring::start(dir.path()) else {
        return eprintln!("SKIPPED: no keyring can be started on this machine");
    };
    let relay = relay(dir.path());
    let db = dir.path().join("songs.db");
    assert_eq!(
        Motet { keyring: &keyring, db: db.clone() }.init(dir.path(), &relay.url(), "zztokenonezz").0,
        0
    );
    keyring.stop();
    let motet = Motet { keyring: &keyring, db: db.clone() };
    let song = song(dir.path());
    assert_eq!(motet.run(&["put", "songs", "--id", "1", song.to_str().unwrap()]).0, 0);
    let (code, said) = motet.run(&["sync"]);
    assert!(code == 1 && said.contains("keyring") && said.contains("MOTET_TOKEN"), "{code} {said}");
    // A token that is given now is kept in the file, for its owner alone.
    let (code, said) = motet.init(dir.path(), &relay.url(), "zztokentwozz");
    assert!(code == 0 && !said.contains("token in the keyring"), "{said}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(motet.file()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(motet.run(&["sync"]).0, 0);
    assert_eq!(motet.run(&["sign-out"]).0, 0);
    assert!(!motet.file().exists());
    assert_eq!(motet.run(&["sync"]).0, 4);
}
