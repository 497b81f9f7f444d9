//! Which origin serves an account: workspace routing (contract chatgpt-codex §2.2).
//!
//! Asked once for each account and token, and kept. Upstream's client refuses to work when the
//! question fails; ccx goes on with the ordinary origin, because accounts without a bound workspace
//! were served for months by clients that never asked. An answer that is wrong in itself is an error:
//! a workspace that is bound to a region must not be served anywhere else by guess.
//!
//! Does not send the question: the caller gives a future for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use crate::account::credentials::Credentials;
use crate::upstream::endpoints::{self, clean_origin, is_loopback_origin};
use crate::upstream::failure::Failure;

/// How long a failed question is remembered before it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// More accounts and tokens than one process ever uses; beyond it all are asked anew.
const KEPT: usize = 256;

const NO_CONSTRAINT: &str = "NO_CONSTRAINT";

/// Where an account's calls go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Scheme, host and port.
    pub(super) origin: String,
    /// Sent as `x-openai-account-routing-override`.
    pub(super) routing_override: Option<&'static str>,
}

/// The routes that are known.
#[derive(Debug, Default)]
pub(super) struct Routes {
    known: Mutex<HashMap<[u8; 32], Arc<OnceCell<Finding>>>>,
}

#[derive(Debug)]
struct Finding {
    route: Result<Route, Failure>,
    /// `None` for what stays true as long as the token does.
    until: Option<Instant>,
}

impl Routes {
    /// Returns the route of an account at `now`; `ask` gives the body of upstream's answer and runs only when the
    /// route is not known. Callers at the same time share one question.
    pub(super) async fn of(
        &self,
        credentials: &Credentials,
        base: &str,
        now: Instant,
        ask: impl Future<Output = Result<Vec<u8>, Failure>>,
    ) -> Result<Route, Failure> {
        let cell = self.cell(credentials, now);
        let finding = cell
            .get_or_init(|| async {
                let answer = ask.await;
                let account = &credentials.chatgpt_account_id;
                conclude(base, account, answer.as_deref().ok(), now)
            })
            .await;
        finding.route.clone()
    }

    fn cell(&self, credentials: &Credentials, now: Instant) -> Arc<OnceCell<Finding>> {
        let mut digest = Sha256::new();
        digest.update(credentials.chatgpt_account_id.as_bytes());
        digest.update([0]);
        digest.update(credentials.access_token.expose().as_bytes());
        let key = digest.finalize().into();
        // A panic elsewhere cannot leave a half-written map: each step under the lock is one call.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |cell: &Arc<OnceCell<Finding>>| {
            cell.get()
                .and_then(|finding| finding.until)
                .is_some_and(|until| until <= now)
        };
        if known.len() >= KEPT {
            known.clear();
        }
        let cell = known.entry(key).or_default();
        if is_over(cell) {
            *cell = Arc::default();
        }
        Arc::clone(cell)
    }
}

fn conclude(base: &str, account: &str, answer: Option<&[u8]>, now: Instant) -> Finding {
    let ordinary = Route {
        origin: base.to_owned(),
        routing_override: None,
    };
    let read = answer.and_then(|body| read(base, account, body));
    let soon = Some(now + ASK_AGAIN);
    match read {
        None => Finding {
            route: Ok(ordinary),
            until: soon,
        },
        Some(Ok(route)) => Finding {
            route: Ok(route),
            until: None,
        },
        Some(Err(why)) => Finding {
            route: Err(Failure::Forbidden {
                why: format!("workspace routing: {why}"),
            }),
            until: soon,
        },
    }
}

/// Reads the account's entry: `None` when the answer says nothing about the account, an error when what it says
/// cannot be followed.
fn read(base: &str, account: &str, body: &[u8]) -> Option<Result<Route, &'static str>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    // Without an id of our own the only entry is the one.
    let is_ours = |entry: &Value| {
        account.is_empty()
            || ["id", "account_id"]
                .iter()
                .any(|name| entry[name].as_str() == Some(account))
    };
    let mut entries = match &answer["accounts"] {
        Value::Array(list) => list.iter().filter(|entry| is_ours(entry)).collect(),
        Value::Object(map) => match map.get(account) {
            Some(entry) => vec![entry],
            None => map
                .values()
                .filter(|entry| is_ours(entry))
                .collect::<Vec<_>>(),
        },
        _ => return None,
    };
    let entry = entries.pop()?;
    if !entries.is_empty() {
        return (!account.is_empty()).then_some(Err("the workspace is listed twice"));
    }
    Some(route(base, entry))
}

