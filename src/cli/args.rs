//! What can be typed: ccx's own words, or a launch whose words are the client's.
//!
//! Own words count only as the first argument. Everything else goes to the client unparsed and in order,
//! but for `--account NAME` (anywhere before a `--`: the client has no such flag) and leading `--ccx-…`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::account::apart::RENEW_WORD;
use crate::cli::accounts::AccountsWords;
use crate::cli::doctor::DoctorWords;
use crate::cli::quota::QuotaWords;
use crate::cli::statusline::StatuslineWords;
use crate::config::{KEYS, Key, Overrides, Scope, UnknownWord};
use crate::pdf::apart::READ_WORD;
use crate::settings::lease::Landing;

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Words {
    /// Run the client.
    Launch(LaunchWords),
    /// One of ccx's own commands.
    Own(Own),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Hidden: lead the client's session inside a terminal of its own.
    Leader(Vec<OsString>),
    /// Hidden: renew an account's tokens.
    Renew,
    /// Hidden: read a PDF, up to so many bytes of text.
    ReadPdf(usize),
    /// Hidden: finish giving back the client's settings file.
    Land(Landing),
    /// Hidden: become the client.
    Child(Vec<OsString>),
}

/// A launch of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchWords {
    /// The account it is pinned to.
    pub account: Option<String>,
    /// Lets the client inherit ccx's own terminal.
    pub no_pty: bool,
    /// What it sets otherwise than `config.toml`.
    pub overrides: Overrides,
    /// The client's arguments.
    pub client: Vec<OsString>,
}

/// Words that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A flag of ours that does not exist.
    #[error("unknown flag {flag}; ccx's own flags are {}", flags().join(", "))]
    UnknownFlag {
        /// As it was typed.
        flag: String,
    },
    /// A flag of ours without its value.
    #[error("{0} needs a value")]
    NoValue(String),
    /// A flag of ours with a value that it does not take.
    #[error("{flag} {problem}")]
    BadValue {
        /// The flag.
        flag: String,
        /// What it takes.
        problem: UnknownWord,
    },
    /// A word kept for a command that this version does not have.
    #[error("`ccx {0}` is not part of this version")]
    Reserved(String),
    /// The words of an own command; also its `--help`.
    #[error(transparent)]
    Command(#[from] clap::Error),
}

/// Words that are ours as the first argument, but have no command yet.
const RESERVED: [&str; 4] = ["models", "config", "dashboard", "completions"];

#[derive(Debug, Parser)]
#[command(name = "ccx", bin_name = "ccx", disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    own: Own,
}

/// ccx's own commands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Own {
    /// Sign in to ChatGPT, or take over a login
    Login(LoginWords),
    /// Show accounts, models and the client
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how much of the plan is left
    Quota(QuotaWords),
    /// List the accounts, or change one
    Accounts(AccountsWords),
    /// Choose the account that is used when none is named
    Use {
        /// The account: label, e-mail address, id or the beginning of one
        name: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Sign out of an account: revoke its sign-in and forget it
    Logout {
        /// The account (default: the active one)
        name: Option<String>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a line about account and plan, for Claude Code's statusLine
    Statusline(StatuslineWords),
    /// Run the proxy without a client (`ccx daemon` starts it)
    Daemon {
        /// What the daemon should do (default: start)
        #[command(subcommand)]
        verb: Option<DaemonVerb>,
    },
    /// The same as `ccx daemon run`
    Start {
        /// Loopback port to listen on
        #[arg(long)]
        port: Option<u16>,
    },
    /// Look for what is wrong, and say what mends it
    #[command(after_help = "Claude Code's own doctor: `ccx -- doctor`")]
    Doctor(DoctorWords),
    /// Give back Claude Code's settings file, where a ccx that was killed left it
    Restore {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show ccx at work without an account, against a simulated ChatGPT
    Demo(DemoWords),
}

/// The words of `ccx login`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct LoginWords {
    /// Sign in with a code on another device
    #[arg(long)]
    pub headless: bool,
    /// Sign in anywhere and paste the address that the browser ends at, or its code
    #[arg(long)]
    pub paste: bool,
    /// Use the Codex CLI's login; PATH is its auth.json (default: $CODEX_HOME or ~/.codex)
    #[arg(long, value_name = "PATH", num_args = 0..=1, conflicts_with_all = ["headless", "paste"])]
    pub import: Option<Option<PathBuf>>,
    /// With --import: let ccx renew this login too, in turn with the Codex CLI, and write it back to PATH
    #[arg(long, requires = "import")]
    pub take_over: bool,
    /// Use the accounts of codex-claude-proxy; PATH is its accounts.json
    #[arg(long, value_name = "PATH", num_args = 0..=1,
        conflicts_with_all = ["headless", "paste", "import", "label"])]
    pub import_seed: Option<Option<PathBuf>>,
    /// Your own name for the account
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub label: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// A label is typed after `--account` and shown in one line.
fn label(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() || text.chars().any(char::is_control) || text.len() > 64 {
        return Err("a label has 1 to 64 bytes and no control characters");
    }
    Ok(text.to_owned())
}

