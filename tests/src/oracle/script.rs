//! A script: what happens, as data. It can be printed, shortened and played again.

use serde_json::{Map, Value};

/// Words that are told apart wherever they stand: each is written once in a script.
pub(super) const MARKS: [&str; 24] = [
    "kukui",
    "MAILE",
    "ʻōhiʻa",
    "pīkake",
    "ПАЛЬМА",
    "βῆτα",
    "漢字",
    "한글",
    "zzyzx",
    "quartz",
    "WALT",
    "fjord",
    "nymph",
    "vext",
    "Dwarf",
    "jumbo",
    "BLOCK",
    "crypt",
    "synod",
    "glyph",
    "whist",
    "ƒoxƒ",
    "ØRNE",
    "ñandú",
];

/// Fields of a document.
pub type Fields = Map<String, Value>;

/// The kinds of fields, as `docs/schema.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Anything; objects merge field by field.
    Register,
    /// A string that merges by character.
    Text,
    /// A whole number that adds up.
    Counter,
    /// Strings, numbers and booleans, each once.
    Set,
    /// An array that merges by element.
    List,
    /// One of the ranks.
    Rank,
    /// Anything; concurrent values are all kept.
    Ask,
    /// Anything; never leaves the device.
    Local,
}

/// The values of a rank, lowest first.
pub(super) const RANKS: [&str; 3] = ["draft", "learned", "performed"];

impl Kind {
    /// All kinds.
    pub(super) const EVERY: [Kind; 8] = [
        Kind::Register,
        Kind::Text,
        Kind::Counter,
        Kind::Set,
        Kind::List,
        Kind::Rank,
        Kind::Ask,
        Kind::Local,
    ];

    /// As the library wants it declared.
    pub(super) fn declared(self) -> motet::Field {
        match self {
            Kind::Register => motet::FieldKind::Register.into(),
            Kind::Text => motet::FieldKind::Text.into(),
            Kind::Counter => motet::FieldKind::Counter.into(),
            Kind::Set => motet::FieldKind::Set.into(),
            Kind::List => motet::FieldKind::List.into(),
            Kind::Rank => motet::Field::rank(RANKS),
            Kind::Ask => motet::FieldKind::Ask.into(),
            Kind::Local => motet::FieldKind::Local.into(),
        }
    }
}

/// Rules of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Fewest characters or elements.
    pub min_len: Option<u64>,
    /// Most characters or elements.
    pub max_len: Option<u64>,
    /// Smallest number.
    pub min: Option<f64>,
    /// Largest number.
    pub max: Option<f64>,
}

/// How a field is declared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Declared {
    /// How concurrent writes merge.
    pub kind: Kind,
    /// What may stand in it.
    pub bounds: Bounds,
}

impl Declared {
    /// As the library wants it declared.
    pub(super) fn field(self) -> motet::Field {
        let Bounds { min_len, max_len, min, max } = self.bounds;
        motet::Field { min_len, max_len, min, max, ..self.kind.declared() }
    }
}

impl From<Kind> for Declared {
    fn from(kind: Kind) -> Self {
        Self { kind, bounds: Bounds::default() }
    }
}

impl std::fmt::Display for Declared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if self.bounds != Bounds::default() {
            write!(f, " with {:?}", self.bounds)?;
        }
        Ok(())
    }
}

/// What a delete does to an edit that it had not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The edit brings the document back.
    #[default]
    EditWins,
    /// The document stays deleted until somebody restores it.
    Wins,
    /// The later of the two wins.
    Latest,
}

impl Policy {
    /// As the library wants it declared.
    pub(super) fn declared(self) -> motet::DeletePolicy {
        match self {
            Policy::EditWins => motet::DeletePolicy::EditWins,
            Policy::Wins => motet::DeletePolicy::Wins,
            Policy::Latest => motet::DeletePolicy::Latest,
        }
    }
}

/// What happens, from the first to the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Devices that there are.
    pub devices: usize,
    /// How far the clock of each device is off, in milliseconds.
    pub skews: Vec<i64>,
    /// The whole collection stays on its device.
    pub local: bool,
    /// What deletes do, as every device declares at the start.
    pub policy: Policy,
    /// Fields that every device declares at the start. Other fields are not declared.
    pub declared: Vec<(String, Declared)>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// Something that happens on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where.
    pub device: usize,
    /// What.
    pub act: Act,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// One write by a call of its own.
    Write(Write),
    /// Several writes in one transaction; with `fails` the transaction returns an error in the end.
    Transaction { writes: Vec<Write>, fails: bool },
    /// A document is read into a slot of the app: as a record, or into an editor.
    Open { slot: usize, doc: usize, editor: bool },
    /// The app changes what it has in a slot, and writes it back.
    Change { slot: usize, set: Fields, remove: Vec<String> },
    /// The editor in a slot takes in what others have written.
    Refresh { slot: usize },
    /// Documents go in as `motet import` hands them over, or all or none of them by `put_many`.
    Import { documents: Vec<(usize, Fields)>, many: bool },
    /// A row of another database is taken up. `newer`: it was changed after everything here, else before.
    Adopt { doc: usize, fields: Fields, newer: bool },
    /// A change log is carried out: upserts, and deletes where there are no fields.
    ChangeLog { entries: Vec<(usize, Option<Fields>)> },
    /// What this device exports as a change log is carried out here again.
    OwnChangeLog,
    /// The latest transaction is taken back.
    Undo,
    /// What was taken back is done again.
    Redo,
    /// A restore point is made.
    Point,
    /// All documents, or one, become what they were at the restore point.
    RestorePoint { doc: Option<usize> },
    /// A field is declared after it may have been used, here or everywhere. Only rules may differ from device to device.
    Declare { field: String, declared: Declared, everywhere: bool },
    /// Every device calls a field otherwise. Without `alias` it is called by one of its older names again.
    Rename { from: String, to: String, alias: bool },
    /// Every device declares what deletes do from then on.
    DeclarePolicy { policy: Policy },
    /// The process ends and begins again.
    Restart,
    /// `repair` runs; it has nothing to do.
    Repair,
    /// Everything in the trash is removed for good.
    PurgeTrash,
    /// A round with the relay.
    Sync,
}

