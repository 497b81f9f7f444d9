//! An account whose tokens ccx and the Codex CLI both renew, by the person's consent. The test plays the Codex CLI.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ccx::account::broker::SignInError;
use ccx::account::import::{import_codex, take_over_codex};
use ccx::account::record::{DeadReason, Source};
use ccx::files::lock::Lock;
use ccx::secret::Secret;
use ccx::time::UnixSeconds;
use serde_json::{Value, json};

use crate::issuer::{Gate, Issuer, Reply};
use crate::support::{Home, NOW, jwt};

const FOREVER: Duration = Duration::from_secs(30);

/// The access token number `number` of `user`.
fn access(user: &str, number: u64, exp: u64) -> String {
    jwt(&json!({"sub": user, "jti": number, "exp": exp, "email": format!("{user}@x.com")}))
}

fn ann(number: u64) -> String {
    access("ann", number, NOW + 9000)
}

/// The file as the recorded one is, with the tokens number `number`.
fn auth(access_token: &str, number: u64) -> Value {
    json!({"auth_mode": "chatgpt", "OPENAI_API_KEY": null,
        "tokens": {"id_token": access_token, "access_token": access_token, "refresh_token": format!("rt-{number}"),
            "oauth_provenance": {"issuer": "https://auth.openai.com", "client_id": "app_x"},
            "login_owner_id": "owner", "account_id": "acc-1"},
        "last_refresh": "2026-01-01T00:00:00.123456789Z", "of_a_newer_codex": [1, {"deep": null}]})
}

/// What the issuer gives with the number `number`.
fn tokens(number: u64) -> Reply {
    Reply::json(
        200,
        json!({"access_token": ann(number), "refresh_token": format!("rt-{number}"), "id_token": ann(number),
            "expires_in": 9000}),
    )
}

/// One that rotates, as the real one.
fn rotating() -> Issuer {
    Issuer::start(
        |number, request| match request.body["refresh_token"] == format!("rt-{number}") {
            true => tokens(number as u64 + 1),
            false => Reply::refusal("refresh_token_reused"),
        },
    )
}

struct Shared {
    home: Home,
    file: PathBuf,
    issuer: Arc<Issuer>,
}

impl Shared {
    /// A login that has expired, taken over.
    fn with(issuer: Issuer) -> Self {
        let home = Home::with(&[]);
        let codex = home.root.path().join("codex");
        fs::create_dir(&codex).unwrap();
        let shared = Self {
            file: codex.join("auth.json"),
            home,
            issuer: Arc::new(issuer),
        };
        shared.codex_writes(&auth(&access("ann", 0, NOW - 5), 0));
        take_over_codex(&shared.home.store, &shared.file, UnixSeconds(NOW)).unwrap();
        shared
    }

    fn codex_writes(&self, auth: &Value) {
        fs::write(&self.file, auth.to_string()).unwrap();
    }

    fn in_file(&self) -> Value {
        serde_json::from_slice(&fs::read(&self.file).unwrap()).unwrap()
    }

    /// Asks as a new process would.
    async fn ask(&self) -> Result<Secret<String>, SignInError> {
        let broker = self.home.broker(&self.issuer);
        let found = broker.credentials(None).await;
        found.map(|credentials| credentials.access_token)
    }

    #[track_caller]
    fn assert_store_has_no_refresh_token(&self) {
        let stored = fs::read_to_string(self.home.store.path()).unwrap();
        assert!(!stored.contains("rt-"), "{stored}");
    }
}

