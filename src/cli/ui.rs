//! Words for people: results to stdout, everything else to stderr, questions only on a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::cli::draw::{self, Style};
use crate::cli::environment::Environment;

/// Prints a result. A reader that has gone is no error of ours.
pub fn result(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Prints a result as JSON, over several lines. Characters that could steer a terminal are escaped, also those that
/// JSON would let stand.
pub fn json(value: &serde_json::Value) {
    result(&escaped(&format!("{value:#}\n")));
}

/// Escapes the control characters of a JSON text, but for its line ends.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push(c),
            c if c.is_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
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

/// Asks a question that only a typed yes answers with yes.
pub fn insist(question: &str) -> bool {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")
}

/// Returns how results may look: colours only on a terminal and without `NO_COLOR`, never wider than the terminal.
pub fn style(environment: &Environment) -> Style {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let is_dumb = environment.text("TERM") == Some("dumb");
    let columns = rustix::termios::tcgetwinsize(&stdout)
        .ok()
        .filter(|_| is_terminal)
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0);
    Style {
        colour: is_terminal && !is_dumb && environment.get("NO_COLOR").is_none(),
        unicode: is_unicode(environment),
        // Lines longer than this are no easier to read.
        width: columns.unwrap_or(draw::COLUMNS).clamp(40, draw::COLUMNS),
        zone: jiff::tz::TimeZone::system(),
    }
}

/// Says whether text may hold more than ASCII: unless the locale says otherwise.
pub fn is_unicode(environment: &Environment) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| environment.text(name));
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_steer_a_terminal() {
        let value = serde_json::json!({"email": "a\u{1b}\u{9b}2J\u{7f}\n@x"});
        let text = escaped(&format!("{value:#}\n"));
        assert_eq!(
            text,
            "{\n  \"email\": \"a\\u001b\\u009b2J\\u007f\\n@x\"\n}\n"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }

    #[test]
    fn the_locale_decides_about_characters() {
        let with = |pairs: &[(&str, &str)]| {
            let mut environment = Environment::default();
            for (name, value) in pairs {
                environment.set(name, *value);
            }
            is_unicode(&environment)
        };
        assert!(with(&[]));
        assert!(with(&[("LANG", "de_DE.UTF-8")]));
        assert!(with(&[("LC_ALL", ""), ("LANG", "C.utf8")]));
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!with(&[("LANG", "POSIX")]));
    }
}
