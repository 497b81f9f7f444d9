//! How far estimates of a request's size are from what upstream counts, learnt from its answers.
//!
//! A conversation is made of the same stuff from turn to turn, so the last answer's count says what the estimate of the next
//! request is worth. Values only.

use std::collections::HashMap;

/// Smaller requests say little: what stands around them counts for more than what they say.
const LEAST_TOKENS: u64 = 2_000;

/// An estimate is never corrected by more than this, either way.
const MOST: f64 = 2.0;

/// How many models are remembered; there are a dozen.
const LIMIT: usize = 64;

/// Upstream's counts over estimates, by model.
#[derive(Debug, Default)]
pub struct Ratios {
    by_model: HashMap<String, f64>,
}

impl Ratios {
    /// Returns `estimate` as upstream would probably count it.
    pub fn corrected(&self, model: &str, estimate: u64) -> u64 {
        match self.by_model.get(model) {
            Some(ratio) => (estimate as f64 * ratio).round() as u64,
            None => estimate,
        }
    }

    /// Says whether anything was learnt of `model`.
    pub fn knows(&self, model: &str) -> bool {
        self.by_model.contains_key(model)
    }

    /// Takes in that upstream counted `counted` tokens where the estimate was `estimate`.
    pub fn learn(&mut self, model: &str, estimate: u64, counted: u64) {
        if estimate < LEAST_TOKENS || counted < LEAST_TOKENS / 2 {
            return;
        }
        let ratio = (counted as f64 / estimate as f64).clamp(1.0 / MOST, MOST);
        let has_room = self.by_model.len() < LIMIT;
        match self.by_model.get_mut(model) {
            // Subagents and side calls come in between: half of what was known stays.
            Some(known) => *known = f64::midpoint(*known, ratio),
            None if has_room => {
                self.by_model.insert(model.to_owned(), ratio);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_comes_closer_with_each_answer() {
        let mut ratios = Ratios::default();
        assert_eq!(ratios.corrected("sol", 10_000), 10_000);
        assert!(!ratios.knows("sol"));
        ratios.learn("sol", 10_000, 8_000);
        assert_eq!(ratios.corrected("sol", 20_000), 16_000);
        assert_eq!(ratios.corrected("luna", 20_000), 20_000);
        ratios.learn("sol", 10_000, 9_000);
        assert_eq!(ratios.corrected("sol", 20_000), 17_000);
    }

    #[test]
    fn small_requests_and_nonsense_teach_nothing_or_little() {
        let mut ratios = Ratios::default();
        for (estimate, counted) in [(0, 0), (1_999, 5_000), (5_000, 0), (5_000, 999)] {
            ratios.learn("sol", estimate, counted);
        }
        assert!(!ratios.knows("sol"));
        ratios.learn("sol", 2_000, u64::MAX);
        assert_eq!(ratios.corrected("sol", 1_000), 2_000);
        for number in 0..200 {
            ratios.learn(&number.to_string(), 2_000, 2_000);
        }
        assert!(ratios.by_model.len() <= LIMIT);
    }
}
