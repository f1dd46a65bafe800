//! Faults that are known and not mended yet. A script that fails by one of them is counted and does not fail the search; the list is
//! to be empty.

use super::run::Fault;
use super::script::{Act, Kind, Script};

/// A fault that is known.
pub(super) struct Gap {
    /// What is wrong.
    pub(super) name: &'static str,
    /// Whether a short script fails by it.
    explains: fn(&Script, &Fault) -> bool,
}

const GAPS: [Gap; 3] = [
    Gap {
        name: "a word that shares a letter with what it replaces is torn",
        explains: |script, fault| {
            fault.check == "promise"
                && fault.what.contains("stands there 0 times")
                && has(script, |act| matches!(act, Act::Write(_) | Act::Change { .. }))
        },
    },
    Gap {
        name: "adopt takes what put refuses, and sets as they are",
        explains: |script, fault| {
            fault.check == "shown" && has(script, |act| matches!(act, Act::Adopt { .. }))
        },
    },
    Gap {
        name: "local fields and collections take empty names, any depth and numbers that are not counted",
        explains: |script, fault| fault.check == "accepted" && is_local(script),
    },
];

/// The known fault by which a short script fails, if any.
pub(super) fn explained(script: &Script, fault: &Fault) -> Option<&'static str> {
    GAPS.iter().find(|gap| (gap.explains)(script, fault)).map(|gap| gap.name)
}

fn has(script: &Script, is: fn(&Act) -> bool) -> bool {
    script.steps.iter().any(|step| is(&step.act))
}

fn is_local(script: &Script) -> bool {
    let declared_late = |act: &Act| matches!(act, Act::Declare { kind: Kind::Local, .. });
    script.local || script.declared.iter().any(|(_, kind)| *kind == Kind::Local) || has(script, declared_late)
}
