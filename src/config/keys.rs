//! The keys: what each is called, what it takes, and where it may be set.
//!
//! One row for each key. The file, `--ccx-KEY`, the help and the messages about mistakes are made from the rows, and a
//! test holds `docs/config.md` to them.

use crate::account::strategy::Strategy;
use crate::catalogue::knobs::{Knob, Knobs, Summary, Tier, Verbosity};
use crate::catalogue::model::{Effort, Lane};
use crate::config::chosen::{Capture, Config, Secrets};
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
    /// One word, for all models, for one or for a launch.
    Knob {
        /// Sets it; says whether the word is one that the key takes.
        set: fn(&mut Knobs, &str) -> bool,
        /// The word for what is set.
        show: fn(&Knobs) -> &'static str,
    },
    /// The models of the families.
    Families,
    /// What serves the classes of requests.
    Classes,
    /// The knobs of models.
    Models,
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
        name: "kilo",
        wanted: "\"off\" or the name of one of Kilo's models",
        usage: "off|MODEL",
        help: "Send haiku's requests to a model of Kilo, a third party",
        scope: Scope::Launch,
        takes: Takes::Word {
            set: |config, word| put(&mut config.kilo, kilo(word)),
            show: |config| config.kilo.clone().unwrap_or_else(|| "off".to_owned()),
        },
    },
    Key {
        name: "capture",
        wanted: "\"off\", \"errors\" or \"all\"",
        usage: "off|errors|all",
        help: "Keep both sides of requests, redacted: off, errors, all",
        scope: Scope::Launch,
        takes: Takes::Word {
            set: |config, word| put(&mut config.capture, Capture::of(word)),
            show: |config| config.capture.word().to_owned(),
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
    knob(
        "tier",
        "\"auto\", \"standard\", \"fast\", \"ultrafast\" or \"flex\"",
        "NAME",
        "How fast upstream works: auto, standard, fast, ultrafast, flex",
        |knobs, word| turn(&mut knobs.tier, TIERS, word),
        |knobs| shown(knobs.tier, TIERS),
    ),
    knob(
        "effort",
        EFFORT,
        "LEVEL",
        "How hard models think, whatever Claude Code asks for: auto, none, minimal … max",
        |knobs, word| turn(&mut knobs.effort, EFFORTS, word),
        |knobs| shown(knobs.effort, EFFORTS),
    ),
    knob(
        "effort-min",
        EFFORT,
        "LEVEL",
        "The least that they think",
        |knobs, word| turn(&mut knobs.effort_min, EFFORTS, word),
        |knobs| shown(knobs.effort_min, EFFORTS),
    ),
    knob(
        "effort-max",
        EFFORT,
        "LEVEL",
        "The most that they think",
        |knobs, word| turn(&mut knobs.effort_max, EFFORTS, word),
        |knobs| shown(knobs.effort_max, EFFORTS),
    ),
    knob(
        "verbosity",
        "\"auto\", \"low\", \"medium\" or \"high\"",
        "LEVEL",
        "How wordy answers are: auto, low, medium, high",
        |knobs, word| turn(&mut knobs.verbosity, VERBOSITIES, word),
        |knobs| shown(knobs.verbosity, VERBOSITIES),
    ),
    knob(
        "summary",
        "\"auto\", \"shown\", \"detailed\" or \"hidden\"",
        "HOW",
        "Whether reasoning is shown: auto, shown, detailed, hidden",
        |knobs, word| turn(&mut knobs.summary, SUMMARIES, word),
        |knobs| shown(knobs.summary, SUMMARIES),
    ),
    knob(
        "lane",
        "\"auto\" or \"full\"",
        "auto|full",
        "full: tools in parallel, where the model is served so",
        |knobs, word| turn(&mut knobs.lane, LANES, word),
        |knobs| shown(knobs.lane, LANES),
    ),
    Key {
        name: "models",
        wanted: "a table of models",
        usage: "",
        help: "What holds for one model or family only",
        scope: Scope::File,
        takes: Takes::Models,
    },
];

const TIERS: &[(&str, Tier)] = &[
    ("standard", Tier::Standard),
    ("fast", Tier::Fast),
    ("ultrafast", Tier::Ultrafast),
    ("flex", Tier::Flex),
];

const EFFORT: &str =
    "\"auto\", \"none\", \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\" or \"max\"";

const EFFORTS: &[(&str, Effort)] = &[
    ("none", Effort::None),
    ("minimal", Effort::Minimal),
    ("low", Effort::Low),
    ("medium", Effort::Medium),
    ("high", Effort::High),
    ("xhigh", Effort::Xhigh),
    ("max", Effort::Max),
];

const VERBOSITIES: &[(&str, Verbosity)] = &[
    ("low", Verbosity::Low),
    ("medium", Verbosity::Medium),
    ("high", Verbosity::High),
];

const SUMMARIES: &[(&str, Summary)] = &[
    ("shown", Summary::Shown),
    ("detailed", Summary::Detailed),
    ("hidden", Summary::Hidden),
];

const LANES: &[(&str, Lane)] = &[("full", Lane::Full)];

/// The row of a knob, which may be set everywhere.
const fn knob(
    name: &'static str,
    wanted: &'static str,
    usage: &'static str,
    help: &'static str,
    set: fn(&mut Knobs, &str) -> bool,
    show: fn(&Knobs) -> &'static str,
) -> Key {
    Key {
        name,
        wanted,
        usage,
        help,
        scope: Scope::Launch,
        takes: Takes::Knob { set, show },
    }
}

impl Key {
    /// Returns the key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Returns the word for what `config` sets; `None` for a key that is a table.
    pub fn shown(&self, config: &Config) -> Option<String> {
        match self.takes {
            Takes::Word { show, .. } => Some(show(config)),
            Takes::Knob { show, .. } => Some(show(&config.launch.over(config.knobs)).to_owned()),
            Takes::Families | Takes::Classes | Takes::Models => None,
        }
    }

    /// Returns the words for what `config` sets beside the models, each behind the name of its key.
    pub fn plain(config: &Config) -> Vec<(&'static str, String)> {
        let all = KEYS.iter().filter_map(|key| match key.takes {
            Takes::Word { show, .. } => Some((key.name, show(config))),
            Takes::Knob { .. } | Takes::Families | Takes::Classes | Takes::Models => None,
        });
        all.collect()
    }

    /// Returns the words for what `knobs` set, each behind the name of its key.
    pub fn turned(knobs: &Knobs) -> Vec<(&'static str, &'static str)> {
        let all = KEYS.iter().filter_map(|key| match key.takes {
            Takes::Knob { show, .. } => Some((key.name, show(knobs))),
            Takes::Word { .. } | Takes::Families | Takes::Classes | Takes::Models => None,
        });
        all.filter(|(_, word)| *word != AUTO).collect()
    }

    /// Says whether it may be set for one model.
    pub const fn is_of_models(&self) -> bool {
        matches!(self.takes, Takes::Knob { .. })
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Key {}

impl Capture {
    /// Returns the word that stands for it in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Errors => "errors",
            Self::All => "all",
        }
    }

    /// Reads it by its word.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Off, Self::Errors, Self::All];
        all.into_iter().find(|value| value.word() == word)
    }
}

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

