//! A value that must not be printed.
//!
//! Wraps tokens and keys so that a stray `{:?}` in a log line or an error prints `Secret(..)`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Holds a secret; shows it only through [`Secret::expose`].
///
/// Serialises transparently: a store that writes it is one of the two places (wire, disk) where it
/// may leave the process.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the secret itself: call it only where bytes leave for the wire or the disk.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("sk-1")), "Secret(..)");
    }

    #[test]
    fn serialises_as_the_bare_value() {
        let text = serde_json::to_string(&Secret::new("rt".to_owned())).unwrap();
        assert_eq!(text, "\"rt\"");
    }
}
