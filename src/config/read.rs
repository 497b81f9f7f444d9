//! Reads `config.toml`.
//!
//! A file that is not understood is an error with its line and never a default: somebody who wrote `stategy = …`
//! believes that it counts.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::catalogue::families::Family;
use crate::catalogue::knobs::Knobs;
use crate::config::chosen::Config;
use crate::config::fault::{ConfigError, Problem};
use crate::config::keys::{KEYS, Key, Takes};
use crate::proxy::class::Classes;

const MODELS: &str = "a list of model names";

const CLASS: &str = "a model, an effort, or `as-asked`";

const SETTINGS: &str = "a table of settings";

impl Config {
    /// Reads the bytes of a `config.toml`, see [`Config::parse`].
    ///
    /// # Errors
    ///
    /// As [`Config::parse`], or they are no text.
    pub fn read(bytes: &[u8]) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(bytes).map_err(|error| ConfigError {
            line: line_at(bytes, error.valid_up_to()),
            problem: Problem::NotText,
        })?;
        Self::parse(text)
    }

    /// Reads the text of a `config.toml`. An empty one gives the defaults.
    ///
    /// # Errors
    ///
    /// The first line that is not understood: no TOML, a key that there is not, a value that its key does not take.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let at = |offset: usize| line_at(text.as_bytes(), offset);
        let table = DeTable::parse(text).map_err(|error| ConfigError {
            line: at(error.span().map_or(0, |span| span.start)),
            problem: Problem::Syntax(one_line(error.message())),
        })?;
        let mut config = Self::default();
        for (name, value) in in_order(table.get_ref()) {
            take(&mut config, name, value).map_err(|(offset, problem)| ConfigError {
                line: at(offset),
                problem,
            })?;
        }
        Ok(config)
    }
}

/// A mistake, and the offset of its place in the text.
type Fault = (usize, Problem);

type Name<'i> = Spanned<Cow<'i, str>>;

/// Reads one entry of the file into `config`.
fn take(config: &mut Config, name: &Name<'_>, value: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
    let written = name.get_ref().as_ref();
    let Some(key) = Key::named(written) else {
        let known = KEYS.iter().map(|key| key.name).collect();
        return Err(unknown(name, written.to_owned(), known));
    };
    let is_taken = match key.takes {
        Takes::Word { set, .. } => scalar(value.get_ref()).is_some_and(|word| set(config, &word)),
        Takes::Knob { set, .. } => {
            scalar(value.get_ref()).is_some_and(|word| set(&mut config.knobs, &word))
        }
        Takes::Families => match value.get_ref().as_table() {
            Some(table) => {
                config.families = families(table)?;
                true
            }
            None => false,
        },
        Takes::Classes => match value.get_ref().as_table() {
            Some(table) => {
                classes(&mut config.classes, table)?;
                true
            }
            None => false,
        },
        Takes::Models => match value.get_ref().as_table() {
            Some(table) => {
                config.models = of_models(table)?;
                true
            }
            None => false,
        },
    };
    match is_taken {
        true => Ok(()),
        false => Err(wrong(value, written.to_owned(), key.wanted)),
    }
}

