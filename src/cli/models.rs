//! Which models the launched client is shown.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::catalogue::families::{Families, Family};
use crate::catalogue::list::Catalogue;
use crate::catalogue::model::Model;
use crate::catalogue::shelf::Shelf;
use crate::cli::environment::Environment;
use crate::proxy::entry::now;
use crate::settings::overlay::OverlayModels;

/// How long the first launch of an account waits for upstream's list of models. Later ones start with the
/// stored list and renew it meanwhile.
const FIRST_LIST: Duration = Duration::from_secs(2);

/// Waits until the live list has come or was refused, for a moment at most; without it the built-in list
/// serves.
pub fn wait_for_list(shelf: &Shelf) {
    let end = Instant::now() + FIRST_LIST;
    while shelf.is_stale(now()) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says whether the user has chosen a model, by variable or in the client's user settings: theirs stays.
///
/// Only looks: a file that does not parse chooses nothing, and is the client's to complain about.
pub fn is_chosen(environment: &Environment) -> bool {
    if environment.get("ANTHROPIC_MODEL").is_some() {
        return true;
    }
    let Some(directory) = environment
        .path("CLAUDE_CONFIG_DIR")
        .or_else(|| Some(environment.home()?.join(".claude")))
    else {
        return false;
    };
    let file = directory.join("settings.json");
    // A pipe or a device under that name must not hang the launch.
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return false;
    }
    let settings = fs::read(file).ok();
    let settings = settings.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    settings.is_some_and(|settings| settings["model"].is_string())
}

/// Picks the models of the overlay.
pub fn for_overlay<'a>(
    catalogue: &'a Catalogue,
    families: &Families,
    listed: &'a [&'a Model],
) -> OverlayModels<'a> {
    let of = |family| families.target(catalogue, family);
    OverlayModels {
        default: of(Family::Opus),
        opus: of(Family::Opus),
        sonnet: of(Family::Sonnet),
        haiku: of(Family::Haiku),
        fable: of(Family::Fable),
        listed,
    }
}
