//! What a write that fails has done in memory reaches nobody: no later write, no log, no listener, also beside others of one transaction.

use motet::{Replica, SyncPolicy, WriteError, json};

fn open(dir: &std::path::Path) -> Replica {
    Replica::builder(dir.join("a.db")).conflict_log(dir.join("conflicts.log")).open().unwrap()
}

fn refuse<T>() -> Result<T, WriteError> {
    Err(WriteError::Rejected("no".into()))
}

#[test]
fn a_note_ends_with_its_write() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path());
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "title": "Ka Pō" })).unwrap();
    let failed = a.transaction(|tx| {
        tx.set_message("never made")?;
        tx.set_label("never made")?;
        tx.documents("songs").patch("1", &json!({ "title": "other" }))?;
        refuse::<()>()
    });
    assert!(failed.is_err());
    songs.patch("1", &json!({ "title": "Ka Pō Uli" })).unwrap();
    let history = songs.document("1").history(10).unwrap();
    assert_eq!(history.iter().map(|step| step.message.clone()).collect::<Vec<_>>(), [None, None]);
    // Nor is it of another undo history.
    assert_eq!(a.undo().unwrap().unwrap().label, None);
    assert_eq!(songs.get("1").unwrap().unwrap()["title"], "Ka Pō");
}

#[test]
fn conflicts_of_writes_that_fail_are_in_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path());
    let songs = a.documents("songs");
    let (mut writes, mut events) = (Vec::new(), a.events());
    for n in 0..30 {
        songs.upsert(&n.to_string(), &json!({ "title": "first" })).unwrap();
        let record = songs.get(&n.to_string()).unwrap().unwrap();
        songs.patch(&n.to_string(), &json!({ "title": "second" })).unwrap();
        writes.push(record);
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    while events.try_next().is_some() {}
    let pending: Vec<_> = writes
        .into_iter()
        .enumerate()
        .map(|(n, mut record)| {
            record.value["title"] = json!(format!("third {n}"));
            a.transaction_async(move |tx| {
                tx.documents("songs").update(&mut record)?;
                if n % 3 == 0 { Ok(()) } else { refuse() }
            })
        })
        .collect();
    let outcomes: Vec<bool> = pending.into_iter().map(|write| write.durable().is_ok()).collect();
    assert_eq!(outcomes.iter().filter(|ok| **ok).count(), 10);
    let log = std::fs::read_to_string(dir.path().join("conflicts.log")).unwrap_or_default();
    for (n, is_made) in outcomes.into_iter().enumerate() {
        let third = format!("third {n}\"");
        let title = songs.get(&n.to_string()).unwrap().unwrap()["title"].clone();
        assert_eq!(
            title == json!(format!("third {n}"))
                || a.documents("songs").document(&n.to_string()).conflicts().unwrap().len() == 1,
            is_made
        );
        assert_eq!(log.contains(&third), is_made, "{n}: {log}");
    }
    let mut heard = Vec::new();
    while let Some(Ok(event)) = events.try_next() {
        heard.push(event.id.parse::<u32>().unwrap());
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..30).filter(|n| n % 3 == 0).collect::<Vec<_>>());
    assert_eq!(a.verify().unwrap().problems, []);
}

#[test]
fn a_policy_that_is_refused_holds_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path());
    let before = a.sync_policy();
    let odd = SyncPolicy { compare_every: Some(std::time::Duration::ZERO), ..SyncPolicy::default() };
    assert!(a.set_sync_policy(odd).is_err());
    assert_eq!(a.sync_policy(), before);
}
