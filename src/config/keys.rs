//! The keys: what each is called, what it takes, and where it may be set.
//!
//! One row for each key. The file, `--ccx-KEY`, the help and the messages about mistakes are made from the rows, and a
//! test holds `docs/config.md` to them.

use crate::account::strategy::Strategy;
use crate::config::chosen::{Config, Secrets};
use crate::settings::journal::Wish;

/// A key of `config.toml`. Two keys are the same when their names are.
#[derive(Debug)]
pub struct Key {
    /// Its name in the file, and behind `--ccx-`.
    pub name: &'static str,
    /// What it takes, as it goes on behind "must be".
    pub wanted: &'static str,
    /// What it takes, for a line of help: `on|off`, `NAME`.
    pub usage: &'static str,
    /// What it is for, as a line of help.
    pub help: &'static str,
    /// Where it may be set.
    pub scope: Scope,
    /// How it is read.
    pub(super) takes: Takes,
}

/// Where a key may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In `config.toml` only.
    File,
    /// There, and for one launch.
    Launch,
}

/// How a value is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// One word. In the file it may also be a truth value, which reads as `on` or `off`, or a whole number.
    Word {
        /// Sets it; says whether the word is one that the key takes.
        set: fn(&mut Config, &str) -> bool,
        /// The word for what is set.
        show: fn(&Config) -> String,
    },
    /// The models of the families.
    Families,
    /// What serves the classes of requests.
    Classes,
}

/// Every key, in the order in which a person is told of them.
pub static KEYS: &[Key] = &[
    Key {
        name: "secrets",
        wanted: "\"file\" or \"keychain\"",
        usage: "file|keychain",
        help: "Where tokens are kept",
        scope: Scope::File,
        takes: Takes::Word {
            set: |config, word| put(&mut config.secrets, Secrets::of(word)),
            show: |config| config.secrets.word().to_owned(),
        },
    },
    Key {
        name: "strategy",
        wanted: "\"sticky\", \"round-robin\" or \"most-remaining\"",
        usage: "NAME",
        help: "How an account is chosen: sticky, round-robin, most-remaining",
        scope: Scope::Launch,
        takes: Takes::Word {
            set: |config, word| {
                let named = |strategy: &Strategy| strategy.name() == word;
                put(&mut config.strategy, Strategy::ALL.into_iter().find(named))
            },
            show: |config| config.strategy.name().to_owned(),
        },
    },
    Key {
        name: "failover",
        wanted: "\"on\" or \"off\"",
        usage: "on|off",
        help: "Go on with another account when one is exhausted",
        scope: Scope::Launch,
        takes: Takes::Word {
            set: |config, word| put(&mut config.failover, switch(word)),
            show: |config| switched(config.failover),
        },
    },
    Key {
        name: "strict",
        wanted: "\"on\" or \"off\"",
        usage: "on|off",
        help: "Refuse what ChatGPT cannot be told in full",
        scope: Scope::Launch,
        takes: Takes::Word {
            set: |config, word| put(&mut config.strict, switch(word)),
            show: |config| switched(config.strict),
        },
    },
    Key {
        name: "lease",
        wanted: "\"auto\", \"always\" or \"never\"",
        usage: "MODE",
        help: "Serve editors and other Claude Codes too: auto, always, never",
        scope: Scope::Launch,
        takes: Takes::Word {
            set: |config, word| {
                let named = |wish: &Wish| wish.word() == word;
                put(&mut config.lease, Wish::ALL.into_iter().find(named))
            },
            show: |config| config.lease.word().to_owned(),
        },
    },
    Key {
        name: "families",
        wanted: "a table of families",
        usage: "",
        help: "Which models opus, sonnet, haiku and fable stand for",
        scope: Scope::File,
        takes: Takes::Families,
    },
    Key {
        name: "classes",
        wanted: "a table of classes of requests",
        usage: "",
        help: "Which model serves calls beside the conversation",
        scope: Scope::File,
        takes: Takes::Classes,
    },
];

impl Key {
    /// Returns the key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Returns the word for what `config` sets; `None` for a key that is a table.
    pub fn shown(&self, config: &Config) -> Option<String> {
        match self.takes {
            Takes::Word { show, .. } => Some(show(config)),
            Takes::Families | Takes::Classes => None,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Key {}

impl Secrets {
    /// Returns the word that stands for it in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Keychain => "keychain",
        }
    }

    /// Reads it by its word.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::File, Self::Keychain];
        all.into_iter().find(|value| value.word() == word)
    }
}

/// Puts a value where there is one, and says whether there was.
fn put<T>(place: &mut T, value: Option<T>) -> bool {
    let is_some = value.is_some();
    if let Some(value) = value {
        *place = value;
    }
    is_some
}

fn switch(word: &str) -> Option<bool> {
    match word {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn switched(is_on: bool) -> String {
    if is_on { "on" } else { "off" }.to_owned()
}
