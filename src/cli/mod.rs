//! The words of the command line and what they do.

pub mod login;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command line `words` (the program's name first) and returns its exit code.
pub fn main(words: Vec<OsString>) -> ExitCode {
    let _ = words;
    ExitCode::SUCCESS
}
