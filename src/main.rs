//! Parses the words, runs the command, exits with its code. The only place that ends the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    ccx::cli::main(std::env::args_os().collect())
}
