//! Serves one backend: which path is answered by whom, and what is noted of each request.
//!
//! Decisions are taken elsewhere (`check`, `issuer`, `script`, `stream`); this reads the request,
//! asks them in order and writes down what they said.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::asked::Asked;
use super::backend::{Shared, State};
use super::check::{Refusal, check_with};
use super::forge::Account;
use super::issuer::{Grant, NotTaken};
use super::models::{ETAG, Models};
use super::play::{Note, Play};
use super::record::{Outcome, Seen, without_credentials};
use super::scenario::{Pacing, Reply, Window};
use super::script::{Ending, Form, Piece};
use super::seal;
use super::sign_in;
use super::stream::{Heading, beats};
use super::usage::Tokens;

/// Largest body that is read: more than the proxy takes from its client, so that a proxy that
/// passes on too much is noticed by its own limit.
const BODY_LIMIT: usize = 128 << 20;

const TURN_STATE: &str = "x-codex-turn-state";

const LITE_HEADER: &str = "x-openai-internal-codex-responses-lite";

type Answer = Response<Either<Full<Bytes>, Play>>;

/// What serving needs beside the request; one for each backend.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) models: Models,
}

/// An answer that is decided but not yet under way.
#[derive(Debug)]
struct Decided {
    step: Option<String>,
    refused: Option<String>,
    pacing: Pacing,
    what: What,
}

#[derive(Debug)]
enum What {
    Whole(Reply),
    Stream {
        response_id: String,
        model: String,
        tokens: Tokens,
        headers: Vec<(String, String)>,
        pieces: Vec<Piece>,
    },
}

impl From<Reply> for Decided {
    fn from(reply: Reply) -> Self {
        Self {
            step: None,
            refused: None,
            pacing: Pacing::default(),
            what: What::Whole(reply),
        }
    }
}

impl From<Refusal> for Decided {
    fn from(refusal: Refusal) -> Self {
        Self {
            refused: Some(refusal.to_string()),
            ..Self::from(Reply {
                status: refusal.status,
                headers: refusal
                    .headers
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                body: refusal.body,
            })
        }
    }
}

impl From<Grant> for Decided {
    fn from(grant: Grant) -> Self {
        Self::from(Reply {
            status: grant.status,
            headers: Default::default(),
            body: grant.body,
        })
    }
}

