//! The environment, read once. Everything below `cli` gets values from here as arguments.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

/// The environment variables of this process at its start.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Reads the process environment.
    pub fn read() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    /// Returns a variable; one that is set but empty counts as absent.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let value = self.variables.get(OsStr::new(name))?;
        (!value.is_empty()).then_some(value.as_os_str())
    }

    /// Returns a variable that is text; anything else counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.to_str()
    }

    /// Returns a variable as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Returns the home directory.
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// Returns the client's user settings file, whether it is there or not.
    pub fn client_settings(&self) -> Option<PathBuf> {
        let directory = self.path("CLAUDE_CONFIG_DIR");
        let directory = directory.or_else(|| Some(self.home()?.join(".claude")))?;
        Some(directory.join("settings.json"))
    }

    /// Returns the names of all variables.
    pub fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.variables.keys().map(OsString::as_os_str)
    }

    /// Sets a variable in this copy only.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.insert(name.into(), value.into());
    }
}

impl fmt::Debug for Environment {
    /// Shows the names only: keys and tokens stand in the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_no_values() {
        let mut environment = Environment::default();
        environment.set("ANTHROPIC_API_KEY", "sk-1");
        assert_eq!(format!("{environment:?}"), r#"{"ANTHROPIC_API_KEY"}"#);
    }
}
