//! A state directory with accounts in it, a clock that stands, and brokers on them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use ccx::account::broker::{Broker, Clock};
use ccx::account::record::{Record, identity};
use ccx::account::store::Store;
use ccx::files::places::Places;
use ccx::oauth::exchange::Exchange;
use ccx::secret::Secret;
use ccx::time::UnixSeconds;
use serde_json::{Value, json};

use crate::issuer::Issuer;

/// When the tests begin.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn client() -> reqwest::Client {
    // Plain http needs no TLS, but the client wants to know which one it would use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

pub(crate) fn exchange(issuer: &Issuer) -> Exchange {
    Exchange::new(&issuer.origin, client())
}

pub(crate) fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

pub(crate) fn jwt(payload: &Value) -> String {
    let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload.to_string());
    format!("e30.{part}.c2ln")
}

/// An account of its own sign-in, with `at-0` and `rt-0`.
pub(crate) fn account(user: &str, expires_at: u64) -> Record {
    serde_json::from_value(json!({
        "id": identity(user, "w"), "email": format!("{user}@x.com"), "source": {"kind": "own"},
        "chatgpt_user_id": user, "chatgpt_account_id": "w", "access_token": "at-0",
        "refresh_token": "rt-0", "expires_at": expires_at
    }))
    .unwrap()
}

/// A hand on the clock.
#[derive(Clone)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    pub(crate) fn clock(&self) -> Clock {
        let time = Arc::clone(&self.0);
        Clock::new(move || UnixSeconds(time.load(Ordering::SeqCst)))
    }

    pub(crate) fn pass(&self, span: Duration) {
        self.0.fetch_add(span.as_secs(), Ordering::SeqCst);
    }
}

/// One user's ccx.
pub(crate) struct Home {
    pub(crate) root: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) time: Time,
}

impl Home {
    /// Makes one with these accounts; the first is the active one.
    pub(crate) fn with(accounts: &[Record]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path());
        for account in accounts {
            store.upsert(account.clone()).unwrap();
        }
        Self {
            root,
            store,
            time: Time(Arc::new(AtomicU64::new(NOW))),
        }
    }

    /// Makes one whose only account has `left` seconds.
    pub(crate) fn ending_in(left: u64) -> Self {
        Self::with(&[account("ann", NOW + left)])
    }

    /// Returns another broker, as another process would have it.
    pub(crate) fn broker(&self, issuer: &Issuer) -> Broker {
        Broker::new(open(self.root.path()), exchange(issuer), self.time.clock())
    }

    /// Returns the only account as it is on disk.
    pub(crate) fn stored(&self) -> Record {
        let mut accounts = self.store.accounts().unwrap();
        assert_eq!(accounts.len(), 1);
        accounts.remove(0)
    }
}

pub(crate) fn open(root: &Path) -> Store {
    Store::open(&Places::below(root)).unwrap()
}
