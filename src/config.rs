//! What a person can set in `config.toml`, and per launch by `--ccx-KEY VALUE`.
//!
//! Text in, values out: the file is found and read by `cli::setup`. A file that is not understood is an error with
//! its line and never a default: somebody who wrote `stategy = …` believes that it counts.

use std::fmt;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::account::strategy::Strategy;
use crate::catalogue::families::{Families, Family};

/// The keys of the file.
const KEYS: &[&str] = &["secrets", "strategy", "failover", "families"];

/// ccx's own settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where tokens are kept.
    pub secrets: Secrets,
    /// Which account a new conversation gets.
    pub strategy: Strategy,
    /// Whether a conversation may move to another account when its own is exhausted.
    pub failover: bool,
    /// The families whose models the person chose, and the models, best first.
    pub families: Vec<(Family, Vec<String>)>,
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

/// What one launch sets for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--ccx-strategy`.
    pub strategy: Option<Strategy>,
    /// `--ccx-failover`.
    pub failover: Option<bool>,
}

/// Why the file is not understood, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ConfigError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// Not even text.
    #[error("this is not UTF-8")]
    NotText,
    /// A key that there is not.
    #[error("unknown key `{key}`; the keys are {}", listed(known))]
    UnknownKey {
        /// As it was written.
        key: String,
        /// All that could have been.
        known: Vec<&'static str>,
    },
    /// A value that the key does not take.
    #[error("`{key}` must be {wanted}")]
    Value {
        /// The key.
        key: String,
        /// What it takes, in words.
        wanted: &'static str,
    },
}

/// A word that is no value of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {wanted}")]
pub struct UnknownWord {
    /// What it could have been, in words.
    pub wanted: &'static str,
}

impl Secrets {
    const WANTED: &str = "\"file\" or \"keychain\"";

    /// Returns the word that stands for it in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Keychain => "keychain",
        }
    }
}

/// What `strategy` takes, in words.
const STRATEGIES: &str = "\"sticky\", \"round-robin\" or \"most-remaining\"";

impl FromStr for Secrets {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let all = [Self::File, Self::Keychain];
        let found = all.into_iter().find(|value| value.word() == word);
        found.ok_or(UnknownWord {
            wanted: Self::WANTED,
        })
    }
}

impl FromStr for Strategy {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.into_iter().find(|value| value.name() == word);
        found.ok_or(UnknownWord { wanted: STRATEGIES })
    }
}

/// Reads `on` or `off`.
///
/// # Errors
///
/// Any other word.
pub fn switch(word: &str) -> Result<bool, UnknownWord> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(UnknownWord { wanted: SWITCH }),
    }
}

const SWITCH: &str = "\"on\" or \"off\"";

const MODELS: &str = "a list of model names";

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
        for (key, value) in in_order(table.get_ref()) {
            let taken = match key.get_ref().as_ref() {
                "secrets" => word(value, Secrets::WANTED).map(|found| config.secrets = found),
                "strategy" => word(value, STRATEGIES).map(|found| config.strategy = found),
                "failover" => on_or_off(value).map(|found| config.failover = found),
                "families" => match value.get_ref().as_table() {
                    Some(families) => {
                        config.families = chosen(families).map_err(|(offset, problem)| {
                            let line = at(offset);
                            ConfigError { line, problem }
                        })?;
                        Ok(())
                    }
                    None => Err("a table of families"),
                },
                _ => return Err(unknown(key, at(key.span().start))),
            };
            taken.map_err(|wanted| ConfigError {
                line: at(value.span().start),
                problem: Problem::Value {
                    key: key.get_ref().to_string(),
                    wanted,
                },
            })?;
        }
        Ok(config)
    }

    /// Puts what one launch sets before what the file says.
    #[must_use]
    pub fn with(mut self, overrides: Overrides) -> Self {
        self.strategy = overrides.strategy.unwrap_or(self.strategy);
        self.failover = overrides.failover.unwrap_or(self.failover);
        self
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

/// The line of an offset, from 1.
fn line_at(bytes: &[u8], offset: usize) -> usize {
    let before = &bytes[..offset.min(bytes.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

type Entry<'a, 'i> = (
    &'a Spanned<std::borrow::Cow<'i, str>>,
    &'a Spanned<DeValue<'i>>,
);

/// The entries as they stand in the text, so that the first mistake is the one that is told.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn unknown(key: &Spanned<std::borrow::Cow<'_, str>>, line: usize) -> ConfigError {
    ConfigError {
        line,
        problem: Problem::UnknownKey {
            key: key.get_ref().to_string(),
            known: KEYS.to_vec(),
        },
    }
}

fn word<T: FromStr>(value: &Spanned<DeValue<'_>>, wanted: &'static str) -> Result<T, &'static str> {
    let text = value.get_ref().as_str().ok_or(wanted)?;
    text.parse().map_err(|_| wanted)
}

fn on_or_off(value: &Spanned<DeValue<'_>>) -> Result<bool, &'static str> {
    match value.get_ref() {
        // What a person who knows TOML would write.
        DeValue::Boolean(is_on) => Ok(*is_on),
        other => other
            .as_str()
            .and_then(|text| switch(text).ok())
            .ok_or(SWITCH),
    }
}

type Chosen = Vec<(Family, Vec<String>)>;

/// Reads the table of families; a mistake comes with its place in the text.
fn chosen(table: &DeTable<'_>) -> Result<Chosen, (usize, Problem)> {
    let mut found = Vec::new();
    for (key, value) in in_order(table) {
        let name = key.get_ref().as_ref();
        let family = Family::ALL.into_iter().find(|family| family.name() == name);
        let family = family.ok_or_else(|| {
            let problem = Problem::UnknownKey {
                key: format!("families.{name}"),
                known: Family::ALL.map(Family::name).to_vec(),
            };
            (key.span().start, problem)
        })?;
        let models = models(value.get_ref()).ok_or_else(|| {
            let problem = Problem::Value {
                key: format!("families.{name}"),
                wanted: MODELS,
            };
            (value.span().start, problem)
        })?;
        found.push((family, models));
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

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("; ")
}

fn listed(names: &[&'static str]) -> impl fmt::Display {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

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

            [families]
            opus = ["gpt-9", " gpt-6-sol "]
            haiku = "gpt-9-mini"
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
            families: vec![
                (Family::Opus, list(&["gpt-9", "gpt-6-sol"])),
                (Family::Haiku, list(&["gpt-9-mini"])),
            ],
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

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, line, told) in [
            (
                "\n\nstategy = \"sticky\"\n",
                3,
                "unknown key `stategy`; the keys are `secrets`, `strategy`, `failover`, `families`",
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
            // The first in the text, although `failover` sorts before `x`.
            (
                "x = 1\nfailover = 3",
                1,
                "unknown key `x`; the keys are `secrets`, `strategy`, `failover`, `families`",
            ),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert_eq!(
                (error.line, error.problem.to_string().as_str()),
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
        assert_eq!(file.clone().with(Overrides::default()), file);
        let launch = file.with(Overrides {
            strategy: Some(Strategy::Sticky),
            failover: Some(false),
        });
        assert_eq!(launch, Config::default());
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for secrets in [Secrets::File, Secrets::Keychain] {
            assert_eq!(secrets.word().parse(), Ok(secrets));
        }
        for strategy in Strategy::ALL {
            assert_eq!(strategy.name().parse(), Ok(strategy));
        }
        assert_eq!((switch("on"), switch("off")), (Ok(true), Ok(false)));
        assert_eq!(
            switch("On").unwrap_err().to_string(),
            "must be \"on\" or \"off\""
        );
    }
}
