//! Several accounts behind one proxy: who is asked, who rests until when, and what moves with a conversation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ccx::account::chooser::Rules;
use ccx::account::health::{Health, Note};
use ccx::account::health_file::HealthFile;
use ccx::account::store::Store;
use ccx::account::strategy::Strategy;
use ccx::catalogue::cache::Cached;
use ccx::files::places::Places;
use ccx::simulate::record::Seen;
use ccx::time::UnixSeconds;
use serde_json::{Value, json};
use support::proxy::{Answer, Proxy, now, prompt};

const TWO: [&str; 2] = ["ann", "bob"];

const FAILOVER: Rules = Rules {
    home: None,
    is_pinned: false,
    strategy: Strategy::Sticky,
    failover: true,
};

/// Answers everything with a thought and a text; `accounts` says what the accounts may do.
fn scenario(accounts: Value) -> Value {
    json!({
        "about": "accounts with limits",
        "accounts": accounts,
        "steps": [{"name": "only", "answer": [{"reasoning": ["Hm."]}, {"text": "all is well"}]}],
    })
}

/// A five-hour window with room for `requests`.
fn five_hours(requests: u64) -> Value {
    json!({"windows": [{"seconds": 18_000, "requests": requests}]})
}

/// Starts with the active account to be the first one.
fn start(accounts: Value, names: &[&str], rules: Rules) -> Proxy {
    Proxy::start_among(&scenario(accounts), names, rules, |home| {
        let store = store(home);
        let accounts = store.accounts().unwrap();
        let first = accounts
            .iter()
            .find(|record| record.email.as_deref() == Some(&format!("{}@example.com", names[0])));
        store.activate(&first.unwrap().id).unwrap();
    })
}

fn places(home: &Path) -> Places {
    Places::below(&home.join("ccx"))
}

fn store(home: &Path) -> Store {
    Store::open(&places(home)).unwrap()
}

fn health(proxy: &Proxy) -> Health {
    HealthFile::new(&places(proxy.home())).read()
}

/// ccx's id of the account called `name`.
fn id(proxy: &Proxy, name: &str) -> String {
    let email = format!("{name}@example.com");
    let accounts = store(proxy.home()).accounts().unwrap();
    let found = accounts
        .iter()
        .find(|record| record.email.as_deref() == Some(&email));
    found.unwrap().id.clone()
}

fn with_home(proxy: &Proxy, name: &str, rules: Rules) -> Rules {
    Rules {
        home: Some(id(proxy, name)),
        ..rules
    }
}

/// A conversation as the client replays it.
struct Chat {
    session: String,
    agent: String,
    model: &'static str,
    messages: Vec<Value>,
}

impl Chat {
    fn new(session: &str) -> Self {
        Self {
            session: session.to_owned(),
            agent: String::new(),
            model: "claude-opus-5-5",
            messages: Vec::new(),
        }
    }

    fn agent(session: &str, agent: &str) -> Self {
        Self {
            agent: agent.to_owned(),
            ..Self::new(session)
        }
    }

    /// Says `text` and takes the answer into the history.
    async fn say(&mut self, proxy: &Proxy, text: &str, is_stream: bool) -> Answer {
        self.messages.push(json!({"role": "user", "content": text}));
        let mut body = prompt(text, is_stream);
        body["messages"] = Value::from(self.messages.clone());
        body["model"] = self.model.into();
        let mut request = proxy
            .request("POST", "/v1/messages?beta=true")
            .header("x-claude-code-session-id", &self.session)
            .body(body.to_string());
        if !self.agent.is_empty() {
            request = request.header("x-claude-code-agent-id", &self.agent);
        }
        let answer = proxy.send(request).await;
        if answer.status == 200 {
            let content = if is_stream {
                streamed(&answer)
            } else {
                answer.json()["content"].clone()
            };
            self.messages
                .push(json!({"role": "assistant", "content": content}));
        } else {
            self.messages.pop();
        }
        answer
    }

    /// As [`Chat::say`], and the answer has to be one.
    async fn hear(&mut self, proxy: &Proxy, text: &str) {
        let answer = self.say(proxy, text, true).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.text(), "all is well", "{}", answer.body);
        assert_eq!(answer.last(), "message_stop", "{}", answer.body);
    }
}

