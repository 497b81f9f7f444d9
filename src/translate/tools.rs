//! Tool definitions, translated once for a conversation.
//!
//! A client sends the same long list with every request. [`ToolCache`] keeps what it was translated
//! into; a list is found by comparing its bytes, so that a hit is never wrong.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::catalogue::model::Lane;
use crate::translate::loss::{Loss, Place};
use crate::translate::names::{ToolNames, is_legal};
use crate::translate::search::{self, Search};
use crate::translate::{schema, writer};
use crate::wire::json::{Kept, ParseError, Raw};
use crate::wire::messages::{Tool, ToolChoice, ToolMode, Tools};

/// What all kept lists may take together. A list of 60 tools is about 0.2 MB with its source; this
/// is room for the main conversation, its subagents and a few more.
const CACHE_LIMIT_BYTES: usize = 8 << 20;

/// Translated tool lists of earlier requests, so that a conversation's tools are translated once.
#[derive(Debug, Default)]
pub struct ToolCache {
    /// Least recently used first.
    lists: VecDeque<Arc<ToolList>>,
}

impl ToolCache {
    /// Returns the lists as clients wrote them, for [`Request::parse_knowing`](crate::wire::messages::Request::parse_knowing);
    /// the one used last comes first.
    pub fn sources(&self) -> Vec<Raw<'_>> {
        let kept = self.lists.iter().rev();
        kept.filter_map(|list| Some(list.source.as_ref()?.raw()))
            .collect()
    }

    /// Returns the translation of `tools`, made now or earlier.
    pub(super) fn list(
        &mut self,
        tools: &Tools<'_>,
        lane: Lane,
    ) -> Result<Arc<ToolList>, ParseError> {
        let Some(raw) = tools.raw() else {
            return Ok(Arc::new(ToolList::empty(lane)));
        };
        let known = self.lists.iter().position(|list| {
            let source = list.source.as_ref().map(Kept::raw);
            list.lane == lane && source == Some(raw)
        });
        let list = match known.and_then(|at| self.lists.remove(at)) {
            Some(list) => list,
            None => Arc::new(ToolList::read(tools, raw, lane)?),
        };
        if list.bytes() <= CACHE_LIMIT_BYTES {
            self.lists.push_back(Arc::clone(&list));
            while self.lists.iter().map(|list| list.bytes()).sum::<usize>() > CACHE_LIMIT_BYTES {
                self.lists.pop_front();
            }
        }
        Ok(list)
    }
}

/// A translated list of tools.
#[derive(Debug)]
pub(super) struct ToolList {
    /// The list as the client wrote it; `None` if there was none.
    source: Option<Kept>,
    lane: Lane,
    /// The definitions that are always shown, joined by commas.
    pub(super) shown: Vec<u8>,
    /// Names of those, the client's words.
    shown_names: BTreeSet<String>,
    /// The definitions that stay hidden until they are loaded.
    pub(super) deferred: Vec<Deferred>,
    /// The hosted web search that is shown.
    pub(super) search: Option<Arc<Search>>,
    /// Names that had to be changed, of all tools.
    pub(super) names: ToolNames,
    /// What could not be told.
    pub(super) losses: Vec<Loss>,
}

/// A tool that is shown only once it was loaded.
#[derive(Debug)]
pub(super) struct Deferred {
    /// The client's name for it.
    pub(super) name: String,
    /// The definition.
    pub(super) definition: Vec<u8>,
}

impl ToolList {
    fn empty(lane: Lane) -> Self {
        Self {
            source: None,
            lane,
            shown: Vec::new(),
            shown_names: BTreeSet::new(),
            deferred: Vec::new(),
            search: None,
            names: ToolNames::default(),
            losses: Vec::new(),
        }
    }

