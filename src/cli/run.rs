//! From words to a command to an exit code.

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use crate::cli::args::{self, DaemonVerb, Own, UsageError, Words};
use crate::cli::environment::Environment;
use crate::cli::setup::VERSION;
use crate::cli::{accounts, activate, crash, logout, quota, renew, statusline};
use crate::cli::{daemon, demo, doctor, launch, login, restore, status, ui};
use crate::error::{Kind, Report};
use crate::fault;
use crate::pdf::apart;
use crate::terminal::leader;

/// Runs the command line `words` (the program's name first) and returns its exit code.
pub fn main(words: Vec<OsString>) -> ExitCode {
    let words = match args::parse(words.get(1..).unwrap_or_default()) {
        Ok(words) => words,
        Err(error) => return usage(error),
    };
    // The hidden modes stand between ccx and the client: nothing of ours is read or written there.
    match words {
        Words::Leader(words) => return leader::main(&words),
        Words::Child(words) => return leader::child(&words),
        Words::ReadPdf(enough) => return pdf(enough),
        _ => {}
    }
    let environment = Environment::read();
    #[cfg(debug_assertions)]
    if let Some(number) = environment.text("CCX_FAULT") {
        crate::files::fault::arm(number.parse().unwrap_or_default());
    }
    crash::arm(&environment);
    if let Some(fault) = environment.text("CCX_TEST_FAULT") {
        fault::choose(fault);
    }
    // By now everything is undone that a guard undoes: the client, the terminal, the settings.
    let code = match panic::catch_unwind(AssertUnwindSafe(|| run(words, &environment))) {
        Ok(Ok(code)) => code,
        Ok(Err(report)) => {
            ui::note(&report.to_string());
            report.kind.exit_code()
        }
        Err(_) => Kind::Internal.exit_code(),
    };
    if let Some(told) = crash::told() {
        ui::note(&told);
    }
    match crash::is_fatal() {
        true => Kind::Internal.exit_code().into(),
        false => code.into(),
    }
}

/// Nobody reads an error of it: the pages that it told count.
fn pdf(enough: usize) -> ExitCode {
    match apart::serve(enough) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(words: Words, environment: &Environment) -> Result<u8, Report> {
    match words {
        Words::Launch(words) => {
            launch::run(&words, environment).map(|finished| finished.ending.exit_code())
        }
        Words::Own(Own::Login(words)) => login::login(&words, environment).map(|()| 0),
        Words::Own(Own::Status { json }) => status::status(environment, json),
        Words::Own(Own::Quota(words)) => quota::run(environment, &words),
        Words::Own(Own::Accounts(words)) => accounts::run(environment, &words),
        Words::Own(Own::Use { name, json }) => activate::run(environment, &name, json),
        Words::Own(Own::Logout { name, json }) => logout::run(environment, name.as_deref(), json),
        Words::Own(Own::Statusline(words)) => statusline::run(environment, &words),
        Words::Own(Own::Daemon { verb }) => daemon::run(
            environment,
            &verb.unwrap_or(DaemonVerb::Start { port: None }),
        ),
        Words::Own(Own::Start { port }) => {
            let detached = false;
            daemon::run(environment, &DaemonVerb::Run { port, detached })
        }
        Words::Own(Own::Doctor(words)) => doctor::run(environment, words),
        Words::Own(Own::Demo(words)) => demo::demo(&words, environment),
        Words::Help => {
            ui::result(&args::help());
            Ok(0)
        }
        Words::Version => {
            ui::result(&format!("ccx {VERSION}\n"));
            Ok(0)
        }
        Words::Own(Own::Restore { json }) => restore::run(environment, json),
        Words::Renew => renew::run(environment).map(|()| 0),
        Words::Land(landing) => restore::land(environment, &landing),
        // Taken by `main` before.
        Words::Leader(_) | Words::Child(_) | Words::ReadPdf(_) => Ok(Kind::Internal.exit_code()),
    }
}

fn usage(error: UsageError) -> ExitCode {
    match error {
        // Also `ccx login --help`, which is no error.
        UsageError::Command(error) => {
            let _ = error.print();
            let code = if error.use_stderr() {
                Kind::Usage.exit_code()
            } else {
                0
            };
            code.into()
        }
        error => {
            let hint = "`ccx --help` lists the commands; `ccx -- …` passes words on to Claude Code";
            ui::note(&Report::new(Kind::Usage, error).hint(hint).to_string());
            Kind::Usage.exit_code().into()
        }
    }
}