impl Service {
    /// Answers one request.
    pub(super) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Answer, Infallible> {
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            // The peer left, or sends more than anybody should: nobody waits for an answer.
            Err(_) => {
                return Ok(whole(&Reply {
                    status: 413,
                    ..ok(json!({"detail": "Request body too large"}))
                }));
            }
        };
        let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let path = head.uri.path().to_owned();
        let (ordinal, decided) = {
            let mut state = self.shared.lock();
            let mut account = None;
            let decided = self.decide(&mut state, &head, &path, &body, &json, &mut account);
            let seen = Seen {
                ordinal: 0,
                method: head.method.to_string(),
                target: head
                    .uri
                    .path_and_query()
                    .map_or_else(|| path.clone(), ToString::to_string),
                headers: without_credentials(&head.headers),
                body: Arc::new(kept_body(&path, json)),
                body_bytes: body.len(),
                account,
                status: match &decided.what {
                    What::Whole(reply) => reply.status,
                    What::Stream { .. } => 200,
                },
                step: decided.step.clone(),
                refused: decided.refused.clone(),
                at: self.shared.since_start(),
                ended: None,
                outcome: Outcome::Open,
            };
            (state.record.add(seen), decided)
        };
        self.shared.tell();
        // From here on, whoever drops the answer ends it.
        let mut note = Note::new(Arc::clone(&self.shared), ordinal);
        if decided.pacing.accept_ms > 0 {
            tokio::time::sleep(Duration::from_millis(decided.pacing.accept_ms)).await;
        }
        Ok(match decided.what {
            What::Whole(reply) => {
                let answer = whole(&reply);
                note.sent();
                answer
            }
            What::Stream {
                response_id,
                model,
                tokens,
                headers,
                pieces,
            } => {
                let heading = Heading {
                    response_id: &response_id,
                    model: &model,
                    created_at: self.shared.now(),
                    tokens,
                };
                let beats = beats(&heading, decided.pacing, &pieces);
                let mut answer = Response::new(Either::Right(Play::new(beats, note)));
                set_headers(answer.headers_mut(), &headers);
                answer
            }
        })
    }

    fn decide(
        &self,
        state: &mut State,
        head: &http::request::Parts,
        path: &str,
        body: &[u8],
        json: &Value,
        who: &mut Option<String>,
    ) -> Decided {
        if let Some(reply) = state.script.route(path, self.shared.now()) {
            return Decided::from(reply);
        }
        let method = head.method.as_str();
        match (method, path) {
            ("POST", "/oauth/token") => {
                let now = self.shared.now();
                return state
                    .issuer
                    .token(|name| field(body, json, name), now)
                    .into();
            }
            ("POST", "/oauth/revoke") => {
                return state.issuer.revoke(|name| field(body, json, name)).into();
            }
            _ => {}
        }
        let query_of = |name: &str| query(head.uri.query().unwrap_or_default(), name);
        let asked = sign_in::Asked {
            method,
            path,
            query: head.uri.query().unwrap_or_default(),
            value: &query_of,
            field: &|name| field(body, json, name),
        };
        if let Some(reply) = sign_in::answer(&mut state.issuer, &asked, self.shared.now()) {
            return reply.into();
        }
        let account = match self.admit(state, &head.headers) {
            Ok(account) => account,
            Err(refusal) => return refusal.into(),
        };
        *who = Some(account.name.clone());
        let known = |body: Value| Decided::from(ok(body));
        match (method, path) {
            ("POST", "/backend-api/codex/responses") => {
                self.respond(state, &head.headers, &account, json)
            }
            ("GET", "/backend-api/codex/models") => {
                let version = query(head.uri.query().unwrap_or_default(), "client_version");
                let is_listed = |slug: &str| state.limits.model(&account, slug).0;
                let mut reply = ok(self.models.answer(version.as_deref(), is_listed));
                reply.headers.insert("etag".to_owned(), ETAG.to_owned());
                reply.into()
            }
            ("GET", "/backend-api/wham/accounts/check") => known(json!({
                "accounts": [account.routing_entry()],
                "default_account_id": account.chatgpt_account_id,
                "account_ordering": [account.chatgpt_account_id],
            })),
            ("GET", "/backend-api/wham/usage") => {
                let now = self.shared.now();
                let mut body = usage(&account, now.0);
                state.limits.tell(&account, now, &mut body);
                known(body)
            }
            ("GET", "/backend-api/wham/settings/user") => known(json!({})),
            _ => Refusal::detail(404, "Not Found").into(),
        }
    }

    /// Finds whose request this is.
    fn admit(&self, state: &State, headers: &HeaderMap) -> Result<Account, Refusal> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let token = text(AUTHORIZATION.as_str())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| Refusal::detail(401, "Unauthorized"))?;
        let account_id = text("chatgpt-account-id");
        state
            .issuer
            .admit(token, account_id, self.shared.now())
            .cloned()
            .map_err(|why| match why {
                NotTaken::Unreadable => Refusal::detail(401, "Unauthorized"),
                NotTaken::Expired => Refusal::token_expired(),
                NotTaken::Stranger => Refusal::detail(403, "Forbidden"),
            })
    }

    fn respond(
        &self,
        state: &mut State,
        headers: &HeaderMap,
        account: &Account,
        body: &Value,
    ) -> Decided {
        let lite = headers
            .get(LITE_HEADER)
            .is_some_and(|value| value == "true");
        let checked = self
            .check_headers(headers, body)
            .and_then(|()| check_with(&self.models, lite, body))
            .and_then(|()| check_seals(&account.chatgpt_account_id, body));
        if let Err(refusal) = checked {
            if let Some(owner) = self.foreign_seal(state, account, body) {
                let name = &account.name;
                state.complain(format!(
                    "reasoning that was sealed for account {owner} arrived under {name}"
                ));
            }
            return refusal.into();
        }
        let model = body["model"].as_str().unwrap_or_default();
        if !state.limits.model(account, model).1 {
            return Refusal::detail(
                400,
                format!(
                    "The '{model}' model is not supported when using Codex with a ChatGPT account."
                ),
            )
            .into();
        }
        if let Err(reply) = state.limits.admit(account, self.shared.now()) {
            return reply.into();
        }
        let asked = Asked::read(body);
        if let Err(refusal) = check_turn(headers, &asked) {
            return refusal.into();
        }
        let tokens = state.cache.admit(body);
        if let Some(window) = state.script.overflows(model, tokens.input) {
            return overflow(window, &asked);
        }
        match state
            .script
            .answer(&asked, &account.chatgpt_account_id, self.shared.now())
        {
            Err(complaint) => {
                let words = complaint.to_string();
                state.complain(words.clone());
                Refusal::invalid("simulator", "scenario", words).into()
            }
            Ok(planned) => Decided {
                step: Some(planned.step),
                refused: None,
                pacing: planned.pacing,
                what: match planned.form {
                    Form::Reply(reply) => What::Whole(reply),
                    Form::Stream {
                        response_id,
                        headers,
                        pieces,
                    } => What::Stream {
                        headers: stream_headers(&asked, account, self.shared.now().0)
                            .into_iter()
                            .chain(state.limits.headers(account, self.shared.now()))
                            .filter(|(name, _)| !headers.contains_key(name))
                            .chain(headers.clone())
                            .collect(),
                        response_id,
                        model: asked.model,
                        tokens: Tokens {
                            input: planned.usage.input.unwrap_or(tokens.input),
                            cached: planned.usage.cached.unwrap_or(tokens.cached),
                            ..tokens
                        },
                        pieces,
                    },
                },
            },
        }
    }

    /// Returns the other account that made a piece of encrypted reasoning in `body`, if one did.
    fn foreign_seal(&self, state: &State, account: &Account, body: &Value) -> Option<String> {
        let items = body["input"].as_array()?.iter();
        let sealed: Vec<&str> = items
            .filter_map(|item| item["encrypted_content"].as_str())
            .collect();
        let is_by = |other: &&Account| {
            let id = other.chatgpt_account_id.as_str();
            let is_one = |sealed: &&str| {
                let mut models = self.models.all();
                models.any(|model| seal::is_intact(id, model.slug(), sealed))
            };
            other.chatgpt_account_id != account.chatgpt_account_id && sealed.iter().any(is_one)
        };
        let found = state.limits.accounts().find(is_by)?;
        Some(found.name.clone())
    }

    /// What the real backend looks at before it reads the body (contract §2.1, §8).
    fn check_headers(&self, headers: &HeaderMap, body: &Value) -> Result<(), Refusal> {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        if !text(CONTENT_TYPE.as_str()).starts_with("application/json") {
            return Err(Refusal::detail(415, "Unsupported media type"));
        }
        if !matches!(text("content-encoding"), "" | "identity") {
            return Err(Refusal::detail(
                415,
                "the simulator reads plain bodies only",
            ));
        }
        // Luna is served to clients that look like Codex only.
        let slug = body["model"].as_str().unwrap_or_default();
        let is_lite_only = self
            .models
            .get(slug)
            .is_some_and(|model| model.is_lite_only());
        let is_codex = |name: &str| text(name).starts_with("codex");
        if is_lite_only && !(is_codex("originator") && is_codex("user-agent")) {
            return Err(Refusal::detail(404, format!("Model not found {slug}")));
        }
        Ok(())
    }
}