/// How a conflict is settled.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// What shows is right.
    Shown,
    /// The loser is.
    Loser,
    /// This value is.
    Value(Value),
}

/// A write of one document.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// `insert` of a value that names its id.
    Insert { doc: usize, fields: Fields },
    /// `put`.
    Put { doc: usize, fields: Fields },
    /// `put_at` the version that is so many versions old.
    PutAt { doc: usize, fields: Fields, back: usize },
    /// `set`.
    Set { doc: usize, fields: Fields },
    /// A record is read, changed and written back, several times.
    Update { doc: usize, changes: Vec<(Fields, Vec<String>)> },
    /// `splice_text`. Places are taken modulo what is there, unless `outside`.
    Splice { doc: usize, field: String, at: usize, delete: usize, insert: String, outside: bool },
    /// `increment`.
    Increment { doc: usize, field: String, by: i64 },
    /// `add_to_set` and `remove_from_set`.
    EditSet { doc: usize, field: String, add: Vec<Value>, remove: Vec<Value> },
    /// Words are taken out of a text and a mark put in, by a splice or by setting the whole text.
    Retype { doc: usize, field: String, at: usize, delete: usize, mark: Option<usize>, splice: bool },
    /// Elements are taken out of a list and a mark put in, by setting the whole list.
    Relist { doc: usize, field: String, at: usize, delete: usize, mark: Option<usize> },
    /// `delete`.
    Delete { doc: usize },
    /// `restore` from the trash.
    Restore { doc: usize },
    /// `restore_version` to what it was so many versions ago.
    RestoreVersion { doc: usize, back: usize },
    /// `resolve` of a row of the journal; places are taken modulo what is there. If nothing is, of a field that has no conflict.
    Resolve { doc: usize, field: String, row: usize, choice: Choice },
    /// `purge` of what is in the trash.
    Purge { doc: usize },
}

impl Write {
    /// The document that is written.
    pub(super) fn doc(&self) -> usize {
        match self {
            Write::Insert { doc, .. }
            | Write::Put { doc, .. }
            | Write::PutAt { doc, .. }
            | Write::Set { doc, .. }
            | Write::Update { doc, .. }
            | Write::Splice { doc, .. }
            | Write::Increment { doc, .. }
            | Write::EditSet { doc, .. }
            | Write::Retype { doc, .. }
            | Write::Relist { doc, .. }
            | Write::Delete { doc }
            | Write::Restore { doc }
            | Write::RestoreVersion { doc, .. }
            | Write::Resolve { doc, .. }
            | Write::Purge { doc } => *doc,
        }
    }
}

impl Write {
    /// Names of the fields that are written, as far as the script says.
    pub(super) fn fields(&self) -> Vec<String> {
        match self {
            Write::Insert { fields, .. }
            | Write::Put { fields, .. }
            | Write::PutAt { fields, .. }
            | Write::Set { fields, .. } => fields.keys().cloned().collect(),
            Write::Update { changes, .. } => {
                changes.iter().flat_map(|(set, remove)| set.keys().chain(remove)).cloned().collect()
            }
            Write::Splice { field, .. }
            | Write::Increment { field, .. }
            | Write::EditSet { field, .. }
            | Write::Retype { field, .. }
            | Write::Relist { field, .. } => vec![field.clone()],
            Write::Delete { .. }
            | Write::Restore { .. }
            | Write::RestoreVersion { .. }
            | Write::Resolve { .. }
            | Write::Purge { .. } => Vec::new(),
        }
    }

    /// Fields that one of its steps takes out and a later one sets.
    pub(super) fn remade(&self) -> Vec<String> {
        let Write::Update { changes, .. } = self else { return Vec::new() };
        let is_set_after =
            |at: usize, field: &String| changes[at + 1..].iter().any(|(set, _)| set.contains_key(field));
        let steps = changes.iter().enumerate();
        steps
            .flat_map(|(at, (_, remove))| remove.iter().filter(move |field| is_set_after(at, field)))
            .cloned()
            .collect()
    }
}

