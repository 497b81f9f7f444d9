//! What a person can set in `config.toml`, and per launch by `--ccx-KEY VALUE`.
//!
//! Text in, values out: the file is found and read by `cli::setup`, once, when ccx starts. A new key is a field of
//! [`Config`], a row of [`KEYS`] and a section of `docs/config.md`.

mod chosen;
mod fault;
mod keys;
mod read;
mod write;

pub use chosen::{Capture, Config, Overrides, Secrets};
pub use fault::{ConfigError, Problem, UnknownWord};
pub use keys::{KEYS, Key, Scope, kilo};
pub use write::{Setting, WriteError, set};
