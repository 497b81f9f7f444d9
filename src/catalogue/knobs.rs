//! What a person may set for all models or for one, and what that comes to for a request.
//!
//! Settings lie in layers: the launch's, the model's, its family's, those for all. In each, a knob that is not turned
//! leaves it to the layer below, and `auto` asks for ccx's own choice whatever lies below.

use crate::catalogue::model::{Effort, Lane, Model};

/// One setting in one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Knob<T> {
    /// The layer below says it.
    #[default]
    Unset,
    /// ccx chooses.
    Auto,
    /// This.
    Is(T),
}

/// How fast, and at which price for the plan, upstream works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Never anything but the standard tier.
    Standard,
    /// Upstream's `priority`.
    Fast,
    /// Upstream's `ultrafast`, or `priority` where a model has only that.
    Ultrafast,
    /// Slower and cheaper. No list of models names it, so that every model is asked for it.
    Flex,
}

/// How wordy answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Short.
    Low,
    /// In between.
    Medium,
    /// Long.
    High,
}

/// Whether the model's reasoning is summed up for the person to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    /// Wherever the model thinks, even where the client would leave it out.
    Shown,
    /// The same, at length.
    Detailed,
    /// Never.
    Hidden,
}

/// The settings of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// The service tier.
    pub tier: Knob<Tier>,
    /// The effort, whatever the client asks for.
    pub effort: Knob<Effort>,
    /// The least effort.
    pub effort_min: Knob<Effort>,
    /// The most effort; it wins over the least.
    pub effort_max: Knob<Effort>,
    /// How wordy answers are.
    pub verbosity: Knob<Verbosity>,
    /// Whether reasoning is shown.
    pub summary: Knob<Summary>,
    /// The form of the request.
    pub lane: Knob<Lane>,
}

impl<T> Knob<T> {
    /// Returns this setting, or that of the layer `below` where this one is not turned.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        match self {
            Self::Unset => below,
            set @ (Self::Auto | Self::Is(_)) => set,
        }
    }

    /// Returns what was set; `None` where the choice is ccx's.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Unset | Self::Auto => None,
        }
    }
}

