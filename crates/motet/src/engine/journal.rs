//! The conflict journal as a text file, for people who settle by hand.

use std::io::Write;

use motet_proto::DeviceId;

use super::Core;
use crate::doc::FieldConflict;
use crate::store::DocumentRow;

impl Core {
    /// Conflicts were found that were not known before.
    pub(super) fn notice(&mut self, row: &DocumentRow, conflicts: &[FieldConflict]) {
        if self.shared.conflict_log.is_none() {
            return;
        }
        for conflict in conflicts {
            let FieldConflict { path, winner, loser, device, time, winner_device, winner_time, .. } =
                conflict;
            let name_of = |device: &Option<DeviceId>| {
                device.map_or_else(|| "an unknown device".to_owned(), |device| device.to_string())
            };
            let device = name_of(device);
            let won =
                winner_time.map_or_else(String::new, |at| format!(", by {} at {at}", name_of(winner_device)));
            let (collection, name) = (&row.collection, &row.name);
            let line = format!(
                "{collection}/{name} {path}\n  shown {winner}{won}\n  lost  {loser}\n  by    {device} at {time}\n"
            );
            self.noticed.push(line);
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
