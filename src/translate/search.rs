//! Searches of the web that upstream runs, as a request asks for them.
//!
//! What they find is in [`super::hits`], how they are told in later turns in [`super::content`].

use std::sync::Arc;

use crate::catalogue::lanes::Search as Wish;
use crate::translate::domains::Domains;
use crate::translate::loss::Loss;
use crate::translate::writer;
use crate::wire::json::{Kind, ParseError, Raw};
use crate::wire::messages::{Request, Tool, ToolMode};

/// How the kinds of the tool begin: dated ones, previews, and the bare name.
const KIND: &str = "web_search";

/// What a request allows searches to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// What the client calls the tool.
    pub name: String,
    /// How often it may be used in an answer. Upstream takes no such limit: the model is told, what it
    /// does beyond is counted and not shown.
    pub max_uses: Option<u64>,
    /// Where it may look.
    pub domains: Domains,
}

/// Says how much `request` wants upstream to search.
pub fn wish(request: &Request<'_>) -> Wish {
    let Some(raw) = request.tools.raw() else {
        return Wish::Unwanted;
    };
    // Most lists have no such tool and are not read for it.
    if memchr::memmem::find(raw.text().as_bytes(), KIND.as_bytes()).is_none() {
        return Wish::Unwanted;
    }
    // A list that cannot be read is refused where it is translated.
    let tools = request.tools.list().unwrap_or_default();
    let named = request.tool_choice.as_ref().and_then(|it| match &it.mode {
        ToolMode::Named(name) => Some(name.value()),
        _ => None,
    });
    let mut searches = tools.iter().filter(|tool| is_search(tool)).peekable();
    if searches.peek().is_none() {
        Wish::Unwanted
    } else if tools.iter().all(is_search)
        || named.is_some_and(|name| searches.any(|tool| tool.name.value() == name))
    {
        Wish::Required
    } else {
        Wish::Offered
    }
}

