//! Tests of the simulation: each bug that is planted is found. On its own, since a planted bug is planted for the whole process.

use motet_proto::planted::{Bug, plant};
use motet_tests::simulation::search;

/// Lives within which each bug must be found here; `simulate --bugs` gives them 100,000.
const LIVES: u64 = 6_000;

#[test]
fn every_planted_bug_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in Bug::EVERY {
        plant(Some(bug));
        let search = search(1, LIVES);
        match &search.failure {
            Some(failure) => {
                println!("{bug:?}: found after {} lives, by seed {}", search.lives, failure.seed)
            }
            None => missed.push(bug),
        }
    }
    plant(None);
    _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found in {LIVES} lives: {missed:?}");
}
