//! The simulation: many lives, the same life twice, and whether it would notice a bug.
//!
//! `cargo run --release -p motet-tests --bin simulate -- --seeds 1000000` plays more of them, `--bugs` looks for all planted bugs.

use motet_tests::simulation::{run, search};

/// Lives that are played unless `MOTET_SEEDS` says otherwise.
const LIVES: u64 = 1_200;

/// Lives that are played twice.
const TWICE: u64 = 60;

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 0..TWICE {
        let once = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let again = std::thread::spawn(move || run(seed)).join().unwrap();
        assert_eq!(once, again.unwrap_or_else(|failure| panic!("{failure}")), "seed {seed}");
    }
}

#[test]
fn every_life_ends_well() {
    let lives = motet_tests::random::runs(LIVES);
    let search = search(1, lives);
    println!("{} lives, {} writes", search.lives, search.writes);
    if let Some(failure) = search.failure {
        panic!("{failure}");
    }
}
