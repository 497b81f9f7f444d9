//! Which lane a request goes to, and which model answers it, where it wants upstream to search the web.
//!
//! Only the full lane searches (contract chatgpt-codex §4). Most models are served on the lite lane and on the full one,
//! some on the lite one alone: for those a sibling of the same account answers what is nothing but a search. A
//! conversation keeps its model.

use crate::catalogue::list::{Catalogue, Choice};
use crate::catalogue::model::{Lane, Model};

/// How much a request wants upstream to search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Search {
    /// Not at all.
    #[default]
    Unwanted,
    /// It may, beside other things.
    Offered,
    /// That is what the request is for.
    Required,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Route<'a> {
    /// The model that answers, and how.
    pub choice: Choice<'a>,
    /// The form of the request.
    pub lane: Lane,
    /// Whether the model stands in for the one that was asked for.
    pub is_stand_in: bool,
}

/// Lines of models that are served on both lanes (contract chatgpt-codex §4).
const ON_BOTH: &[&str] = &["sol", "terra", "astra"];

/// Lines from which a sibling is taken, best first, before any other model.
const SIBLINGS: &[&str] = &["sol", "terra"];

impl Model {
    /// Says whether the model is served on the full lane, be it by default or not.
    pub fn has_full_lane(&self) -> bool {
        !self.lite || ON_BOTH.iter().any(|line| self.is_of(line))
    }

    /// Says whether the model's name says that it belongs to `line`.
    fn is_of(&self, line: &str) -> bool {
        self.slug
            .split('-')
            .any(|part| part.eq_ignore_ascii_case(line))
    }
}

impl Catalogue {
    /// Says where a request for `choice` goes that wants so much of a `search`.
    pub fn route<'a>(&'a self, choice: Choice<'a>, search: Search) -> Route<'a> {
        let stays = |lane| Route {
            choice,
            lane,
            is_stand_in: false,
        };
        let model = choice.model;
        match search {
            Search::Unwanted => stays(model.lane()),
            Search::Offered | Search::Required if model.has_full_lane() => stays(Lane::Full),
            Search::Offered => stays(model.lane()),
            Search::Required => match self.sibling(model) {
                None => stays(model.lane()),
                Some(sibling) => Route {
                    choice: choice.of(sibling),
                    lane: Lane::Full,
                    is_stand_in: true,
                },
            },
        }
    }

    /// Returns the model on the full lane that is nearest to `model`: of the same generation, else the first of the list.
    fn sibling(&self, model: &Model) -> Option<&Model> {
        let (generation, _) = model.slug.rsplit_once('-')?;
        SIBLINGS
            .iter()
            .find_map(|line| self.get(&format!("{generation}-{line}")))
            .filter(|sibling| sibling.has_full_lane())
            .or_else(|| self.listed().find(|other| other.has_full_lane()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::families::Families;
    use crate::catalogue::model::Effort;

    fn catalogue(models: &[(&str, bool)]) -> Catalogue {
        let entries: Vec<String> = models
            .iter()
            .map(|(slug, lite)| format!(r#"{{"slug":"{slug}","use_responses_lite":{lite}}}"#))
            .collect();
        Catalogue::parse(format!(r#"{{"models":[{}]}}"#, entries.join(",")).as_bytes()).unwrap()
    }

    fn routed(catalogue: &Catalogue, name: &str, search: Search) -> (String, Lane, bool) {
        let choice = catalogue.resolve(name, &Families::default()).unwrap();
        let route = catalogue.route(choice, search);
        (
            route.choice.model.slug.clone(),
            route.lane,
            route.is_stand_in,
        )
    }

    #[test]
    fn a_search_goes_to_the_full_lane_and_a_conversation_keeps_its_model() {
        // [I01]
        let bundled = Catalogue::bundled();
        let (none, offered, required) = (Search::Unwanted, Search::Offered, Search::Required);
        for (name, search, slug, lane, stands_in) in [
            ("gpt-6.1-sol", none, "gpt-6.1-sol", Lane::Lite, false),
            ("gpt-6.1-sol", offered, "gpt-6.1-sol", Lane::Full, false),
            ("gpt-6.1-sol", required, "gpt-6.1-sol", Lane::Full, false),
            (
                "gpt-6.1-terra",
                required,
                "gpt-6.1-terra",
                Lane::Full,
                false,
            ),
            ("gpt-6-astra", required, "gpt-6-astra", Lane::Full, false),
            ("gpt-5.5", none, "gpt-5.5", Lane::Full, false),
            ("gpt-5.5", required, "gpt-5.5", Lane::Full, false),
            ("gpt-6-luna", none, "gpt-6-luna", Lane::Lite, false),
            ("gpt-6-luna", offered, "gpt-6-luna", Lane::Lite, false),
            ("gpt-6-luna", required, "gpt-6-sol", Lane::Full, true),
            ("gpt-5.6-luna", required, "gpt-5.6-sol", Lane::Full, true),
            ("haiku", required, "gpt-6-sol", Lane::Full, true),
        ] {
            assert_eq!(
                routed(&bundled, name, search),
                (slug.to_owned(), lane, stands_in),
                "{name} {search:?}"
            );
        }
    }

    #[test]
    fn the_account_decides_who_stands_in() {
        let required = Search::Required;
        let luna = ("gpt-7-luna", true);
        for (others, slug, lane) in [
            (
                &[("gpt-7-terra", true), ("gpt-5.5", false)][..],
                "gpt-7-terra",
                Lane::Full,
            ),
            (&[("gpt-5.5", false)], "gpt-5.5", Lane::Full),
            (
                &[("gpt-7-moon", true), ("gpt-6-astra", true)],
                "gpt-6-astra",
                Lane::Full,
            ),
            // Nobody can: the request is told what is missing where it is translated.
            (&[("gpt-7-moon", true)], "gpt-7-luna", Lane::Lite),
        ] {
            let models = [&[luna], others].concat();
            let (found, on, _) = routed(&catalogue(&models), "gpt-7-luna", required);
            assert_eq!((found.as_str(), on), (slug, lane), "{others:?}");
        }
    }

    #[test]
    fn effort_and_tier_go_along_as_far_as_the_sibling_goes() {
        let bundled = Catalogue::bundled();
        let choice = bundled
            .resolve("gpt-6-luna-high-fast", &Families::default())
            .unwrap();
        let route = bundled.route(choice, Search::Required);
        assert_eq!(route.choice.effort, Some(Effort::High));
        assert_eq!(route.choice.tier, Some("priority"));
        let models = catalogue(&[("gpt-7-luna", true), ("gpt-7-sol", true)]);
        let choice = Choice {
            tier: Some("priority"),
            ..models
                .resolve("gpt-7-luna-max", &Families::default())
                .unwrap()
        };
        let route = models.route(choice, Search::Required);
        assert_eq!(route.choice.effort, Some(Effort::High));
        assert_eq!(route.choice.tier, None);
    }
}
