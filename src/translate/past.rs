//! Searches of earlier turns: what the answering side ran itself, as the model is told of it now.
//!
//! A search that upstream made is a `web_search_call` again, as upstream's own client replays it, where the lane has
//! them. Every other call is words. What was found is always words, titles and addresses: nobody can read the
//! contents that another side has encrypted.

use crate::catalogue::model::Lane;
use crate::translate::hits::CALL_ID;
use crate::translate::items::{Items, Open};
use crate::translate::loss::Loss;
use crate::translate::writer;
use crate::wire::blocks::ToolUse;
use crate::wire::json::{Kind, Raw, Text};
use crate::wire::messages::Role;

/// How ids of searches begin that [`CALL_ID`] was put in front of: upstream's ids of searches.
const OURS: &str = "ws_";

impl<'a> Items<'_, 'a> {
    /// Writes a call that the answering side ran itself.
    pub(super) fn server_call(&mut self, call: &ToolUse<'a>) {
        if self.place.lane == Lane::Full
            && self.role == Role::Assistant
            && !matches!(self.open, Open::Output { .. })
            && is_ours(call.id)
            && let Some(query) = call.input.and_then(|input| field(input, "query"))
        {
            self.item();
            // Without its id: upstream keeps nothing that it could find by it (contract chatgpt-codex §5.2).
            writer::json(
                self.out,
                r#"{"type":"web_search_call","status":"completed","action":{"type":"search","query":"#,
            );
            writer::text(self.out, query);
            writer::json(self.out, "}}");
            return;
        }
        self.lose(Loss::approximated("server_tool_use"));
        self.begin_text();
        writer::json(self.out, "[Called ");
        writer::inner(self.out, call.name);
        if let Some(input) = call.input {
            writer::json(self.out, " with ");
            let mut quoted = Vec::new();
            writer::raw_as_string(&mut quoted, input);
            self.out.extend_from_slice(&quoted[1..quoted.len() - 1]);
        }
        writer::json(self.out, "]");
        self.end_text();
    }

    /// Writes what a search found, as a list of titles and addresses, or why it found nothing.
    pub(super) fn search_results(&mut self, content: Raw<'a>) {
        self.lose(Loss::approximated("web_search_result"));
        self.begin_text();
        match content.kind() {
            Kind::List => self.pages(content),
            _ => {
                writer::json(self.out, "[The search failed");
                if let Some(code) = field(content, "error_code") {
                    writer::json(self.out, ": ");
                    writer::inner(self.out, code);
                }
                writer::json(self.out, "]");
            }
        }
        self.end_text();
    }

    fn pages(&mut self, list: Raw<'a>) {
        writer::json(self.out, "[Search results]");
        // Read once before, so nothing here can fail.
        let _ = list.reader().list(|reader| {
            let entry = reader.raw()?;
            if let Some(url) = field(entry, "url") {
                writer::json(self.out, r"\n- ");
                if let Some(title) = field(entry, "title") {
                    writer::inner(self.out, title);
                    writer::json(self.out, ": ");
                }
                writer::inner(self.out, url);
            }
            Ok(())
        });
    }
}

/// Says whether upstream made the search that the client calls `id`.
fn is_ours(id: Text<'_>) -> bool {
    let rest = id.escaped().strip_prefix(CALL_ID);
    rest.is_some_and(|rest| rest.starts_with(OURS))
}

/// Returns the text of a field of an object; the last one counts.
fn field<'a>(object: Raw<'a>, name: &str) -> Option<Text<'a>> {
    let mut found = None;
    if object.kind() == Kind::Object {
        // Read once before, so nothing here can fail.
        let _ = object.reader().object(|reader, key| {
            let value = reader.raw()?;
            if key == name {
                found = value.as_text();
            }
            Ok(())
        });
    }
    found
}
