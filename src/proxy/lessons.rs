//! What upstream's counts and refusals teach: what an estimate is worth, and how long a request a model really takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::account::chooser::Chooser;
use crate::account::health::Overflow;
use crate::proxy::ratios::Ratios;

/// Learns. One for each proxy.
#[derive(Debug)]
pub struct Lessons {
    ratios: Mutex<Ratios>,
    chooser: Arc<Chooser>,
}

impl Lessons {
    /// Starts with nothing learnt but what `chooser` keeps.
    pub fn new(chooser: Arc<Chooser>) -> Self {
        Self {
            ratios: Mutex::default(),
            chooser,
        }
    }

    /// Returns the size of a request to `model`, in tokens, from its `estimate`.
    pub fn corrected(&self, model: &str, estimate: u64) -> u64 {
        self.ratios().corrected(model, estimate)
    }

    /// Takes in that a request of about `estimate` tokens (zero: not known) was answered, and counted `counted` tokens.
    pub fn answered(&self, account: &str, model: &str, estimate: u64, counted: u64) {
        self.ratios().learn(model, estimate, counted);
        self.chooser.fitted(account, model, counted);
    }

    /// Takes in that a request to `model` did not fit. `listed` is the model's whole window as its list has it, `told` what
    /// upstream says it is, `tokens` the size of the request as far as it is known.
    pub fn overflowed(
        &self,
        account: &str,
        model: &str,
        listed: u64,
        told: Option<u64>,
        tokens: u64,
    ) {
        // Without upstream's word, and without an answer that proves the estimates, nothing is learnt.
        let tokens = self.ratios().knows(model).then_some(tokens);
        let overflow = Overflow {
            model: model.to_owned(),
            listed,
            told,
            tokens,
            at: self.chooser.now(),
        };
        self.chooser.overflowed(account, overflow);
    }

    fn ratios(&self) -> MutexGuard<'_, Ratios> {
        // A panic elsewhere leaves a number more or less.
        self.ratios.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
