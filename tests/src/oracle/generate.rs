//! Scripts from a seed: any field, any old value, any new value, any entrance.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::script::{Act, Bounds, Choice, Declared, Fields, Kind, MARKS, Policy, RANKS, Script, Step, Write};
use crate::random::Random;

/// Documents of a script.
const DOCUMENTS: u64 = 2;

/// Slots in which an app holds what it has read.
const SLOTS: u64 = 2;

/// Names of fields; some that have a meaning elsewhere.
const NAMES: [&str; 6] = ["f", "ʻano", "a.b", "a/b~c", "type", "$id"];

/// Names that fields get later.
const LATER_NAMES: [&str; 4] = ["g", "h", "ʻinoa hou", "h.i"];

/// Words of texts, some of which are not ASCII, and line ends of both kinds.
const WORDS: [&str; 14] = [
    "",
    "a",
    "aloha",
    "one two three",
    "one\n",
    "I ka pō laʻi\n",
    "a\r\nb\r\n",
    "日本語",
    "👩‍👩‍👧",
    "e\u{301}",
    "é",
    "3",
    "null",
    " ",
];

const INTEGERS: [i64; 10] =
    [0, 1, -1, 3, 7, 1 << 53, i64::MAX, i64::MIN, 6_000_000_000_000_000_000, -6_000_000_000_000_000_000];

/// The script of a seed, on one device.
pub fn alone(seed: u64) -> Script {
    Generator::new(seed).script(1)
}

/// The script of a seed, on two or three devices.
pub fn together(seed: u64) -> Script {
    let mut generator = Generator::new(seed);
    let devices = 2 + generator.below(2);
    generator.script(devices)
}

struct Generator {
    random: Random,
    declared: Vec<(String, Kind)>,
    names: Vec<String>,
    /// What fields with older names are called now.
    newest: BTreeMap<String, String>,
    /// Marks that are used up.
    marks: usize,
    /// Texts and lists hold marks and nothing else.
    marked: bool,
}

