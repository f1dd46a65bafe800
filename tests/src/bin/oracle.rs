//! Plays many scripts against the oracle: `oracle --scripts 1000000`, on all cores. Ends with the first that fails, made short;
//! `--seed N` plays one again.

use motet_tests::oracle;

fn main() {
    std::process::exit(oracle::command(&std::env::args().skip(1).collect::<Vec<_>>()));
}
