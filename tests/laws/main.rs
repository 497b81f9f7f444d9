//! Laws of the translation, tried with generated input: `requests` (any history), `streams` (any sequence of events).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/grammar.rs"]
mod grammar;
mod history;
#[path = "../support/machine.rs"]
mod machine;
mod requests;
#[path = "../support/rules.rs"]
mod rules;
mod streams;
