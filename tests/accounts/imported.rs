//! An account whose tokens the Codex CLI renews.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ccx::account::broker::SignInError;
use ccx::account::import::import_codex;
use ccx::error::Kind;
use ccx::time::UnixSeconds;
use serde_json::{Value, json};

use crate::issuer::Issuer;
use crate::support::{Home, NOW, jwt};

/// The access token of `user`, unlike any other for its `number`.
fn access(user: &str, number: u32, exp: u64) -> String {
    jwt(&json!({"sub": user, "jti": number, "exp": exp, "email": format!("{user}@x.com")}))
}

fn auth(access_token: &str) -> Value {
    json!({"auth_mode": "chatgpt", "OPENAI_API_KEY": null, "last_refresh": "2026-01-01T00:00:00Z",
           "tokens": {"id_token": access_token, "access_token": access_token, "refresh_token": "rt-codex",
                      "account_id": "acc-1", "later": {"x": 1}}})
}

struct Codex {
    home: Home,
    file: PathBuf,
    issuer: Issuer,
}

impl Codex {
    /// A login with `left` seconds, imported.
    fn imported(left: u64) -> Self {
        let home = Home::with(&[]);
        let file = home.root.path().join("auth.json");
        let codex = Self {
            home,
            file,
            issuer: Issuer::rotating(),
        };
        codex.renews(&access("ann", 0, NOW + left));
        import_codex(&codex.home.store, &codex.file, UnixSeconds(NOW)).unwrap();
        codex
    }

    /// What the Codex CLI does to its file.
    fn renews(&self, access_token: &str) {
        fs::write(&self.file, auth(access_token).to_string()).unwrap();
    }
}

#[tokio::test]
async fn the_newer_token_of_the_file_is_adopted() {
    let codex = Codex::imported(1000);
    let broker = codex.home.broker(&codex.issuer);
    let first = broker.credentials(None).await.unwrap();
    assert_eq!(first.access_token.expose(), &access("ann", 0, NOW + 1000));
    assert_eq!(first.chatgpt_account_id, "acc-1");

    // Ending, and the file has nothing newer: used as it is.
    codex.home.time.pass(Duration::from_secs(900));
    assert_eq!(broker.credentials(None).await.unwrap(), first);

    let newer = access("ann", 1, NOW + 9000);
    codex.renews(&newer);
    codex.home.time.pass(Duration::from_secs(100));
    let text = fs::read(&codex.file).unwrap();
    let second = broker.credentials(None).await.unwrap();
    assert_eq!(second.access_token.expose(), &newer);
    assert_eq!(codex.home.stored().credentials(), second);
    assert_eq!(codex.home.stored().refresh_token, None);
    assert_eq!(fs::read(&codex.file).unwrap(), text);
    assert_eq!(codex.issuer.count(), 0);
}

#[tokio::test]
async fn after_a_401_the_file_is_read_again() {
    let codex = Codex::imported(9000);
    let broker = codex.home.broker(&codex.issuer);
    let first = broker.credentials(None).await.unwrap();
    let error = broker.renew(&first).await.unwrap_err();
    assert!(
        matches!(error, SignInError::ImportRefused { .. }),
        "{error:?}"
    );
    assert!(error.mend().contains("codex login"));

    codex.renews(&access("ann", 1, NOW + 9000));
    let second = broker.renew(&first).await.unwrap();
    assert_eq!(second.access_token.expose(), &access("ann", 1, NOW + 9000));
    assert_eq!(broker.credentials(None).await.unwrap(), second);
    assert_eq!(codex.issuer.count(), 0);
}

#[tokio::test]
async fn a_file_without_a_good_token_is_told_apart() {
    type Case = (&'static str, &'static str, fn(&Codex));
    let cases: [Case; 5] = [
        ("ImportExpired", "codex login", |_| {}),
        ("ImportExpired", "codex login", |codex| {
            codex.renews(&access("ann", 1, NOW + 1000))
        }),
        ("ImportChanged", "ccx login --import", |codex| {
            codex.renews(&access("bob", 1, NOW + 9000))
        }),
        ("ImportUnreadable", "codex login", |codex| {
            fs::remove_file(&codex.file).unwrap()
        }),
        ("ImportUnreadable", "codex login", |codex| {
            fs::write(&codex.file, "{ \"tok").unwrap()
        }),
    ];
    for (expected, mend, happens) in cases {
        let codex = Codex::imported(1000);
        let broker = codex.home.broker(&codex.issuer);
        let before = codex.home.stored();
        happens(&codex);
        codex.home.time.pass(Duration::from_secs(1000));
        let error = broker.credentials(None).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        assert!(error.mend().contains(mend), "{}", error.mend());
        assert_eq!((error.kind(), error.is_transient()), (Kind::SignIn, false));
        assert_eq!(codex.home.stored(), before);
        assert_eq!(
            codex.issuer.count(),
            0,
            "its refresh token is not ours to spend"
        );

        // Mended by the command it named; ccx sees it without a restart.
        codex.renews(&access("ann", 2, NOW + 9000));
        let credentials = broker.credentials(None).await.unwrap();
        assert_eq!(
            credentials.access_token.expose(),
            &access("ann", 2, NOW + 9000)
        );
    }
}
