//! The broker: who renews, how often, and what is used when it fails.

use std::sync::Arc;
use std::time::Duration;

use ccx::account::broker::{Broker, SignInError};
use ccx::account::credentials::Credentials;
use ccx::account::record::{DeadReason, Death, Source};
use ccx::error::Kind;
use ccx::oauth::exchange::{Exchange, ExchangeError};
use ccx::time::UnixSeconds;
use serde_json::json;

use crate::issuer::{Gate, Issuer, Reply, tokens};
use crate::support::{Home, NOW, account, client, exchange, jwt, open, secret};

fn token(credentials: &Credentials) -> &str {
    credentials.access_token.expose()
}

/// What upstream would have refused.
fn refused(home: &Home, access_token: &str) -> Credentials {
    let mut credentials = home.store.accounts().unwrap()[0].credentials();
    credentials.access_token = secret(access_token);
    credentials
}

#[tokio::test]
async fn a_fresh_token_comes_from_memory() {
    let home = Home::ending_in(864_000);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    let first = broker.credentials(None).await.unwrap();
    assert_eq!(first, account("ann", NOW + 864_000).credentials());
    std::fs::remove_dir_all(home.root.path()).unwrap();
    assert_eq!(broker.credentials(None).await.unwrap(), first);
    assert_eq!(issuer.count(), 0);
}

#[tokio::test]
async fn an_ending_token_is_renewed_and_saved_before_it_is_used() {
    for left in [299, 1, 0] {
        let home = Home::ending_in(left);
        let issuer = Issuer::rotating();
        let credentials = home.broker(&issuer).credentials(None).await.unwrap();
        assert_eq!(token(&credentials), "at-1");
        assert_eq!(
            issuer.requests()[0].body["refresh_reason"],
            "proactive_expiry"
        );
        let stored = home.stored();
        assert_eq!(stored.credentials(), credentials);
        assert_eq!(stored.refresh_token, Some(secret("rt-1")));
        assert_eq!(stored.expires_at, Some(UnixSeconds(NOW + 864_000)));
        assert_eq!(stored.renewed_at, Some(UnixSeconds(NOW)));
    }
}

#[tokio::test]
async fn time_that_passes_ages_what_is_in_memory() {
    let home = Home::ending_in(301);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-0");
    home.time.pass(Duration::from_secs(2));
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-1");
    // As after a suspend of eleven days.
    home.time.pass(Duration::from_secs(11 * 86_400));
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-2");
}

