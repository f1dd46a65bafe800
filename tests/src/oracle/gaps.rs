//! Faults that are known and not mended yet. A script that fails by one of them is counted and does not fail the search; the list is
//! to be empty.

use super::run::Fault;
use super::script::{Act, Script};

/// A fault that is known.
pub(super) struct Gap {
    /// What is wrong.
    pub(super) name: &'static str,
    /// Whether a short script fails by it.
    explains: fn(&Script, &Fault) -> bool,
}

const GAPS: [Gap; 4] = [
    Gap {
        name: "an adoption that another device made alike is undone for both",
        explains: |script, fault| {
            fault.check == "promise"
                && fault.what.contains("is deleted, although somebody wrote")
                && has(script, |act| matches!(act, Act::Adopt { .. }))
                && has(script, |act| matches!(act, Act::Undo))
        },
    },
    Gap {
        name: "a row adopted where another clock is ahead is not taken for newer",
        explains: |script, fault| {
            fault.check == "shown"
                && script.devices > 1
                && has(script, |act| matches!(act, Act::Adopt { .. }))
        },
    },
    Gap {
        name: "adopt takes numbers into a local collection that its counters refuse",
        explains: |script, fault| {
            fault.check == "shown" && script.local && has(script, |act| matches!(act, Act::Adopt { .. }))
        },
    },
    Gap {
        name: "a word that shares a letter with what it replaces is torn",
        explains: |script, fault| {
            fault.check == "promise"
                && fault.what.contains("stands there 0 times")
                && has(script, |act| matches!(act, Act::Write(_) | Act::Change { .. }))
        },
    },
];

/// The known fault by which a short script fails, if any.
pub(super) fn explained(script: &Script, fault: &Fault) -> Option<&'static str> {
    GAPS.iter().find(|gap| (gap.explains)(script, fault)).map(|gap| gap.name)
}

fn has(script: &Script, is: fn(&Act) -> bool) -> bool {
    script.steps.iter().any(|step| is(&step.act))
}