/// The content of a streamed answer.
fn streamed(answer: &Answer) -> Value {
    let mut blocks: BTreeMap<u64, Value> = BTreeMap::new();
    for (name, data) in answer.events() {
        let at = data["index"].as_u64().unwrap_or_default();
        match name.as_str() {
            "content_block_start" => {
                blocks.insert(at, data["content_block"].clone());
            }
            "content_block_delta" => {
                let delta = data["delta"].as_object().unwrap();
                for (key, value) in delta.iter().filter(|(key, _)| *key != "type") {
                    let block = blocks.get_mut(&at).unwrap();
                    let old = block[key].as_str().unwrap_or_default().to_owned();
                    block[key] = (old + value.as_str().unwrap()).into();
                }
            }
            _ => {}
        }
    }
    blocks.into_values().collect()
}

fn reasoning(seen: &Seen) -> usize {
    let items = seen.body["input"].as_array().unwrap().iter();
    items.filter(|item| item["type"] == "reasoning").count()
}

fn asked(proxy: &Proxy, name: &str) -> usize {
    proxy.backend.asked_by(name).len()
}

fn assert_no_complaints(proxy: &Proxy) {
    assert_eq!(proxy.backend.complaints(), Vec::<String>::new());
    for seen in proxy.backend.requests() {
        assert_eq!(seen.refused, None, "{}", seen.target);
    }
}

#[tokio::test]
async fn without_failover_the_user_reads_when_it_resets_and_how_to_switch() {
    let proxy = start(json!({"ann": five_hours(1)}), &TWO, Rules::default());
    let mut chat = Chat::new("s");
    chat.hear(&proxy, "one").await;
    for is_stream in [true, false] {
        let answer = chat.say(&proxy, "two", is_stream).await;
        let (status, kind, message) = answer.error();
        assert_eq!((status, kind.as_str()), (429, "rate_limit_error"));
        assert!(
            message.contains("(5 h window, resets in 4h 59m)") || message.contains("resets in 5h)"),
            "{message}"
        );
        assert!(message.contains("bob@example.com"), "{message}");
        assert!(
            message.contains("`ccx --account bob@example.com --continue`"),
            "{message}"
        );
        assert!(message.contains("`ccx use bob@example.com`"), "{message}");
        assert!(message.contains("failover = \"on\""), "{message}");
        assert_eq!(answer.headers["x-should-retry"], "false");
    }
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (3, 0));
}

#[tokio::test]
async fn with_failover_the_turn_completes_on_the_other_account() {
    for is_stream in [true, false] {
        let proxy = start(json!({"ann": five_hours(2)}), &TWO, FAILOVER);
        let mut chat = Chat::new("s");
        chat.hear(&proxy, "one").await;
        chat.hear(&proxy, "two").await;
        let first = proxy.backend.asked_by("ann");
        assert_eq!(reasoning(&first[1]), 1, "a thought goes back to who had it");
        let answer = chat.say(&proxy, "three", is_stream).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        chat.hear(&proxy, "four").await;
        let second = proxy.backend.asked_by("bob");
        assert_eq!((asked(&proxy, "ann"), second.len()), (3, 2));
        assert_eq!(
            reasoning(&second[0]),
            0,
            "nobody is sent another's thoughts"
        );
        assert_eq!(second[0].header("x-codex-turn-state"), None);
        assert_eq!(reasoning(&second[1]), 1, "but its own");
        assert_no_complaints(&proxy);
        let (entries, _) = proxy.finished(4).await;
        let hops: Vec<u32> = entries.iter().map(|entry| entry.hops).collect();
        assert_eq!(hops, [0, 0, 1, 0]);
        assert!(entries[2].cache_lost > 0 && entries[1].cache_lost == 0);
        assert_eq!(entries[2].attempts, 2);
        assert_eq!(entries[2].account, id(&proxy, "bob"));
        assert!(entries[2].losses.contains(&"thinking"), "{entries:?}");
    }
}

