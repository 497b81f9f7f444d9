//! How a request is sent: what was set for its model, what the model's name says, what the request asks for.

use crate::catalogue::families::Families;
use crate::catalogue::knobs::{Knob, Knobs};
use crate::catalogue::list::{Catalogue, Choice};
use crate::catalogue::model::Lane;
use crate::config::Config;

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// The form of the request.
    pub lane: Lane,
    /// The service tier to ask for, which the model offers; `None` is the standard one.
    pub tier: Option<&'static str>,
    /// What was set for the model. The effort may be that of the model's name.
    pub knobs: Knobs,
}

/// What else is known of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// It asks for speed.
    pub is_fast: bool,
    /// It wants no thinking: one of the client's quick calls.
    pub is_quick: bool,
    /// The model's name is the one that was set for its class, not the client's.
    pub is_of_class: bool,
}

impl Course {
    /// Decides it for `choice` out of `catalogue`. What was set for the class of the request comes before what was set for
    /// the model, that before what the client's name of the model says, and that before the rest of the request.
    pub fn of(
        config: &Config,
        families: &Families,
        catalogue: &Catalogue,
        choice: &Choice<'_>,
        said: Said,
    ) -> Self {
        let model = choice.model;
        let mut knobs = config.knobs_for(model, catalogue, families);
        if said.is_quick {
            knobs.effort = Knob::Unset;
        }
        if let Some(effort) = choice.effort
            && (said.is_of_class || knobs.effort.value().is_none())
        {
            knobs.effort = Knob::Is(effort);
            if said.is_of_class {
                knobs.effort_min = Knob::Unset;
            }
        }
        Self {
            lane: knobs.lane(model),
            tier: knobs.tier(model, said.is_fast || choice.tier.is_some()),
            knobs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(text: &str, name: &str, said: Said) -> Course {
        let config = Config::parse(text).unwrap();
        let (catalogue, families) = (Catalogue::bundled(), config.models());
        let choice = catalogue.resolve(name, &families).unwrap();
        Course::of(&config, &families, &catalogue, &choice, said)
    }

    #[test]
    fn what_is_set_comes_before_the_name_and_that_before_the_request() {
        // [D33]
        let fast = Some("priority");
        for (text, name, is_fast, tier, effort) in [
            ("", "opus", false, None, "auto"),
            ("", "opus", true, fast, "auto"),
            ("", "opus-fast-high", false, fast, "high"),
            ("tier = \"standard\"", "opus-fast", true, None, "auto"),
            (
                "tier = \"fast\"\neffort = \"low\"",
                "opus-high",
                false,
                fast,
                "low",
            ),
            (
                "[models.sonnet]\ntier = \"fast\"",
                "opus",
                false,
                None,
                "auto",
            ),
            (
                "[models.opus]\ntier = \"fast\"",
                "gpt-6.1-sol",
                false,
                fast,
                "auto",
            ),
        ] {
            let said = Said {
                is_fast,
                ..Said::default()
            };
            let found = course(text, name, said);
            assert_eq!(found.tier, tier, "{text} {name}");
            let turned = crate::config::Key::turned(&found.knobs);
            let told = turned.iter().find(|(key, _)| *key == "effort");
            assert_eq!(
                told.map_or("auto", |(_, word)| word),
                effort,
                "{text} {name}"
            );
        }
    }

    #[test]
    fn the_lane_is_the_models_own_unless_the_full_one_is_asked_for() {
        for (text, name, lane) in [
            ("", "opus", Lane::Lite),
            ("lane = \"full\"", "opus", Lane::Full),
            ("lane = \"full\"", "haiku", Lane::Lite),
            (
                "lane = \"full\"\n[models.opus]\nlane = \"auto\"",
                "opus",
                Lane::Lite,
            ),
        ] {
            assert_eq!(
                course(text, name, Said::default()).lane,
                lane,
                "{text} {name}"
            );
        }
    }

    #[test]
    fn quick_calls_stay_quick_and_classes_come_first() {
        use crate::catalogue::model::Effort;
        let set = "effort = \"max\"\neffort-min = \"high\"";
        for (name, is_quick, is_of_class, effort, least) in [
            ("haiku-low", false, true, Knob::Is(Effort::Low), Knob::Unset),
            (
                "haiku-low",
                false,
                false,
                Knob::Is(Effort::Max),
                Knob::Is(Effort::High),
            ),
            ("haiku", true, false, Knob::Unset, Knob::Is(Effort::High)),
            ("haiku-low", true, true, Knob::Is(Effort::Low), Knob::Unset),
            (
                "haiku",
                false,
                true,
                Knob::Is(Effort::Max),
                Knob::Is(Effort::High),
            ),
        ] {
            let said = Said {
                is_fast: false,
                is_quick,
                is_of_class,
            };
            let knobs = course(set, name, said).knobs;
            assert_eq!(
                (knobs.effort, knobs.effort_min),
                (effort, least),
                "{name} {said:?}"
            );
        }
    }
}
