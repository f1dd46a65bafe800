//! Faults that are known and not mended yet. A script that fails by one of them is counted and does not fail the search; the list is
//! to be empty.

use super::run::Fault;
use super::script::{Act, Script, Step};

/// A fault that is known.
pub(super) struct Gap {
    /// What is wrong.
    pub(super) name: &'static str,
    /// Whether a short script fails by it.
    explains: fn(&Script, &Fault) -> bool,
}

const GAPS: [Gap; 3] = [
    Gap {
        name: "a row of nothing but sets leaves no time behind, and an older row changes its document",
        explains: |script, fault| {
            let is_older = |step: &Step| matches!(step.act, Act::Adopt { newer: false, .. });
            fault.check == "shown" && script.steps.last().is_some_and(is_older)
        },
    },
    Gap {
        name: "adopt takes numbers into a local collection that its counters refuse",
        explains: |script, fault| {
            let adopts = |act: &Act| matches!(act, Act::Adopt { .. });
            fault.check == "shown" && script.local && has(script, adopts)
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
