//! The list of models, and what a name means in it.
//!
//! Pure: where a list comes from is `cache`'s and `shelf`'s matter. Upstream's list grows fields
//! and loses them, so a missing field has a stated default and an entry that cannot be used is left
//! out; only a list without any usable entry is an error.

use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::catalogue::families::{Families, Family};
use crate::catalogue::model::{Effort, Model};

/// The most bytes that are read as a list; upstream's holds long texts for each model.
pub const LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// The most models of a list; the rest is left out.
const LIMIT_MODELS: usize = 500;

/// The most characters of a name.
const LIMIT_NAME: usize = 100;

/// Context window of a model that does not tell: the smallest one seen in years.
const DEFAULT_WINDOW: u64 = 272_000;

/// Percent of the window to use, when not told: what all known models say.
const DEFAULT_PERCENT: u8 = 95;

/// Behind every model that tells its place.
const DEFAULT_PRIORITY: i64 = 1_000;

/// The tier behind `-fast`.
const FAST: &str = "priority";

static BUNDLED: LazyLock<Arc<Catalogue>> = LazyLock::new(|| {
    let models =
        serde_json::from_str(include_str!("bundled.json")).expect("the bundled list is valid");
    Arc::new(Catalogue { models })
});

/// The models of an account.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    /// In upstream's order, hidden ones included.
    pub models: Vec<Model>,
}

/// Why an answer is no list of models.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Larger than [`LIMIT_BYTES`].
    #[error("the list of models is larger than {LIMIT_BYTES} bytes")]
    TooLarge,
    /// Not JSON, or no `models` in it.
    #[error("the list of models cannot be read")]
    Syntax(#[source] serde_json::Error),
    /// No entry that could be used.
    #[error("the list of models is empty")]
    Empty,
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<'a> {
    /// The model.
    pub model: &'a Model,
    /// The effort that the name asks for, as far as the model goes.
    pub effort: Option<Effort>,
    /// The service tier that the name asks for, if the model offers it.
    pub tier: Option<&'static str>,
}

/// A name that means no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no model {name}; this account has {}", known.join(", "))]
pub struct UnknownModel {
    /// The name, cut to a bounded length.
    pub name: String,
    /// The listed models, best first.
    pub known: Vec<String>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    models: Vec<&'a RawValue>,
}

impl Catalogue {
    /// Returns the list that is built in: upstream's client 0.169.0, November 2026.
    pub fn bundled() -> Arc<Self> {
        Arc::clone(&BUNDLED)
    }

    /// Reads upstream's answer (contract chatgpt-codex §9.3).
    pub fn parse(body: &[u8]) -> Result<Self, CatalogueError> {
        if body.len() > LIMIT_BYTES {
            return Err(CatalogueError::TooLarge);
        }
        let answer: Answer<'_> = serde_json::from_slice(body).map_err(CatalogueError::Syntax)?;
        let mut models: Vec<Model> = Vec::new();
        for entry in answer.models {
            let model = serde_json::from_str(entry.get()).ok().and_then(read);
            if let Some(model) = model
                && models.len() < LIMIT_MODELS
                && models.iter().all(|known| known.slug != model.slug)
            {
                models.push(model);
            }
        }
        if models.is_empty() {
            return Err(CatalogueError::Empty);
        }
        Ok(Self { models })
    }

    /// Returns the model that upstream calls `slug`, in any case, hidden ones included.
    pub fn get(&self, slug: &str) -> Option<&Model> {
        self.models
            .iter()
            .find(|model| model.slug.eq_ignore_ascii_case(slug))
    }

    /// Returns the list with other windows: `window` gets a model's name and the whole window that the list has.
    #[must_use]
    pub fn with_windows(&self, window: impl Fn(&str, u64) -> u64) -> Self {
        let mut models = self.models.clone();
        for model in &mut models {
            model.context_window = window(&model.slug, model.context_window);
        }
        Self { models }
    }

    /// Returns the models that are shown in lists, best first.
    pub fn listed(&self) -> impl Iterator<Item = &Model> {
        let mut listed: Vec<&Model> = self.models.iter().filter(|model| model.listed).collect();
        listed.sort_by_key(|model| model.priority);
        listed.into_iter()
    }

