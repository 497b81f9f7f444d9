//! Renews a login that the Codex CLI renews too, where the person has agreed to that.
//!
//! The file is where the refresh token is, and it is there once. Under the lock of that program: read the file; if it
//! was renewed, take what is there; else spend its refresh token and write the new ones back before anybody sees
//! them, first into the file, then into the store. The Codex CLI takes its lock only after it has renewed, so both may
//! still spend the same token at once: then the one that was refused waits for the other's.
//!
//! Where the file could not be written, the new refresh token goes into the store; it is put into the file at the
//! next renewal, unless the person has signed in to Codex anew meanwhile. A crash between the issuer's answer and
//! the writing would lose the sign-in, so this runs in a process of its own ([`apart`](super::apart)).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::account::codex_file::{CodexFileError, Held};
use crate::account::credentials::Credentials;
use crate::account::import::{self, CodexLogin, ImportError};
use crate::account::record::{Death, Record};
use crate::account::renewal::{self, State};
use crate::account::sign_in::SignInError;
use crate::account::store::Store;
use crate::files::lock::LockError;
use crate::oauth::exchange::{Exchange, ExchangeError, RefreshReason, Tokens};
use crate::secret::Secret;
use crate::time::UnixSeconds;

/// How long the Codex CLI may hold its lock.
const LOCK_WAIT: Duration = Duration::from_secs(20);

/// How long after a refusal the other program may take to write the tokens that it got instead of us.
const OTHERS_WAIT: Duration = Duration::from_secs(3);

/// Between two looks at the file meanwhile.
const OTHERS_PAUSE: Duration = Duration::from_millis(50);

type Outcome = Result<Credentials, SignInError>;

/// One renewal of one account, whose lock in the store is held.
pub(super) struct Takeover<'a> {
    /// Where the account is.
    pub(super) store: &'a Store,
    /// The issuer.
    pub(super) exchange: &'a Exchange,
    /// The clock.
    pub(super) now: &'a (dyn Fn() -> UnixSeconds + Send + Sync),
    /// The Codex CLI's file.
    pub(super) path: PathBuf,
    /// The access token that upstream refused.
    pub(super) refused: Option<&'a Secret<String>>,
}

/// What the file says to the record, and what is to be done.
enum Found {
    /// The file holds this account's login.
    Login(Box<CodexLogin>),
    /// It does not, and the store has a refresh token of its own.
    Orphaned,
}

