//! Tool names: what upstream takes (`[A-Za-z0-9_-]{1,64}`) and what the client called them.

use std::collections::BTreeMap;

/// Maps the names that had to be changed for upstream back to what the client said.
///
/// Empty for almost every request: names that upstream takes as they are do not appear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolNames {
    /// Upstream's name → the client's name.
    renamed: BTreeMap<String, String>,
}

impl ToolNames {
    /// Returns the client's name for `upstream_name`.
    pub fn original<'a>(&'a self, upstream_name: &'a str) -> &'a str {
        self.renamed
            .get(upstream_name)
            .map_or(upstream_name, String::as_str)
    }

    /// Remembers that `original` was sent upstream as `upstream_name`.
    pub fn insert(&mut self, upstream_name: String, original: String) {
        self.renamed.insert(upstream_name, original);
    }
}
