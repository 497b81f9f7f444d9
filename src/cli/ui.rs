//! Words for people: results to stdout, everything else to stderr, questions only on a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Prints a result. A reader that has gone is no error of ours.
pub fn result(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Prints a line that is not a result.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says whether a person can be asked: both the question and the answer have a terminal.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question that Enter answers with yes. End of input is a no.
pub fn confirm(question: &str) -> bool {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question} [Y/n] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(0) | Err(_) => false,
        Ok(_) => matches!(answer.trim(), "" | "y" | "Y" | "yes" | "Yes"),
    }
}
