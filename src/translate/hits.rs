//! What the searches that upstream runs have found: a call and its result, as the client knows them.
//!
//! Upstream tells of a search when it is done, but seldom what it found: the pages show up when a text
//! cites them. So a result waits for the text that follows it, and what comes between waits with it.

use serde_json::{Value, json};

use crate::translate::domains::{Domains, host_of};
use crate::translate::draft::Pen;
use crate::translate::records::Block;
use crate::translate::search::Search;
use crate::wire::searches::{Action, Call, Page};

/// How many pages a result has at most. The client takes no longer list.
const MOST_PAGES: usize = 100;

/// The client takes no longer addresses.
const LONGEST_ADDRESS: usize = 8_192;

/// Titles are cut here; the client takes no more than 2,000 characters.
const LONGEST_TITLE: usize = 300;

/// What upstream puts behind the addresses that it tells. It belongs to no page.
const TRACKING: &[&str] = &["?utm_source=openai", "&utm_source=openai"];

/// Ids of calls begin with this.
pub(super) const CALL_ID: &str = "srvtoolu_";

/// How much of upstream's id goes into an id. The client takes 128 characters in all.
const LONGEST_ID: usize = 100;

/// The `error_code` of a search that failed.
const FAILED: &str = "unavailable";

/// The `error_code` of a search beyond the limit of the request.
const ONE_TOO_MANY: &str = "max_uses_exceeded";

/// One search.
#[derive(Debug)]
pub(super) struct Found {
    /// What was looked for.
    pub(super) query: String,
    /// What was found, so far.
    pub(super) outcome: Outcome,
    /// Whether nothing more will be found out about it.
    pub(super) is_settled: bool,
    /// Whether the call was written.
    pub(super) is_announced: bool,
}

/// How a search ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With these pages.
    Pages(Vec<Page>),
    /// With this `error_code`.
    Failed(&'static str),
}

/// All searches of an answer.
#[derive(Debug, Default)]
pub(super) struct Searches {
    /// Searches begun, failed ones and those beyond the limit included.
    begun: u64,
    /// Searches that count.
    pub(super) answered: u64,
    /// Pages that texts have cited since searches were settled last.
    cited: Vec<Page>,
    /// Pages that only searches beyond the limit have told.
    beyond: Vec<Page>,
}

impl Searches {
    /// Takes a call that is done: begins a search, or adds a page to `last`, the search before it that is not settled
    /// yet, and begins none.
    pub(super) fn take(
        &mut self,
        call: Call,
        rules: &Search,
        last: Option<&mut Found>,
    ) -> Option<Found> {
        let (query, pages) = match (call.action, last) {
            // A page that is opened was found before; whatever failed is no page.
            (Action::Visit(page), Some(last)) => {
                if let Some(page) = page.filter(|_| !call.is_failed) {
                    match &mut last.outcome {
                        Outcome::Pages(pages) => add(pages, page, &rules.domains),
                        Outcome::Failed(_) => add(&mut self.beyond, page, &rules.domains),
                    }
                }
                return None;
            }
            (Action::Search { queries, sources }, _) => (queries.join("; "), sources),
            (Action::Visit(page), None) => {
                let query = page.as_ref().map_or("", |page| clean(&page.url)).to_owned();
                (query, page.into_iter().collect())
            }
            (Action::Untold, _) => (String::new(), Vec::new()),
        };
        self.begun += 1;
        let outcome = if rules.max_uses.is_some_and(|most| self.begun > most) {
            for page in pages {
                add(&mut self.beyond, page, &rules.domains);
            }
            Outcome::Failed(ONE_TOO_MANY)
        } else if call.is_failed {
            Outcome::Failed(FAILED)
        } else {
            self.answered += 1;
            let mut kept = Vec::new();
            for page in pages {
                add(&mut kept, page, &rules.domains);
            }
            Outcome::Pages(kept)
        };
        Some(Found {
            query,
            outcome,
            is_settled: false,
            is_announced: false,
        })
    }

    /// Notes that a text cites `page`.
    pub(super) fn cite(&mut self, page: Page) {
        if self.cited.len() < MOST_PAGES {
            self.cited.push(page);
        }
    }

    /// Says whether a text has cited anything since searches were settled last.
    pub(super) const fn has_cited(&self) -> bool {
        !self.cited.is_empty()
    }

