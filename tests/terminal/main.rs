//! A client in a terminal, and without one: what the client, the terminal and the shell observe.
//!
//! The names of the tests begin with the items of the supervision contract that they are about: T for a terminal, in
//! both ways (a terminal of the client's own, and `--ccx-no-pty`), P for pipes. `parts` has what the processes do that
//! the tests start, `bed` the terminal they do it in; some start the real `ccx` instead, with a script for its client.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod bed;
mod bytes;
mod endings;
mod faults;
mod jobs;
mod parts;
mod pipes;
mod sizes;
mod start;
mod words;

/// Not a test of its own: the entry of the processes that the tests start.
#[test]
fn part() {
    parts::play();
}
