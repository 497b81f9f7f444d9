//! What a person is told when a command fails: kind, cause, hints, exit code.
//!
//! Rooms have their own error enums; they become a [`Report`] only at the human edge (`cli`).

use std::fmt;

/// Says what sort of trouble ended a command. Fixes the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Words that cannot be understood.
    Usage,
    /// No usable account, or a refused sign-in.
    SignIn,
    /// A settings file that cannot be used.
    Settings,
    /// Upstream cannot be reached, or nothing is left of the plan until later.
    Upstream,
    /// A daemon is in the way.
    Busy,
    /// The person pressed Ctrl-C.
    Interrupted,
    /// A fault of ccx itself before the client runs.
    Internal,
    /// The client is there but cannot be started.
    ClientBroken,
    /// The client is nowhere to be found.
    ClientMissing,
}

impl Kind {
    /// Returns the exit code, as fixed in `docs/architecture.md`, section 7.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::SignIn => 3,
            Self::Settings => 4,
            Self::Upstream => 5,
            Self::Busy => 6,
            Self::Interrupted => 130,
            Self::Internal => 70,
            Self::ClientBroken => 126,
            Self::ClientMissing => 127,
        }
    }
}

/// A failed command in words: what was attempted, why it failed, what mends it.
///
/// `Display` prints up to three kinds of line: `error:`, `cause:` (one for each source), `hint:`.
#[derive(Debug)]
pub struct Report {
    /// Fixes the exit code.
    pub kind: Kind,
    /// What was attempted, with its causes behind it.
    pub error: anyhow::Error,
    /// What the person can do, one line each.
    pub hints: Vec<String>,
}

impl Report {
    /// Makes a report without hints.
    pub fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self {
            kind,
            error: error.into(),
            hints: Vec::new(),
        }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.error)?;
        for cause in self.error.chain().skip(1) {
            write!(f, "\ncause: {cause}")?;
        }
        for hint in &self.hints {
            write!(f, "\nhint:  {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn report_reads_as_error_cause_hint() {
        let cause: Result<(), _> = Err(anyhow::anyhow!("expected `,` at line 14 column 3"));
        let error = cause.context("could not start: settings.json is not valid JSON");
        let report = Report::new(Kind::Settings, error.unwrap_err()).hint("fix that line");
        assert_eq!(
            report.to_string(),
            "error: could not start: settings.json is not valid JSON\n\
             cause: expected `,` at line 14 column 3\n\
             hint:  fix that line"
        );
        assert_eq!(report.kind.exit_code(), 4);
    }
}
