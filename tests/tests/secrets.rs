//! Where an app keeps its token: in a store, which is read before every connection, and never in the database.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use motet::secrets::{SecretError, SecretFiles, SecretStore};
use motet::{Relay, SyncError, json};
use motet_tests::{TestRelay, device};

fn relay(data: &Path) -> TestRelay {
    TestRelay::start_for(data, "token-a -> a\n")
}

/// A store of an app: what it holds, and how often it was asked.
#[derive(Clone, Default)]
struct Own {
    token: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl SecretStore for Own {
    fn get(&self, name: &str) -> Result<Option<String>, SecretError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match name {
            "token" => Ok(self.token.lock().unwrap().clone()),
            "panics" => panic!("a store that panics"),
            other => Err(SecretError::App(format!("the vault has no {other}").into())),
        }
    }

    fn set(&self, _: &str, secret: &str) -> Result<(), SecretError> {
        *self.token.lock().unwrap() = Some(secret.to_owned());
        Ok(())
    }

    fn remove(&self, _: &str) -> Result<(), SecretError> {
        *self.token.lock().unwrap() = None;
        Ok(())
    }
}

#[test]
fn a_token_in_a_store_signs_in_and_a_new_one_counts_from_the_next_connection_on() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "title": "Pua Ana" })).unwrap();
    let own = Own::default();
    let sync = |name: &str| {
        a.connect(Relay::new(&relay.url()).token_in(own.clone(), name)).unwrap();
        let done = a.sync_now();
        a.disconnect();
        done
    };
    let refused = |name: &str| match sync(name).unwrap_err() {
        SyncError::AuthNeeded { reason } => reason,
        other => panic!("{other:?}"),
    };
    assert!(refused("token").contains("no token is kept on this device"));
    assert!(refused("another").contains("the vault has no another"));
    assert!(matches!(sync("panics"), Err(SyncError::Offline { .. } | SyncError::AuthNeeded { .. })));
    own.set("token", "token-b").unwrap();
    refused("token");
    own.set("token", " token-a\n").unwrap();
    assert_eq!(sync("token").unwrap().sent, 1);
    let asked = own.asked.load(Ordering::Relaxed);
    sync("token").unwrap();
    assert_eq!(own.asked.load(Ordering::Relaxed), asked + 1);
    own.remove("token").unwrap();
    refused("token");
    assert_eq!(a.documents("songs").get("1").unwrap().unwrap().value["title"], "Pua Ana");
}

#[test]
fn files_are_for_their_owner_alone_and_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("songs.db");
    let files = SecretFiles::beside(&database);
    assert_eq!(files.get("token").unwrap(), None);
    files.remove("token").unwrap();
    for secret in ["a long secret, ʻokina and all", "short", ""] {
        files.set("token", secret).unwrap();
        assert_eq!(files.get("token").unwrap().as_deref(), Some(secret));
    }
    let path = dir.path().join("songs.db-token");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        files.set("token", "again").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    files.set("token-2", "other").unwrap();
    files.remove("token").unwrap();
    assert!(!path.exists() && files.get("token-2").unwrap().is_some());
    // What is no text is told with the name of the file, and what is no file as well.
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    let error = files.get("token").unwrap_err();
    assert!(error.to_string().contains("songs.db-token"), "{error}");
    assert_eq!((error.code(), error.is_retryable()), ("secret-file", true));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(files.set("token", "x"), Err(SecretError::File { .. })));
    // What is too long is neither kept nor cut, and what was there stays.
    let most = "a".repeat(motet::limits::SECRET_BYTES as usize);
    files.set("token-2", &most).unwrap();
    let error = files.set("token-2", &format!("{most}a")).unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("secret-too-long", false));
    assert!(error.to_string().contains("token-2"), "{error}");
    assert_eq!(files.get("token-2").unwrap(), Some(most.clone()));
    std::fs::write(dir.path().join("songs.db-token-2"), format!("{most}a")).unwrap();
    assert!(matches!(files.get("token-2"), Err(SecretError::TooLong { .. })));
    let names = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains(".part")).count(), 0);
}

#[test]
fn names_do_not_lead_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let files = SecretFiles::beside(dir.path().join("songs.db"));
    let long = "x".repeat(65);
    for name in ["", "../token", "a/b", "a\\b", "wal", "shm", "journal", "To", "ʻa", "-a", ".a", "a b", &long]
    {
        for error in
            [files.get(name).unwrap_err(), files.set(name, "x").unwrap_err(), files.remove(name).unwrap_err()]
        {
            assert!(matches!(&error, SecretError::BadName(bad) if bad == name), "{error}");
            assert_eq!((error.code(), error.is_retryable()), ("secret-bad-name", false));
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
