//! The conflict journal, as an app sees it.

use serde::Serialize;
use serde_json::Value as Json;

/// A concurrent write that lost. Nothing of it is gone: its value stands here, or [`how many more`](ConflictKind::More) there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Conflict {
    /// Names the loser on every device, for [`Resolution::Loser`].
    pub loser_id: String,
    /// The field, as a JSON pointer: `/title`.
    pub path: String,
    /// What kind of conflict it is.
    pub kind: ConflictKind,
    /// For a text: the lines as they stood before both edits. Else the value that the document showed when the conflict was
    /// found; of more than 512 bytes only the beginning, as a string that ends in `…`: it stands in every row of its field.
    pub winner: Json,
    /// For a text: both versions of these lines, of each up to 16 KiB. Else the value that lost; of more than 256 KiB only the beginning, as a
    /// string that ends in `…`. Its whole is in the document as long as it is in conflict, and is restored by
    /// [`Resolution::Loser`]; afterwards in the document's history.
    pub loser: Json,
    /// Hex id of the device that wrote the loser, if known.
    pub device: Option<String>,
    /// Name of that device, if known.
    pub device_name: Option<String>,
    /// When it was written, in milliseconds since 1970 by that device's clock.
    pub time: i64,
    /// Hex id of the device that wrote the winner, if known; `None` for a text, which has two versions and no winner.
    pub winner_device: Option<String>,
    /// Name of that device, if known.
    pub winner_device_name: Option<String>,
    /// When the winner was written, in milliseconds since 1970 by that device's clock.
    pub winner_time: Option<i64>,
    /// A later write of the field, or a rule declared for it, has settled it.
    pub settled: bool,
}

/// What kind of conflict it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ConflictKind {
    /// Concurrent values of a field: one shows, the others lost.
    Value,
    /// Concurrent edits of the same lines of a text, or of lines next to each other. All words of both are in the text. Where both
    /// made something else of the same words, or one deleted what the other edited, the conflict is open until
    /// somebody resolves it or edits the place. Else it counts as settled, and both versions stand here for whoever wants to look.
    Text,
    /// Losers that the journal of the document has no room for ([`limits::CONFLICT_BYTES`](crate::limits::CONFLICT_BYTES)): [`loser`](Conflict::loser)
    /// says how many, and there is no path. Open ones are in the document, and get a row of their own when others are settled; a field of
    /// theirs can be resolved as any other. Of settled ones nothing but their number is kept here; their values are in the history.
    More,
}

/// How a conflict is settled.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Resolution {
    /// The value that shows is right.
    Shown,
    /// The loser with this [`loser_id`](Conflict::loser_id) is right, and is restored.
    Loser(String),
    /// Neither: this value is.
    Value(Json),
}
