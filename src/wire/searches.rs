//! OpenAI Responses: what upstream says of the searches that it runs.
//!
//! Items of type `web_search_call` and the citations of a text, as upstream's documentation has them (autumn 2026).
//! Tolerant as [`super::responses`] is: what has not the expected type counts as absent.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A page on the web.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its address; never empty.
    pub url: String,
    /// Its title, where it was told.
    pub title: Option<String>,
}

/// A `web_search_call` that has come to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Whether it failed.
    pub is_failed: bool,
    /// What it did.
    pub action: Action,
}

/// What a `web_search_call` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// `search`.
    Search {
        /// What was looked for; several at once are possible.
        queries: Vec<String>,
        /// The pages that were found, where upstream tells them: addresses, seldom with titles.
        sources: Vec<Page>,
    },
    /// `open_page` and `find_in_page`: one page, if it says which.
    Visit(Option<Page>),
    /// It does not say.
    #[default]
    Untold,
}

impl Call {
    /// Reads an item.
    pub fn parse(item: &str) -> Self {
        let Ok(item) = serde_json::from_str::<Value>(item) else {
            return Self::default();
        };
        let action = &item["action"];
        let queries = || {
            let listed = action["queries"].as_array().into_iter().flatten();
            let all: Vec<String> = listed.filter_map(text).collect();
            // `query` is the older word, and the first of them where both are said.
            if all.is_empty() {
                text(&action["query"]).into_iter().collect()
            } else {
                all
            }
        };
        Self {
            is_failed: item["status"] == "failed",
            action: match action["type"].as_str() {
                Some("search") => Action::Search {
                    queries: queries(),
                    sources: pages(&action["sources"]),
                },
                Some("open_page" | "find_in_page") => Action::Visit(Page::read(action)),
                _ => Action::Untold,
            },
        }
    }
}

impl Page {
    fn read(value: &Value) -> Option<Self> {
        Some(Self {
            url: text(&value["url"])?,
            title: text(&value["title"]),
        })
    }
}

/// The data of `response.output_text.annotation.added`, if it is a citation of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Cited {
    /// Which item, by place.
    pub output_index: Option<u64>,
    /// Which item, by id.
    pub item_id: Option<String>,
    /// Which part of its content.
    pub part: u64,
    /// The page.
    pub page: Page,
}

impl Cited {
    /// Reads the data of an event.
    pub fn parse(data: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(data).ok()?;
        Some(Self {
            output_index: event["output_index"].as_u64(),
            item_id: text(&event["item_id"]),
            part: event["content_index"].as_u64().unwrap_or(0),
            page: citation(&event["annotation"])?,
        })
    }
}

/// Returns the pages that the parts of a message's content cite, part by part.
pub fn citations(message: &str) -> Vec<Vec<Page>> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        content: Option<&'a RawValue>,
    }
    let content = serde_json::from_str::<Message<'_>>(message)
        .ok()
        .and_then(|message| message.content)
        .and_then(|content| serde_json::from_str::<Vec<Value>>(content.get()).ok());
    let parts = content.unwrap_or_default();
    let cited = |part: &Value| {
        let annotations = part["annotations"].as_array().into_iter().flatten();
        annotations.filter_map(citation).collect()
    };
    parts.iter().map(cited).collect()
}

fn citation(annotation: &Value) -> Option<Page> {
    if annotation["type"] == "url_citation" {
        Page::read(annotation)
    } else {
        None
    }
}

fn pages(list: &Value) -> Vec<Page> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Page::read).collect()
}

fn text(value: &Value) -> Option<String> {
    let text = value.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(url: &str, title: Option<&str>) -> Page {
        Page {
            url: url.to_owned(),
            title: title.map(str::to_owned),
        }
    }

    #[test]
    fn a_call_says_what_it_did_as_far_as_it_says_it() {
        let search = |queries: &[&str], sources: Vec<Page>| Action::Search {
            queries: queries.iter().map(|&query| query.to_owned()).collect(),
            sources,
        };
        for (item, is_failed, action) in [
            (
                json!({"status": "completed", "action": {"type": "search", "query": "a", "queries": ["a", "b", 3, ""],
                    "sources": [{"type": "url", "url": "https://a"}, {"url": "https://b", "title": "B"}, {"url": ""}, 7]}}),
                false,
                search(
                    &["a", "b"],
                    vec![page("https://a", None), page("https://b", Some("B"))],
                ),
            ),
            (
                json!({"status": "failed", "action": {"type": "search", "query": "a", "sources": null}}),
                true,
                search(&["a"], Vec::new()),
            ),
            (
                json!({"action": {"type": "search"}}),
                false,
                search(&[], Vec::new()),
            ),
            (
                json!({"action": {"type": "open_page", "url": "https://a"}}),
                false,
                Action::Visit(Some(page("https://a", None))),
            ),
            (
                json!({"action": {"type": "open_page", "url": null}}),
                false,
                Action::Visit(None),
            ),
            (
                json!({"action": {"type": "find_in_page", "url": "https://a", "pattern": "x"}}),
                false,
                Action::Visit(Some(page("https://a", None))),
            ),
            (json!({"action": {"type": "new"}}), false, Action::Untold),
            (json!({"action": 3, "status": []}), false, Action::Untold),
            (json!([]), false, Action::Untold),
        ] {
            let call = Call::parse(&item.to_string());
            assert_eq!(call, Call { is_failed, action }, "{item}");
        }
        assert_eq!(Call::parse("{"), Call::default());
    }

    #[test]
    fn only_citations_of_pages_are_citations() {
        let event = json!({"type": "response.output_text.annotation.added", "item_id": "msg_1", "output_index": 2,
            "content_index": 1, "annotation_index": 0, "annotation": {"type": "url_citation", "start_index": 0,
                "end_index": 4, "url": "https://a", "title": "A"}});
        assert_eq!(
            Cited::parse(&event.to_string()),
            Some(Cited {
                output_index: Some(2),
                item_id: Some("msg_1".to_owned()),
                part: 1,
                page: page("https://a", Some("A")),
            })
        );
        for annotation in [
            json!(null),
            json!({"type": "file_citation", "url": "https://a"}),
            json!({"type": "url_citation"}),
        ] {
            let event = json!({"annotation": annotation});
            assert_eq!(Cited::parse(&event.to_string()), None, "{event}");
        }
        assert_eq!(Cited::parse("x"), None);
        let message = json!({"content": [
            {"type": "output_text", "text": "t"},
            {"type": "output_text", "text": "t", "annotations": [
                {"type": "url_citation", "url": "https://a"}, {"type": "x"}, null]},
            7,
        ]});
        let none = Vec::new;
        assert_eq!(
            citations(&message.to_string()),
            [none(), vec![page("https://a", None)], none()]
        );
        assert_eq!(citations("{}"), [] as [Vec<Page>; 0]);
        assert_eq!(citations(r#"{"content":3}"#), [] as [Vec<Page>; 0]);
    }
}