/// The id of a document.
pub(super) fn id(doc: usize) -> String {
    format!("d{doc}")
}

impl std::fmt::Display for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let local = if self.local { ", the collection is local" } else { "" };
        writeln!(f, "{} device(s){local}", self.devices)?;
        if self.skews.iter().any(|skew| *skew != 0) {
            writeln!(f, "  clocks are off by {:?} ms", self.skews)?;
        }
        if self.policy != Policy::default() {
            writeln!(f, "  deletes: {:?}", self.policy)?;
        }
        for (field, declared) in &self.declared {
            writeln!(f, "  declared: {field} is a {declared}")?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {number}: on {}: {}", step.device, Told(&step.act))?;
        }
        Ok(())
    }
}

/// An act in a form that people read, values as JSON.
pub(super) struct Told<'a>(pub(super) &'a Act);

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = |fields: &Fields| Value::Object(fields.clone()).to_string();
        match self.0 {
            Act::Write(write) => write!(f, "{write}"),
            Act::Transaction { writes, fails } => {
                let all: Vec<_> = writes.iter().map(Write::to_string).collect();
                write!(f, "transaction [{}]{}", all.join("; "), if *fails { " that fails" } else { "" })
            }
            Act::Open { slot, doc, editor } => {
                write!(f, "slot {slot} = {} of {}", if *editor { "editor" } else { "record" }, id(*doc))
            }
            Act::Change { slot, set, remove } => {
                write!(f, "slot {slot} changes {} and removes {remove:?}, is written back", json(set))
            }
            Act::Import { documents, many } => {
                let all: Vec<_> =
                    documents.iter().map(|(doc, fields)| format!("{} {}", id(*doc), json(fields))).collect();
                write!(f, "{} [{}]", if *many { "put many" } else { "import" }, all.join("; "))
            }
            Act::Adopt { doc, fields, newer } => {
                write!(
                    f,
                    "adopt a {} row {} {}",
                    if *newer { "newer" } else { "older" },
                    id(*doc),
                    json(fields)
                )
            }
            Act::ChangeLog { entries } => {
                let told = |(doc, fields): &(usize, Option<Fields>)| match fields {
                    Some(fields) => format!("upsert {} {}", id(*doc), json(fields)),
                    None => format!("delete {}", id(*doc)),
                };
                write!(f, "change log [{}]", entries.iter().map(told).collect::<Vec<_>>().join("; "))
            }
            Act::Declare { field, declared, everywhere } => {
                write!(f, "declare {field} as {declared}{}", if *everywhere { " everywhere" } else { "" })
            }
            other => write!(f, "{other:?}"),
        }
    }
}

impl std::fmt::Display for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = |fields: &Fields| Value::Object(fields.clone()).to_string();
        match self {
            Write::Insert { doc, fields } => write!(f, "insert {} {}", id(*doc), json(fields)),
            Write::Put { doc, fields } => write!(f, "put {} {}", id(*doc), json(fields)),
            Write::PutAt { doc, fields, back } => {
                write!(f, "put {} {} at {back} versions back", id(*doc), json(fields))
            }
            Write::Set { doc, fields } => write!(f, "set {} {}", id(*doc), json(fields)),
            Write::Update { doc, changes } => {
                let told = |(set, remove): &(Fields, Vec<String>)| format!("{} -{remove:?}", json(set));
                let all: Vec<_> = changes.iter().map(told).collect();
                write!(f, "update a record of {}: {}", id(*doc), all.join(", then "))
            }
            Write::Splice { doc, field, at, delete, insert, outside } => {
                let outside = if *outside { " outside" } else { "" };
                write!(f, "splice {} {field:?} at {at} delete {delete} insert {insert:?}{outside}", id(*doc))
            }
            Write::Increment { doc, field, by } => write!(f, "increment {} {field:?} by {by}", id(*doc)),
            Write::EditSet { doc, field, add, remove } => {
                let (add, remove) = (Value::Array(add.clone()), Value::Array(remove.clone()));
                write!(f, "edit set {} {field:?} +{add} -{remove}", id(*doc))
            }
            Write::Retype { doc, field, at, delete, mark, splice } => {
                let how = if *splice { "splice" } else { "set" };
                let mark = mark.map(|mark| MARKS[mark]);
                write!(
                    f,
                    "retype {} {field:?} by {how}: at word {at} delete {delete} insert {mark:?}",
                    id(*doc)
                )
            }
            Write::Relist { doc, field, at, delete, mark } => {
                let mark = mark.map(|mark| MARKS[mark]);
                write!(f, "relist {} {field:?}: at {at} delete {delete} insert {mark:?}", id(*doc))
            }
            Write::Delete { doc } => write!(f, "delete {}", id(*doc)),
            Write::Restore { doc } => write!(f, "restore {}", id(*doc)),
            Write::RestoreVersion { doc, back } => write!(f, "restore {} as {back} versions back", id(*doc)),
            Write::Resolve { doc, field, row, choice } => {
                write!(f, "resolve row {row} of {}, else {field:?}: {choice:?}", id(*doc))
            }
            Write::Purge { doc } => write!(f, "purge {}", id(*doc)),
        }
    }
}
