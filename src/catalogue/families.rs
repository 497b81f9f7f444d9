//! Which upstream model stands for each family of the client's models.
//!
//! The client knows opus, sonnet, haiku and fable; upstream has others. For each family there is a
//! list of candidates, best first, of which the first one in the account's catalogue counts, so that
//! a model the plan does not have is never chosen.

use crate::catalogue::list::Catalogue;
use crate::catalogue::model::Model;

/// A family of the client's models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// The client's default.
    Opus,
    /// The middle one; also for names of the client's vendor that belong to no known family.
    Sonnet,
    /// Small and fast.
    Haiku,
    /// The strongest.
    Fable,
}

/// The candidates of each family, best first, by upstream's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Families {
    opus: Vec<String>,
    sonnet: Vec<String>,
    haiku: Vec<String>,
    fable: Vec<String>,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 4] = [Self::Opus, Self::Sonnet, Self::Haiku, Self::Fable];

    /// Returns the family's name in the client's models and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Sonnet => "sonnet",
            Self::Haiku => "haiku",
            Self::Fable => "fable",
        }
    }

    /// Returns the family that a lower-case name of the client means: an alias, or any `claude-…`.
    /// `None` for names that are not the client's.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "best" | "default" => return Some(Self::Opus),
            // What the client falls back to when it is not planning.
            "opusplan" => return Some(Self::Sonnet),
            _ => {}
        }
        if let Some(family) = Self::ALL.into_iter().find(|family| family.name() == name) {
            return Some(family);
        }
        let rest = name.strip_prefix("claude-")?;
        let named = |family: &Self| rest.split('-').any(|part| part == family.name());
        Some(Self::ALL.into_iter().find(named).unwrap_or(Self::Sonnet))
    }
}

impl Default for Families {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let sonnet = [
            "gpt-6.1-terra",
            "gpt-5.6-terra",
            "gpt-6-sol",
            "gpt-6.1-sol",
            "gpt-5.5",
        ];
        Self {
            opus: list(&[
                "gpt-6.1-sol",
                "gpt-6-sol",
                "gpt-6-astra",
                "gpt-5.6-sol",
                "gpt-5.5",
            ]),
            sonnet: list(&sonnet),
            haiku: list(&[&["gpt-6-luna", "gpt-5.6-luna"], sonnet.as_slice()].concat()),
            fable: list(&["gpt-6-astra", "gpt-6.1-sol", "gpt-6-sol", "gpt-5.5"]),
        }
    }
}

impl Families {
    /// Returns the candidates of `family`, best first.
    pub fn candidates(&self, family: Family) -> &[String] {
        match family {
            Family::Opus => &self.opus,
            Family::Sonnet => &self.sonnet,
            Family::Haiku => &self.haiku,
            Family::Fable => &self.fable,
        }
    }

    /// Replaces the candidates of `family`.
    pub fn set(&mut self, family: Family, candidates: Vec<String>) {
        match family {
            Family::Opus => self.opus = candidates,
            Family::Sonnet => self.sonnet = candidates,
            Family::Haiku => self.haiku = candidates,
            Family::Fable => self.fable = candidates,
        }
    }

    /// Returns the model that stands for `family`: the first candidate that the catalogue has, else the catalogue's
    /// own first choice. `None` only for an empty catalogue.
    pub fn target<'a>(&self, catalogue: &'a Catalogue, family: Family) -> Option<&'a Model> {
        self.candidates(family)
            .iter()
            .find_map(|slug| catalogue.get(slug))
            .or_else(|| catalogue.listed().next())
            .or_else(|| catalogue.models.iter().min_by_key(|model| model.priority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slug(family: Family, models: &[&str]) -> Option<String> {
        let entries: Vec<String> = models
            .iter()
            .enumerate()
            .map(|(at, slug)| format!(r#"{{"slug":"{slug}","priority":{}}}"#, 100 - at))
            .collect();
        let body = format!(r#"{{"models":[{}]}}"#, entries.join(","));
        let catalogue = Catalogue::parse(body.as_bytes()).unwrap();
        let target = Families::default().target(&catalogue, family);
        target.map(|model| model.slug.clone())
    }

    #[test]
    fn the_bundled_catalogue_serves_every_family() {
        let catalogue = Catalogue::bundled();
        let families = Families::default();
        let targets = Family::ALL.map(|family| {
            let target = families.target(&catalogue, family).unwrap();
            target.slug.as_str().to_owned()
        });
        assert_eq!(
            targets,
            ["gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-luna", "gpt-6-astra"]
        );
    }

    #[test]
    fn what_the_plan_lacks_is_passed_over() {
        for (family, models, expected) in [
            (Family::Opus, &["gpt-5.5", "gpt-5.6-sol"][..], "gpt-5.6-sol"),
            (
                Family::Haiku,
                &["gpt-5.5", "gpt-6.1-terra"],
                "gpt-6.1-terra",
            ),
            (Family::Fable, &["gpt-5.5", "gpt-6-luna"], "gpt-5.5"),
            // Nothing known: the one that upstream puts first.
            (Family::Haiku, &["gpt-9-a", "gpt-9-b"], "gpt-9-b"),
        ] {
            assert_eq!(
                slug(family, models).as_deref(),
                Some(expected),
                "{models:?}"
            );
        }
    }

    #[test]
    fn candidates_can_be_replaced() {
        let mut families = Families::default();
        families.set(Family::Opus, vec!["nope".into(), "gpt-5.5".into()]);
        let catalogue = Catalogue::bundled();
        let target = families.target(&catalogue, Family::Opus).unwrap();
        assert_eq!(target.slug, "gpt-5.5");
    }

    #[test]
    fn names_of_the_client_belong_to_families() {
        for (name, family) in [
            ("opus", Some(Family::Opus)),
            ("best", Some(Family::Opus)),
            ("default", Some(Family::Opus)),
            ("sonnet", Some(Family::Sonnet)),
            ("opusplan", Some(Family::Sonnet)),
            ("haiku", Some(Family::Haiku)),
            ("fable", Some(Family::Fable)),
            ("claude-opus-5-5", Some(Family::Opus)),
            ("claude-3-5-haiku", Some(Family::Haiku)),
            ("claude-fable-5-2", Some(Family::Fable)),
            ("claude-instant", Some(Family::Sonnet)),
            ("gpt-6-sol", None),
            ("corpus", None),
        ] {
            assert_eq!(Family::of(name), family, "{name}");
        }
    }
}