/// Says whether `tool` is a search of the web by the answering side, of whatever date.
pub(super) fn is_search(tool: &Tool<'_>) -> bool {
    tool.kind
        .as_deref()
        .and_then(|kind| kind.strip_prefix(KIND))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

impl Search {
    /// Reads what `tool` allows; adds what is not told as it was meant to `losses`.
    pub(super) fn read(tool: &Tool<'_>, losses: &mut Vec<Loss>) -> Result<Arc<Self>, ParseError> {
        let (domains, blocks_more) = Domains::read(tool)?;
        if blocks_more {
            losses.push(Loss::approximated("blocked_domains"));
        }
        let max_uses = tool.max_uses.map(|raw| {
            let number = raw.text().parse().ok().filter(|uses| *uses > 0);
            let error = || ParseError::expected("a whole number above zero").within("max_uses");
            number.ok_or_else(error)
        });
        Ok(Arc::new(Self {
            name: tool.name.value().into_owned(),
            max_uses: max_uses.transpose()?,
            domains,
        }))
    }

    /// Writes the definition that upstream takes (contract chatgpt-codex §5.3).
    pub(super) fn write(&self, out: &mut Vec<u8>, location: Option<Raw<'_>>) {
        writer::json(
            out,
            r#"{"type":"web_search","external_web_access":true,"search_content_types":["text","image"]"#,
        );
        self.domains.write(out);
        if let Some(location) = location.filter(|location| location.kind() == Kind::Object) {
            user_location(out, location);
        }
        out.push(b'}');
    }

    /// Returns what the model is told beside the definition.
    ///
    /// Which pages an answer rests on is only known from what it cites.
    pub(super) fn instruction(&self) -> String {
        match self.max_uses {
            None => "Cite every page that your answer uses.".to_owned(),
            Some(1) => {
                "Search the web at most once. Cite every page that your answer uses.".to_owned()
            }
            Some(most) => format!(
                "Search the web at most {most} times. Cite every page that your answer uses."
            ),
        }
    }
}

/// Writes `,"user_location":{…}` with the fields that both sides know.
fn user_location(out: &mut Vec<u8>, location: Raw<'_>) {
    writer::json(out, r#","user_location":{"type":"approximate""#);
    // Read once before, so nothing here can fail.
    let _ = location.reader().object(|reader, key| {
        let value = reader.raw()?.as_text();
        if let ("city" | "region" | "country" | "timezone", Some(text)) = (key, value) {
            out.push(b',');
            writer::string(out, key);
            out.push(b':');
            writer::text(out, text);
        }
        Ok(())
    });
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_a_request_wants_is_told_by_its_tools() {
        // [I01, I04]
        let function = json!({"name": "Read", "input_schema": {"type": "object"}});
        let search = json!({"type": "web_search_20250305", "name": "web_search"});
        let kind = |kind: &str| json!([{"type": kind, "name": "web_search"}]);
        let named = |name: &str| json!({"type": "tool", "name": name});
        for (tools, choice, wish_of) in [
            (json!(null), json!(null), Wish::Unwanted),
            (json!([]), json!(null), Wish::Unwanted),
            (json!([function]), json!(null), Wish::Unwanted),
            // A client's own tool of that name, and one that only speaks of it.
            (
                json!([{"name": "web_search", "input_schema": {}}]),
                json!(null),
                Wish::Unwanted,
            ),
            (
                json!([{"name": "T", "description": "not \"web_search_x\""}]),
                json!(null),
                Wish::Unwanted,
            ),
            (
                json!([{"type": "web_searcher", "name": "s"}]),
                json!(null),
                Wish::Unwanted,
            ),
            (json!([search]), json!({"type": "auto"}), Wish::Required),
            (kind("web_search"), json!(null), Wish::Required),
            (kind("web_search_20260318"), json!(null), Wish::Required),
            (kind("web_search_preview"), json!(null), Wish::Required),
            (
                kind("web_search_preview_2025_03_11"),
                json!(null),
                Wish::Required,
            ),
            (json!([function, search]), json!(null), Wish::Offered),
            (json!([function, search]), named("Read"), Wish::Offered),
            (
                json!([function, search]),
                named("web_search"),
                Wish::Required,
            ),
            (json!([search, 7]), json!(null), Wish::Unwanted),
        ] {
            let body = json!({"model": "m", "messages": [], "tools": tools, "tool_choice": choice})
                .to_string();
            let request = Request::parse(body.as_bytes()).unwrap();
            assert_eq!(wish(&request), wish_of, "{body}");
        }
    }

    fn definition(more: Value) -> Result<(Value, Search, Vec<Loss>), String> {
        let mut tool = json!({"type": "web_search_20250305", "name": "web_search"});
        for (name, value) in more.as_object().unwrap() {
            tool[name] = value.clone();
        }
        let body = json!({"model": "m", "messages": [], "tools": [tool]}).to_string();
        let request = Request::parse(body.as_bytes()).unwrap();
        let tools = request.tools.list().unwrap();
        let mut losses = Vec::new();
        let search = Search::read(&tools[0], &mut losses).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        search.write(&mut out, tools[0].user_location);
        let told = serde_json::from_slice(&out).unwrap();
        Ok((told, (*search).clone(), losses))
    }

    #[test]
    fn the_definition_has_what_upstream_has_a_place_for() {
        let (told, search, losses) = definition(json!({
            "max_uses": 8,
            "user_location": {"type": "approximate", "city": "Köln \"am Rhein\"", "country": "DE",
                "region": null, "timezone": "Europe/Berlin", "street": "x"},
            "cache_control": {"type": "ephemeral"},
        }))
        .unwrap();
        assert_eq!(
            told,
            json!({"type": "web_search", "external_web_access": true,
                "search_content_types": ["text", "image"],
                "user_location": {"type": "approximate", "city": "Köln \"am Rhein\"", "country": "DE",
                    "timezone": "Europe/Berlin"}})
        );
        assert_eq!(search.max_uses, Some(8));
        assert!(search.instruction().contains("at most 8 times"));
        assert_eq!(losses, []);
        let (_, search, losses) =
            definition(json!({"max_uses": null, "blocked_domains": ["a.example/x"]})).unwrap();
        assert_eq!(search.max_uses, None);
        assert_eq!(losses, [Loss::approximated("blocked_domains")]);
        for uses in [json!(0), json!(-1), json!(1.5), json!("3"), json!([])] {
            let error = definition(json!({"max_uses": uses})).unwrap_err();
            assert!(error.starts_with("max_uses:"), "{error}");
        }
    }
}