/// Says that the choice is ccx's.
const AUTO: &str = "auto";

/// Turns a knob to what `word` means; says whether it means anything.
fn turn<T: Copy>(knob: &mut Knob<T>, words: &[(&str, T)], word: &str) -> bool {
    let found = match word {
        AUTO => Some(Knob::Auto),
        _ => {
            let found = words.iter().find(|(known, _)| *known == word);
            found.map(|(_, value)| Knob::Is(*value))
        }
    };
    put(knob, found)
}

fn shown<T: Copy + PartialEq>(knob: Knob<T>, words: &[(&'static str, T)]) -> &'static str {
    let value = knob.value();
    let found = words.iter().find(|(_, known)| Some(*known) == value);
    found.map_or(AUTO, |(word, _)| word)
}

/// The short names of models that were once the only ones.
const KILO_NAMES: &[(&str, &str)] = &[
    ("glm-5", "z-ai/glm-5:free"),
    ("minimax-2.5", "minimax/minimax-m2.5:free"),
];

/// The longest name of a model of Kilo's.
const LONGEST_NAME: usize = 100;

/// Reads `off`, a short name, or the name of a model, which has a maker in front.
pub fn kilo(word: &str) -> Option<Option<String>> {
    if word == "off" {
        return Some(None);
    }
    let short = KILO_NAMES.iter().find(|(short, _)| *short == word);
    let name = short.map_or(word, |(_, name)| name);
    let is_name = name.len() <= LONGEST_NAME
        && name.contains('/')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    is_name.then(|| Some(name.to_owned()))
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
