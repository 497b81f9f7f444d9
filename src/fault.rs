//! Places where a test can make ccx fail, to see what is left of it then. A release build has none.

use std::path::PathBuf;
use std::sync::OnceLock;

static CHOSEN: OnceLock<(String, PathBuf)> = OnceLock::new();

/// Chooses a place, in the form `PLACE@FILE`: ccx panics there as soon as the file exists.
pub fn choose(text: &str) {
    if cfg!(debug_assertions)
        && let Some((place, file)) = text.split_once('@')
    {
        // The first one counts; there is only one.
        let _ = CHOSEN.set((place.to_owned(), file.into()));
    }
}

/// Fails if a test has chosen this place.
///
/// # Panics
///
/// Then, on purpose.
pub fn point(place: &str) {
    if cfg!(debug_assertions)
        && let Some((chosen, file)) = CHOSEN.get()
        && chosen == place
        && file.exists()
    {
        panic!("a test asked for this fault");
    }
}