    fn read(tools: &Tools<'_>, source: Raw<'_>, lane: Lane) -> Result<Self, ParseError> {
        let tools = tools.list()?;
        let mut list = Self {
            source: Some(source.into()),
            ..Self::empty(lane)
        };
        let legal: BTreeSet<_> = tools
            .iter()
            .map(|tool| tool.name.value())
            .filter(|name| is_legal(name))
            .collect();
        let mut seen = BTreeSet::new();
        for (at, tool) in tools.iter().enumerate() {
            let lose = |loss: Loss| loss.at(Place::Tool(at));
            let name = tool.name.value();
            if !seen.insert(name.clone()) {
                list.losses.push(lose(Loss::dropped("duplicate_tool")));
                continue;
            }
            match Runner::of(tool) {
                Runner::Client => {
                    let upstream = list.names.rename(name.clone(), |name| legal.contains(name));
                    let mut definition = Vec::new();
                    if function(&mut definition, &upstream, tool)? {
                        list.losses.push(lose(Loss::approximated("tool_schema")));
                    }
                    if tool.defer_loading {
                        list.deferred.push(Deferred {
                            name: name.into_owned(),
                            definition,
                        });
                    } else {
                        list.show(&definition);
                        list.shown_names.insert(name.into_owned());
                    }
                }
                Runner::Search => {
                    let mut losses = Vec::new();
                    let search = Search::read(tool, &mut losses)
                        .map_err(|error| error.within(at).within("tools"))?;
                    losses.extend(list.offer(search, tool));
                    list.losses.extend(losses.into_iter().map(lose));
                }
                Runner::Other => list.losses.push(lose(Loss::dropped("server_tool"))),
            }
        }
        Ok(list)
    }

    /// Shows a hosted search, if upstream takes one here; returns what is lost otherwise.
    fn offer(&mut self, search: Arc<Search>, tool: &Tool<'_>) -> Option<Loss> {
        if self.lane == Lane::Lite {
            // Hosted tools are refused on the lite lane (contract chatgpt-codex §4).
            return Some(Loss::dropped("web_search"));
        }
        if self.search.is_some() {
            // Upstream has one search only; another one could have other bounds.
            return Some(Loss::dropped("duplicate_tool"));
        }
        let mut definition = Vec::new();
        search.write(&mut definition, tool.user_location);
        self.show(&definition);
        self.search = Some(search);
        None
    }

    fn show(&mut self, definition: &[u8]) {
        if !self.shown.is_empty() {
            self.shown.push(b',');
        }
        self.shown.extend_from_slice(definition);
    }

    /// Returns the place in [`ToolList::deferred`] of the tool that the client calls `name`.
    pub(super) fn deferred(&self, name: &str) -> Option<usize> {
        self.deferred.iter().position(|tool| tool.name == name)
    }