/// What to do with the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum DaemonVerb {
    /// Start it, unless it runs
    Start {
        /// Loopback port to listen on (default: $PORT, else the last one, else 8081)
        #[arg(long)]
        port: Option<u16>,
    },
    /// End it; answers in flight have 30 s
    Stop {
        /// Wait for no answer
        #[arg(long)]
        now: bool,
    },
    /// End it and start it again, with the same port and key
    Restart {
        /// Another port
        #[arg(long)]
        port: Option<u16>,
    },
    /// Say whether it runs, and where
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the log
    Logs {
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
    },
    /// Run in the foreground until interrupted
    Run {
        /// Loopback port to listen on (default: $PORT, else the last one, else 8081)
        #[arg(long)]
        port: Option<u16>,
        /// Leave the terminal
        #[arg(long, hide = true)]
        detached: bool,
    },
}

/// The words of `ccx demo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct DemoWords {
    /// Fetch Claude Code from npm without asking, if it is not installed
    #[arg(long)]
    pub yes: bool,
    /// Open the client's own screen instead of running one job
    #[arg(long)]
    pub interactive: bool,
    /// Only run the simulated ChatGPT and print how to point ccx at it
    #[arg(long, conflicts_with = "interactive")]
    pub serve: bool,
    /// Answer as ChatGPT did in this capture
    #[arg(long, value_name = "FILE", conflicts_with = "scenario")]
    pub replay: Option<PathBuf>,
    /// How the simulated ChatGPT behaves: a bundled name or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub scenario: Option<String>,
}

/// Reads the words behind the program's name.
pub fn parse(words: &[OsString]) -> Result<Words, UsageError> {
    let Some(first) = words.first().and_then(|word| word.to_str()) else {
        return launch(words);
    };
    match first {
        "--ccx-leader" => Ok(Words::Leader(words[1..].to_vec())),
        RENEW_WORD => Ok(Words::Renew),
        READ_WORD => Ok(Words::ReadPdf(enough(&words[1..]))),
        LAND => land(words),
        "--ccx-child" => Ok(Words::Child(words[1..].to_vec())),
        "help" | "--help" | "-h" => Ok(Words::Help),
        "--version" | "-V" => Ok(Words::Version),
        "login" | "status" | "start" | "daemon" | "demo" | "doctor" | "quota" | "accounts"
        | "use" | "logout" | "statusline" | "restore" => {
            let program = OsStr::new("ccx");
            let line = std::iter::once(program).chain(words.iter().map(OsString::as_os_str));
            Ok(Words::Own(Line::try_parse_from(line)?.own))
        }
        reserved if RESERVED.contains(&reserved) => Err(UsageError::Reserved(reserved.to_owned())),
        _ => launch(words),
    }
}

/// Our own word to ourselves: nothing else is ever there.
fn enough(words: &[OsString]) -> usize {
    let word = words.first().and_then(|word| word.to_str());
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Names the hidden mode that ends a landing; behind it, the journal and the name of the one who waits.
pub const LAND: &str = "--ccx-land";

fn land(words: &[OsString]) -> Result<Words, UsageError> {
    let text = |at: usize| words.get(at).and_then(|word| word.to_str());
    match (text(1), text(2)) {
        (Some(journal), Some(lander)) => Ok(Words::Land(Landing {
            journal: journal.to_owned(),
            lander: lander.to_owned(),
        })),
        _ => Err(UsageError::NoValue(LAND.to_owned())),
    }
}

fn launch(words: &[OsString]) -> Result<Words, UsageError> {
    const ACCOUNT: &str = "--account";
    let mut found = LaunchWords::default();
    let mut is_leading = true;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let text = word.to_str().unwrap_or_default();
        if text == "--" {
            // Behind a leading `--` everything is the client's, our own words included.
            if !is_leading {
                found.client.push(word.clone());
            }
            found.client.extend(rest.cloned());
            break;
        } else if text == ACCOUNT {
            let value = rest.next().and_then(|value| value.to_str());
            found.account = Some(
                value
                    .ok_or_else(|| UsageError::NoValue(ACCOUNT.to_owned()))?
                    .to_owned(),
            );
        } else if let Some(value) = text.strip_prefix("--account=") {
            found.account = Some(value.to_owned());
        } else if is_leading && text == "--ccx-no-pty" {
            found.no_pty = true;
        } else if is_leading && text.starts_with(PREFIX) {
            set(&mut found.overrides, text, &mut rest)?;
        } else {
            is_leading = false;
            found.client.push(word.clone());
        }
    }
    Ok(Words::Launch(found))
}

