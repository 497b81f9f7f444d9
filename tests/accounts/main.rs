//! One valid token for each call: the broker against an issuer on loopback that rotates refresh tokens and refuses a
//! spent one, as the real one does.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod broker;
mod exchange;
mod imported;
mod issuer;
mod launches;
mod processes;
mod shared;
#[path = "../support/mod.rs"]
mod stages;
mod support;
