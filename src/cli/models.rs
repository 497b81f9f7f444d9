//! Which models the launched client is shown.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::catalogue::families::{Families, Family};
use crate::catalogue::list::Catalogue;
use crate::catalogue::model::Model;
use crate::catalogue::shelf::Shelf;
use crate::cli::environment::Environment;
use crate::proxy::entry::now;
use crate::settings::merge;
use crate::settings::overlay::OverlayModels;

/// Names the model that a session of the client starts with.
const VARIABLE: &str = "ANTHROPIC_MODEL";

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

/// The model that a session starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The client knows it by itself.
    Theirs(String),
    /// It was picked in an earlier session. The client's settings do not keep that: it has to be told.
    Picked(String),
}

impl Chosen {
    /// Returns its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Theirs(name) | Self::Picked(name) => name,
        }
    }
}

/// Returns the model that the user has chosen, in the client's order: by argument, by variable (which settings may
/// set too, and then outrank the process), in the `user`'s own `--settings`, in the client's user settings. Theirs
/// stays. What was `picked` in a session of ccx comes before the client's user settings: it stood there.
///
/// Only looks: a file that does not parse chooses nothing, and is the client's to complain about.
pub fn chosen(
    arguments: &[OsString],
    user: Option<&Map<String, Value>>,
    environment: &Environment,
    picked: Option<String>,
) -> Option<Chosen> {
    let text = |name: &OsStr| name.to_string_lossy().into_owned();
    if let Some(name) = merge::model(arguments) {
        return Some(Chosen::Theirs(text(name)));
    }
    let client = client_settings(environment);
    let layers = || user.into_iter().chain(&client);
    let named = |value: Option<&Value>| Some(value?.as_str()?.to_owned());
    let model = |settings: &Map<String, Value>| named(settings.get("model"));
    let by_variable = layers().find_map(|settings| named(settings.get("env")?.get(VARIABLE)));
    by_variable
        .filter(|name| !name.is_empty())
        .or_else(|| environment.get(VARIABLE).map(text))
        .or_else(|| user.and_then(model))
        .map(Chosen::Theirs)
        .or_else(|| picked.map(Chosen::Picked))
        .or_else(|| client.as_ref().and_then(model).map(Chosen::Theirs))
}

/// Returns the models whose names mean nothing to the client without ccx.
pub fn only_ours(listed: &[&Model]) -> Vec<String> {
    let slugs = listed.iter().map(|model| model.slug.as_str());
    slugs
        .filter(|slug| Family::of(slug).is_none())
        .map(str::to_owned)
        .collect()
}

/// Reads the client's user settings.
fn client_settings(environment: &Environment) -> Option<Map<String, Value>> {
    let file = environment.client_settings()?;
    // A pipe or a device under that name must not hang the launch.
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return None;
    }
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Picks the models of the overlay for a session that starts with `chosen`, or with what `opus` means.
pub fn for_overlay<'a>(
    catalogue: &'a Catalogue,
    families: &Families,
    listed: &'a [&'a Model],
    chosen: Option<&str>,
) -> OverlayModels<'a> {
    let of = |family| families.target(catalogue, family);
    let chosen = chosen.and_then(|name| catalogue.resolve(name, families).ok());
    OverlayModels {
        default: chosen
            .map(|choice| choice.model)
            .or_else(|| of(Family::Opus)),
        opus: of(Family::Opus),
        sonnet: of(Family::Sonnet),
        haiku: of(Family::Haiku),
        fable: of(Family::Fable),
        listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_choice_is_found_in_the_clients_order() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".claude");
        fs::create_dir(&directory).unwrap();
        let mut environment = Environment::default();
        environment.set("HOME", home.path());
        let words = ["--model".into(), "by-word".into()];
        let user = serde_json::json!({"model": "by-settings"});
        let user = user.as_object();
        let chosen = |words: &[OsString], user, environment: &Environment| {
            let chosen = chosen(words, user, environment, None);
            chosen.map_or_else(String::new, |chosen| chosen.name().to_owned())
        };
        assert_eq!(chosen(&[], None, &environment), "");
        for (text, expected) in [
            (r#"{"model":"by-file"}"#, "by-file"),
            ("{,}", ""),
            (r#"{"model":7}"#, ""),
        ] {
            fs::write(directory.join("settings.json"), text).unwrap();
            assert_eq!(chosen(&[], None, &environment), expected, "{text}");
        }
        assert_eq!(chosen(&[], user, &environment), "by-settings");
        environment.set("ANTHROPIC_MODEL", "by-variable");
        assert_eq!(chosen(&[], user, &environment), "by-variable");
        let text = r#"{"model":"by-file","env":{"ANTHROPIC_MODEL":"by-file-variable"}}"#;
        fs::write(directory.join("settings.json"), text).unwrap();
        assert_eq!(chosen(&[], user, &environment), "by-file-variable");
        assert_eq!(chosen(&words, user, &environment), "by-word");
    }

    #[test]
    fn l15_what_was_picked_comes_before_the_clients_settings_and_after_everything_else() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".claude");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("settings.json"), r#"{"model":"opus"}"#).unwrap();
        let mut environment = Environment::default();
        environment.set("HOME", home.path());
        let picked = || Some("gpt-6-luna".to_owned());
        let user = serde_json::json!({"model": "by-settings"});
        let theirs = |name: &str| Some(Chosen::Theirs(name.to_owned()));
        assert_eq!(
            chosen(&[], None, &environment, picked()),
            picked().map(Chosen::Picked)
        );
        assert_eq!(chosen(&[], None, &environment, None), theirs("opus"));
        assert_eq!(
            chosen(&[], user.as_object(), &environment, picked()),
            theirs("by-settings")
        );
        let words = ["--model=haiku".into()];
        assert_eq!(
            chosen(&words, None, &environment, picked()),
            theirs("haiku")
        );
    }

    #[test]
    fn the_window_is_that_of_the_model_a_session_starts_with() {
        let (catalogue, families) = (Catalogue::bundled(), Families::default());
        let starts_with = |chosen| {
            let models = for_overlay(&catalogue, &families, &[], chosen);
            models.default.map(|model| model.slug.as_str())
        };
        for (chosen, slug) in [
            (None, "gpt-6.1-sol"),
            (Some("sonnet"), "gpt-6.1-terra"),
            (Some("gpt-5.5[1m]"), "gpt-5.5"),
            (Some("claude-haiku-4-5"), "gpt-6-luna"),
            (Some("nobody-knows"), "gpt-6.1-sol"),
        ] {
            assert_eq!(starts_with(chosen), Some(slug), "{chosen:?}");
        }
    }
}
