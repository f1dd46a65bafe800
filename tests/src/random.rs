//! Randomness that a seed repeats.

/// A small generator, so that a seed tells the whole run.
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// The seed in `MOTET_SEED`, or one from the clock; printed, so that a run that failed can be repeated.
pub fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = std::env::var("MOTET_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| now.map_or(0, |now| now.as_nanos() as u64));
    println!("seed {seed}: run again with MOTET_SEED={seed}");
    seed
}

/// How many random runs a test makes: `MOTET_SEEDS`, or as many as its budget has.
pub fn runs<N: Number>(full: N) -> N {
    count("MOTET_SEEDS", full)
}

/// How many runs the environment variable `name` asks for; without it `full`, or of a [quick](is_quick) run a tenth of that.
pub fn count<N: Number>(name: &str, full: N) -> N {
    let asked = std::env::var(name).ok().and_then(|runs| runs.parse().ok());
    asked.unwrap_or_else(|| if is_quick() { (full / N::from(10)).max(N::from(1)) } else { full })
}

/// Whether the tests are run with small budgets (`MOTET_BUDGET=quick`, as `cargo xtask test` has it): each suite, with fewer runs.
pub fn is_quick() -> bool {
    std::env::var("MOTET_BUDGET").is_ok_and(|budget| budget == "quick")
}

/// What counts runs.
pub trait Number: std::str::FromStr + std::ops::Div<Output = Self> + From<u8> + Ord {}

impl<N: std::str::FromStr + std::ops::Div<Output = N> + From<u8> + Ord> Number for N {}
