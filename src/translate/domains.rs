//! Where on the web a search may look: lists of domains, as the client writes them and as upstream takes them.
//!
//! Upstream filters by host, subdomains included, and is known to let something through now and then. So what it finds
//! is held to the lists here once more: a list may turn out narrower than it was meant, never wider.

use crate::translate::writer;
use crate::wire::json::{Kind, ParseError, Raw};
use crate::wire::messages::Tool;

/// Upstream takes no longer list (its documentation of the search tool, autumn 2026).
const LONGEST_LIST: usize = 100;

/// The domains that a search may and may not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    /// Only these and what is below them; empty means all.
    allowed: Vec<String>,
    /// Neither these nor what is below them.
    blocked: Vec<String>,
}

/// A domain as upstream takes it.
struct Host {
    name: String,
    /// Whether the client meant only a part of it: a path, or what is below it.
    is_wider: bool,
}

impl Domains {
    /// Reads the lists of `tool`. The second value says whether more is blocked than was asked for.
    ///
    /// Fails on what upstream would take for something wider: a path or a wildcard in the list of what is allowed, a name
    /// that is no domain, a list that is too long, both lists at once.
    pub(super) fn read(tool: &Tool<'_>) -> Result<(Self, bool), ParseError> {
        let allowed = list(tool.allowed_domains, "allowed_domains")?;
        let blocked = list(tool.blocked_domains, "blocked_domains")?;
        if !allowed.is_empty() && !blocked.is_empty() {
            let error = ParseError::expected("either allowed_domains or blocked_domains, not both");
            return Err(error.within("blocked_domains"));
        }
        if let Some(at) = allowed.iter().position(|host| host.is_wider) {
            let error = ParseError::expected(
                "a domain without a path or wildcard, since searches are bounded by domain",
            );
            return Err(error.within(at).within("allowed_domains"));
        }
        let blocks_more = blocked.iter().any(|host| host.is_wider);
        let names = |hosts: Vec<Host>| hosts.into_iter().map(|host| host.name).collect();
        let domains = Self {
            allowed: names(allowed),
            blocked: names(blocked),
        };
        Ok((domains, blocks_more))
    }

    /// Says whether a page at `address` may be shown.
    pub fn take(&self, address: &str) -> bool {
        if self.is_open() {
            return true;
        }
        let Some(host) = host_of(address) else {
            return false;
        };
        let is_of = |list: &[String]| list.iter().any(|domain| is_within(&host, domain));
        (self.allowed.is_empty() || is_of(&self.allowed)) && !is_of(&self.blocked)
    }

    /// Writes `,"filters":{…}`, or nothing where all is open.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let lists = [
            ("allowed_domains", &self.allowed),
            ("blocked_domains", &self.blocked),
        ];
        // At most one of them has anything in it.
        for (name, domains) in lists {
            let mut first = true;
            for domain in domains {
                if first {
                    writer::json(out, r#","filters":{"#);
                    writer::string(out, name);
                    writer::json(out, ":[");
                }
                writer::comma(out, &mut first);
                writer::string(out, domain);
            }
            if !first {
                writer::json(out, "]}");
            }
        }
    }

    fn is_open(&self) -> bool {
        self.allowed.is_empty() && self.blocked.is_empty()
    }
}

fn list(raw: Option<Raw<'_>>, field: &'static str) -> Result<Vec<Host>, ParseError> {
    let mut hosts = Vec::new();
    let Some(raw) = raw else { return Ok(hosts) };
    let read = |hosts: &mut Vec<Host>| {
        if raw.kind() != Kind::List {
            return Err(ParseError::expected("an array"));
        }
        raw.reader().list(|reader| {
            let text = reader.string()?.value();
            hosts.push(Host::read(&text).ok_or_else(|| ParseError::expected("a domain"))?);
            if hosts.len() > LONGEST_LIST {
                return Err(ParseError::expected("at most 100 domains"));
            }
            Ok(())
        })
    };
    read(&mut hosts).map_err(|error| error.within(field))?;
    Ok(hosts)
}

impl Host {
    /// Reads a domain; `None` if it is none. A scheme in front of it says nothing.
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let below = host.strip_prefix("*.");
        let name = below.unwrap_or(host).trim_end_matches('.');
        let is_letter =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_name = (1..=253).contains(&name.len())
            && name.bytes().all(is_letter)
            && !name.starts_with('.')
            && !name.contains("..");
        is_name.then(|| Self {
            name: name.to_ascii_lowercase(),
            is_wider: below.is_some() || !path.is_empty(),
        })
    }
}

/// Returns the host of a web address, lower case; `None` for anything that could pass for another host.
pub(super) fn host_of(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(authority, |(host, _)| host);
    // No user, no escapes, no backslash: browsers do not agree on what those mean.
    Host::read(authority).map(|host| host.name)
}