fn route(base: &str, entry: &Value) -> Result<Route, &'static str> {
    let text = |name: &str| match &entry[name] {
        Value::Null => Ok(None),
        Value::String(text) if text == NO_CONSTRAINT => Ok(None),
        Value::String(text) => Ok(Some(text.as_str())),
        _ => Err("the workspace's entry is malformed"),
    };
    let origin = match text("workspace_backend_origin")? {
        None => base.to_owned(),
        Some(origin) => {
            let origin =
                clean_origin(origin).ok_or("the workspace's origin is not an https one")?;
            match (is_loopback_origin(base), is_loopback_origin(&origin)) {
                (false, false) | (true, true) => origin,
                (false, true) => return Err("the workspace's origin is on this machine"),
                // An override replaces the public origin, wherever that is named.
                (true, false) if origin == endpoints::CHATGPT => base.to_owned(),
                (true, false) => return Err("the workspace's origin is not on this machine"),
            }
        }
    };
    let routing_override = match text("account_routing_override")? {
        None => None,
        Some("us") => Some("us"),
        Some("us_cr") => Some("us_cr"),
        Some(_) => return Err("the workspace is bound to a region that ccx does not know"),
    };
    Ok(Route {
        origin,
        routing_override,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::time::UnixSeconds;
    use std::sync::atomic::{AtomicU32, Ordering};

    const BASE: &str = "https://chatgpt.com";
    const LOOPBACK: &str = "http://127.0.0.1:9";

    fn entry(origin: &str, region: &str) -> String {
        format!(
            r#"{{"id":"a","workspace_backend_origin":{origin},"account_routing_override":{region}}}"#
        )
    }

    fn list(entries: &[String]) -> String {
        format!(r#"{{"accounts":[{}]}}"#, entries.join(","))
    }

    #[test]
    fn answers_and_what_they_mean() {
        let none = r#""NO_CONSTRAINT""#;
        let ordinary = Some((BASE, None));
        for (body, expected) in [
            (list(&[entry(none, none)]), ordinary),
            (list(&[entry("null", "null")]), ordinary),
            (r#"{"accounts":[{"account_id":"a"}]}"#.to_owned(), ordinary),
            (r#"{"accounts":{"a":{}}}"#.to_owned(), ordinary),
            (
                r#"{"accounts":{"default":{"id":"a","account_routing_override":"us_cr"}}}"#
                    .to_owned(),
                Some((BASE, Some("us_cr"))),
            ),
            (
                list(&[entry(r#""https://eu.chatgpt.com""#, r#""us""#)]),
                Some(("https://eu.chatgpt.com", Some("us"))),
            ),
            (
                list(&[r#"{"id":"b"}"#.to_owned(), entry(none, none)]),
                ordinary,
            ),
            (list(&[entry(r#""http://chatgpt.com""#, none)]), None),
            (list(&[entry(r#""https://chatgpt.com/x""#, none)]), None),
            (list(&[entry(r#""https://u:p@chatgpt.com""#, none)]), None),
            (list(&[entry(r#""http://127.0.0.1:1""#, none)]), None),
            (list(&[entry(none, r#""mars""#)]), None),
            (list(&[entry(none, "7")]), None),
            (list(&[entry(none, none), entry(none, none)]), None),
        ] {
            let found = read(BASE, "a", body.as_bytes()).expect(&body).ok();
            let found = found
                .as_ref()
                .map(|route| (route.origin.as_str(), route.routing_override));
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn an_answer_about_somebody_else_says_nothing() {
        for body in [
            "",
            "<html>",
            "{}",
            "[]",
            r#"{"accounts":null}"#,
            r#"{"accounts":[]}"#,
            r#"{"accounts":[{"id":"b"}]}"#,
            r#"{"accounts":{"b":{"id":"b"}}}"#,
        ] {
            assert_eq!(read(BASE, "a", body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn an_account_without_an_id_is_the_only_one_listed() {
        let bound = r#"{"id":"b","account_routing_override":"us"}"#.to_owned();
        let found = read(BASE, "", list(std::slice::from_ref(&bound)).as_bytes());
        let region = found.map(|route| route.map(|route| route.routing_override));
        assert_eq!(region, Some(Ok(Some("us"))));
        let several = list(&[bound.clone(), bound]);
        assert_eq!(read(BASE, "", several.as_bytes()), None);
    }

    #[test]
    fn under_a_loopback_endpoint_nothing_leaves_the_machine() {
        let none = r#""NO_CONSTRAINT""#;
        let origin = |origin: &str| {
            let body = list(&[entry(&format!("\"{origin}\""), none)]);
            read(LOOPBACK, "a", body.as_bytes())
                .unwrap()
                .map(|route| route.origin)
        };
        assert_eq!(
            origin("http://127.0.0.1:8"),
            Ok("http://127.0.0.1:8".to_owned())
        );
        assert_eq!(origin("https://chatgpt.com"), Ok(LOOPBACK.to_owned()));
        assert!(origin("https://eu.chatgpt.com").is_err());
    }

    fn credentials(token: &str) -> Credentials {
        Credentials {
            account: "1".to_owned(),
            access_token: Secret::new(token.to_owned()),
            chatgpt_account_id: "a".to_owned(),
            expires_at: UnixSeconds(0),
        }
    }

    #[tokio::test]
    async fn each_token_is_asked_about_once_and_a_failure_again_later() {
        let routes = Routes::default();
        let asked = AtomicU32::new(0);
        let start = Instant::now();
        let ask = async |token: &str, works: bool, now: Instant| {
            let question = async {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                match works {
                    true => Ok(list(&[entry("null", r#""us""#)]).into_bytes()),
                    false => Err(Failure::Cut),
                }
            };
            routes.of(&credentials(token), BASE, now, question).await
        };
        let (first, second) = tokio::join!(ask("t1", true, start), ask("t1", true, start));
        assert_eq!(first, second);
        assert_eq!(first.unwrap().routing_override, Some("us"));
        ask("t1", false, start).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1, "shared and kept");

        let route = ask("t2", false, start).await.unwrap();
        assert_eq!(
            (route.origin.as_str(), route.routing_override),
            (BASE, None)
        );
        ask("t2", true, start).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "a failure is remembered");
        let later = start + ASK_AGAIN;
        assert_eq!(
            ask("t2", true, later).await.unwrap().routing_override,
            Some("us")
        );
        assert_eq!(asked.load(Ordering::Relaxed), 3, "but not for ever");
    }
}