#[tokio::test]
async fn a_limit_inside_a_stream_moves_as_well() {
    let mut text = scenario(json!({}));
    let limit = json!({"failed": {"code": "usage_limit_reached", "message": "no more"}});
    text["steps"] = json!([
        {"name": "limit", "times": 1, "answer": [limit]},
        {"name": "then", "answer": [{"text": "all is well"}]},
    ]);
    let proxy = Proxy::start_among(&text, &TWO, FAILOVER, |_| {});
    Chat::new("s").hear(&proxy, "one").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (1, 1));
    assert_eq!(proxy.finished(1).await.0[0].hops, 1);
}

#[tokio::test]
async fn what_was_committed_is_never_moved() {
    let mut text = scenario(json!({}));
    let limit = json!({"failed": {"code": "usage_limit_reached", "message": "no more"}});
    text["steps"] = json!([{"name": "late", "answer": [{"text": "half of it"}, limit]}]);
    let proxy = Proxy::start_among(&text, &TWO, FAILOVER, |_| {});
    let answer = Chat::new("s").say(&proxy, "one", true).await;
    assert_eq!(answer.last(), "error", "{}", answer.body);
    assert_eq!(asked(&proxy, "ann") + asked(&proxy, "bob"), 1);
}

#[tokio::test]
async fn a_pinned_session_never_moves() {
    let mut proxy = start(json!({"ann": five_hours(1)}), &TWO, FAILOVER);
    let pinned = Rules {
        is_pinned: true,
        ..with_home(&proxy, "ann", FAILOVER)
    };
    proxy.restart(pinned);
    let mut chat = Chat::new("s");
    chat.hear(&proxy, "one").await;
    for _ in 0..3 {
        let (status, _, message) = chat.say(&proxy, "two", true).await.error();
        assert_eq!(status, 429);
        assert!(message.contains("pinned to its account"), "{message}");
    }
    // Nothing here locks the account: upstream was asked each time.
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (4, 0));
    proxy.backend.refill("ann", 0);
    chat.hear(&proxy, "three").await;
}

#[tokio::test]
async fn all_used_up_is_one_error_with_the_earliest_reset() {
    let accounts = json!({
        "ann": {"windows": [{"seconds": 604_800, "requests": 1}]},
        "bob": {"windows": [{"seconds": 7_200, "requests": 1}]},
    });
    let proxy = start(accounts, &TWO, FAILOVER);
    let mut chat = Chat::new("s");
    chat.hear(&proxy, "one").await;
    chat.hear(&proxy, "two").await;
    let answer = chat.say(&proxy, "three", true).await;
    let (status, _, message) = answer.error();
    assert_eq!(status, 429);
    assert!(message.contains("None of the 2 accounts"), "{message}");
    assert!(
        message.contains("the first is bob@example.com"),
        "{message}"
    );
    assert!(
        message.contains("resets in 1h 59m") || message.contains("resets in 2h"),
        "{message}"
    );
    let wait: u64 = answer.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((7_190..=7_200).contains(&wait), "{wait}");
    let before = asked(&proxy, "ann") + asked(&proxy, "bob");
    assert_eq!(before, 4, "each was asked once too often, and no more");
    // Asked again at once: upstream is left alone.
    for _ in 0..3 {
        let answer = chat.say(&proxy, "four", true).await;
        assert_eq!(answer.error().0, 429);
        assert_eq!(answer.headers["x-should-retry"], "false");
    }
    assert_eq!(asked(&proxy, "ann") + asked(&proxy, "bob"), before);
    // Upstream gives quota back before the time: that is found out within a minute.
    proxy.backend.refill("bob", 0);
    proxy.advance(Duration::from_secs(61));
    chat.hear(&proxy, "five").await;
    let (bob, at) = (id(&proxy, "bob"), UnixSeconds(now().0 + 61));
    let rests = || health(&proxy).cooling_until(&bob, "gpt-6.1-sol", at);
    until("the rest is over on disk too", || rests().is_none()).await;
    assert_no_complaints(&proxy);
}