/// Says whether `host` is `domain` or below it.
fn is_within(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::Request;
    use serde_json::{Value, json};

    fn read(lists: Value) -> Result<(Domains, bool), String> {
        let mut tool = json!({"type": "web_search_20250305", "name": "web_search"});
        for (name, list) in lists.as_object().unwrap() {
            tool[name] = list.clone();
        }
        let body = json!({"model": "m", "messages": [], "tools": [tool]}).to_string();
        let tools = Request::parse(body.as_bytes())
            .unwrap()
            .tools
            .list()
            .unwrap();
        Domains::read(&tools[0]).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_are_told_upstream_in_its_form_or_refused() {
        // [I02]
        let filters = |lists: Value| {
            let mut out = b"{\"x\":1".to_vec();
            read(lists).map(|(domains, _)| {
                domains.write(&mut out);
                out.push(b'}');
                serde_json::from_slice::<Value>(&out).unwrap()["filters"].clone()
            })
        };
        for (lists, told) in [
            (json!({}), json!(null)),
            (
                json!({"allowed_domains": [], "blocked_domains": null}),
                json!(null),
            ),
            (
                json!({"allowed_domains": ["Docs.RS", "https://b.example/", "c.example."]}),
                json!({"allowed_domains": ["docs.rs", "b.example", "c.example"]}),
            ),
            (
                json!({"allowed_domains": [], "blocked_domains": ["a.example"]}),
                json!({"blocked_domains": ["a.example"]}),
            ),
        ] {
            assert_eq!(filters(lists.clone()), Ok(told), "{lists}");
        }
        for (lists, place) in [
            (
                json!({"allowed_domains": ["a.example/blog"]}),
                "allowed_domains.0",
            ),
            (
                json!({"allowed_domains": ["b.c", "*.a.example"]}),
                "allowed_domains.1",
            ),
            (json!({"allowed_domains": [""]}), "allowed_domains.0"),
            (json!({"allowed_domains": ["a b"]}), "allowed_domains.0"),
            (
                json!({"allowed_domains": ["bücher.example"]}),
                "allowed_domains.0",
            ),
            (json!({"allowed_domains": [7]}), "allowed_domains.0"),
            (json!({"allowed_domains": "a.example"}), "allowed_domains"),
            (json!({"blocked_domains": {}}), "blocked_domains"),
            (
                json!({"blocked_domains": vec!["a.example"; 101]}),
                "blocked_domains.100",
            ),
            (
                json!({"allowed_domains": ["a.example"], "blocked_domains": ["b.example"]}),
                "blocked_domains",
            ),
        ] {
            let error = filters(lists.clone()).unwrap_err();
            assert!(error.starts_with(&format!("{place}:")), "{lists}: {error}");
        }
    }

    #[test]
    fn what_is_blocked_in_part_is_blocked_whole() {
        let (domains, more) =
            read(json!({"blocked_domains": ["a.example/private", "*.b.example"]})).unwrap();
        assert!(more);
        assert!(!domains.take("https://a.example/public"));
        assert!(!domains.take("https://b.example"));
        let (_, more) = read(json!({"blocked_domains": ["a.example"]})).unwrap();
        assert!(!more);
    }

    #[test]
    fn a_page_is_of_a_list_or_not() {
        // [I02]
        let (allowed, _) = read(json!({"allowed_domains": ["rust-lang.org"]})).unwrap();
        for (address, taken) in [
            ("https://rust-lang.org", true),
            ("https://WWW.Rust-Lang.org:443/x?y#z", true),
            ("http://blog.rust-lang.org./a", true),
            ("https://evil-rust-lang.org", false),
            ("https://rust-lang.org.evil.example", false),
            ("https://evil.example/rust-lang.org", false),
            ("https://evil.example?x=rust-lang.org", false),
            ("https://rust-lang.org@evil.example", false),
            ("https://evil.example\\.rust-lang.org", false),
            ("https://evil.example%2f.rust-lang.org", false),
            ("ftp://rust-lang.org", false),
            ("rust-lang.org", false),
            ("", false),
        ] {
            assert_eq!(allowed.take(address), taken, "{address}");
        }
        let (blocked, _) = read(json!({"blocked_domains": ["evil.example"]})).unwrap();
        for (address, taken) in [
            ("https://rust-lang.org", true),
            ("https://evil.example.org", true),
            ("https://evil.example", false),
            ("https://a.b.evil.example/", false),
            ("https://user@evil.example", false),
            ("https://rust-lang.org@evil.example", false),
        ] {
            assert_eq!(blocked.take(address), taken, "{address}");
        }
        assert!(Domains::default().take("whatever"));
    }
}
