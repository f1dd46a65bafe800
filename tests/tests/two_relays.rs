//! Devices that sync with two relays in turn: in the end all have the same, with nothing that waits.

use std::path::Path;
use std::time::Duration;

use motet::{DeletePolicy, FieldKind, Replica, Schema};
use motet_tests::random::{Random, runs, seed};
use motet_tests::{TestRelay, contents, purge_song, sync};
use serde_json::json;

const POLICIES: [DeletePolicy; 3] = [DeletePolicy::EditWins, DeletePolicy::Wins, DeletePolicy::Latest];
const WEEK: Duration = Duration::from_hours(7 * 24);

fn open(dir: &Path, name: &str, policy: DeletePolicy, grace: Duration) -> Replica {
    let path = dir.join(format!("{name}.db"));
    let replica = Replica::builder(path).device_name(name).purge_grace(grace).open().unwrap();
    let schema = Schema::new().text("songs", "lyrics").field("songs", "plays", FieldKind::Counter);
    let schema = schema.field("songs", "tags", FieldKind::Set);
    replica.apply_schema(&schema.delete("songs", policy)).unwrap();
    replica
}

/// Random lives of two songs on three devices: edits, deletes, restorations and purges between syncs with either relay.
#[test]
fn purges_come_by_either_relay() {
    let seed = seed();
    for run in 0..runs(12) {
        let mut random = Random(seed.wrapping_add(run));
        let policy = POLICIES[random.below(3) as usize];
        let dir = tempfile::tempdir().unwrap();
        let relays = ["r0", "r1"].map(|name| TestRelay::start(&dir.path().join(name)));
        let grace = if random.below(2) == 0 { WEEK } else { Duration::ZERO };
        let devices: Vec<_> = (0..3).map(|n| open(dir.path(), &format!("d{n}"), policy, grace)).collect();
        let mut log = Vec::new();
        for turn in 0..20 {
            let (by, id) = (random.below(3) as usize, random.below(2).to_string());
            let songs = devices[by].documents("songs");
            let shown = songs.get(&id).unwrap().is_some();
            let step = match random.below(12) {
                // Where another device has purged it the id is used up for a time.
                0 | 1 if songs.upsert(&id, &json!({ "lyrics": format!("w{turn}") })).is_ok() => "puts",
                2 | 3 if shown => {
                    purge_song(&devices[by], &id);
                    "purges"
                }
                4 | 5 if shown => {
                    songs.patch(&id, &json!({ "title": format!("t{turn}") })).unwrap();
                    "edits"
                }
                6 if shown => {
                    songs.delete(&id).unwrap();
                    "deletes"
                }
                7 if songs.document(&id).restore().is_ok() => "restores",
                n => {
                    let at = n as usize % 2;
                    sync(&devices[by], &relays[at].url());
                    ["syncs with 0", "syncs with 1"][at]
                }
            };
            log.push(format!("{by} {step} {id}"));
        }
        for turn in 0..8 {
            devices.iter().for_each(|device| _ = sync(device, &relays[turn % 2].url()));
        }
        for device in &devices {
            let at = format!(
                "seed {}, {policy:?}, {grace:?}, {}: {log:#?}",
                seed.wrapping_add(run),
                device.device_name()
            );
            assert_eq!(contents(device), contents(&devices[0]), "{at}");
            assert_eq!(device.status().pending, 0, "{at}");
            assert_eq!(device.quarantined(10).unwrap(), [], "{at}");
            assert_eq!(device.verify().unwrap().problems, [], "{at}");
        }
    }
}
