//! The user's settings file: does a lease hold it, has a ccx that was killed left something, who else would be drawn in?

use super::{Check, State};
use crate::cli::environment::Environment;
use crate::cli::lease::in_words;
use crate::cli::setup;
use crate::files::places::Places;
use crate::settings::clients::is_foreign_running;
use crate::settings::journal::Wish;
use crate::settings::lease::{Has, Leases};
use crate::settings::private;
use crate::settings::target::Target;

const RESTORE: &str = "run `ccx restore`, or start ccx again";

/// Says how the settings files stand that are known, and what sessions have left behind.
pub(super) fn lease(places: &Places, environment: &Environment) -> Vec<Check> {
    let leases = Leases::below(&places.state);
    let mut checks: Vec<Check> = leases
        .states()
        .into_iter()
        .filter_map(|state| {
            let at = state.path.display();
            Some(match state.has {
                Has::Nobody => return None,
                Has::Session(url) => Check::fine("lease", format!("{at} leads to {url}")),
                Has::Lander => Check::fine("lease", format!("{at} is being given back")),
                Has::Dead => {
                    let words = format!("{at} was left to a ccx that was killed");
                    Check::finding("lease", words).hint(RESTORE)
                }
            })
        })
        .collect();
    let target = environment.client_settings();
    let target = target.and_then(|file| Target::find(&file).ok());
    if checks.is_empty()
        && let Some(target) = &target
    {
        checks.push(unheld(target, places));
    }
    let left = private::leftovers(&places.run);
    if left > 0 {
        let words = format!("{left} private settings of sessions that were killed");
        checks.push(Check::finding("leftovers", words).hint(RESTORE));
    }
    checks
}

/// What can be said of a file that no journal knows.
fn unheld(target: &Target, places: &Places) -> Check {
    let at = target.path().display();
    let seen = match target.look_closely() {
        Ok(seen) => seen,
        Err(unfit) => {
            let words = format!("never taken: {}", in_words(unfit.into()));
            return Check::note("lease", words).hint("only sessions of ccx use ccx meanwhile");
        }
    };
    if let Some(url) = seen.current.leased_to() {
        let words = format!("{at} leads to {url}, of which nothing is known here");
        return Check::finding("lease", words).hint(RESTORE);
    }
    let wish = setup::config(places).map_or(Wish::Auto, |config| config.lease);
    match wish {
        Wish::Never => Check::fine("lease", "never taken, as `lease` says"),
        Wish::Auto if is_foreign_running(target.path()) => {
            let words = "not taken now: a Claude Code that ccx did not start is running";
            Check::note("lease", words)
        }
        Wish::Auto | Wish::Always => Check::fine("lease", format!("{at} is free")),
    }
}

/// Gives back what can be given back. Returns what was done.
pub(super) fn fix(places: &Places, environment: &Environment) -> Vec<Check> {
    let mut done = Vec::new();
    let swept = private::sweep(&places.run);
    if swept > 0 {
        let words = format!("{swept} private settings of sessions that were killed: removed");
        done.push(Check::new("fixed", State::Note, words));
    }
    let leases = Leases::below(&places.state);
    let is_needed = lease(places, environment)
        .iter()
        .any(|check| check.state == State::Finding);
    if !is_needed {
        return done;
    }
    let file = environment.client_settings();
    for found in leases.repair(file.as_deref()).into_iter().flatten() {
        let landed = found.and_then(|done| match &done.landing {
            Some(landing) => Ok(leases.land(landing)?.unwrap_or(done)),
            None => Ok(done),
        });
        done.push(match landed {
            Ok(landed) => Check::note("fixed", format!("{}: given back", landed.path.display())),
            Err(error) => Check::finding("fixed", in_words(error)),
        });
    }
    done
}
