//! Whether guesses did better than chance: the exact tail of the binomial distribution, so that a test of many guessers fails for a
//! leak and not for luck.

/// How one way of guessing did.
#[derive(Debug, Clone)]
pub struct Score {
    /// What it looks at.
    pub name: &'static str,
    /// Guesses.
    pub tries: u32,
    /// Right ones.
    pub hits: u32,
    /// How often chance is right.
    pub chance: f64,
}

impl Score {
    /// The probability that chance alone does at least as well.
    #[must_use]
    pub fn by_luck(&self) -> f64 {
        (self.hits..=self.tries).map(|hits| probability(self.tries, hits, self.chance)).sum::<f64>().min(1.0)
    }

    /// Whether it did so well that it must know something, when this many ways of guessing are tried: one run in a million says so
    /// without cause.
    #[must_use]
    pub fn knows(&self, guessers: usize) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let allowed = 1e-6 / guessers as f64;
        self.by_luck() < allowed
    }
}

fn probability(tries: u32, hits: u32, chance: f64) -> f64 {
    let ways: f64 = (0..hits).map(|i| f64::from(tries - i).ln() - f64::from(i + 1).ln()).sum();
    (ways + f64::from(hits) * chance.ln() + f64::from(tries - hits) * (1.0 - chance).ln()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(hits: u32) -> Score {
        Score { name: "", tries: 400, hits, chance: 0.2 }
    }

    #[test]
    fn luck_is_told_from_knowledge() {
        assert!((score(0).by_luck() - 1.0).abs() < 1e-9);
        let coin = Score { name: "", tries: 10, hits: 10, chance: 0.5 };
        assert!((coin.by_luck() - 1.0 / 1024.0).abs() < 1e-12);
        assert!(!score(80).knows(10));
        assert!(!score(110).knows(10), "{}", score(110).by_luck());
        assert!(score(140).knows(10));
    }
}