impl Verbosity {
    /// Returns the name that goes over the wire.
    pub const fn wire_name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Upstream's name of the fast tier.
const PRIORITY: &str = "priority";

impl Knobs {
    /// Lays these settings over those of the layer `below`.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            tier: self.tier.over(below.tier),
            effort: self.effort.over(below.effort),
            effort_min: self.effort_min.over(below.effort_min),
            effort_max: self.effort_max.over(below.effort_max),
            verbosity: self.verbosity.over(below.verbosity),
            summary: self.summary.over(below.summary),
            lane: self.lane.over(below.lane),
        }
    }

    /// Returns the service tier to ask for, as far as `model` offers it; `None` is the standard one.
    ///
    /// `is_fast_asked`: the request, or the name of its model, asks for speed.
    pub fn tier(&self, model: &Model, is_fast_asked: bool) -> Option<&'static str> {
        let offered = |name: &'static str| {
            let mut tiers = model.service_tiers.iter();
            tiers.any(|tier| tier == name).then_some(name)
        };
        match self.tier.value() {
            None => offered(PRIORITY).filter(|_| is_fast_asked),
            Some(Tier::Standard) => None,
            Some(Tier::Fast) => offered(PRIORITY),
            Some(Tier::Ultrafast) => offered("ultrafast").or_else(|| offered(PRIORITY)),
            Some(Tier::Flex) => Some("flex"),
        }
    }

    /// Returns the lane for `model`.
    ///
    /// ccx's own choice is the lane that upstream's list names for the model: for all of today's but one the lite one,
    /// which upstream's own client uses for them. It alone takes `reasoning.context`, so that the model goes on with
    /// what it thought in earlier turns, and only there these models have been seen at work. What it lacks, calls in
    /// parallel, is had by asking for the full lane where the model is served on it.
    pub fn lane(&self, model: &Model) -> Lane {
        match self.lane.value() {
            Some(Lane::Full) if model.has_full_lane() => Lane::Full,
            Some(Lane::Full | Lane::Lite) | None => model.lane(),
        }
    }

    /// Returns `wanted` within the least and the most effort that the person allows.
    pub fn bounded(&self, wanted: Effort) -> Effort {
        let least = self.effort_min.value().unwrap_or(wanted);
        let most = self.effort_max.value().unwrap_or(Effort::Ultra);
        wanted.max(least).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::list::Catalogue;

    fn tier(tier: Knob<Tier>) -> Knobs {
        Knobs {
            tier,
            ..Knobs::default()
        }
    }

    #[test]
    fn a_tier_is_narrowed_to_what_the_model_offers() {
        // [D33]
        let catalogue = Catalogue::parse(
            br#"{"models":[{"slug":"none"},{"slug":"one","service_tiers":[{"id":"priority"}]},
                {"slug":"two","service_tiers":[{"id":"priority"},{"id":"ultrafast"}]}]}"#,
        )
        .unwrap();
        let (priority, ultrafast) = (Some("priority"), Some("ultrafast"));
        for (knob, is_fast_asked, want) in [
            (Knob::Unset, false, [None, None, None]),
            (Knob::Auto, false, [None, None, None]),
            (Knob::Auto, true, [None, priority, priority]),
            (Knob::Is(Tier::Standard), true, [None, None, None]),
            (Knob::Is(Tier::Fast), false, [None, priority, priority]),
            (
                Knob::Is(Tier::Ultrafast),
                false,
                [None, priority, ultrafast],
            ),
            (Knob::Is(Tier::Flex), true, [Some("flex"); 3]),
        ] {
            let found = ["none", "one", "two"].map(|slug| {
                let model = catalogue.get(slug).unwrap();
                tier(knob).tier(model, is_fast_asked)
            });
            assert_eq!(found, want, "{knob:?} {is_fast_asked}");
        }
    }

    #[test]
    fn the_full_lane_is_for_models_that_are_served_on_it() {
        let bundled = Catalogue::bundled();
        let full = Knobs {
            lane: Knob::Is(Lane::Full),
            ..Knobs::default()
        };
        for (slug, auto, wanted) in [
            ("gpt-6.1-sol", Lane::Lite, Lane::Full),
            ("gpt-6.1-terra", Lane::Lite, Lane::Full),
            ("gpt-6-astra", Lane::Lite, Lane::Full),
            ("gpt-6-luna", Lane::Lite, Lane::Lite),
            ("codex-auto-review", Lane::Lite, Lane::Lite),
            ("gpt-5.5", Lane::Full, Lane::Full),
        ] {
            let model = bundled.get(slug).unwrap();
            assert_eq!(Knobs::default().lane(model), auto, "{slug}");
            assert_eq!(full.lane(model), wanted, "{slug}");
        }
    }

    #[test]
    fn the_upper_layer_counts_where_it_says_something() {
        let [unset, auto, flex] = [Knob::Unset, Knob::Auto, Knob::Is(Tier::Flex)];
        for (upper, below, found) in [
            (unset, flex, flex),
            (auto, flex, auto),
            (flex, auto, flex),
            (unset, unset, unset),
        ] {
            assert_eq!(tier(upper).over(tier(below)).tier, found);
        }
        assert_eq!(auto.value(), None);
    }

    #[test]
    fn the_most_effort_wins_over_the_least() {
        let knobs = |least, most| Knobs {
            effort_min: least,
            effort_max: most,
            ..Knobs::default()
        };
        use Effort::{High, Low, Max, Medium};
        for (least, most, wanted, found) in [
            (Knob::Unset, Knob::Unset, Max, Max),
            (Knob::Is(Medium), Knob::Unset, Low, Medium),
            (Knob::Unset, Knob::Is(Medium), High, Medium),
            (Knob::Is(High), Knob::Is(Low), Max, Low),
            (Knob::Is(Low), Knob::Is(High), Medium, Medium),
        ] {
            assert_eq!(knobs(least, most).bounded(wanted), found);
        }
    }
}
