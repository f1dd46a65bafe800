//! The conflict journal, as it is stored.

use motet_proto::DeviceId;
use serde_json::Value as Json;

use crate::doc::TEXT_OVERLAP;
use crate::store::{MORE, StoredConflict};
use crate::types::{Conflict, ConflictKind};

impl Conflict {
    pub(crate) fn from_row(row: StoredConflict) -> Self {
        // What is stored was serialized by this library.
        let json = |text: String| serde_json::from_str(&text).unwrap_or(Json::String(text));
        Self {
            kind: match &row.op {
                op if op.starts_with(TEXT_OVERLAP) => ConflictKind::Text,
                op if op.starts_with(MORE) => ConflictKind::More,
                _ => ConflictKind::Value,
            },
            loser_id: row.op,
            path: row.path,
            winner: json(row.winner),
            loser: json(row.loser),
            device: row.device.as_ref().map(DeviceId::to_string),
            device_name: row.device_name,
            time: row.time,
            winner_device: row.winner_device.as_ref().map(DeviceId::to_string),
            winner_device_name: row.winner_device_name,
            winner_time: row.winner_time,
            settled: row.settled,
        }
    }
}