    /// Returns what `name` means: an upstream name, or a name or alias of the client's by its family.
    ///
    /// Around it stand, in any combination, a provider (`openai/`, `anthropic/`), a window (`[1m]`),
    /// a date (`-20251001`), an effort (`-high`, `:high`) and `-fast`. What makes an exact upstream
    /// name is never taken for a suffix.
    pub fn resolve(&self, name: &str, families: &Families) -> Result<Choice<'_>, UnknownModel> {
        let mut rest = name.trim().to_ascii_lowercase();
        for provider in ["openai/", "anthropic/"] {
            if let Some(bare) = rest.strip_prefix(provider) {
                rest = bare.to_owned();
            }
        }
        let mut rest = rest.as_str();
        let mut effort = None;
        let mut is_fast = false;
        loop {
            if let Some(model) = self.get(rest) {
                return Ok(choice(model, effort, is_fast));
            }
            let Some((shorter, suffix)) = Suffix::split(rest) else {
                break;
            };
            rest = shorter;
            match suffix {
                // The last one said is the one meant, and it is met first.
                Suffix::Effort(said) => effort = effort.or(Some(said)),
                Suffix::Fast => is_fast = true,
                Suffix::Nothing => {}
            }
        }
        Family::of(rest)
            .and_then(|family| families.target(self, family))
            .map(|model| choice(model, effort, is_fast))
            .ok_or_else(|| UnknownModel {
                name: name.chars().take(LIMIT_NAME).collect(),
                known: self.listed().map(|model| model.slug.clone()).collect(),
            })
    }
}

impl Choice<'_> {
    /// Returns the same choice of another model, as far as that model goes.
    pub(super) fn of<'a>(&self, model: &'a Model) -> Choice<'a> {
        let has = |tier: &&str| model.service_tiers.iter().any(|known| known == tier);
        Choice {
            model,
            effort: self.effort.map(|effort| model.clamp(effort)),
            tier: self.tier.filter(has),
        }
    }
}

fn choice(model: &Model, effort: Option<Effort>, is_fast: bool) -> Choice<'_> {
    let said = Choice {
        model,
        effort,
        tier: is_fast.then_some(FAST),
    };
    said.of(model)
}

/// What may stand behind a name.
enum Suffix {
    Effort(Effort),
    Fast,
    /// A window or a date: says nothing about the model.
    Nothing,
}

impl Suffix {
    /// Splits the last suffix off; `None` when there is none.
    fn split(name: &str) -> Option<(&str, Self)> {
        if let Some((before, window)) = name
            .strip_suffix(']')
            .and_then(|open| open.rsplit_once('['))
            && !window.is_empty()
        {
            return Some((before, Self::Nothing));
        }
        let (before, word) = name.rsplit_once(['-', ':', '@'])?;
        let suffix = match word {
            "fast" => Self::Fast,
            "latest" => Self::Nothing,
            _ if word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_digit()) => Self::Nothing,
            _ => Self::Effort(Effort::parse(word)?),
        };
        Some((before, suffix))
    }
}

/// Reads one entry; `None` when it has no usable name.
fn read(entry: Value) -> Option<Model> {
    let text = |name: &str| entry[name].as_str();
    let names = |name: &str, key: &str| -> Option<Vec<String>> {
        let list = entry[name].as_array()?.iter();
        let word = |part: &Value| part[key].as_str().or(part.as_str()).map(str::to_owned);
        Some(list.filter_map(word).collect())
    };
    let slug = text("slug").filter(|slug| is_name(slug))?;
    let display_name = text("display_name")
        .map(str::trim)
        .filter(|name| (1..=LIMIT_NAME).contains(&name.len()) && !name.contains(char::is_control));
    let mut efforts: Vec<Effort> = match names("supported_reasoning_levels", "effort") {
        Some(levels) => levels
            .iter()
            .filter_map(|level| Effort::parse(level))
            .collect(),
        None => vec![Effort::Low, Effort::Medium, Effort::High],
    };
    efforts.sort_unstable();
    efforts.dedup();
    Some(Model {
        slug: slug.to_owned(),
        display_name: display_name.unwrap_or(slug).to_owned(),
        listed: text("visibility").is_none_or(|visibility| visibility == "list"),
        priority: entry["priority"].as_i64().unwrap_or(DEFAULT_PRIORITY),
        // Bounded so that a nonsensical number cannot overflow what is computed from it.
        context_window: entry["context_window"]
            .as_u64()
            .filter(|window| (1_000..=1_000_000_000).contains(window))
            .unwrap_or(DEFAULT_WINDOW),
        effective_percent: entry["effective_context_window_percent"]
            .as_u64()
            .and_then(|percent| u8::try_from(percent).ok())
            .filter(|percent| (1..=100).contains(percent))
            .unwrap_or(DEFAULT_PERCENT),
        default_effort: text("default_reasoning_level").and_then(Effort::parse),
        efforts,
        support_verbosity: entry["support_verbosity"].as_bool().unwrap_or(false),
        default_verbosity: text("default_verbosity").map(str::to_owned),
        service_tiers: names("service_tiers", "id").unwrap_or_default(),
        images: names("input_modalities", "type")
            .is_none_or(|modes| modes.iter().any(|mode| mode == "image")),
        lite: entry["use_responses_lite"].as_bool().unwrap_or(false),
    })
}

