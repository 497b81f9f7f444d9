//! One model of the catalogue.

use serde::{Deserialize, Serialize};

/// Reasoning effort, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// No reasoning.
    None,
    /// Hardly any.
    Minimal,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Very high.
    Xhigh,
    /// The most that a single agent takes.
    Max,
    /// A level of the upstream client's own; goes over the wire as `xhigh`.
    Ultra,
}

impl Effort {
    /// Reads an effort by its wire name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "minimal" => Self::Minimal,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "xhigh" => Self::Xhigh,
            "max" => Self::Max,
            "ultra" => Self::Ultra,
            _ => return None,
        })
    }

    /// Returns the name that goes over the wire.
    pub const fn wire_name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh | Self::Ultra => "xhigh",
            Self::Max => "max",
        }
    }
}

/// The two forms of a request that upstream takes (contract chatgpt-codex §3, §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Top-level tools, parallel calls, hosted tools.
    #[default]
    Full,
    /// Responses Lite: tools in an input item, one call at a time.
    Lite,
}

impl Lane {
    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Lite => "lite",
        }
    }
}

/// A model as upstream describes it. Unknown fields of the answer are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Upstream's name of the model.
    pub slug: String,
    /// The name for people.
    pub display_name: String,
    /// Whether it is shown in lists (`visibility` is `list`).
    pub listed: bool,
    /// Sorting key of the list, smallest first.
    pub priority: i64,
    /// Whole context window in tokens.
    pub context_window: u64,
    /// Percent of the window that a client should use.
    pub effective_percent: u8,
    /// Efforts that it takes, weakest first.
    pub efforts: Vec<Effort>,
    /// Effort when none is asked for.
    pub default_effort: Option<Effort>,
    /// Whether `text.verbosity` is taken.
    pub support_verbosity: bool,
    /// Verbosity when none is asked for.
    pub default_verbosity: Option<String>,
    /// Service tiers beyond the standard one.
    pub service_tiers: Vec<String>,
    /// Whether it takes images.
    pub images: bool,
    /// Whether it is served in the lite form by default.
    pub lite: bool,
}

impl Model {
    /// Returns the tokens of context that a client should count on.
    pub const fn usable_window(&self) -> u64 {
        self.usable(self.context_window)
    }

    /// Returns what a client should count on of a `window` of so many tokens.
    pub const fn usable(&self, window: u64) -> u64 {
        window.saturating_mul(self.effective_percent as u64) / 100
    }

    /// Returns the lane that the model is served on by default.
    pub const fn lane(&self) -> Lane {
        if self.lite { Lane::Lite } else { Lane::Full }
    }

    /// Returns `wanted`, or the nearest effort that the model takes (the weaker of two).
    pub fn clamp(&self, wanted: Effort) -> Effort {
        let weaker = self.efforts.iter().copied().filter(|e| *e <= wanted).max();
        weaker
            .or_else(|| self.efforts.iter().copied().min())
            .unwrap_or(wanted)
    }
}