#[tokio::test]
async fn a_rest_survives_a_restart_and_ends_by_the_clock() {
    let mut proxy = start(json!({"ann": five_hours(1)}), &TWO, FAILOVER);
    let mut chat = Chat::new("s");
    chat.hear(&proxy, "one").await;
    chat.hear(&proxy, "two").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (2, 1));
    proxy.restart(FAILOVER);
    Chat::new("new").hear(&proxy, "one").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (2, 2));
    let ann = id(&proxy, "ann");
    let rest = health(&proxy).accounts[&ann].cooldowns[0].clone();
    assert_eq!(rest.window_seconds, Some(18_000));
    proxy.advance(Duration::from_secs(17_000));
    Chat::new("early").hear(&proxy, "one").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (2, 3));
    proxy.advance(Duration::from_secs(1_100));
    Chat::new("late").hear(&proxy, "one").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (3, 3));
    // A conversation that has moved stays where its cache is now.
    chat.hear(&proxy, "three").await;
}

#[tokio::test]
async fn a_rest_is_over_when_another_program_learns_that_quota_is_back() {
    let proxy = start(json!({"ann": five_hours(1)}), &TWO, FAILOVER);
    let mut chat = Chat::new("s");
    chat.hear(&proxy, "one").await;
    chat.hear(&proxy, "two").await;
    proxy.backend.refill("ann", 0);
    // As a command does that has asked the usage endpoint.
    let restored = Note::Restored {
        at: UnixSeconds(now().0 + 1),
    };
    let ann = id(&proxy, "ann");
    let file = HealthFile::new(&places(proxy.home()));
    file.change(|health| health.apply(&ann, &restored)).unwrap();
    Chat::new("new").hear(&proxy, "one").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (3, 1));
}

#[tokio::test]
async fn credits_go_on_where_the_plan_ends() {
    let ann = json!({"windows": [{"seconds": 18_000, "requests": 1}], "credits": 2});
    let proxy = start(json!({"ann": ann}), &TWO, FAILOVER);
    let mut chat = Chat::new("s");
    for text in ["one", "two", "three"] {
        chat.hear(&proxy, text).await;
    }
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (3, 0));
    chat.hear(&proxy, "four").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (4, 1));
}

#[tokio::test]
async fn a_request_that_is_badly_made_marks_nobody() {
    let mut text = scenario(json!({}));
    let refusal = |status: u16, body: Value| json!({"status": status, "body": body});
    let detail = json!({"detail": "Unsupported parameter: foo"});
    let too_long = json!({"error": {"code": "context_length_exceeded", "message": "too long"}});
    text["steps"] = json!([
        {"name": "a", "times": 1, "reply": refusal(400, detail.clone())},
        {"name": "b", "times": 1, "reply": refusal(422, detail)},
        {"name": "c", "times": 1, "reply": refusal(400, too_long)},
        {"name": "then", "answer": [{"text": "all is well"}]},
    ]);
    let proxy = Proxy::start_among(&text, &TWO, FAILOVER, |_| {});
    let mut chat = Chat::new("s");
    for _ in 0..3 {
        assert_eq!(chat.say(&proxy, "one", true).await.error().0, 400);
    }
    chat.hear(&proxy, "two").await;
    let (one, other) = (asked(&proxy, "ann"), asked(&proxy, "bob"));
    assert_eq!((one.max(other), one.min(other)), (4, 0));
    let known = health(&proxy);
    for standing in known.accounts.values() {
        assert_eq!(standing.cooldowns, []);
        assert_eq!(standing.last_error, None);
    }
}

/// Waits until something is so that happens in the background.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, waiting).await.expect(what);
}

#[tokio::test]
async fn a_conversation_moves_only_to_who_lists_its_model() {
    let names = ["ann", "bob", "cat"];
    let bob = json!({"models": ["gpt-5.5"]});
    let mut proxy = start(json!({"ann": five_hours(1), "bob": bob}), &names, FAILOVER);
    proxy.restart(with_home(&proxy, "ann", FAILOVER));
    let (bob, cache) = (id(&proxy, "bob"), places(proxy.home()).cache);
    let is_listed = || Cached::load(&cache, &bob).is_some();
    until("bob's list is fetched", is_listed).await;
    let mut chat = Chat::new("s");
    chat.hear(&proxy, "one").await;
    chat.hear(&proxy, "two").await;
    let counts = names.map(|name| asked(&proxy, name));
    assert_eq!(counts, [2, 0, 1], "bob's plan does not have the model");
    assert_no_complaints(&proxy);
}