impl Generator {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6f72_6163_6c65);
        (0..4).for_each(|_| _ = random.below(2));
        Self {
            random,
            declared: Vec::new(),
            names: Vec::new(),
            newest: BTreeMap::new(),
            marks: 0,
            marked: false,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.below(n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let at = self.below(from.len());
        from[at].clone()
    }

    fn script(&mut self, devices: usize) -> Script {
        self.marked = devices > 1 && !self.one_in(3);
        for _ in 0..1 + self.below(4) {
            let name = self.pick(&NAMES).to_owned();
            if self.names.contains(&name) {
                continue;
            }
            self.names.push(name.clone());
            if !self.one_in(5) {
                let kind = self.pick(&Kind::EVERY);
                self.declared.push((name, kind));
            }
        }
        let skewed = devices > 1 && self.one_in(3);
        let skews = (0..devices).map(|_| if skewed { self.below(7) as i64 * 5_000 - 15_000 } else { 0 });
        let script = Script {
            skews: skews.collect(),
            devices,
            local: devices == 1 && self.one_in(15),
            policy: if self.one_in(2) {
                Policy::EditWins
            } else {
                self.pick(&[Policy::Wins, Policy::Latest])
            },
            declared: Vec::new(),
            steps: Vec::new(),
        };
        let declared = self.declared.clone().into_iter();
        let declared = declared.map(|(field, kind)| (field, self.declaration(kind))).collect();
        let script = Script { declared, ..script };
        let count = 2 + self.below(if devices > 1 { 24 } else { 12 });
        let mut steps = Vec::new();
        for _ in 0..count {
            let act = self.act(devices);
            steps.push(Step { device: self.below(devices), act });
        }
        Script { steps, ..script }
    }

    fn act(&mut self, devices: usize) -> Act {
        if devices > 1 && self.one_in(4) {
            return Act::Sync;
        }
        if devices > 1 && self.one_in(16) {
            return Act::Write(self.resolve());
        }
        match self.below(64) {
            0..=24 => Act::Write(self.write()),
            25..=28 => Act::Transaction {
                writes: (0..1 + self.below(3)).map(|_| self.write()).collect(),
                fails: self.one_in(6),
            },
            29..=33 => Act::Open { slot: self.slot(), doc: self.doc(), editor: self.one_in(3) },
            34..=41 => {
                let (set, remove) = self.change();
                Act::Change { slot: self.slot(), set, remove }
            }
            42 => Act::Refresh { slot: self.slot() },
            43..=44 => Act::Import {
                documents: (0..1 + self.below(3)).map(|_| (self.doc(), self.fields())).collect(),
                many: self.one_in(3),
            },
            45..=47 => Act::Adopt { doc: self.doc(), fields: self.fields(), newer: !self.one_in(4) },
            48..=49 => Act::ChangeLog {
                entries: (0..1 + self.below(2))
                    .map(|_| (self.doc(), if self.one_in(4) { None } else { Some(self.fields()) }))
                    .collect(),
            },
            50 => Act::OwnChangeLog,
            51..=53 => Act::Undo,
            54 => Act::Redo,
            55 => Act::Point,
            56 => Act::RestorePoint { doc: if self.one_in(2) { Some(self.doc()) } else { None } },
            57 => self.declare(),
            58 => Act::Restart,
            60 if devices > 1 => Act::Write(self.resolve()),
            61 if self.one_in(2) => Act::PurgeTrash,
            61 if self.one_in(2) => {
                Act::DeclarePolicy { policy: self.pick(&[Policy::EditWins, Policy::Wins, Policy::Latest]) }
            }
            62 | 63 => self.rename(),
            _ => Act::Repair,
        }
    }

    /// A field is declared that was not, or with other rules.
    fn declare(&mut self) -> Act {
        let field = self.newest_name();
        let known = self.declared.iter().find(|(name, _)| *name == field).map(|(_, kind)| *kind);
        let kind = known.unwrap_or_else(|| self.pick(&Kind::EVERY));
        if known.is_none() {
            self.declared.push((field.clone(), kind));
            return Act::Declare { field, declared: self.declaration(kind), everywhere: true };
        }
        let declared = Declared { kind, bounds: self.bounds(kind) };
        Act::Declare { field, declared, everywhere: self.one_in(3) }
    }

    fn newest_name(&mut self) -> String {
        let name = self.name();
        self.newest.get(&name).cloned().unwrap_or(name)
    }

    /// A field gets a name that is new, or one that it had before.
    fn rename(&mut self) -> Act {
        let from = self.newest_name();
        let older: Vec<String> = self
            .newest
            .iter()
            .filter(|(_, newest)| **newest == from)
            .map(|(older, _)| older.clone())
            .collect();
        let later = LATER_NAMES.iter().find(|name| !self.names.iter().any(|known| known == *name));
        let (to, alias) = match later {
            Some(later) if older.is_empty() || !self.one_in(3) => ((*later).to_owned(), true),
            _ if older.is_empty() => return Act::Restart,
            _ => (self.pick(&older), self.one_in(2)),
        };
        self.newest.values_mut().filter(|newest| **newest == from).for_each(|newest| newest.clone_from(&to));
        self.newest.remove(&to);
        self.newest.insert(from.clone(), to.clone());
        let kind = self.declared.iter().find(|(name, _)| *name == from).map(|(_, kind)| *kind);
        if !self.names.contains(&to) {
            self.names.push(to.clone());
            self.declared.extend(kind.map(|kind| (to.clone(), kind)));
        }
        Act::Rename { from, to, alias }
    }

    fn declaration(&mut self, kind: Kind) -> Declared {
        let is_ruled = self.one_in(if self.marked { 12 } else { 4 });
        Declared { kind, bounds: if is_ruled { self.bounds(kind) } else { Bounds::default() } }
    }

    fn bounds(&mut self, kind: Kind) -> Bounds {
        let mut bounds = Bounds::default();
        if matches!(kind, Kind::Counter | Kind::Register | Kind::Ask | Kind::Local) {
            bounds.min = self.one_in(2).then(|| self.pick(&[-2.0, 0.0, 0.5]));
            bounds.max = self.one_in(2).then(|| self.pick(&[2.0, 6.5, 9_007_199_254_740_992.0]));
        }
        if !matches!(kind, Kind::Counter | Kind::Rank) {
            let most: &[u64] = if matches!(kind, Kind::Set | Kind::List) { &[1, 2, 3] } else { &[3, 6, 20] };
            bounds.min_len = self.one_in(2).then(|| self.pick(&[0, 1, 1, 2]));
            bounds.max_len = self.one_in(2).then(|| self.pick(most).max(bounds.min_len.unwrap_or(0)));
        }
        bounds
    }

    fn resolve(&mut self) -> Write {
        let (doc, field) = (self.doc(), self.name());
        let choice = match self.below(3) {
            0 => Choice::Shown,
            1 => Choice::Loser,
            _ => Choice::Value(self.value_of(&field)),
        };
        Write::Resolve { doc, field, row: self.below(3), choice }
    }

    fn write(&mut self) -> Write {
        let doc = self.doc();
        match self.below(60) {
            0 => return Write::Purge { doc },
            1 => return self.resolve(),
            _ => {}
        }
        match self.below(if self.marked { 60 } else { 44 }) {
            0..=4 => Write::Insert { doc, fields: self.fields() },
            5..=10 => Write::Put { doc, fields: self.fields() },
            11..=12 => Write::PutAt {
                doc,
                fields: self.fields(),
                back: if self.one_in(2) { 0 } else { self.below(4) },
            },
            13..=18 => Write::Set { doc, fields: self.fields() },
            19..=22 => {
                Write::Update { doc, changes: (0..1 + self.below(3)).map(|_| self.change()).collect() }
            }
            23..=26 => Write::Splice {
                doc,
                field: self.name_of(Kind::Text),
                at: self.below(20),
                delete: self.below(6),
                insert: self.pick(&WORDS).to_owned(),
                outside: self.one_in(12),
            },
            27..=30 => Write::Increment {
                doc,
                field: self.name_of(Kind::Counter),
                by: if self.one_in(3) { self.pick(&INTEGERS) } else { self.below(9) as i64 - 3 },
            },
            31..=33 => {
                let elements = |this: &mut Self| (0..this.below(3)).map(|_| this.scalar()).collect();
                Write::EditSet {
                    doc,
                    field: self.name_of(Kind::Set),
                    add: elements(self),
                    remove: elements(self),
                }
            }
            34..=35 => Write::Delete { doc },
            36..=37 => Write::Restore { doc },
            38..=39 => Write::RestoreVersion { doc, back: self.below(4) },
            40 | 41 | 44..=51 => Write::Retype {
                doc,
                field: self.name_of(Kind::Text),
                at: self.below(12),
                delete: self.below(5).saturating_sub(2),
                mark: self.mark(),
                splice: self.one_in(3),
            },
            _ => Write::Relist {
                doc,
                field: self.name_of(Kind::List),
                at: self.below(8),
                delete: self.below(5).saturating_sub(3),
                mark: self.mark(),
            },
        }
    }

    fn mark(&mut self) -> Option<usize> {
        self.marks += 1;
        (self.marks <= MARKS.len()).then(|| self.marks - 1)
    }

    fn doc(&mut self) -> usize {
        self.random.below(DOCUMENTS) as usize
    }

    fn slot(&mut self) -> usize {
        self.random.below(SLOTS) as usize
    }

    fn name(&mut self) -> String {
        let names = self.names.clone();
        self.pick(&names)
    }

    /// Mostly a field that is declared so.
    fn name_of(&mut self, kind: Kind) -> String {
        let named: Vec<String> =
            self.declared.iter().filter(|(_, of)| *of == kind).map(|(name, _)| name.clone()).collect();
        if named.is_empty() || self.one_in(8) { self.name() } else { self.pick(&named) }
    }

    fn fields(&mut self) -> Fields {
        let mut fields = Fields::new();
        for _ in 0..self.below(4) {
            let name = if self.one_in(60) { String::new() } else { self.name() };
            let value = self.value_of(&name);
            fields.insert(name, value);
        }
        fields
    }

    fn change(&mut self) -> (Fields, Vec<String>) {
        let remove = if self.one_in(4) { vec![self.name()] } else { Vec::new() };
        (self.fields(), remove)
    }

    fn value_of(&mut self, name: &str) -> Value {
        let kind = self.declared.iter().find(|(field, _)| field == name).map(|(_, kind)| *kind);
        // Histories of one kind are told apart better.
        match self.below(if self.marked { 80 } else { 8 }) {
            0 => self.value(),
            1 => Value::Null,
            _ => match kind {
                Some(Kind::Text) if self.marked => {
                    self.mark().map_or(String::new(), |mark| format!("{} ", MARKS[mark])).into()
                }
                Some(Kind::List) if self.marked => self.mark().map(|mark| MARKS[mark]).into_iter().collect(),
                Some(Kind::Text) => self.text(),
                Some(Kind::Counter) => self.integer(),
                Some(Kind::Set) => (0..self.below(4)).map(|_| self.scalar()).collect(),
                Some(Kind::List) => self.array(),
                Some(Kind::Rank) => self.pick(&RANKS).into(),
                _ => self.value(),
            },
        }
    }

    fn value(&mut self) -> Value {
        match self.below(10) {
            0 => Value::Null,
            1..=2 => self.scalar(),
            3 => self.integer(),
            4..=5 => self.text(),
            6 => self.pick(&[json!(1.5), json!(-0.25), json!(2.0), json!(1e300), json!(u64::MAX)]),
            7 => self.array(),
            _ => self.object(),
        }
    }

    fn integer(&mut self) -> Value {
        if self.one_in(2) { self.pick(&INTEGERS).into() } else { (self.below(12) as i64 - 2).into() }
    }

    fn text(&mut self) -> Value {
        (0..1 + self.below(3)).map(|_| self.pick(&WORDS)).collect::<String>().into()
    }

    fn scalar(&mut self) -> Value {
        match self.below(6) {
            0 => self.one_in(2).into(),
            1 => (self.below(3)).into(),
            2 => json!(1.5),
            _ => self.pick(&WORDS).into(),
        }
    }

    fn array(&mut self) -> Value {
        (0..self.below(4))
            .map(|_| match self.below(8) {
                0 => Value::Null,
                1 => json!({ "id": self.pick(&["x", "y"]), "n": self.below(3) }),
                2 => json!([self.scalar()]),
                3 => json!({}),
                _ => self.scalar(),
            })
            .collect()
    }

    fn object(&mut self) -> Value {
        if self.one_in(60) {
            let depth = self.pick(&[30, 58, 70]);
            return (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }));
        }
        let mut fields = Fields::new();
        for _ in 0..self.below(3) {
            let name = if self.one_in(40) { "" } else { self.pick(&["a", "b", "id", "lā"]) };
            let value = match self.below(4) {
                0 => Value::Null,
                1 => self.array(),
                2 => json!({ self.pick(&["a", "b"]): self.scalar() }),
                _ => self.scalar(),
            };
            fields.insert(name.to_owned(), value);
        }
        Value::Object(fields)
    }
}