    /// Settles the searches in `waiting`, in order. A page that a text cites and none of them has told goes to the last one:
    /// upstream does not say which one found it.
    pub(super) fn settle<'a>(
        &mut self,
        waiting: impl Iterator<Item = &'a mut Found>,
        domains: &Domains,
    ) {
        let cited = std::mem::take(&mut self.cited);
        let mut waiting: Vec<_> = waiting.collect();
        let mut untold = Vec::new();
        for page in cited {
            let url = clean(&page.url);
            let mut is_told = false;
            for found in &mut waiting {
                for told in found.pages_mut().filter(|told| clean(&told.url) == url) {
                    is_told = true;
                    if told.title.is_none() {
                        told.title.clone_from(&page.title);
                    }
                }
            }
            if !is_told && self.beyond.iter().all(|other| clean(&other.url) != url) {
                untold.push(page);
            }
        }
        let last = waiting
            .iter_mut()
            .rev()
            .find_map(|found| match &mut found.outcome {
                Outcome::Pages(pages) => Some(pages),
                Outcome::Failed(_) => None,
            });
        if let Some(pages) = last {
            for page in untold {
                add(pages, page, domains);
            }
        }
        for found in waiting {
            found.is_settled = true;
        }
    }
}

impl Found {
    /// Writes what is known: the call, and its result once nothing more will be found out. Says whether that is all.
    pub(super) fn write(&mut self, item_id: &str, pen: &mut Pen<'_>) -> bool {
        let id = call_id(item_id);
        if !std::mem::replace(&mut self.is_announced, true) {
            let setup = pen.setup;
            let name = setup.search.as_ref().map_or("", |it| it.name.as_str());
            pen.open(Block::Search { id: &id, name });
            let input = json!({"query": self.query}).to_string();
            let input = Value::from(input).to_string();
            pen.delta(&input[1..input.len() - 1]);
            pen.close();
        }
        if self.is_settled {
            pen.whole(&self.result(&id).to_string());
        }
        self.is_settled
    }

    /// The block of its result.
    fn result(&self, id: &str) -> Value {
        let content = match &self.outcome {
            Outcome::Failed(code) => {
                json!({"type": "web_search_tool_result_error", "error_code": code})
            }
            Outcome::Pages(pages) => pages
                .iter()
                .map(|page| {
                    // The client takes anything but base64 for the text of the page.
                    json!({"type": "web_search_result", "url": clean(&page.url), "title": title(page),
                        "encrypted_content": "", "page_age": null})
                })
                .collect(),
        };
        json!({"type": "web_search_tool_result", "tool_use_id": id, "content": content})
    }

    fn pages_mut(&mut self) -> impl Iterator<Item = &mut Page> {
        match &mut self.outcome {
            Outcome::Pages(pages) => pages.iter_mut(),
            Outcome::Failed(_) => [].iter_mut(),
        }
    }
}

/// Returns the citation of `page`, if it may be shown.
///
/// Upstream tells where in the answer it stands, not what on the page it rests on.
pub(super) fn citation(page: &Page, domains: &Domains) -> Option<String> {
    let url = clean(&page.url);
    let shown = url.len() <= LONGEST_ADDRESS && domains.take(url);
    shown.then(|| {
        json!({"type": "web_search_result_location", "url": url, "title": title(page),
            "encrypted_index": "", "cited_text": ""})
        .to_string()
    })
}

/// Returns the client's id of the call that upstream calls `item_id`.
fn call_id(item_id: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let rest: String = item_id.chars().take(LONGEST_ID).map(legal).collect();
    format!("{CALL_ID}{rest}")
}

/// Adds a page, if it may be shown and is not there yet.
fn add(pages: &mut Vec<Page>, page: Page, domains: &Domains) {
    let url = clean(&page.url);
    if pages.len() < MOST_PAGES
        && url.len() <= LONGEST_ADDRESS
        && domains.take(url)
        && pages.iter().all(|known| clean(&known.url) != url)
    {
        pages.push(page);
    }
}

/// Returns an address without what upstream put behind it.
pub(super) fn clean(url: &str) -> &str {
    let bare = TRACKING.iter().find_map(|mark| url.strip_suffix(mark));
    bare.unwrap_or(url)
}

