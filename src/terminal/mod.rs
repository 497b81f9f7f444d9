//! The terminal between the person and the client: finds the client, starts it, carries bytes, size,
//! signals, stop and continue both ways, and leaves the terminal as it was.
//!
//! `supervise`, `modes` and `guard` decide and know nothing of the system; the other files are hands.
//! [`session::run`] is the way in. [`leader::main`] and [`leader::child`] are what the hidden words
//! `--ccx-leader` and `--ccx-child` run in processes of their own.

pub mod find;
pub mod guard;
pub mod leader;
pub mod modes;
mod plain;
mod pty;
mod raw;
mod relay;
pub mod session;
mod signals;
pub mod supervise;

pub use supervise::Ending;
