//! The catalogue that the backend serves, and what it knows of each model.
//!
//! The data file has the shape of `codex/models` (contract chatgpt-codex §9.3); the facts are those
//! of the catalogue of Codex CLI 0.169.0.

use serde_json::{Value, json};

const FILE: &str = include_str!("models.json");

/// The `etag` and `x-models-etag` of the catalogue.
pub const ETAG: &str = "etag-simulated-1";

/// All models.
#[derive(Clone, Debug)]
pub struct Models {
    entries: Vec<Value>,
}

/// What the checks need of one.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a>(&'a Value);

impl Default for Models {
    fn default() -> Self {
        let file: Value = serde_json::from_str(FILE).expect("the bundled catalogue is JSON");
        Self {
            entries: file["models"].as_array().cloned().unwrap_or_default(),
        }
    }
}

impl Models {
    /// Returns the model `slug`.
    pub fn get(&self, slug: &str) -> Option<Entry<'_>> {
        self.entries
            .iter()
            .find(|entry| entry["slug"] == slug)
            .map(Entry)
    }

    /// Returns all of them.
    pub fn all(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(Entry)
    }

    /// Returns the answer to a client of version `client_version`: one that does not say its version
    /// is shown the old models only, as upstream does. `is_listed` says which ones the plan has.
    pub fn answer(&self, client_version: Option<&str>, is_listed: impl Fn(&str) -> bool) -> Value {
        let shown: Vec<&Value> = self
            .entries
            .iter()
            .filter(|entry| client_version.is_some() || !Entry(entry).is_lite())
            .filter(|entry| entry["slug"].as_str().is_some_and(&is_listed))
            .collect();
        json!({ "models": shown })
    }
}

impl Entry<'_> {
    /// Its name.
    pub fn slug(&self) -> &str {
        self.0["slug"].as_str().unwrap_or_default()
    }

    /// Whether the model is served in the lite form.
    pub fn is_lite(&self) -> bool {
        self.0["use_responses_lite"] == true
    }

    /// Whether it is served in that form only (contract §4: Luna).
    pub fn is_lite_only(&self) -> bool {
        self.0["slug"]
            .as_str()
            .is_some_and(|slug| slug.contains("luna"))
    }

    /// Whether it takes `effort`. `none` is taken by all, the client's own `ultra` by none.
    pub fn takes_effort(&self, effort: &str) -> bool {
        effort == "none"
            || effort != "ultra"
                && self.0["supported_reasoning_levels"]
                    .as_array()
                    .is_some_and(|levels| levels.iter().any(|level| level["effort"] == effort))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_catalogue_is_whole() {
        let models = Models::default();
        assert_eq!(models.entries.len(), 12);
        assert!(models.get("gpt-9").is_none());
        let sol = models.get("gpt-6.1-sol").unwrap();
        assert!(sol.is_lite() && !sol.is_lite_only());
        assert!(sol.takes_effort("max") && sol.takes_effort("none"));
        assert!(!sol.takes_effort("ultra") && !sol.takes_effort("minimal"));
        assert!(models.get("gpt-6-luna").unwrap().is_lite_only());
        assert!(!models.get("gpt-5.5").unwrap().takes_effort("max"));
        let few = models.answer(Some("1"), |slug| slug.contains("luna"));
        assert_eq!(few["models"].as_array().map(Vec::len), Some(2));
        let old = models.answer(None, |_| true);
        assert_eq!(old["models"].as_array().map(Vec::len), Some(1));
        assert_eq!(old["models"][0]["slug"], "gpt-5.5");
    }
}