/// Reads a flag that stands for a key of `config.toml`: `--ccx-KEY VALUE` or `--ccx-KEY=VALUE`.
fn set<'a>(
    overrides: &mut Overrides,
    word: &str,
    rest: &mut impl Iterator<Item = &'a OsString>,
) -> Result<(), UsageError> {
    let (flag, given) = match word.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (word, None),
    };
    let key = flag
        .strip_prefix(PREFIX)
        .and_then(Key::named)
        .filter(|key| key.scope == Scope::Launch)
        .ok_or_else(|| UsageError::UnknownFlag {
            flag: flag.to_owned(),
        })?;
    let value = match given {
        Some(value) => value,
        None => {
            let next = rest.next().and_then(|value| value.to_str());
            next.ok_or_else(|| UsageError::NoValue(flag.to_owned()))?
        }
    };
    overrides.set(key, value).map_err(|problem| {
        let flag = flag.to_owned();
        UsageError::BadValue { flag, problem }
    })
}

/// What stands before a key's name in a flag.
const PREFIX: &str = "--ccx-";

/// The keys that a launch may set.
fn launch_keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.scope == Scope::Launch)
}

/// All of ccx's own flags, with what they take.
fn flags() -> Vec<String> {
    let keys = launch_keys().map(|key| format!("{PREFIX}{} {}", key.name, key.usage));
    let first = ["--account NAME".to_owned(), "--ccx-no-pty".to_owned()];
    first.into_iter().chain(keys).collect()
}