#[tokio::test]
async fn a_renewal_is_written_back_and_changes_nothing_else() {
    let shared = Shared::with(rotating());
    fs::set_permissions(&shared.file, fs::Permissions::from_mode(0o640)).unwrap();
    let link = shared.file.with_file_name("moved.json");
    fs::rename(&shared.file, &link).unwrap();
    std::os::unix::fs::symlink(&link, &shared.file).unwrap();

    assert_eq!(shared.ask().await.unwrap().expose(), &ann(1));
    let mut want = auth(&ann(1), 1);
    want["last_refresh"] = json!("2027-01-15T08:00:00Z");
    assert_eq!(shared.in_file(), want);
    let keys: Vec<String> = shared
        .in_file()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        keys,
        [
            "auth_mode",
            "OPENAI_API_KEY",
            "tokens",
            "last_refresh",
            "of_a_newer_codex"
        ]
    );
    assert!(fs::symlink_metadata(&shared.file).unwrap().is_symlink());
    let mode = fs::metadata(&shared.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    shared.assert_store_has_no_refresh_token();
    assert_eq!(shared.issuer.count(), 1);

    // Good for others too; and the next renewal spends what is in the file now.
    assert_eq!(shared.ask().await.unwrap().expose(), &ann(1));
    shared.home.time.pass(Duration::from_secs(9000));
    shared.ask().await.unwrap();
    assert_eq!(shared.in_file()["tokens"]["refresh_token"], "rt-2");
    assert_eq!(shared.issuer.count(), 2);
    let mut names: Vec<_> = fs::read_dir(shared.file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["auth.json", "auth.json.lock", "auth.lock", "moved.json"]
    );
}

#[tokio::test]
async fn what_the_codex_cli_has_renewed_is_adopted() {
    let shared = Shared::with(rotating());
    shared.codex_writes(&auth(&ann(5), 5));
    assert_eq!(shared.ask().await.unwrap().expose(), &ann(5));
    assert_eq!(shared.issuer.count(), 0);

    // It renews before the end: a 401 for the old token shows us.
    let broker = shared.home.broker(&shared.issuer);
    let old = broker.credentials(None).await.unwrap();
    shared.codex_writes(&auth(&ann(6), 6));
    let new = broker.renew(&old).await.unwrap();
    assert_eq!(new.access_token.expose(), &ann(6));
    assert_eq!(shared.issuer.count(), 0);
    shared.assert_store_has_no_refresh_token();
}

#[tokio::test]
async fn while_the_codex_cli_holds_its_lock_nothing_is_spent() {
    let shared = Shared::with(rotating());
    let lock = Lock::acquire(&shared.file.with_file_name("auth.lock"), FOREVER).unwrap();
    let broker = shared.home.broker(&shared.issuer);
    let asking = tokio::spawn(async move { broker.credentials(None).await });
    // It writes what it has got, then lets go.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!asking.is_finished());
    shared.codex_writes(&auth(&ann(3), 3));
    drop(lock);
    let found = asking.await.unwrap().unwrap();
    assert_eq!(found.access_token.expose(), &ann(3));
    assert_eq!(shared.issuer.count(), 0);
}

#[tokio::test]
async fn the_lock_is_held_over_the_exchange() {
    let gate = Gate::default();
    let shared = Shared::with(Issuer::start({
        let gate = gate.clone();
        move |_, _| {
            gate.wait();
            tokens(1)
        }
    }));
    let broker = shared.home.broker(&shared.issuer);
    let asking = tokio::spawn(async move { broker.credentials(None).await });
    shared.issuer.arrival().await;
    let lock = shared.file.with_file_name("auth.lock");
    assert!(Lock::acquire(&lock, Duration::ZERO).is_err());
    gate.open();
    asking.await.unwrap().unwrap();
    Lock::acquire(&lock, Duration::ZERO).unwrap();
}

#[tokio::test]
async fn the_loser_of_a_race_takes_what_the_winner_writes() {
    let gate = Gate::default();
    let shared = Shared::with(Issuer::start({
        let gate = gate.clone();
        move |_, _| {
            gate.wait();
            Reply::refusal("refresh_token_reused")
        }
    }));
    let broker = shared.home.broker(&shared.issuer);
    let asking = tokio::spawn(async move { broker.credentials(None).await });
    shared.issuer.arrival().await;
    gate.open();
    // The Codex CLI can only write once we have let go of its lock.
    let lock = shared.file.with_file_name("auth.lock");
    let held = tokio::task::spawn_blocking(move || Lock::acquire(&lock, FOREVER)).await;
    shared.codex_writes(&auth(&ann(1), 1));
    drop(held.unwrap().unwrap());
    let found = asking.await.unwrap().unwrap();
    assert_eq!(found.access_token.expose(), &ann(1));
    assert_eq!(shared.home.stored().dead, None);
}

