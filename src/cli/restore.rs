//! `ccx restore`: gives back what a ccx that was killed left in the client's settings files. The same is done at every
//! start; here it is told.

use rustix::process::setsid;
use serde_json::{Value, json};

use crate::cli::environment::Environment;
use crate::cli::lease::in_words;
use crate::cli::setup;
use crate::cli::ui;
use crate::error::{Kind, Report};
use crate::settings::lease::{Done, Landing, Leases};
use crate::settings::private;
use crate::settings::succession::Came;

/// Repairs everything and says what was done: 0 when nothing is left to do, else 4.
///
/// # Errors
///
/// It cannot be told where ccx's files are, or they cannot be used.
pub fn run(environment: &Environment, as_json: bool) -> Result<u8, Report> {
    let places = setup::places(environment)?;
    let swept = private::sweep(&places.run);
    let leases = Leases::below(&places.state);
    let file = environment.client_settings();
    let found = leases
        .repair(file.as_deref())
        .map_err(|error| Report::new(Kind::Settings, error))?;
    let mut lines = Vec::new();
    let mut rows = Vec::new();
    let mut is_well = true;
    for found in found {
        let (path, said) = match found {
            Ok(mut done) => {
                let mut said = None;
                if let Some(landing) = done.landing.take() {
                    ui::note(&format!(
                        "ccx: running Claude Codes are told that {} is given back; that takes 4 s",
                        done.path.display()
                    ));
                    match leases.land(&landing) {
                        Ok(Some(landed)) => done = landed,
                        // Somebody has taken it over meanwhile.
                        Ok(None) => done.came = Came::Nothing,
                        Err(error) => {
                            is_well = false;
                            said = Some(in_words(error));
                        }
                    }
                }
                is_well &= done.came != Came::Stuck;
                (
                    done.path.display().to_string(),
                    said.unwrap_or_else(|| words(&done)),
                )
            }
            Err(error) => {
                is_well = false;
                (String::new(), in_words(error))
            }
        };
        let place = if path.is_empty() {
            String::new()
        } else {
            format!("{path}: ")
        };
        lines.push(format!("{place}{said}\n"));
        rows.push(json!({"file": path, "words": said}));
    }
    if swept > 0 {
        lines.push(format!(
            "{swept} settings of sessions that were killed: removed\n"
        ));
    }
    if lines.is_empty() {
        lines.push("Nothing to restore.\n".to_owned());
    }
    match as_json {
        true => ui::json(&told(rows, swept, is_well)),
        false => ui::result(&lines.concat()),
    }
    Ok(if is_well {
        0
    } else {
        Kind::Settings.exit_code()
    })
}

fn told(files: Vec<Value>, swept: usize, is_well: bool) -> Value {
    json!({"files": files, "swept": swept, "restored": is_well})
}

fn words(done: &Done) -> String {
    match done.came {
        Came::GivenBack => "given back",
        Came::Nothing => "as you left it",
        Came::Stays | Came::Taken => "in use by a ccx that runs, which gives it back when it ends",
        Came::HandedOver => "left by a ccx that was killed; a ccx that runs has it now",
        Came::Landing => "being given back by another ccx",
        Came::Stuck => "cannot be read as settings, and is left as it is",
        Came::Elsewhere => "in use by a ccx with other directories (CCX_HOME)",
    }
    .to_owned()
}

/// The process that ends a landing.
///
/// # Errors
///
/// It could not: the next start does it.
pub fn land(environment: &Environment, landing: &Landing) -> Result<u8, Report> {
    // It outlives the terminal that ccx ran in.
    let _ = setsid();
    let places = setup::places(environment)?;
    let done = Leases::below(&places.state).land(landing);
    done.map_err(|error| Report::new(Kind::Settings, error))?;
    Ok(0)
}
