//! What a sign-in says to the person, and what the person's screen can do. All of it goes to stderr.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::stdio;
use rustix::termios::tcgetwinsize;

use crate::cli::environment::Environment;
use crate::cli::ui;

/// Browsers that would run inside the terminal, over our own words.
const TEXT_BROWSERS: [&str; 6] = ["browsh", "elinks", "links", "lynx", "w3m", "www-browser"];

/// Ends what a line shows beyond the cursor.
const CLEAR: &str = "\r\x1b[K";

/// The person's end.
#[derive(Debug)]
pub(super) struct Talk {
    /// Both the question and the answer have a terminal.
    pub(super) can_ask: bool,
    /// A browser may be opened.
    pub(super) can_open: bool,
    /// The size of the screen if it can show pictures of blocks.
    pub(super) picture_size: Option<(usize, usize)>,
    is_terminal: bool,
    /// A line that is not ended stands on the screen.
    is_open: bool,
}

impl Talk {
    pub(super) fn new(environment: &Environment) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let size = tcgetwinsize(stdio::stderr()).ok().filter(|_| is_terminal);
        Self {
            can_ask: ui::can_ask(),
            can_open: can_open(environment),
            picture_size: size
                .filter(|_| can_show_blocks(environment))
                .map(|size| (size.ws_row.into(), size.ws_col.into())),
            is_terminal,
            is_open: false,
        }
    }

    /// Says `words` on lines of their own.
    pub(super) fn say(&mut self, words: &str) {
        self.close();
        ui::note(words);
    }

    /// Shows `words` on one line that the next word replaces; nothing without a terminal.
    pub(super) fn show(&mut self, words: &str) {
        if self.is_terminal {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "{CLEAR}{words}");
            let _ = stderr.flush();
            self.is_open = true;
        }
    }

    /// Says that the person has ended the open line with Enter.
    pub(super) const fn entered(&mut self) {
        self.is_open = false;
    }

    /// Leaves the screen ready for whoever writes next.
    pub(super) fn end(mut self) {
        self.close();
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "{CLEAR}");
            let _ = stderr.flush();
        }
    }
}

/// Says whether there is a browser to open: a desktop, or one that the person named.
fn can_open(environment: &Environment) -> bool {
    if environment.get("CCX_NO_BROWSER").is_some() {
        return false;
    }
    if let Some(named) = environment.text("BROWSER") {
        let program = named.split([':', ' ']).next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        return !TEXT_BROWSERS.contains(&name);
    }
    cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"]
            .iter()
            .any(|name| environment.get(name).is_some())
}

/// Says whether the terminal shows blocks in colours: UTF-8, by the first of the variables that counts.
fn can_show_blocks(environment: &Environment) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| environment.text(name))
        .unwrap_or_default()
        .to_ascii_lowercase();
    let terminal = environment.text("TERM").unwrap_or("dumb");
    terminal != "dumb" && (locale.contains("utf-8") || locale.contains("utf8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::default();
        for (name, value) in variables {
            environment.set(name, *value);
        }
        environment
    }

    #[test]
    fn a_browser_is_opened_where_one_can_be_seen() {
        for (variables, expected) in [
            (&[("DISPLAY", ":0")][..], true),
            (&[("WAYLAND_DISPLAY", "wayland-0")], true),
            (&[("BROWSER", "/usr/bin/firefox %s:x")], true),
            (&[("DISPLAY", ":0"), ("CCX_NO_BROWSER", "1")], false),
            (&[("DISPLAY", ":0"), ("CCX_NO_BROWSER", "")], true),
            (&[("BROWSER", "/usr/bin/w3m")], false),
            (&[], cfg!(target_os = "macos")),
        ] {
            assert_eq!(can_open(&environment(variables)), expected, "{variables:?}");
        }
    }

    #[test]
    fn blocks_need_utf_8() {
        for (variables, expected) in [
            (&[("TERM", "xterm"), ("LANG", "C.UTF-8")][..], true),
            (
                &[("TERM", "xterm"), ("LANG", "C.UTF-8"), ("LC_ALL", "C")],
                false,
            ),
            (&[("TERM", "xterm"), ("LC_CTYPE", "de_DE.utf8")], true),
            (&[("TERM", "dumb"), ("LANG", "C.UTF-8")], false),
            (&[("LANG", "C.UTF-8")], false),
            (&[("TERM", "xterm")], false),
        ] {
            assert_eq!(
                can_show_blocks(&environment(variables)),
                expected,
                "{variables:?}"
            );
        }
    }
}
