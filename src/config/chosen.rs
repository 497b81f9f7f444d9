//! The settings as values, and what one launch puts before them.

use crate::account::strategy::Strategy;
use crate::catalogue::families::{Families, Family};
use crate::catalogue::knobs::Knobs;
use crate::catalogue::list::Catalogue;
use crate::catalogue::model::Model;
use crate::config::fault::UnknownWord;
use crate::config::keys::{Key, Takes};
use crate::proxy::class::Classes;
use crate::settings::journal::Wish;

/// ccx's own settings. The default is what holds without a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where tokens are kept.
    pub secrets: Secrets,
    /// Which account a new conversation gets.
    pub strategy: Strategy,
    /// Whether a conversation may move to another account when its own is exhausted.
    pub failover: bool,
    /// Whether a request is refused that upstream cannot be told in full.
    pub strict: bool,
    /// Which of Kilo's models answers in the place of the small one; `None` leaves it with ChatGPT.
    pub kilo: Option<String>,
    /// Which requests are kept with both their sides.
    pub capture: Capture,
    /// Whether a launch points the client's settings file at its proxy.
    pub lease: Wish,
    /// The families whose models the person chose, and the models, best first.
    pub families: Vec<(Family, Vec<String>)>,
    /// Which model serves the client's calls beside the conversation.
    pub classes: Classes,
    /// What holds for every model.
    pub knobs: Knobs,
    /// What holds for one, by upstream's name or by the family that it stands for.
    pub models: Vec<(String, Knobs)>,
    /// What this launch sets for every model.
    pub launch: Knobs,
}

/// Which requests are kept with both their sides, for whoever looks for a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capture {
    /// None.
    #[default]
    Off,
    /// Those that failed.
    Errors,
    /// All.
    All,
}

/// Where tokens are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrets {
    /// In the account store, a file that only its owner can read.
    #[default]
    File,
    /// In the system's keychain; the store keeps everything else.
    Keychain,
}

/// What one launch sets for itself: keys and words that they take, in the order in which they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    set: Vec<(&'static Key, String)>,
}

impl Overrides {
    /// Sets `key` to `word` for this launch. The last word counts.
    ///
    /// # Errors
    ///
    /// The key does not take the word, or no single word at all.
    pub fn set(&mut self, key: &'static Key, word: &str) -> Result<(), UnknownWord> {
        if !launch(&mut Config::default(), key, word) {
            return Err(UnknownWord { wanted: key.wanted });
        }
        self.set.push((key, word.to_owned()));
        Ok(())
    }
}

impl Config {
    /// Puts what one launch sets before what the file says.
    #[must_use]
    pub fn with(mut self, overrides: &Overrides) -> Self {
        for (key, word) in &overrides.set {
            // It was taken before, by the same function.
            launch(&mut self, key, word);
        }
        self
    }

    /// Returns what is set for `model`: by the launch, for the model, for a family that it stands for (the first of
    /// several), for all models.
    pub fn knobs_for(&self, model: &Model, catalogue: &Catalogue, families: &Families) -> Knobs {
        let mut found = self.launch;
        if !self.models.is_empty() {
            let exact = |name: &str| name.eq_ignore_ascii_case(&model.slug);
            let named = self.models.iter().filter(|(name, _)| exact(name));
            found = named.fold(found, |found, (_, knobs)| found.over(*knobs));
            let stands = |family: &Family| {
                let target = families.target(catalogue, *family);
                target.is_some_and(|target| target.slug == model.slug)
            };
            for family in Family::ALL.into_iter().filter(stands) {
                let named = self.models.iter().find(|(name, _)| name == family.name());
                found = named.map_or(found, |(_, knobs)| found.over(*knobs));
            }
        }
        found.over(self.knobs)
    }

    /// Returns which models the families stand for: the person's, before the usual ones where the plan lacks them.
    pub fn models(&self) -> Families {
        let mut families = Families::default();
        for (family, chosen) in &self.families {
            let usual = families.candidates(*family);
            let rest = usual.iter().filter(|slug| !chosen.contains(slug));
            let all = chosen.iter().chain(rest).cloned().collect();
            families.set(*family, all);
        }
        families
    }
}

/// Sets `key` to `word` for this launch; says whether it takes the word.
fn launch(config: &mut Config, key: &Key, word: &str) -> bool {
    match key.takes {
        Takes::Word { set, .. } => set(config, word),
        Takes::Knob { set, .. } => set(&mut config.launch, word),
        Takes::Families | Takes::Classes | Takes::Models => false,
    }
}