/// Returns what a page is called, which is never nothing.
pub(super) fn title(page: &Page) -> String {
    let title = page.title.as_deref().unwrap_or_default();
    let short: String = title.chars().take(LONGEST_TITLE).collect();
    if !short.is_empty() {
        return short;
    }
    host_of(&page.url).unwrap_or_else(|| clean(&page.url).chars().take(LONGEST_TITLE).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(url: &str, title: &str) -> Page {
        Page {
            url: url.to_owned(),
            title: (!title.is_empty()).then(|| title.to_owned()),
        }
    }

    fn search(query: &str, sources: Vec<Page>) -> Call {
        Call {
            is_failed: false,
            action: Action::Search {
                queries: vec![query.to_owned()],
                sources,
            },
        }
    }

    fn visit(url: &str) -> Call {
        Call {
            is_failed: false,
            action: Action::Visit(Some(page(url, ""))),
        }
    }

    fn pages(found: &Found) -> Vec<(&str, String)> {
        match &found.outcome {
            Outcome::Pages(pages) => pages
                .iter()
                .map(|page| (clean(&page.url), title(page)))
                .collect(),
            Outcome::Failed(code) => vec![(code, String::new())],
        }
    }

    #[test]
    fn pages_go_to_the_search_that_told_them_else_to_the_last_one() {
        let rules = Search::default();
        let mut searches = Searches::default();
        let told = vec![page("https://a.example/?utm_source=openai", "")];
        let mut first = searches.take(search("a", told), &rules, None).unwrap();
        assert!(
            searches
                .take(visit("https://b.example/x"), &rules, Some(&mut first))
                .is_none()
        );
        let mut second = searches
            .take(search("b", Vec::new()), &rules, Some(&mut first))
            .unwrap();
        assert!(!searches.has_cited());
        for cited in [
            page("https://a.example/", "A"),
            page("https://c.example/?x=1&utm_source=openai", "C"),
            page("https://c.example/?x=1", "again"),
        ] {
            searches.cite(cited);
        }
        searches.settle([&mut first, &mut second].into_iter(), &rules.domains);
        assert_eq!(
            pages(&first),
            [
                ("https://a.example/", "A".to_owned()),
                ("https://b.example/x", "b.example".to_owned())
            ]
        );
        assert_eq!(pages(&second), [("https://c.example/?x=1", "C".to_owned())]);
        assert!(first.is_settled && second.is_settled);
        assert_eq!(searches.answered, 2);
        assert!(!searches.has_cited());
    }

    #[test]
    fn a_page_that_was_opened_without_a_search_is_one() {
        let mut searches = Searches::default();
        let found = searches.take(visit("https://a.example/b"), &Search::default(), None);
        let found = found.unwrap();
        assert_eq!(found.query, "https://a.example/b");
        assert_eq!(pages(&found).len(), 1);
    }

    #[test]
    fn searches_beyond_the_limit_and_failed_ones_are_errors_and_do_not_count() {
        // [I02, I03]
        let rules = Search {
            max_uses: Some(2),
            ..Search::default()
        };
        let mut searches = Searches::default();
        let failed = Call {
            is_failed: true,
            ..search("a", vec![page("https://a.example", "")])
        };
        let mut first = searches.take(failed, &rules, None).unwrap();
        let mut second = searches
            .take(search("b", Vec::new()), &rules, None)
            .unwrap();
        let told = vec![page("https://c.example", "")];
        let mut third = searches.take(search("c", told), &rules, None).unwrap();
        searches.take(visit("https://e.example"), &rules, Some(&mut third));
        for url in [
            "https://c.example",
            "https://d.example",
            "https://e.example",
        ] {
            searches.cite(page(url, "D"));
        }
        searches.settle(
            [&mut first, &mut second, &mut third].into_iter(),
            &rules.domains,
        );
        assert_eq!(first.outcome, Outcome::Failed("unavailable"));
        assert_eq!(pages(&second), [("https://d.example", "D".to_owned())]);
        assert_eq!(third.outcome, Outcome::Failed("max_uses_exceeded"));
        assert_eq!(searches.answered, 1);
    }

    #[test]
    fn ids_are_such_as_the_client_takes() {
        assert_eq!(call_id("ws_0a-9.z"), "srvtoolu_ws_0a_9_z");
        assert_eq!(call_id(&"ä".repeat(400)).len(), 109);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let rules = Search::default();
        let mut searches = Searches::default();
        let many = (0..150)
            .map(|n| page(&format!("https://a.example/{n}"), &"t".repeat(5_000)))
            .chain([page(
                &format!("https://b.example/{}", "x".repeat(9_000)),
                "",
            )]);
        let found = searches.take(search("a", many.collect()), &rules, None);
        let found = found.unwrap();
        assert_eq!(pages(&found).len(), MOST_PAGES);
        assert!(
            pages(&found)
                .iter()
                .all(|(_, title)| title.len() == LONGEST_TITLE)
        );
        for n in 0..500 {
            searches.cite(page(&format!("https://c.example/{n}"), ""));
        }
        assert_eq!(searches.cited.len(), MOST_PAGES);
    }
}
