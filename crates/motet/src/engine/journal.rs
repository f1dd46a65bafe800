//! The conflict journal as a file of JSON lines, for people who settle by hand and for programs that read logs.

use std::io::Write;

use motet_proto::DeviceId;
use serde::Serialize;
use serde_json::Value as Json;

use super::Core;
use crate::doc::{FieldConflict, excerpt};
use crate::limits;
use crate::store::DocumentRow;

/// One conflict. Line breaks and signs that would steer a terminal are escaped, as JSON wants it.
#[derive(Serialize)]
struct Line<'a> {
    collection: &'a str,
    id: &'a str,
    path: &'a str,
    shown: Json,
    shown_by: Option<String>,
    shown_at: Option<i64>,
    lost: Json,
    lost_by: Option<String>,
    lost_at: i64,
    settled: bool,
}

impl Core {
    /// Conflicts were found that were not known before.
    pub(super) fn notice(&mut self, row: &DocumentRow, conflicts: &[FieldConflict]) {
        if self.shared.conflict_log.is_none() {
            return;
        }
        for conflict in conflicts {
            let name_of = |device: &Option<DeviceId>| device.as_ref().map(DeviceId::to_string);
            let line = Line {
                collection: &row.collection,
                id: &row.name,
                path: &conflict.path,
                shown: excerpt(&conflict.winner, limits::CONFLICT_LOG_BYTES),
                shown_by: name_of(&conflict.winner_device),
                shown_at: conflict.winner_time,
                lost: excerpt(&conflict.loser, limits::CONFLICT_LOG_BYTES),
                lost_by: name_of(&conflict.device),
                lost_at: conflict.time,
                settled: conflict.settled,
            };
            // What came out of JSON goes into it.
            self.noticed.extend(serde_json::to_string(&line).map(|line| line + "\n"));
        }
    }

    /// Writes down what was noticed, now that it is committed. The journal in the database is what counts: a log that cannot be
    /// written is said, and stops nothing.
    pub(super) fn log_noticed(&mut self) {
        let noticed = std::mem::take(&mut self.noticed);
        let Some(path) = self.shared.conflict_log.as_ref().filter(|_| !noticed.is_empty()) else { return };
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(noticed.concat().as_bytes()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the conflict log cannot be written");
        }
    }
}