#[tokio::test]
async fn a_refusal_is_remembered_until_codex_signs_in_anew() {
    let shared = Shared::with(Issuer::always(Reply::refusal("refresh_token_invalidated")));
    for _ in 0..3 {
        let error = shared.ask().await.unwrap_err();
        assert!(
            matches!(&error, SignInError::Refused { reason, .. } if *reason == DeadReason::Revoked),
            "{error:?}"
        );
        assert!(error.mend().contains("login"), "{}", error.mend());
    }
    assert_eq!(shared.issuer.count(), 1, "a dead token is not tried again");
    shared.codex_writes(&auth(&ann(9), 9));
    assert_eq!(shared.ask().await.unwrap().expose(), &ann(9));
    assert_eq!(shared.home.stored().dead, None);
}

#[tokio::test]
async fn an_issuer_that_is_down_changes_nothing() {
    let shared = Shared::with(Issuer::always(Reply::Close));
    let before = fs::read(&shared.file).unwrap();
    let stored = shared.home.stored();
    let error = shared.ask().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(fs::read(&shared.file).unwrap(), before);
    assert_eq!(shared.home.stored(), stored);
}

#[tokio::test]
async fn tokens_that_the_file_does_not_take_are_kept_and_put_there_later() {
    let shared = Shared::with(rotating());
    let writing = shared.file.with_file_name("auth.json.lock");
    let busy = Lock::acquire(&writing, FOREVER).unwrap();
    assert_eq!(shared.ask().await.unwrap().expose(), &ann(1));
    assert_eq!(shared.in_file()["tokens"]["refresh_token"], "rt-0");
    let rescued = shared.home.stored().refresh_token.unwrap();
    assert_eq!(rescued.expose(), "rt-1");
    drop(busy);

    // The next renewal mends the file first, and goes on from there.
    shared.home.time.pass(Duration::from_secs(9000));
    shared.ask().await.unwrap();
    assert_eq!(shared.in_file()["tokens"]["refresh_token"], "rt-2");
    shared.assert_store_has_no_refresh_token();
    assert_eq!(shared.issuer.count(), 2);
}

#[tokio::test]
async fn a_new_codex_login_goes_before_tokens_that_were_kept() {
    let shared = Shared::with(rotating());
    let busy = Lock::acquire(&shared.file.with_file_name("auth.json.lock"), FOREVER).unwrap();
    shared.ask().await.unwrap();
    drop(busy);
    let mut login = auth(&access("ann", 50, NOW + 99_000), 50);
    login["last_refresh"] = json!("2027-02-01T00:00:00Z");
    shared.codex_writes(&login);
    shared.home.time.pass(Duration::from_secs(9000));
    assert_eq!(
        shared.ask().await.unwrap().expose(),
        &access("ann", 50, NOW + 99_000)
    );
    assert_eq!(shared.in_file(), login);
    shared.assert_store_has_no_refresh_token();
}

#[tokio::test]
async fn a_file_that_becomes_another_login_meanwhile_is_left_alone() {
    let path = Arc::new(std::sync::Mutex::new(PathBuf::new()));
    let bob = auth(&access("bob", 0, NOW + 9000), 77);
    let shared = Shared::with(Issuer::start({
        let (path, bob) = (Arc::clone(&path), bob.clone());
        move |number, request| {
            if number == 0 {
                fs::write(&*path.lock().unwrap(), bob.to_string()).unwrap();
            }
            match request.body["refresh_token"] == format!("rt-{number}") {
                true => tokens(number as u64 + 1),
                false => Reply::refusal("refresh_token_reused"),
            }
        }
    }));
    path.lock().unwrap().clone_from(&shared.file);
    // Our tokens are good, and now ours alone.
    assert_eq!(shared.ask().await.unwrap().expose(), &ann(1));
    assert_eq!(shared.in_file(), bob);
    shared.home.time.pass(Duration::from_secs(9000));
    shared.ask().await.unwrap();
    assert_eq!(shared.in_file(), bob);
    assert_eq!(shared.issuer.count(), 2);
    assert_eq!(shared.home.stored().refresh_token.unwrap().expose(), "rt-2");
}