/// Returns the help of `ccx --help`.
pub fn help() -> String {
    let mut commands = String::new();
    for command in Line::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string);
        commands.push_str(&format!(
            "  {:<11} {}\n",
            command.get_name(),
            about.unwrap_or_default()
        ));
    }
    let mut keys = String::new();
    for key in launch_keys() {
        let flag = format!("{PREFIX}{} {}", key.name, key.usage);
        keys.push_str(&format!("  {flag:<26} {}\n", key.help));
    }
    format!(
        "Run Claude Code on your own ChatGPT plan\n\
         \n\
         Usage: ccx [OPTIONS] [CLAUDE CODE ARGUMENTS...]\n\
         \x20      ccx COMMAND [OPTIONS]\n\
         \n\
         Commands:\n\
         {commands}\
         \n\
         Before Claude Code's arguments:\n\
         \x20 --account NAME             The account for this launch, which stays with it\n\
         {keys}\
         \x20 --ccx-no-pty               Let Claude Code inherit this terminal\n\
         \n\
         Everything that is not a word of ccx goes to Claude Code as it is.\n\
         Claude Code's own help, version and doctor: `ccx -- --help`, `ccx -- --version`, `ccx -- doctor`\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(OsString::from).collect()
    }

    #[track_caller]
    fn assert_launch(line: &[&str], account: Option<&str>, no_pty: bool, client: &[&str]) {
        let want = LaunchWords {
            account: account.map(str::to_owned),
            no_pty,
            overrides: Overrides::default(),
            client: words(client),
        };
        assert_eq!(
            parse(&words(line)).unwrap(),
            Words::Launch(want),
            "{line:?}"
        );
    }

    #[test]
    fn what_is_not_ours_is_the_clients_in_order() {
        assert_launch(&[], None, false, &[]);
        assert_launch(&["-p", "hi", ""], None, false, &["-p", "hi", ""]);
        assert_launch(&["mcp", "list"], None, false, &["mcp", "list"]);
        assert_launch(&["-p", "login"], None, false, &["-p", "login"]);
        assert_launch(&["--", "--help"], None, false, &["--help"]);
        assert_launch(&["--", "login"], None, false, &["login"]);
        assert_launch(
            &["-p", "x", "--", "--account", "y"],
            None,
            false,
            &["-p", "x", "--", "--account", "y"],
        );
    }

    #[test]
    fn our_flags_are_taken_out() {
        assert_launch(
            &["--account", "a@b.c", "-p", "x"],
            Some("a@b.c"),
            false,
            &["-p", "x"],
        );
        assert_launch(&["-p", "x", "--account=w"], Some("w"), false, &["-p", "x"]);
        assert_launch(&["--ccx-no-pty", "-c"], None, true, &["-c"]);
        assert_launch(
            &["-c", "--ccx-no-pty"],
            None,
            false,
            &["-c", "--ccx-no-pty"],
        );
        assert_launch(
            &["--account", "w", "--ccx-no-pty", "--", "--version"],
            Some("w"),
            true,
            &["--version"],
        );
    }

    #[test]
    fn keys_of_the_config_are_flags_of_a_launch() {
        let of = |set: &[(&str, &str)]| {
            let mut overrides = Overrides::default();
            for (key, word) in set {
                overrides.set(Key::named(key).unwrap(), word).unwrap();
            }
            overrides
        };
        for (line, overrides, client) in [
            (
                &["--ccx-strategy", "round-robin", "--ccx-failover=on", "-p"][..],
                of(&[("strategy", "round-robin"), ("failover", "on")]),
                &["-p"][..],
            ),
            (
                &[
                    "--ccx-failover",
                    "off",
                    "--ccx-strategy=round-robin",
                    "--ccx-failover",
                    "on",
                ],
                of(&[
                    ("failover", "off"),
                    ("strategy", "round-robin"),
                    ("failover", "on"),
                ]),
                &[],
            ),
            (
                &["-p", "--ccx-failover", "on"],
                Overrides::default(),
                &["-p", "--ccx-failover", "on"],
            ),
            (
                &["--", "--ccx-failover=on"],
                Overrides::default(),
                &["--ccx-failover=on"],
            ),
        ] {
            let want = LaunchWords {
                overrides,
                client: words(client),
                ..LaunchWords::default()
            };
            assert_eq!(
                parse(&words(line)).unwrap(),
                Words::Launch(want),
                "{line:?}"
            );
        }
        for (line, told) in [
            (&["--ccx-failover"][..], "--ccx-failover needs a value"),
            (
                &["--ccx-failover", "maybe"],
                "--ccx-failover must be \"on\" or \"off\"",
            ),
            (
                &["--ccx-strategy="],
                "--ccx-strategy must be \"sticky\", \"round-robin\" or \"most-remaining\"",
            ),
            (
                &["--ccx-secrets=keychain"],
                "unknown flag --ccx-secrets; ccx's own flags are --account NAME, --ccx-no-pty, \
                 --ccx-strategy NAME, --ccx-failover on|off",
            ),
        ] {
            let error = parse(&words(line)).unwrap_err();
            let said = error.to_string();
            assert!(said.starts_with(told), "{line:?}: {said}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_told() {
        for line in [
            &["--ccx-nonsense"][..],
            &["--account"],
            &["doctor", "everything"],
            &["login", "--take-over"],
            &["statusline", "--nonsense"],
            &["use"],
            &["quota", "x", "--all"],
            &["accounts", "rename", "x"],
            &["login", "--import", "--headless"],
            &["login", "--import-seed", "--label", "x"],
            &["login", "--label", " "],
            &["login", "--label", "a\u{1b}b"],
            &["daemon", "fly"],
            &["demo", "--nonsense"],
        ] {
            assert!(parse(&words(line)).is_err(), "{line:?}");
        }
    }

    #[test]
    fn own_words() {
        let login = |words| Words::Own(Own::Login(words));
        for (line, want) in [
            (&["help"][..], Words::Help),
            (&["-h"], Words::Help),
            (&["--version"], Words::Version),
            (&["login"], login(LoginWords::default())),
            (
                &["login", "--headless", "--label", " work "],
                login(LoginWords {
                    headless: true,
                    label: Some("work".to_owned()),
                    ..LoginWords::default()
                }),
            ),
            (
                &["login", "--import"],
                login(LoginWords {
                    import: Some(None),
                    ..LoginWords::default()
                }),
            ),
            (
                &["login", "--take-over", "--import"],
                login(LoginWords {
                    import: Some(None),
                    take_over: true,
                    ..LoginWords::default()
                }),
            ),
            (
                &["login", "--import", "a.json", "--json"],
                login(LoginWords {
                    import: Some(Some("a.json".into())),
                    json: true,
                    ..LoginWords::default()
                }),
            ),
            (
                &["daemon", "run", "--port", "9"],
                Words::Own(Own::Daemon {
                    verb: Some(DaemonVerb::Run {
                        port: Some(9),
                        detached: false,
                    }),
                }),
            ),
            (
                &["doctor", "--online"],
                Words::Own(Own::Doctor(DoctorWords {
                    online: true,
                    ..DoctorWords::default()
                })),
            ),
            (
                &["demo", "--yes"],
                Words::Own(Own::Demo(DemoWords {
                    yes: true,
                    ..DemoWords::default()
                })),
            ),
            (&["--ccx-leader", "x"], Words::Leader(words(&["x"]))),
        ] {
            assert_eq!(parse(&words(line)).unwrap(), want, "{line:?}");
        }
    }
}