    /// Writes `tool_choice` for this list, of whose deferred tools `loaded` are shown.
    /// Returns what could not be told.
    pub(super) fn choice(
        &self,
        out: &mut Vec<u8>,
        choice: Option<&ToolChoice<'_>>,
        loaded: &[usize],
    ) -> Option<Loss> {
        let mode = match choice.map(|choice| &choice.mode) {
            None | Some(ToolMode::Auto) => r#""auto""#,
            Some(ToolMode::Any) => r#""required""#,
            Some(ToolMode::Never) => r#""none""#,
            Some(ToolMode::Other(_)) => {
                writer::json(out, r#""auto""#);
                return Some(Loss::approximated("tool_choice"));
            }
            Some(ToolMode::Named(name)) => {
                let name = name.value();
                let is_loaded = self.deferred(&name).is_some_and(|at| loaded.contains(&at));
                if self.shown_names.contains(name.as_ref()) || is_loaded {
                    writer::json(out, r#"{"type":"function","name":"#);
                    // Known tools were renamed when the list was read.
                    let upstream = self.names.clone().rename(name, |_| false);
                    writer::string(out, &upstream);
                    out.push(b'}');
                    return None;
                }
                if self.search.as_ref().is_some_and(|it| it.name == name) {
                    r#"{"type":"allowed_tools","mode":"required","tools":[{"type":"web_search"}]}"#
                } else {
                    writer::json(out, r#""auto""#);
                    return Some(Loss::approximated("tool_choice"));
                }
            }
        };
        writer::json(out, mode);
        None
    }

    fn bytes(&self) -> usize {
        let deferred: usize = self
            .deferred
            .iter()
            .map(|tool| tool.name.len() + tool.definition.len())
            .sum();
        let source = self
            .source
            .as_ref()
            .map_or(0, |kept| kept.raw().text().len());
        source + self.shown.len() + deferred
    }
}

/// Who runs a tool when it is called.
enum Runner {
    /// The client: a function.
    Client,
    /// The answering side searches the web.
    Search,
    /// The answering side does something that upstream has not got.
    Other,
}

impl Runner {
    fn of(tool: &Tool<'_>) -> Self {
        match tool.kind.as_deref() {
            None | Some("custom") => Self::Client,
            Some(_) if search::is_search(tool) => Self::Search,
            Some(_) if tool.schema.is_some() => Self::Client,
            Some(_) => Self::Other,
        }
    }
}

/// Writes a function. Returns whether its schema could not be told in full.
fn function(out: &mut Vec<u8>, name: &str, tool: &Tool<'_>) -> Result<bool, ParseError> {
    writer::json(out, r#"{"type":"function","name":"#);
    writer::string(out, name);
    if let Some(description) = tool.description {
        writer::json(out, r#","description":"#);
        writer::text(out, description);
    }
    // Strict functions must be called with every argument: optional ones would stop being optional.
    writer::json(out, r#","strict":false,"parameters":"#);
    let is_changed = schema::parameters(out, tool.schema)?;
    out.push(b'}');
    Ok(is_changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::Request;

    fn body(tools: &str) -> Vec<u8> {
        format!(r#"{{"model":"m","messages":[],"tools":{tools}}}"#).into_bytes()
    }

    fn list(cache: &mut ToolCache, body: &[u8], lane: Lane) -> Arc<ToolList> {
        cache
            .list(&Request::parse(body).unwrap().tools, lane)
            .unwrap()
    }

    #[test]
    fn a_list_is_translated_once_for_each_lane() {
        let mut cache = ToolCache::default();
        let [a, b] = ["a", "b"].map(|name| body(&format!(r#"[{{"name":"{name}"}}]"#)));
        let first = list(&mut cache, &a, Lane::Full);
        list(&mut cache, &b, Lane::Full);
        assert!(Arc::ptr_eq(&first, &list(&mut cache, &a, Lane::Full)));
        assert!(!Arc::ptr_eq(&first, &list(&mut cache, &a, Lane::Lite)));
        assert_eq!(
            std::str::from_utf8(&first.shown).unwrap(),
            r#"{"type":"function","name":"a","strict":false,"parameters":{"type":"object","properties":{}}}"#
        );
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_list_in_use_stays() {
        let mut cache = ToolCache::default();
        let large = |name: &str, bytes: usize| {
            body(&format!(
                r#"[{{"name":"{name}","description":"{}"}}]"#,
                "x".repeat(bytes)
            ))
        };
        let kept = |cache: &ToolCache| cache.lists.iter().map(|list| list.bytes()).sum::<usize>();
        let in_use = large("a", 1 << 20);
        let first = list(&mut cache, &in_use, Lane::Full);
        for name in ["b", "c", "d", "e", "f"] {
            list(&mut cache, &large(name, 1 << 20), Lane::Full);
            assert!(kept(&cache) <= CACHE_LIMIT_BYTES);
            assert!(Arc::ptr_eq(&first, &list(&mut cache, &in_use, Lane::Full)));
        }
        // One that is larger than all of it is served, but not kept.
        let before = kept(&cache);
        list(&mut cache, &large("g", CACHE_LIMIT_BYTES), Lane::Full);
        assert_eq!(kept(&cache), before);
    }
}