#[tokio::test]
async fn nothing_is_spent_where_nothing_could_be_written() {
    let shared = Shared::with(rotating());
    let codex = shared.file.parent().unwrap();
    let aside = codex.with_file_name("aside");
    fs::rename(codex, &aside).unwrap();
    let error = shared.ask().await.unwrap_err();
    assert!(matches!(error, SignInError::NotShared { .. }), "{error:?}");
    fs::rename(&aside, codex).unwrap();

    shared.codex_writes(&auth(&access("bob", 0, NOW + 9000), 1));
    let error = shared.ask().await.unwrap_err();
    assert!(
        matches!(error, SignInError::ImportChanged { .. }),
        "{error:?}"
    );
    shared.codex_writes(&json!({"OPENAI_API_KEY": "sk-x"}));
    let error = shared.ask().await.unwrap_err();
    assert!(
        matches!(error, SignInError::ImportUnreadable { .. }),
        "{error:?}"
    );
    assert_eq!(shared.issuer.count(), 0);
}

#[tokio::test]
async fn many_at_once_spend_one_token() {
    let shared = Shared::with(rotating());
    let brokers: Vec<_> = (0..4).map(|_| shared.home.broker(&shared.issuer)).collect();
    let asking: Vec<_> = (0..20)
        .map(|number| {
            let broker = brokers[number % 4].clone();
            tokio::spawn(async move { broker.credentials(None).await })
        })
        .collect();
    for asked in asking {
        let found = asked.await.unwrap().unwrap();
        assert_eq!(found.access_token.expose(), &ann(1));
    }
    assert_eq!(shared.issuer.count(), 1);
    assert_eq!(shared.in_file()["tokens"]["refresh_token"], "rt-1");
}

#[tokio::test]
async fn a_crash_between_file_and_store_is_made_good() {
    let shared = Shared::with(rotating());
    let before = fs::read(shared.home.store.path()).unwrap();
    shared.ask().await.unwrap();
    // As if the process had died after the file was written.
    fs::write(shared.home.store.path(), before).unwrap();
    let litter = shared.file.with_file_name(".auth.json.x.staged");
    fs::write(&litter, "half a token").unwrap();
    assert_eq!(shared.ask().await.unwrap().expose(), &ann(1));
    assert_eq!(shared.issuer.count(), 1);
    shared.home.time.pass(Duration::from_secs(9000));
    shared.ask().await.unwrap();
    assert!(!litter.exists());
}

#[tokio::test]
async fn the_recorded_file_goes_through_import_use_renewal_and_adoption() {
    let shared = Shared::with(rotating());
    let text = include_str!("../fixtures/codex/auth/auth.json.sample");
    let sample: Value = serde_json::from_str(text).unwrap();
    let with = |number: u64, exp: u64| {
        let mut file = sample.clone();
        for name in ["id_token", "access_token"] {
            file["tokens"][name] = json!(access("ann", number, exp));
        }
        file["tokens"]["refresh_token"] = json!(format!("rt-{number}"));
        file
    };
    shared.home.store.remove(&shared.home.stored().id).unwrap();

    // Read only: used while it is good, and never written.
    shared.codex_writes(&with(0, NOW + 1000));
    import_codex(&shared.home.store, &shared.file, UnixSeconds(NOW)).unwrap();
    shared.ask().await.unwrap();
    shared.home.time.pass(Duration::from_secs(1000));
    let error = shared.ask().await.unwrap_err();
    assert!(
        matches!(error, SignInError::ImportExpired { .. }),
        "{error:?}"
    );

    // The other program renews; ours adopts.
    shared.codex_writes(&with(0, NOW + 2000));
    shared.ask().await.unwrap();
    assert_eq!(
        (shared.in_file(), shared.issuer.count()),
        (with(0, NOW + 2000), 0)
    );

    // With consent ours renews, and the other program finds its file as it knows it.
    take_over_codex(&shared.home.store, &shared.file, UnixSeconds(NOW)).unwrap();
    shared.home.time.pass(Duration::from_secs(1000));
    assert_eq!(shared.ask().await.unwrap().expose(), &ann(1));
    let mut want = with(1, NOW + 9000);
    want["last_refresh"] = shared.in_file()["last_refresh"].clone();
    assert_eq!(shared.in_file(), want);
    assert!(matches!(
        shared.home.stored().source,
        Source::CodexShared { .. }
    ));

    // The other program renews again.
    shared.codex_writes(&with(7, NOW + 99_000));
    shared.home.time.pass(Duration::from_secs(9000));
    assert_eq!(
        shared.ask().await.unwrap().expose(),
        &access("ann", 7, NOW + 99_000)
    );
    assert_eq!(shared.issuer.count(), 1);
}
