//! Spends a refresh token in a process of its own.
//!
//! The issuer replaces a refresh token the moment it answers. Whoever asked and is killed before the answer is on
//! disk has lost the sign-in. So the one who asks is a short-lived process that nobody has a reason to kill: not in
//! the terminal's foreground, deaf to polite signals, done within the issuer's time limit. A launch, a command or a
//! daemon that dies meanwhile, by whatever signal, loses nothing.
//!
//! The two talk over the child's standard input (one [`Order`]) and output (one [`Answer`]), as JSON. Tokens go
//! through these pipes and never into arguments or the environment.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::oauth::exchange::Tokens;
use crate::secret::Secret;
use crate::time::UnixSeconds;

/// First word of the command line of the process.
pub const RENEW_WORD: &str = "--ccx-renew";

/// What an answer may take: a wait for another process's renewal, one for the Codex CLI's, an exchange.
const LONGEST: Duration = Duration::from_secs(90);

/// An answer holds three tokens at most.
const LARGEST_ANSWER: u64 = 256 * 1024;

/// Starts the processes.
#[derive(Clone, Debug)]
pub struct Apart {
    program: PathBuf,
}

/// What the process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// ccx's id of the account.
    pub account: String,
    /// The access token that upstream answered 401 to.
    pub refused: Option<Secret<String>>,
}

/// New tokens and the refresh token they replace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rotation {
    /// The refresh token that the issuer takes no more.
    pub spent: Secret<String>,
    /// What it gave.
    pub tokens: Tokens,
    /// When they came: what they say of their end counts from here.
    pub at: UnixSeconds,
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The store has a token that can be sent.
    Renewed,
    /// There is none.
    Failed {
        /// Why.
        error: Told,
        /// What the issuer gave and the disk did not take.
        unsaved: Option<Rotation>,
    },
    /// The process ended without an answer.
    #[serde(skip)]
    Died,
}

/// An error of the other process, in its words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}")]
pub struct Told {
    /// What went wrong, its causes included.
    pub what: String,
    /// What the person can do.
    pub mend: String,
    /// Whether the same call may succeed later without the person doing anything.
    pub is_transient: bool,
}

impl Apart {
    /// Runs `program`, which is ccx itself.
    pub const fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Has the account renewed.
    ///
    /// # Errors
    ///
    /// The process could not be started, or did not understand: nothing was spent.
    pub async fn renew(
        &self,
        account: &str,
        refused: Option<&Secret<String>>,
    ) -> io::Result<Answer> {
        let order = Order {
            account: account.to_owned(),
            refused: refused.cloned(),
        };
        let order = serde_json::to_vec(&order)?;
        let program = self.program.clone();
        // Whoever gives up waiting leaves the process to its work.
        let asked = spawn_blocking(move || ask(&program, &order));
        match timeout(LONGEST, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Ok(Answer::Died),
        }
    }
}

fn ask(program: &PathBuf, order: &[u8]) -> io::Result<Answer> {
    let mut child = Command::new(program)
        .arg(RENEW_WORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Ctrl-C in the terminal is not meant for it.
        .process_group(0)
        .spawn()?;
    let given = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(order),
        None => Ok(()),
    };
    let mut answer = Vec::new();
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(LARGEST_ANSWER).read_to_end(&mut answer),
        None => Ok(0),
    };
    let status = child.wait()?;
    // Another version of ccx has taken the place of this one, and knows no such word.
    if answer.is_empty() && status.code() == Some(2) {
        return Err(io::Error::other("the program does not know its order"));
    }
    match (given, read, serde_json::from_slice(&answer)) {
        (Ok(()), Ok(_), Ok(answer)) => Ok(answer),
        _ => Ok(Answer::Died),
    }
}
