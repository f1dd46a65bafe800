//! Tests of the simulation: each bug that is planted is found. On its own, since a planted bug is planted for the whole process.

use motet_proto::planted::{Bug, plant};
use motet_tests::simulation::search;

/// Lives within which each bug must be found here; `simulate --bugs` gives them 100,000.
const LIVES: u64 = 3_000;

/// Lives of a quick run, within which most are found.
const QUICK_LIVES: u64 = 40;

#[test]
fn every_planted_bug_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let is_quick = motet_tests::random::is_quick();
    let lives = if is_quick { QUICK_LIVES } else { LIVES };
    let mut missed = Vec::new();
    for bug in Bug::EVERY {
        plant(Some(bug));
        let search = search(1, lives);
        match &search.failure {
            Some(failure) => {
                println!("{bug:?}: found after {} lives, by seed {}", search.lives, failure.seed)
            }
            None => missed.push(bug),
        }
    }
    plant(None);
    _ = std::panic::take_hook();
    let may_miss = if is_quick { Bug::EVERY.len() / 2 } else { 0 };
    assert!(missed.len() <= may_miss, "not found in {lives} lives: {missed:?}");
}
