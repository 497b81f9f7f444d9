//! Signing in with the real program against the simulated issuer: over pipes and over a terminal.
//!
//! The callback's ports are fixed, so whoever uses them takes [`hall::ports`] first.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod device;
mod first;
mod hall;
mod import;
mod terminal;
