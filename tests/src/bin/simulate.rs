//! Plays many lives: `simulate --seeds 1000000`, on all cores. Ends with the first seed that fails; `--seed N` plays one again
//! and says what happened. `--bug N` plants a bug before, `--bugs` plants all of them one after the other.

use motet_tests::simulation;

fn main() {
    std::process::exit(simulation::command(&std::env::args().skip(1).collect::<Vec<_>>()));
}