/// Refuses a request that is longer than `window`.
fn overflow(window: &Window, asked: &Asked) -> Decided {
    if let Some(error) = &window.failed {
        return Decided {
            what: What::Stream {
                response_id: "resp_overflow".to_owned(),
                model: asked.model.clone(),
                tokens: Tokens::default(),
                headers: vec![("content-type".to_owned(), "text/event-stream".to_owned())],
                pieces: vec![Piece::Ending(Ending::Failed(error.clone()))],
            },
            ..Decided::from(ok(Value::Null))
        };
    }
    match &window.reply {
        Some(reply) => reply.clone().into(),
        None => Refusal::invalid(
            "context_length_exceeded",
            "input",
            "Your input exceeds the context window of this model.",
        )
        .into(),
    }
}

/// Encrypted reasoning must be ours, of this account and model, and unchanged.
fn check_seals(account: &str, body: &Value) -> Result<(), Refusal> {
    let model = body["model"].as_str().unwrap_or_default();
    for item in body["input"].as_array().into_iter().flatten() {
        if item["type"] == "reasoning"
            && let Some(encrypted) = item["encrypted_content"].as_str()
            && !seal::is_intact(account, model, encrypted)
        {
            return Err(Refusal::invalid(
                "invalid_encrypted_content",
                "input",
                format!(
                    "The encrypted content for item {} could not be verified.",
                    item["id"].as_str().unwrap_or("(no id)")
                ),
            ));
        }
    }
    Ok(())
}

/// What upstream calls a turn: the same for all its requests.
fn turn_state(asked: &Asked) -> String {
    format!("turn-{}-{}", asked.conversation, asked.turn)
}

/// A turn's state belongs to that turn (contract §2.1). It may be missing.
fn check_turn(headers: &HeaderMap, asked: &Asked) -> Result<(), Refusal> {
    match headers.get(TURN_STATE) {
        Some(state) if *state != *turn_state(asked) => Err(Refusal::invalid(
            "simulator",
            TURN_STATE,
            "the turn state is that of another turn",
        )),
        _ => Ok(()),
    }
}