#[tokio::test]
async fn a_stale_list_costs_one_more_attempt_elsewhere() {
    let refused = json!({"refused": ["gpt-6.1-sol"]});
    let proxy = start(json!({"ann": refused}), &TWO, FAILOVER);
    let mut chat = Chat::new("s");
    chat.hear(&proxy, "one").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (1, 1));
    // It is remembered, and the account serves other models as before.
    Chat::new("new").hear(&proxy, "one").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (1, 2));
    let mut other = Chat::new("other");
    other.model = "gpt-5.5";
    other.hear(&proxy, "one").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (2, 2));

    // Where nobody serves it, it is told after two.
    let all = json!({"ann": refused, "bob": refused, "cat": refused});
    let proxy = start(all, &["ann", "bob", "cat"], FAILOVER);
    let (status, _, message) = Chat::new("s").say(&proxy, "one", true).await.error();
    assert_eq!(status, 404, "{message}");
    assert_eq!(proxy.finished(1).await.0[0].attempts, 2);
}

#[tokio::test]
async fn subagents_spread_and_the_main_conversation_stays() {
    let rules = Rules {
        strategy: Strategy::RoundRobin,
        failover: false,
        ..FAILOVER
    };
    let proxy = start(json!({}), &TWO, rules);
    let mut main = Chat::new("s");
    main.hear(&proxy, "one").await;
    let first = if asked(&proxy, "ann") == 1 {
        "ann"
    } else {
        "bob"
    };
    for number in 0..4 {
        let mut agent = Chat::agent("s", &format!("agent-{number}"));
        agent.hear(&proxy, "look").await;
        agent.hear(&proxy, "look closer").await;
    }
    main.hear(&proxy, "two").await;
    main.hear(&proxy, "three").await;
    // Three turns of the main conversation and two of four agents.
    assert_eq!(asked(&proxy, first), 3 + 4);
    assert_eq!(asked(&proxy, "ann") + asked(&proxy, "bob"), 3 + 8);
    assert_no_complaints(&proxy);

    // Sticky: they stay with the session.
    let proxy = start(json!({}), &TWO, FAILOVER);
    Chat::new("s").hear(&proxy, "one").await;
    for agent in ["a", "b", "c"] {
        Chat::agent("s", agent).hear(&proxy, "look").await;
    }
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (4, 0));
}

#[tokio::test]
async fn most_remaining_tries_the_new_account_and_then_the_fuller_one() {
    let rules = Rules {
        strategy: Strategy::MostRemaining,
        ..FAILOVER
    };
    let accounts = json!({"ann": five_hours(10), "bob": five_hours(2)});
    let proxy = start(accounts, &TWO, rules);
    let mut counts = Vec::new();
    for number in 0..5 {
        Chat::new(&format!("s{number}")).hear(&proxy, "one").await;
        counts.push((asked(&proxy, "ann"), asked(&proxy, "bob")));
    }
    // Both are tried; then ann has 90 % left and bob 50 %.
    assert_eq!((counts[1].0, counts[1].1), (1, 1), "{counts:?}");
    assert_eq!(counts[4], (4, 1), "{counts:?}");
}

#[tokio::test]
async fn an_account_that_was_signed_out_is_passed_over_and_one_that_was_removed_is_left() {
    let proxy = start(json!({}), &TWO, FAILOVER);
    let mut chat = Chat::new("s");
    chat.hear(&proxy, "one").await;
    assert_eq!((asked(&proxy, "ann"), asked(&proxy, "bob")), (1, 0));
    // The Codex login of ann, read again, is no newer: there is no other token to be had for anybody.
    let store = store(proxy.home());
    store.remove(&id(&proxy, "ann")).unwrap();
    proxy.backend.expire_access();
    let (status, _, message) = chat.say(&proxy, "two", true).await.error();
    assert_eq!(status, 401, "{message}");
    assert!(!message.contains("--account"), "{message}");
}
