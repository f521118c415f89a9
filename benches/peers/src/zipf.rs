//! Zipf sampling by inverse CDF, and a small deterministic generator.

/// splitmix64.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.fraction() * n as f64) as u64
    }
}

pub(crate) struct Zipf {
    cumulative: Vec<f64>,
    rng: Rng,
}

impl Zipf {
    pub(crate) fn new(n: usize, exponent: f64, seed: u64) -> Self {
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        let mut cumulative: Vec<f64> = (1..=n).map(add).collect();
        cumulative.iter_mut().for_each(|each| *each /= sum);
        Self { cumulative, rng: Rng::new(seed) }
    }

    pub(crate) fn next(&mut self) -> u32 {
        let at = self.rng.fraction();
        self.cumulative.partition_point(|each| *each < at) as u32
    }

    pub(crate) fn take(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.next()).collect()
    }
}