#[tokio::test]
async fn ten_at_once_renew_once() {
    let home = Home::ending_in(0);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let broker = broker.clone();
            tokio::spawn(async move { broker.credentials(None).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(token(&task.await.unwrap().unwrap()), "at-1");
    }
    assert_eq!(issuer.count(), 1);
}

#[tokio::test]
async fn ten_at_once_after_a_401_renew_once() {
    let home = Home::ending_in(864_000);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    let old = broker.credentials(None).await.unwrap();
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (broker, old) = (broker.clone(), old.clone());
            tokio::spawn(async move { broker.renew(&old).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(token(&task.await.unwrap().unwrap()), "at-1");
    }
    assert_eq!(issuer.count(), 1);
    assert_eq!(
        issuer.requests()[0].body["refresh_reason"],
        "unauthorized_recovery"
    );
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-1");
}

#[tokio::test]
async fn ten_brokers_on_one_store_renew_once() {
    let home = Home::ending_in(0);
    let issuer = Issuer::rotating();
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let broker = home.broker(&issuer);
            tokio::spawn(async move { broker.credentials(None).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(token(&task.await.unwrap().unwrap()), "at-1");
    }
    assert_eq!(issuer.count(), 1);
}

#[tokio::test]
async fn a_late_401_for_the_old_token_keeps_the_new_one() {
    let home = Home::ending_in(864_000);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    let old = broker.credentials(None).await.unwrap();
    let new = broker.renew(&old).await.unwrap();
    assert_eq!(token(&new), "at-1");
    assert_eq!(broker.renew(&old).await.unwrap(), new);
    assert_eq!(issuer.count(), 1);
}

#[tokio::test]
async fn what_another_process_has_renewed_is_used() {
    let home = Home::ending_in(864_000);
    let issuer = Issuer::rotating();
    let (ours, theirs) = (home.broker(&issuer), home.broker(&issuer));
    let old = ours.credentials(None).await.unwrap();
    let new = theirs.renew(&old).await.unwrap();
    assert_eq!(ours.renew(&old).await.unwrap(), new);
    assert_eq!(ours.credentials(None).await.unwrap(), new);
    assert_eq!(issuer.count(), 1);
}

#[tokio::test]
async fn a_token_refused_right_after_its_renewal_is_not_renewed_again() {
    let home = Home::ending_in(864_000);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    let new = broker.renew(&refused(&home, "at-0")).await.unwrap();
    for broker in [&broker, &home.broker(&issuer)] {
        let error = broker.renew(&new).await.unwrap_err();
        assert!(
            matches!(error, SignInError::StillRefused { .. }),
            "{error:?}"
        );
    }
    assert_eq!(issuer.count(), 1);
    home.time.pass(Duration::from_secs(60));
    assert_eq!(token(&broker.renew(&new).await.unwrap()), "at-2");
}

#[tokio::test]
async fn a_final_refusal_is_remembered() {
    for (code, reason) in [
        ("refresh_token_expired", DeadReason::Expired),
        ("refresh_token_reused", DeadReason::Reused),
        ("refresh_token_invalidated", DeadReason::Revoked),
        ("anything", DeadReason::Rejected),
    ] {
        let home = Home::ending_in(0);
        let issuer = Issuer::always(Reply::refusal(code));
        let broker = home.broker(&issuer);
        // Also after a restart, and also when upstream is the one to complain.
        let another = home.broker(&issuer);
        for outcome in [
            broker.credentials(None).await,
            broker.credentials(None).await,
            another.credentials(None).await,
            another.renew(&refused(&home, "at-0")).await,
        ] {
            let error = outcome.unwrap_err();
            assert!(
                matches!(&error, SignInError::Refused { account, reason: told }
                    if account == "ann@x.com" && *told == reason),
                "{error:?}"
            );
            assert_eq!((error.kind(), error.is_transient()), (Kind::SignIn, false));
            assert!(error.mend().contains("ccx login"));
        }
        assert_eq!(issuer.count(), 1);
        let at = UnixSeconds(NOW);
        assert_eq!(home.stored().dead, Some(Death { reason, at }));
        assert_eq!(home.stored().refresh_token, Some(secret("rt-0")));
    }
}

#[tokio::test]
async fn after_a_final_refusal_the_time_that_is_left_is_used() {
    let home = Home::ending_in(100);
    let issuer = Issuer::always(Reply::refusal("refresh_token_reused"));
    let broker = home.broker(&issuer);
    for _ in 0..3 {
        assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-0");
        home.time.pass(Duration::from_secs(33));
    }
    home.time.pass(Duration::from_secs(1));
    assert!(matches!(
        broker.credentials(None).await,
        Err(SignInError::Refused { .. })
    ));
    assert_eq!(issuer.count(), 1);
}

#[tokio::test]
async fn a_passing_failure_leaves_the_old_token_in_use() {
    let home = Home::ending_in(100);
    let issuer = Issuer::start(|number, _| match number {
        0 => Reply::Text(500, "oops".to_owned()),
        _ => tokens(1),
    });
    let broker = home.broker(&issuer);
    for _ in 0..3 {
        assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-0");
    }
    assert_eq!(
        issuer.count(),
        1,
        "a failing issuer is not asked for every request"
    );
    home.time.pass(Duration::from_secs(30));
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-1");
    assert_eq!(issuer.count(), 2);
}

#[tokio::test]
async fn a_passing_failure_with_nothing_left_is_an_error_that_passes() {
    for failing in [
        Reply::Text(500, "oops".to_owned()),
        Reply::Text(403, "<html>".to_owned()),
        Reply::Text(200, "garbage".to_owned()),
        Reply::json(200, json!({"access_token": "", "refresh_token": "rt-1"})),
        Reply::Close,
    ] {
        let home = Home::ending_in(0);
        let before = home.stored();
        let issuer = Issuer::start(move |number, _| match number {
            0 => failing.clone(),
            _ => tokens(1),
        });
        let broker = home.broker(&issuer);
        let error = broker.credentials(None).await.unwrap_err();
        assert!(
            matches!(error, SignInError::Unreachable { .. }),
            "{error:?}"
        );
        assert_eq!((error.kind(), error.is_transient()), (Kind::Upstream, true));
        assert_eq!(home.stored(), before);
        assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-1");
    }
}

#[tokio::test]
async fn a_silent_issuer_is_left_after_its_time() {
    let gate = Gate::default();
    let issuer = Issuer::start({
        let gate = gate.clone();
        move |_, _| {
            gate.wait();
            Reply::Close
        }
    });
    let home = Home::ending_in(0);
    let broker = Broker::new(
        open(home.root.path()),
        exchange(&issuer).within(Duration::from_millis(50)),
        home.time.clock(),
    );
    let error = broker.credentials(None).await.unwrap_err();
    gate.open();
    assert!(
        matches!(
            error,
            SignInError::Unreachable {
                source: ExchangeError::Unreachable {
                    what: "no answer in time"
                },
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_slow_issuer_does_not_hold_up_a_token_that_is_still_good() {
    let gate = Gate::default();
    let issuer = Arc::new(Issuer::start({
        let gate = gate.clone();
        move |_, _| {
            gate.wait();
            tokens(1)
        }
    }));
    let home = Home::ending_in(100);
    let broker = home.broker(&issuer);
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-0");
    gate.open();
    broker.settle().await;
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-1");
    assert_eq!(issuer.count(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_loses_nothing() {
    let gate = Gate::default();
    let issuer = Arc::new(Issuer::start({
        let gate = gate.clone();
        move |_, _| {
            gate.wait();
            tokens(1)
        }
    }));
    let home = Home::ending_in(0);
    let broker = home.broker(&issuer);
    let caller = tokio::spawn({
        let broker = broker.clone();
        async move { broker.credentials(None).await }
    });
    issuer.arrival().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    gate.open();
    broker.settle().await;
    assert_eq!(home.stored().refresh_token, Some(secret("rt-1")));
}

#[tokio::test]
async fn what_the_issuer_leaves_out_is_made_up_for() {
    let with_end = jwt(&json!({"exp": NOW + 7200}));
    let long_over = jwt(&json!({"exp": NOW - 7200}));
    for (answer, refresh_token, expires_at) in [
        (json!({"access_token": "new"}), "rt-0", None),
        (
            json!({"access_token": "new", "refresh_token": ""}),
            "rt-0",
            None,
        ),
        (
            json!({"access_token": with_end, "refresh_token": "rt-1"}),
            "rt-1",
            Some(NOW + 7200),
        ),
        (
            json!({"access_token": with_end, "expires_in": 0}),
            "rt-0",
            Some(NOW + 7200),
        ),
        (
            json!({"access_token": with_end, "expires_in": 60}),
            "rt-0",
            Some(NOW + 60),
        ),
        // This machine's clock is hours ahead: the token must not be renewed for every request.
        (json!({"access_token": long_over}), "rt-0", None),
    ] {
        let home = Home::ending_in(0);
        let issuer = Issuer::always(Reply::json(200, answer));
        let broker = home.broker(&issuer);
        let first = broker.credentials(None).await.unwrap();
        assert_eq!(broker.credentials(None).await.unwrap(), first);
        assert_eq!(issuer.count(), 1);
        let stored = home.stored();
        assert_eq!(stored.refresh_token, Some(secret(refresh_token)));
        assert_eq!(stored.expires_at, expires_at.map(UnixSeconds));
    }
}

#[tokio::test]
async fn without_a_refresh_token_the_token_ends() {
    let mut lone = account("ann", NOW + 10);
    lone.refresh_token = None;
    let home = Home::with(&[lone]);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-0");
    home.time.pass(Duration::from_secs(10));
    let error = broker.credentials(None).await.unwrap_err();
    assert!(
        matches!(error, SignInError::NoRefreshToken { .. }),
        "{error:?}"
    );
    assert_eq!(issuer.count(), 0);
}

#[tokio::test]
async fn tokens_the_disk_does_not_take_are_kept_and_not_used_before() {
    let home = Home::ending_in(0);
    let path = home.store.path().to_owned();
    let away = path.with_extension("away");
    let issuer = Issuer::start({
        let (path, away) = (path.clone(), away.clone());
        move |number, request| {
            assert_eq!(
                (number, &request.body["refresh_token"]),
                (0, &json!("rt-0"))
            );
            // From here on the store cannot be read, and so not written.
            std::fs::rename(&path, &away).unwrap();
            std::fs::create_dir(&path).unwrap();
            tokens(1)
        }
    });
    let broker = home.broker(&issuer);
    let error = broker.credentials(None).await.unwrap_err();
    assert!(matches!(error, SignInError::Store(_)), "{error:?}");
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(home.stored().refresh_token, Some(secret("rt-0")));

    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-1");
    assert_eq!(home.stored().refresh_token, Some(secret("rt-1")));
    assert_eq!(issuer.count(), 1);
}

#[tokio::test]
async fn a_new_sign_in_during_a_renewal_wins() {
    for reply in [tokens(1), Reply::refusal("refresh_token_reused")] {
        let home = Home::ending_in(0);
        let mut anew = account("ann", NOW + 864_000);
        (anew.access_token, anew.refresh_token) = (secret("at-anew"), Some(secret("rt-anew")));
        let issuer = Issuer::start({
            let (store, anew) = (home.store.clone(), anew.clone());
            move |_, _| {
                store.upsert(anew.clone()).unwrap();
                reply.clone()
            }
        });
        let credentials = home.broker(&issuer).credentials(None).await.unwrap();
        assert_eq!(token(&credentials), "at-anew");
        assert_eq!(home.stored(), anew);
    }
}

#[tokio::test]
async fn an_account_removed_during_its_renewal_stays_removed() {
    let home = Home::ending_in(0);
    let issuer = Issuer::start({
        let (store, id) = (home.store.clone(), home.stored().id);
        move |_, _| {
            store.remove(&id).unwrap();
            tokens(1)
        }
    });
    let broker = home.broker(&issuer);
    let error = broker.credentials(None).await.unwrap_err();
    assert!(matches!(error, SignInError::Removed), "{error:?}");
    assert_eq!(home.store.accounts().unwrap(), []);
    assert!(matches!(
        broker.credentials(None).await,
        Err(SignInError::NoAccount { .. })
    ));
}

#[tokio::test]
async fn a_sign_in_made_meanwhile_is_seen() {
    let home = Home::with(&[]);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    let error = broker.credentials(None).await.unwrap_err();
    assert_eq!(
        error.report().to_string(),
        "error: no ChatGPT account is signed in\nhint:  run `ccx login`"
    );
    home.store.upsert(account("ann", NOW + 864_000)).unwrap();
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-0");
}

#[tokio::test]
async fn accounts_are_chosen_by_name_and_a_session_stays_with_its_own() {
    let mut bob = account("bob", NOW + 864_000);
    bob.access_token = secret("at-bob");
    bob.label = Some("work".to_owned());
    let home = Home::with(&[account("ann", NOW + 864_000), bob.clone()]);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    for (name, expected) in [
        (None, "at-0"),
        (Some("ann@x.com"), "at-0"),
        (Some("work"), "at-bob"),
        (Some("bob"), "at-bob"),
        (Some(bob.id.as_str()), "at-bob"),
    ] {
        for _ in 0..2 {
            assert_eq!(
                token(&broker.credentials(name).await.unwrap()),
                expected,
                "{name:?}"
            );
        }
    }
    let error = broker.credentials(Some("zoe")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::Usage, "no account is called zoe")
    );

    home.store.activate(&bob.id).unwrap();
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-0");
    assert_eq!(
        token(&home.broker(&issuer).credentials(None).await.unwrap()),
        "at-bob"
    );
}

#[tokio::test]
async fn a_damaged_store_is_told_and_then_remembered() {
    let home = Home::with(&[]);
    std::fs::write(home.store.path(), "{ half").unwrap();
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    let first = broker
        .credentials(None)
        .await
        .unwrap_err()
        .report()
        .to_string();
    assert!(
        first.contains("was damaged at line 1") && first.contains("accounts.damaged-1.json"),
        "{first}"
    );
    let second = broker
        .credentials(None)
        .await
        .unwrap_err()
        .report()
        .to_string();
    assert!(
        second.contains("no ChatGPT account is signed in"),
        "{second}"
    );
    assert!(second.contains("accounts.damaged-1.json"), "{second}");
}

#[tokio::test]
async fn no_error_shows_a_secret() {
    let home = Home::ending_in(0);
    for reply in [
        Reply::json(200, json!({"access_token": {"x": "SECRET"}})),
        Reply::json(400, json!({"error": "SECRET of many words"})),
        Reply::json(500, json!({"error": {"message": "rt-0 SECRET"}})),
        Reply::json(
            401,
            json!({"error": {"code": "x", "message": "rt-0 SECRET"}}),
        ),
    ] {
        let issuer = Issuer::always(reply);
        let error = home.broker(&issuer).credentials(None).await.unwrap_err();
        let shown = format!("{error:?} {}", error.clone().report());
        assert!(
            !shown.contains("SECRET") && !shown.contains("rt-0"),
            "{shown}"
        );
    }
    let shown = format!("{:?} {:?}", home.stored(), home.stored().credentials());
    assert!(
        !shown.contains("rt-0") && !shown.contains("at-0"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_source_of_a_newer_ccx_is_used_and_not_renewed() {
    let mut later = account("ann", NOW + 100);
    later.source = Source::Other(json!({"kind": "vault"}));
    let home = Home::with(&[later]);
    let issuer = Issuer::rotating();
    let broker = home.broker(&issuer);
    assert_eq!(token(&broker.credentials(None).await.unwrap()), "at-0");
    assert_eq!(issuer.count(), 0);
}

#[test]
fn a_runtime_that_ends_in_the_middle_does_not_block_the_next() {
    let gate = Gate::default();
    let issuer = Arc::new(Issuer::start({
        let gate = gate.clone();
        move |number, _| {
            if number == 0 {
                gate.wait();
                return Reply::Close;
            }
            tokens(1)
        }
    }));
    let home = Home::ending_in(0);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    // A pooled connection belongs to the runtime it was made on: each gets a client of its own.
    let broker = Broker::new(
        open(home.root.path()),
        Exchange::new(&issuer.origin, client()),
        home.time.clock(),
    );
    let first = runtime();
    first.block_on(async {
        let caller = tokio::spawn({
            let broker = broker.clone();
            async move { broker.credentials(None).await }
        });
        issuer.arrival().await;
        caller.abort();
    });
    drop(first);
    let second = runtime();
    let credentials = second.block_on(broker.credentials(None)).unwrap();
    gate.open();
    assert_eq!(token(&credentials), "at-1");
}
