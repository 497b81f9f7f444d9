//! What the terminal is, and whether the ports that ccx needs can be had.

use std::io::{self, IsTerminal as _};

use super::Check;
use crate::cli::daemon::DEFAULT_PORT;
use crate::cli::environment::Environment;
use crate::cli::setup;

/// Says what the terminal is.
pub(super) fn terminal(environment: &Environment) -> Check {
    let ends = [
        io::stdin().is_terminal(),
        io::stdout().is_terminal(),
        io::stderr().is_terminal(),
    ];
    let name = environment.text("TERM").unwrap_or("not named");
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    if ends.iter().all(|is_terminal| *is_terminal) {
        return match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) => {
                let (columns, rows) = (size.ws_col, size.ws_row);
                Check::fine(
                    "terminal",
                    format!("{name}, {columns} columns, {rows} rows"),
                )
            }
            Err(error) => Check::note("terminal", format!("{name}, of no known size: {error}")),
        };
    }
    Check::fine(
        "terminal",
        "not on all of 0, 1 and 2: a session here has none of its own",
    )
}

/// Looks whether a proxy could listen.
pub(super) fn ports() -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(match setup::bind(0) {
        Ok(_) => Check::fine("ports", "127.0.0.1 can be listened on"),
        Err(error) => Check::finding("ports", format!("cannot listen on 127.0.0.1: {error}"))
            .hint("bring the loopback interface up"),
    });
    if setup::bind(DEFAULT_PORT).is_err() {
        let words = format!("{DEFAULT_PORT} is in use, by a ccx daemon or by somebody else");
        checks.push(Check::note("ports", words).hint("`ccx daemon run --port` takes another"));
    }
    checks
}