/// The headers of a stream's answer (contract §2.3).
fn stream_headers(asked: &Asked, account: &Account, now: u64) -> Vec<(String, String)> {
    [
        ("content-type", "text/event-stream".to_owned()),
        ("x-codex-plan-type", account.plan.clone()),
        ("x-codex-active-limit", "codex".to_owned()),
        ("x-codex-primary-used-percent", "12.5".to_owned()),
        ("x-codex-primary-window-minutes", "300".to_owned()),
        ("x-codex-primary-reset-at", (now + 9000).to_string()),
        ("x-codex-primary-reset-after-seconds", "9000".to_owned()),
        ("x-codex-secondary-used-percent", "40".to_owned()),
        ("x-codex-secondary-window-minutes", "10080".to_owned()),
        ("x-codex-secondary-reset-at", (now + 300_000).to_string()),
        ("x-codex-credits-has-credits", "True".to_owned()),
        ("x-codex-credits-unlimited", "False".to_owned()),
        ("x-codex-credits-balance", "9.99".to_owned()),
        ("x-reasoning-included", "true".to_owned()),
        ("openai-model", asked.model.clone()),
        ("x-models-etag", ETAG.to_owned()),
        ("x-request-id", format!("req_simulated_{}", asked.items)),
        (TURN_STATE, turn_state(asked)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// The answer of `wham/usage`; the same limits as in the headers (contract §9.2).
fn usage(account: &Account, now: u64) -> Value {
    json!({
        "plan_type": account.plan,
        "email": account.email,
        "user_id": account.user_id,
        "account_id": account.chatgpt_account_id,
        "rate_limit": {
            "allowed": true,
            "limit_reached": false,
            "primary_window": {
                "used_percent": 12.5,
                "limit_window_seconds": 18_000,
                "reset_after_seconds": 9000,
                "reset_at": now + 9000,
            },
            "secondary_window": {
                "used_percent": 40,
                "limit_window_seconds": 604_800,
                "reset_after_seconds": 300_000,
                "reset_at": now + 300_000,
            },
        },
        "code_review_rate_limit": null,
        "additional_rate_limits": null,
        "credits": {
            "has_credits": true,
            "unlimited": false,
            "overage_limit_reached": false,
            "balance": "9.99",
        },
        "spend_control": {"reached": false, "individual_limit": null},
        "rate_limit_reached_type": null,
        "rate_limit_reset_credits": {"available_count": 0},
    })
}

fn ok(body: Value) -> Reply {
    Reply {
        status: 200,
        headers: Default::default(),
        body,
    }
}

fn whole(reply: &Reply) -> Answer {
    let (kind, body) = match &reply.body {
        Value::String(text) if text.trim_start().starts_with('<') => ("text/html", text.clone()),
        Value::String(text) => ("text/plain", text.clone()),
        Value::Null => ("text/plain", String::new()),
        json => ("application/json", json.to_string()),
    };
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *answer.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers: Vec<(String, String)> = std::iter::once(("content-type", kind))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(reply.headers.clone())
        .collect();
    set_headers(answer.headers_mut(), &headers);
    answer
}

/// Sets each header; a later one of the same name counts, one that HTTP cannot carry is left out.
fn set_headers(map: &mut HeaderMap, headers: &[(String, String)]) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(name.as_bytes()),
            http::HeaderValue::from_str(value),
        ) {
            map.insert(name, value);
        }
    }
}

/// A field of a JSON body, or of a form.
fn field(body: &[u8], json: &Value, name: &str) -> Option<String> {
    match json {
        Value::Object(map) => map.get(name)?.as_str().map(str::to_owned),
        _ => query(std::str::from_utf8(body).ok()?, name),
    }
}

fn query(pairs: &str, name: &str) -> Option<String> {
    reqwest::Url::parse(&format!("http://form/?{pairs}"))
        .ok()?
        .query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// Tokens of the issuer's requests are not kept.
fn kept_body(path: &str, mut json: Value) -> Value {
    if (path.starts_with("/oauth/") || path.starts_with("/api/accounts/deviceauth/"))
        && let Value::Object(map) = &mut json
    {
        for name in [
            "refresh_token",
            "token",
            "code",
            "code_verifier",
            "device_auth_id",
        ] {
            if let Some(value) = map.get_mut(name) {
                *value = Value::from("(redacted)");
            }
        }
    }
    json
}
