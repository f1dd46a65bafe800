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

/// How many random runs a test makes: `MOTET_SEEDS`, or as many as are usual for it.
pub fn runs<N: std::str::FromStr>(usual: N) -> N {
    std::env::var("MOTET_SEEDS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(usual)
}
