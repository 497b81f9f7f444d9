//! What is sent to the issuer, and what becomes of answers that are none.

use std::time::Duration;

use ccx::oauth::exchange::{Exchange, ExchangeError, RefreshReason, Tokens};
use ccx::upstream::connections::Connections;
use serde_json::{Value, json};

use crate::issuer::{Gate, Issuer, Reply, tokens};
use crate::support::{exchange, secret};

async fn refresh(reply: Reply) -> Result<Tokens, ExchangeError> {
    let issuer = Issuer::always(reply);
    exchange(&issuer)
        .refresh(&secret("rt-0"), RefreshReason::ProactiveExpiry)
        .await
}

#[tokio::test]
async fn the_request_is_the_recorded_one() {
    for (reason, recorded) in [
        (
            RefreshReason::ProactiveExpiry,
            include_str!("../fixtures/codex/auth/refresh-request-proactive.json"),
        ),
        (
            RefreshReason::UnauthorizedRecovery,
            include_str!("../fixtures/codex/auth/refresh-request-after-401.json"),
        ),
    ] {
        let recorded: Value = serde_json::from_str(recorded).unwrap();
        let issuer = Issuer::always(tokens(1));
        exchange(&issuer)
            .refresh(&secret("rt_forged_0001"), reason)
            .await
            .unwrap();
        let request = issuer.requests().remove(0);
        assert_eq!(request.line, "POST /oauth/token HTTP/1.1");
        assert_eq!(request.body, recorded["body"]);
        let has = |line: &str| request.headers.iter().any(|header| header == line);
        assert!(has("content-type: application/json"), "{request:?}");
        assert!(
            has(concat!("user-agent: ccx/", env!("CARGO_PKG_VERSION"))),
            "{request:?}"
        );
        assert!(has("originator: ccx"), "{request:?}");
    }
}

#[tokio::test]
async fn tokens_come_back() {
    assert_eq!(
        refresh(tokens(1)).await,
        Ok(Tokens {
            access_token: secret("at-1"),
            refresh_token: Some(secret("rt-1")),
            id_token: Some(secret("opaque")),
            expires_in: Some(Duration::from_secs(864_000)),
        })
    );
}

#[tokio::test]
async fn answers_that_are_none_are_not_final() {
    let status = |status| ExchangeError::Status { status, code: None };
    let malformed = |what| ExchangeError::Malformed { what };
    let html = "<!doctype html><title>502</title>".to_owned();
    for (reply, expected) in [
        (Reply::Text(502, html.clone()), status(502)),
        (Reply::Text(200, html), malformed("not the JSON of tokens")),
        (
            Reply::Text(200, String::new()),
            malformed("not the JSON of tokens"),
        ),
        (
            Reply::json(200, json!({"access_token": ""})),
            malformed("no access token"),
        ),
        (
            Reply::Text(200, " ".repeat(300 * 1024)),
            malformed("too long"),
        ),
        (Reply::Text(429, String::new()), status(429)),
        // Following it would hand the refresh token to whoever the address names.
        (
            Reply::Header(307, "location: /elsewhere".to_owned()),
            status(307),
        ),
    ] {
        let shown = format!("{reply:?}").chars().take(60).collect::<String>();
        assert_eq!(refresh(reply).await, Err(expected), "{shown}");
    }
    for reply in [
        Reply::Close,
        Reply::Raw(b"not http at all".to_vec()),
        Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access_".to_vec()),
    ] {
        let shown = format!("{reply:?}");
        assert_eq!(
            refresh(reply).await,
            Err(ExchangeError::Unreachable {
                what: "the connection broke"
            }),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn an_issuer_that_is_not_there_is_told() {
    let issuer = Issuer::always(Reply::Close);
    let exchange = exchange(&issuer);
    drop(issuer);
    // The listener goes with its thread; until then a connection closes without an answer.
    let error = exchange
        .refresh(&secret("rt-0"), RefreshReason::ProactiveExpiry)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ExchangeError::Unreachable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_issuer_that_says_nothing_is_left() {
    let gate = Gate::default();
    let issuer = Issuer::start({
        let gate = gate.clone();
        move |_, _| {
            gate.wait();
            Reply::Close
        }
    });
    let error = exchange(&issuer)
        .within(Duration::from_millis(50))
        .refresh(&secret("rt-0"), RefreshReason::ProactiveExpiry)
        .await;
    gate.open();
    assert_eq!(
        error,
        Err(ExchangeError::Unreachable {
            what: "no answer in time"
        })
    );
}

#[tokio::test]
async fn connections_of_its_own_are_made_on_first_use() {
    let issuer = Issuer::start(|number, _| match number {
        0 => tokens(1),
        _ => Reply::Header(307, "location: /elsewhere".to_owned()),
    });
    let connections = Connections::new(&issuer.origin).unwrap();
    let exchange = Exchange::new(&format!("{}/", issuer.origin), connections);
    for expected in [
        Ok(()),
        Err(ExchangeError::Status {
            status: 307,
            code: None,
        }),
    ] {
        let outcome = exchange
            .refresh(&secret("rt-0"), RefreshReason::ProactiveExpiry)
            .await;
        assert_eq!(outcome.map(drop), expected);
    }
    assert_eq!(issuer.requests()[0].line, "POST /oauth/token HTTP/1.1");
    assert_eq!(issuer.count(), 2);
}

#[tokio::test]
async fn an_issuer_that_does_not_speak_tls_gets_nothing() {
    let issuer = Issuer::start(|_, _| unreachable!("it cannot be read"));
    let origin = issuer.origin.replace("http:", "https:");
    let outcome = Exchange::new(&origin, Connections::new(&origin).unwrap())
        .within(Duration::from_secs(5))
        .refresh(&secret("rt-0"), RefreshReason::ProactiveExpiry)
        .await;
    assert!(
        matches!(outcome, Err(ExchangeError::Unreachable { .. })),
        "{outcome:?}"
    );
}