impl Takeover<'_> {
    /// Returns a token that can be sent.
    pub(super) async fn renew(&self, record: &Record) -> Outcome {
        let account = record.name();
        let path = self.path.clone();
        let held = blocking(move || Held::acquire(&path, LOCK_WAIT)).await?;
        let held = Arc::new(held.map_err(|error| self.locked_out(&account, error))?);
        let reader = Arc::clone(&held);
        let login = blocking(move || reader.read()).await?;
        let found = self.compare(record, login)?;
        let (record, in_file) = match found {
            Found::Login(login) => self.reconcile(record, *login, &held).await?,
            Found::Orphaned => (record.clone(), None),
        };
        match renewal::state(&record, self.refused, (self.now)()) {
            State::Good => return Ok(record.credentials()),
            State::StillRefused => return Err(SignInError::StillRefused { account }),
            State::Due => {}
        }
        if let Some(death) = &record.dead {
            let reason = death.reason.clone();
            return Err(SignInError::Refused { account, reason });
        }
        let token = record.refresh_token.as_ref().or(in_file.as_ref());
        let token = token.ok_or(SignInError::NoRefreshToken { account })?;
        let is_shared = record.refresh_token.is_none();
        self.spend(&record, token, is_shared, held).await
    }

    /// Says whether the file is still this account's.
    fn compare(
        &self,
        record: &Record,
        login: Result<CodexLogin, ImportError>,
    ) -> Result<Found, SignInError> {
        let account = record.name();
        match login {
            Ok(login) if login.id().as_ref() == Some(&record.id) => {
                Ok(Found::Login(Box::new(login)))
            }
            _ if record.refresh_token.is_some() => Ok(Found::Orphaned),
            Ok(_) => Err(SignInError::ImportChanged {
                account,
                path: self.path.clone(),
            }),
            Err(source) => Err(SignInError::ImportUnreadable {
                account,
                source: Arc::new(source),
            }),
        }
    }

    /// Makes the store and the file agree; returns the record and the file's refresh token as they then are.
    async fn reconcile(
        &self,
        record: &Record,
        login: CodexLogin,
        held: &Arc<Held>,
    ) -> Result<(Record, Option<Secret<String>>), SignInError> {
        let is_same = login.access_token == record.access_token;
        let Some(rescued) = &record.refresh_token else {
            // An older file, put back by hand, has nothing for us but its refresh token.
            let is_older = match (login.claims.expires_at, record.expires_at) {
                (Some(theirs), Some(ours)) => theirs < ours,
                _ => false,
            };
            let is_refused = self.refused == Some(&record.access_token);
            let record = match is_same || (is_older && !is_refused) {
                true => record.clone(),
                false => self.adopt(record, &login).await?,
            };
            return Ok((record, login.refresh_token));
        };
        if !is_same && login.renewed_at > record.renewed_at {
            let record = self.adopt(record, &login).await?;
            return Ok((record, login.refresh_token));
        }
        let tokens = Tokens {
            access_token: record.access_token.clone(),
            refresh_token: Some(rescued.clone()),
            id_token: record.id_token.clone(),
            expires_in: None,
        };
        let at = record.renewed_at.unwrap_or_else(self.now);
        let writer = Arc::clone(held);
        match blocking(move || writer.put_back(None, &tokens, at)).await? {
            Ok(_) => {
                let record = self.update(record, |record| record.refresh_token = None);
                Ok((record.await?, Some(rescued.clone())))
            }
            Err(error) => {
                tracing::warn!(account = record.id, %error, "the Codex login cannot be written");
                Ok((record.clone(), None))
            }
        }
    }

    async fn adopt(&self, record: &Record, login: &CodexLogin) -> Result<Record, SignInError> {
        let (login, now) = (login.clone(), (self.now)());
        let adopted = self
            .update(record, move |record| login.adopt_into(record, now))
            .await?;
        tracing::info!(account = record.id, "token adopted from the Codex login");
        Ok(adopted)
    }

    /// Spends a refresh token and puts what comes into the file, if that is where it was, and into the store.
    async fn spend(
        &self,
        record: &Record,
        token: &Secret<String>,
        is_shared: bool,
        held: Arc<Held>,
    ) -> Outcome {
        let account = record.name();
        if is_shared {
            let checker = Arc::clone(&held);
            let checked = blocking(move || checker.check()).await?;
            checked.map_err(|error| self.not_written(&account, error))?;
        }
        let reason = match self.refused {
            Some(_) => RefreshReason::UnauthorizedRecovery,
            None => RefreshReason::ProactiveExpiry,
        };
        let tokens = match self.exchange.refresh(token, reason).await {
            Ok(tokens) => tokens,
            Err(ExchangeError::Refused(reason)) => {
                // The other program needs its lock to write what it has got.
                drop(held);
                return match self.wait_for_other(record).await? {
                    Some(adopted) => Ok(adopted.credentials()),
                    None => {
                        let death = Death {
                            reason: reason.clone(),
                            at: (self.now)(),
                        };
                        let ours = record.access_token.clone();
                        self.update(record, move |record| {
                            if record.access_token == ours {
                                record.dead = Some(death);
                            }
                        })
                        .await?;
                        tracing::warn!(account = record.id, %reason, "sign-in refused for good");
                        Err(SignInError::Refused { account, reason })
                    }
                };
            }
            Err(source) => return Err(SignInError::Unreachable { account, source }),
        };
        let at = (self.now)();
        let is_in_file = is_shared
            && {
                let (new, spent) = (tokens.clone(), token.clone());
                match blocking(move || held.put_back(Some(&spent), &new, at)).await? {
                    Ok(is_written) => is_written,
                    Err(error) => {
                        tracing::warn!(account = record.id, %error, "the Codex login cannot be written");
                        false
                    }
                }
            };
        let spent = token.clone();
        let renewed = self
            .update(record, move |record| {
                renewal::apply(record, tokens, at);
                record.refresh_token = match is_in_file {
                    true => None,
                    // An issuer that gave no new one goes on taking the old one.
                    false => record.refresh_token.take().or(Some(spent)),
                };
            })
            .await?;
        tracing::info!(account = record.id, ?reason, is_in_file, "token renewed");
        Ok(renewed.credentials())
    }

    /// Waits for tokens that the Codex CLI has got at the same time.
    async fn wait_for_other(&self, record: &Record) -> Result<Option<Record>, SignInError> {
        let end = Instant::now() + OTHERS_WAIT;
        loop {
            let path = self.path.clone();
            if let Ok(login) = blocking(move || import::read(&path)).await?
                && login.id().as_ref() == Some(&record.id)
                && login.access_token != record.access_token
            {
                let adopted = self.adopt(record, &login).await?;
                let state = renewal::state(&adopted, self.refused, (self.now)());
                return Ok((state == State::Good).then_some(adopted));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            sleep(OTHERS_PAUSE).await;
        }
    }

    async fn update(
        &self,
        record: &Record,
        edit: impl FnOnce(&mut Record) + Send + 'static,
    ) -> Result<Record, SignInError> {
        let (store, id) = (self.store.clone(), record.id.clone());
        let changed = blocking(move || store.update(&id, edit)).await?;
        changed?.ok_or(SignInError::Removed)
    }

    fn locked_out(&self, account: &str, error: LockError) -> SignInError {
        match error {
            LockError::Busy { .. } => SignInError::Busy(Arc::new(error)),
            LockError::Io { .. } => self.not_written(account, error.into()),
        }
    }

    fn not_written(&self, account: &str, error: CodexFileError) -> SignInError {
        SignInError::NotShared {
            account: account.to_owned(),
            path: self.path.clone(),
            source: Arc::new(error),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SignInError> {
    spawn_blocking(work)
        .await
        .map_err(|_| SignInError::Interrupted)
}