/// Returns a value that is one word, as it would be typed.
fn scalar<'v>(value: &'v DeValue<'_>) -> Option<Cow<'v, str>> {
    match value {
        DeValue::String(text) => Some(Cow::Borrowed(text)),
        // What a person who knows TOML would write.
        DeValue::Boolean(is_on) => Some(Cow::Borrowed(if *is_on { "on" } else { "off" })),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(Cow::Owned(number.to_string()))
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Reads the table of families.
fn families(table: &DeTable<'_>) -> Result<Vec<(Family, Vec<String>)>, Fault> {
    let mut found = Vec::new();
    for (name, value) in in_order(table) {
        let written = name.get_ref().as_ref();
        let full = || format!("families.{written}");
        let family = Family::ALL
            .into_iter()
            .find(|family| family.name() == written)
            .ok_or_else(|| unknown(name, full(), Family::ALL.map(Family::name).to_vec()))?;
        let models = models(value.get_ref()).ok_or_else(|| wrong(value, full(), MODELS))?;
        found.push((family, models));
    }
    Ok(found)
}

/// Reads the table of classes.
fn classes(into: &mut Classes, table: &DeTable<'_>) -> Result<(), Fault> {
    for (name, value) in in_order(table) {
        let written = name.get_ref().as_ref();
        let full = || format!("classes.{written}");
        if !Classes::names().contains(&written) {
            return Err(unknown(name, full(), Classes::names()));
        }
        let word = value.get_ref().as_str().unwrap_or_default();
        if !into.set(written, word) {
            return Err(wrong(value, full(), CLASS));
        }
    }
    Ok(())
}

/// Reads the table of models: what holds for each.
fn of_models(table: &DeTable<'_>) -> Result<Vec<(String, Knobs)>, Fault> {
    let mut found = Vec::new();
    for (name, value) in in_order(table) {
        let model = name.get_ref().as_ref();
        let Some(settings) = value.get_ref().as_table() else {
            return Err(wrong(value, format!("models.{model}"), SETTINGS));
        };
        let mut knobs = Knobs::default();
        for (name, value) in in_order(settings) {
            let written = name.get_ref().as_ref();
            let full = || format!("models.{model}.{written}");
            let key = Key::named(written).filter(|key| key.is_of_models());
            let Some((key, set)) = key.and_then(|key| match key.takes {
                Takes::Knob { set, .. } => Some((key, set)),
                Takes::Word { .. } | Takes::Families | Takes::Classes | Takes::Models => None,
            }) else {
                let known = KEYS.iter().filter(|key| key.is_of_models());
                return Err(unknown(name, full(), known.map(|key| key.name).collect()));
            };
            if !scalar(value.get_ref()).is_some_and(|word| set(&mut knobs, &word)) {
                return Err(wrong(value, full(), key.wanted));
            }
        }
        found.push((model.to_owned(), knobs));
    }
    Ok(found)
}

/// One name, or a list of at least one.
fn models(value: &DeValue<'_>) -> Option<Vec<String>> {
    let name = |value: &DeValue<'_>| {
        let text = value.as_str().filter(|text| !text.trim().is_empty())?;
        Some(text.trim().to_owned())
    };
    let Some(list) = value.as_array() else {
        return Some(vec![name(value)?]);
    };
    let names: Option<Vec<String>> = list.iter().map(|entry| name(entry.get_ref())).collect();
    names.filter(|names| !names.is_empty())
}

fn unknown(name: &Name<'_>, key: String, known: Vec<&'static str>) -> Fault {
    (name.span().start, Problem::UnknownKey { key, known })
}

fn wrong(value: &Spanned<DeValue<'_>>, key: String, wanted: &'static str) -> Fault {
    (value.span().start, Problem::Value { key, wanted })
}

/// The entries as they stand in the text, so that the first mistake is the one that is told.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Name<'i>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The line of an offset, from 1.
fn line_at(bytes: &[u8], offset: usize) -> usize {
    let before = &bytes[..offset.min(bytes.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::strategy::Strategy;
    use crate::catalogue::families::Families;
    use crate::catalogue::knobs::{Knob, Summary, Tier, Verbosity};
    use crate::catalogue::list::Catalogue;
    use crate::catalogue::model::{Effort, Lane};
    use crate::config::{Capture, Overrides, Secrets};
    use crate::settings::journal::Wish;

    #[test]
    fn an_empty_file_is_the_defaults() {
        for text in ["", "\n", "# nothing yet\n", "[families]\n"] {
            assert_eq!(Config::parse(text), Ok(Config::default()), "{text}");
        }
        let config = Config::default();
        assert_eq!(config.models(), Families::default());
        assert_eq!(
            (config.secrets, config.strategy, config.failover),
            (Secrets::File, Strategy::Sticky, false)
        );
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            secrets = "keychain"
            strategy = "most-remaining"   # spread the load
            failover = "on"
            strict = true
            kilo = "glm-5"
            capture = "errors"
            lease = "always"
            tier = "fast"
            effort = "auto"
            effort-min = "low"
            effort-max = "xhigh"
            verbosity = "high"
            summary = "hidden"
            lane = "full"

            [models.haiku]
            effort = "none"
            [models."gpt-9.1"]
            tier = "auto"

            [families]
            opus = ["gpt-9", " gpt-6-sol "]
            haiku = "gpt-9-mini"

            [classes]
            title = "as-asked"
        "#;
        let config = Config::parse(text).unwrap();
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let want = Config {
            secrets: Secrets::Keychain,
            strategy: Strategy::MostRemaining,
            failover: true,
            strict: true,
            kilo: Some("z-ai/glm-5:free".to_owned()),
            capture: Capture::Errors,
            lease: Wish::Always,
            families: vec![
                (Family::Opus, list(&["gpt-9", "gpt-6-sol"])),
                (Family::Haiku, list(&["gpt-9-mini"])),
            ],
            classes: {
                let mut classes = Classes::default();
                assert!(classes.set("title", "as-asked"));
                classes
            },
            knobs: Knobs {
                tier: Knob::Is(Tier::Fast),
                effort: Knob::Auto,
                effort_min: Knob::Is(Effort::Low),
                effort_max: Knob::Is(Effort::Xhigh),
                verbosity: Knob::Is(Verbosity::High),
                summary: Knob::Is(Summary::Hidden),
                lane: Knob::Is(Lane::Full),
            },
            models: vec![
                (
                    "haiku".to_owned(),
                    Knobs {
                        effort: Knob::Is(Effort::None),
                        ..Knobs::default()
                    },
                ),
                (
                    "gpt-9.1".to_owned(),
                    Knobs {
                        tier: Knob::Auto,
                        ..Knobs::default()
                    },
                ),
            ],
            launch: Knobs::default(),
        };
        assert_eq!(config, want);

        // The usual ones stay behind the person's, each once.
        let models = config.models();
        let opus = models.candidates(Family::Opus);
        assert_eq!(opus[..3], list(&["gpt-9", "gpt-6-sol", "gpt-6.1-sol"]));
        assert_eq!(opus.iter().filter(|slug| *slug == "gpt-6-sol").count(), 1);
        let usual = Families::default();
        assert_eq!(
            models.candidates(Family::Fable),
            usual.candidates(Family::Fable)
        );
    }

    #[test]
    fn failover_takes_words_and_truths() {
        for (value, is_on) in [
            ("\"on\"", true),
            ("true", true),
            ("\"off\"", false),
            ("false", false),
        ] {
            let config = Config::parse(&format!("failover = {value}")).unwrap();
            assert_eq!(config.failover, is_on, "{value}");
        }
    }

    fn all() -> String {
        let names: Vec<String> = KEYS.iter().map(|key| format!("`{}`", key.name)).collect();
        names.join(", ")
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, line, told) in [
            (
                "\n\nstategy = \"sticky\"\n",
                3,
                "unknown key `stategy`; the keys are ALL",
            ),
            (
                "# a\nsecrets = \"safe\"",
                2,
                "`secrets` must be \"file\" or \"keychain\"",
            ),
            (
                "strategy = 1",
                1,
                "`strategy` must be \"sticky\", \"round-robin\" or \"most-remaining\"",
            ),
            (
                "failover = \"yes\"",
                1,
                "`failover` must be \"on\" or \"off\"",
            ),
            (
                "\nfailover = [\n]",
                2,
                "`failover` must be \"on\" or \"off\"",
            ),
            ("families = 3", 1, "`families` must be a table of families"),
            (
                "[families]\nopus = [\"a\", 3]",
                2,
                "`families.opus` must be a list of model names",
            ),
            (
                "[families]\n\nopus = []",
                3,
                "`families.opus` must be a list of model names",
            ),
            (
                "families.opus = \"a\"\nfamilies.fabel = \"b\"",
                2,
                "unknown key `families.fabel`; the keys are `opus`, `sonnet`, `haiku`, `fable`",
            ),
            ("models = 3", 1, "`models` must be a table of models"),
            (
                "[models]\nhaiku = \"low\"",
                2,
                "`models.haiku` must be a table of settings",
            ),
            (
                "[models.haiku]\nstrategy = \"sticky\"",
                2,
                "unknown key `models.haiku.strategy`; the keys are `tier`, `effort`, `effort-min`, `effort-max`, \
                 `verbosity`, `summary`, `lane`",
            ),
            (
                "[models.haiku]\n\nlane = \"lite\"",
                3,
                "`models.haiku.lane` must be \"auto\" or \"full\"",
            ),
            // The first in the text, although `failover` sorts before `x`.
            (
                "x = 1\nfailover = 3",
                1,
                "unknown key `x`; the keys are ALL",
            ),
        ] {
            let error = Config::parse(text).unwrap_err();
            let told = told.replace("ALL", &all());
            assert_eq!(
                (error.line, error.problem.to_string()),
                (line, told),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        for (text, line) in [
            ("secrets = \"file\"\nstrategy = \n", 2),
            ("secrets = \"file\nfailover = true", 1),
            ("\n\n[families", 3),
            ("failover = true\nfailover = false", 2),
            ("{\"secrets\": \"file\"}", 1),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(matches!(error.problem, Problem::Syntax(_)), "{error:?}");
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_told_with_their_line() {
        assert_eq!(
            Config::read(b"failover = true\n# \xff\n")
                .unwrap_err()
                .to_string(),
            "line 2: this is not UTF-8"
        );
        assert!(Config::read(b"failover = true").unwrap().failover);
    }

    #[test]
    fn a_launch_comes_before_the_file() {
        let file = Config::parse("strategy = \"round-robin\"\nfailover = true").unwrap();
        assert_eq!(file.clone().with(&Overrides::default()), file);
        let mut launch = Overrides::default();
        for (key, word) in [
            ("strategy", "round-robin"),
            ("strategy", "sticky"),
            ("failover", "off"),
        ] {
            launch.set(Key::named(key).unwrap(), word).unwrap();
        }
        assert_eq!(file.with(&launch), Config::default());
        let told = |key, word| {
            let mut launch = Overrides::default();
            let error = launch.set(Key::named(key).unwrap(), word).unwrap_err();
            assert_eq!(launch, Overrides::default());
            error.to_string()
        };
        assert_eq!(told("failover", "On"), "must be \"on\" or \"off\"");
        assert_eq!(told("families", "x"), "must be a table of families");
    }

    #[test]
    fn the_nearest_layer_counts_for_a_model() {
        let text = r#"
            tier = "fast"
            effort = "medium"
            verbosity = "low"
            [models.opus]
            effort = "high"
            verbosity = "medium"
            [models."GPT-6.1-Sol"]
            verbosity = "auto"
            [models.haiku]
            effort = "auto"
        "#;
        let mut launch = Overrides::default();
        launch.set(Key::named("tier").unwrap(), "standard").unwrap();
        let file = Config::parse(text).unwrap();
        let config = file.clone().with(&launch);
        let (catalogue, families) = (Catalogue::bundled(), config.models());
        let of = |config: &Config, slug| {
            let model = catalogue.get(slug).unwrap();
            let knobs = config.knobs_for(model, &catalogue, &families);
            let words = |(name, word)| format!("{name} {word}");
            let turned: Vec<String> = Key::turned(&knobs).into_iter().map(words).collect();
            turned.join(", ")
        };
        for (slug, turned) in [
            ("gpt-6.1-sol", "tier standard, effort high"),
            ("gpt-6-luna", "tier standard, verbosity low"),
            ("gpt-5.5", "tier standard, effort medium, verbosity low"),
        ] {
            assert_eq!(of(&config, slug), turned);
        }
        assert_eq!(of(&file, "gpt-6-luna"), "tier fast, verbosity low");
    }

    #[test]
    fn every_word_key_shows_what_it_takes() {
        for key in KEYS {
            let Some(word) = key.shown(&Config::default()) else {
                continue;
            };
            let text = format!("{} = {word:?}", key.name);
            let read = Config::parse(&text).unwrap();
            assert_eq!(key.shown(&read), Some(word), "{text}");
            let odd = format!("{} = \"nonsense\"", key.name);
            assert!(Config::parse(&odd).is_err(), "{odd}");
        }
    }
}
