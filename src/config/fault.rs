//! What can be wrong with what a person has set, in words that say what would be right.

use std::fmt;

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

fn listed(names: &[&'static str]) -> impl fmt::Display {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
