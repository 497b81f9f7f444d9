//! What upstream could not be told: every deviation from what the client asked has a name.

/// Something of the request that upstream cannot be told in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// A stable name of the kind, e.g. `temperature`, `document`.
    pub kind: &'static str,
    /// How it was met: `dropped`, `approximated`, `marked`.
    pub how: &'static str,
}

impl Loss {
    /// The model is not told at all.
    pub const fn dropped(kind: &'static str) -> Self {
        Self {
            kind,
            how: "dropped",
        }
    }

    /// The model is told something close.
    pub const fn approximated(kind: &'static str) -> Self {
        Self {
            kind,
            how: "approximated",
        }
    }

    /// The model is told, in words at the same place, that something was there.
    pub const fn marked(kind: &'static str) -> Self {
        Self {
            kind,
            how: "marked",
        }
    }
}