fn is_name(slug: &str) -> bool {
    (1..=LIMIT_NAME).contains(&slug.len()) && slug.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(name: &str) -> Option<(String, Option<Effort>, Option<&'static str>)> {
        let catalogue = Catalogue::bundled();
        let choice = catalogue.resolve(name, &Families::default()).ok()?;
        Some((choice.model.slug.clone(), choice.effort, choice.tier))
    }

    #[test]
    fn names_and_what_they_mean() {
        let high = Some(Effort::High);
        let fast = Some("priority");
        for (name, slug, effort, tier) in [
            ("gpt-6.1-sol", "gpt-6.1-sol", None, None),
            ("GPT-6.1-Sol", "gpt-6.1-sol", None, None),
            (" gpt-5.5 ", "gpt-5.5", None, None),
            ("gpt-5.5[1m]", "gpt-5.5", None, None),
            ("openai/gpt-5.5", "gpt-5.5", None, None),
            ("gpt-5.5-high", "gpt-5.5", high, None),
            ("gpt-5.5:high", "gpt-5.5", high, None),
            ("gpt-5.5-fast", "gpt-5.5", None, fast),
            ("gpt-5.5-fast-high[1m]", "gpt-5.5", high, fast),
            (
                "openai/gpt-5.5-20251001-high-fast[1m]",
                "gpt-5.5",
                high,
                fast,
            ),
            ("gpt-5.5-low-high", "gpt-5.5", high, None),
            // As far as the model goes.
            ("gpt-5.5-ultra", "gpt-5.5", Some(Effort::Xhigh), None),
            // Hidden, and the suffix belongs to the name; it offers no tier.
            (
                "gpt-daybreak-blue-latest-fast",
                "gpt-daybreak-blue-latest",
                None,
                None,
            ),
            ("opus", "gpt-6.1-sol", None, None),
            ("best", "gpt-6.1-sol", None, None),
            ("default", "gpt-6.1-sol", None, None),
            ("sonnet[1m]", "gpt-6.1-terra", None, None),
            ("haiku-high", "gpt-6-luna", high, None),
            ("fable-fast", "gpt-6-astra", None, fast),
            ("claude-opus-5-5", "gpt-6.1-sol", None, None),
            ("claude-opus-4-7[1m]", "gpt-6.1-sol", None, None),
            ("claude-haiku-4-5-20251001", "gpt-6-luna", None, None),
            (
                "anthropic/claude-haiku-4-5@20251001-high",
                "gpt-6-luna",
                high,
                None,
            ),
            ("claude-3-5-sonnet-latest", "gpt-6.1-terra", None, None),
            ("claude-whatever-9", "gpt-6.1-terra", None, None),
        ] {
            assert_eq!(
                resolved(name),
                Some((slug.to_owned(), effort, tier)),
                "{name}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        for name in [
            "",
            "gpt-9",
            "-high",
            "[1m]",
            "gpt-5.5-mini",
            "opus5",
            "fast",
            "high",
        ] {
            assert_eq!(resolved(name), None, "{name:?}");
        }
        let error = Catalogue::bundled()
            .resolve("gpt-9-high", &Families::default())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no model gpt-9-high; this account has gpt-6.1-sol, gpt-6-astra, gpt-6-sol, \
             gpt-6-luna, gpt-5.6-sol, gpt-6.1-terra, gpt-5.6-terra, gpt-5.6-luna, gpt-5.5"
        );
    }

    #[test]
    fn an_entry_is_read_in_full() {
        let body = br#"{"models":[{"slug":"gpt-6.1-sol","display_name":"GPT-6.1-Sol",
            "supported_reasoning_levels":[{"effort":"high","description":"x"},{"effort":"low"},{"effort":"new"}],
            "default_reasoning_level":"low","visibility":"hide","priority":1,
            "service_tiers":[{"id":"priority","name":"Fast"}],"support_verbosity":true,
            "default_verbosity":"low","context_window":272000,"max_context_window":872000,
            "effective_context_window_percent":90,"input_modalities":["text"],"use_responses_lite":true}]}"#;
        assert_eq!(
            Catalogue::parse(body).unwrap().models,
            [Model {
                slug: "gpt-6.1-sol".to_owned(),
                display_name: "GPT-6.1-Sol".to_owned(),
                listed: false,
                priority: 1,
                context_window: 272_000,
                effective_percent: 90,
                efforts: vec![Effort::Low, Effort::High],
                default_effort: Some(Effort::Low),
                support_verbosity: true,
                default_verbosity: Some("low".to_owned()),
                service_tiers: vec!["priority".to_owned()],
                images: false,
                lite: true,
            }]
        );
    }

    #[test]
    fn missing_and_nonsensical_fields_have_their_defaults() {
        let plain = Catalogue::parse(br#"{"models":[{"slug":"m"}]}"#).unwrap();
        assert_eq!(
            plain.models,
            [Model {
                slug: "m".to_owned(),
                display_name: "m".to_owned(),
                listed: true,
                priority: 1_000,
                context_window: 272_000,
                effective_percent: 95,
                efforts: vec![Effort::Low, Effort::Medium, Effort::High],
                default_effort: None,
                support_verbosity: false,
                default_verbosity: None,
                service_tiers: Vec::new(),
                images: true,
                lite: false,
            }]
        );
        let odd = Catalogue::parse(
            br#"{"models":[{"slug":"m","display_name":7,"priority":"x","context_window":18446744073709551615,
            "effective_context_window_percent":900,"supported_reasoning_levels":null,"service_tiers":{},
            "input_modalities":"text","use_responses_lite":"yes"}]}"#,
        );
        assert_eq!(odd.unwrap(), plain);
    }

    #[test]
    fn entries_that_cannot_be_used_are_left_out() {
        let body = br#"{"models":[null,7,{"slug":""},{"slug":"a b"},{"slug":"a"},{"slug":"a","priority":1},{"slug":"b"}],"x":1}"#;
        let models = Catalogue::parse(body).unwrap().models;
        let slugs: Vec<_> = models.iter().map(|model| model.slug.as_str()).collect();
        assert_eq!(slugs, ["a", "b"]);
        assert_eq!(models[0].priority, 1_000, "the first one counts");
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for body in ["", "[]", "<html>", "{}", r#"{"models":{}}"#] {
            let error = Catalogue::parse(body.as_bytes()).unwrap_err();
            assert!(matches!(error, CatalogueError::Syntax(_)), "{body}");
        }
        assert!(matches!(
            Catalogue::parse(br#"{"models":[{}]}"#),
            Err(CatalogueError::Empty)
        ));
        let huge = vec![b' '; LIMIT_BYTES + 1];
        assert!(matches!(
            Catalogue::parse(&huge),
            Err(CatalogueError::TooLarge)
        ));
        let many: Vec<_> = (0..600).map(|n| format!(r#"{{"slug":"m{n}"}}"#)).collect();
        let many = format!(r#"{{"models":[{}]}}"#, many.join(","));
        assert_eq!(
            Catalogue::parse(many.as_bytes()).unwrap().models.len(),
            LIMIT_MODELS
        );
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_resolved_or_refused(name in "(gpt-5.5|claude-opus|.{0,8})([-:@\\[\\]a-z0-9]{0,12}|.{0,8})") {
            let catalogue = Catalogue::bundled();
            match catalogue.resolve(&name, &Families::default()) {
                Ok(choice) => proptest::prop_assert!(catalogue.get(&choice.model.slug).is_some()),
                Err(unknown) => proptest::prop_assert!(!unknown.known.is_empty()),
            }
        }

        #[test]
        fn any_bytes_are_a_list_or_an_error(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert!(Catalogue::parse(&body).is_err());
        }
    }
}
