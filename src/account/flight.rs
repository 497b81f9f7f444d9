//! One renewal of one account, under the account's lock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::account::apart::{Answer, Rotation};
use crate::account::broker::{Outcome, Shared};
use crate::account::freshness::{Freshness, freshness};
use crate::account::import;
use crate::account::record::{Death, Record};
use crate::account::renewal::{self, Step, Stop};
use crate::account::sign_in::SignInError;
use crate::account::takeover::Takeover;
use crate::oauth::exchange::{ExchangeError, RefreshReason};
use crate::secret::Secret;

/// How long to wait for another process that renews the same account: one exchange with its time limit, and one
/// more behind it.
const LOCK_WAIT: Duration = Duration::from_secs(35);

impl Shared {
    /// Renews an account, if nobody else has: by a process of its own where there is something to lose.
    pub(super) async fn renewed(&self, id: &str, refused: Option<&Secret<String>>) -> Outcome {
        // What could not be saved is in this process only.
        let is_ours = self.memory().unsaved.contains_key(id);
        if let Some(apart) = self.apart.as_ref().filter(|_| !is_ours) {
            let record = self.record(id).await?;
            if let Step::Exchange(_) | Step::Share(_) =
                renewal::step(&record, refused, self.clock.now())
            {
                match apart.renew(id, refused).await {
                    Ok(Answer::Renewed) => return Ok(self.record(id).await?.credentials()),
                    Ok(Answer::Failed { error, unsaved }) => {
                        if let Some(rotation) = unsaved {
                            self.memory().unsaved.insert(id.to_owned(), rotation);
                        }
                        return Err(SignInError::Elsewhere(error));
                    }
                    Ok(Answer::Died) => return Err(SignInError::Interrupted),
                    // Nothing was spent.
                    Err(error) => {
                        tracing::warn!(account = id, %error, "no process for a renewal of its own");
                    }
                }
            }
        }
        self.renewed_here(id, refused).await
    }

    async fn record(&self, id: &str) -> Result<Record, SignInError> {
        let id = id.to_owned();
        let record = self.in_store(move |store| store.account(&id)).await?;
        record.ok_or(SignInError::Removed)
    }

    /// Renews an account under its lock, in this process.
    async fn renewed_here(&self, id: &str, refused: Option<&Secret<String>>) -> Outcome {
        let (store, name) = (self.store.clone(), id.to_owned());
        let lock = spawn_blocking(move || store.lock_account(&name, LOCK_WAIT)).await;
        let _lock = lock
            .map_err(|_| SignInError::Interrupted)?
            .map_err(|error| SignInError::Busy(Arc::new(error)))?;
        let unsaved = self.memory().unsaved.get(id).cloned();
        if let Some(rotation) = unsaved {
            self.save(id, rotation).await?;
        }
        let record = self.record(id).await?;
        let account = record.name();
        match renewal::step(&record, refused, self.clock.now()) {
            Step::Use => Ok(record.credentials()),
            Step::Reread(path) => self.reread(&record, path, refused).await,
            Step::Share(path) => {
                let (path, now) = (path.to_owned(), || self.clock.now());
                let takeover = Takeover {
                    store: &self.store,
                    exchange: &self.exchange,
                    now: &now,
                    path,
                    refused,
                };
                takeover.renew(&record).await
            }
            Step::Exchange(token) => self.exchange(&record, token, refused).await,
            Step::Stop(Stop::Dead(reason)) => Err(SignInError::Refused {
                account,
                reason: reason.clone(),
            }),
            Step::Stop(Stop::Sealed(why)) => Err(SignInError::Sealed { account, why }),
            Step::Stop(Stop::NoRefreshToken) => Err(SignInError::NoRefreshToken { account }),
            Step::Stop(Stop::StillRefused) => Err(SignInError::StillRefused { account }),
        }
    }

    /// Spends the refresh token.
    async fn exchange(
        &self,
        record: &Record,
        token: &Secret<String>,
        refused: Option<&Secret<String>>,
    ) -> Outcome {
        let reason = match refused {
            Some(_) => RefreshReason::UnauthorizedRecovery,
            None => RefreshReason::ProactiveExpiry,
        };
        let spent = token.clone();
        match self.exchange.refresh(token, reason).await {
            Ok(tokens) => {
                let at = self.clock.now();
                let rotation = Rotation { spent, tokens, at };
                let renewed = self.save(&record.id, rotation).await?;
                tracing::info!(account = record.id, ?reason, "token renewed");
                Ok(renewed.credentials())
            }
            Err(ExchangeError::Refused(reason)) => {
                let death = Death {
                    reason: reason.clone(),
                    at: self.clock.now(),
                };
                let id = record.id.clone();
                let kept = self
                    .in_store(move |store| {
                        store.update(&id, |record| {
                            if record.refresh_token.as_ref() == Some(&spent) {
                                record.dead = Some(death);
                            }
                        })
                    })
                    .await?
                    .ok_or(SignInError::Removed)?;
                tracing::warn!(account = record.id, %reason, "sign-in refused for good");
                // Signed in anew while we asked: the refusal was for the old sign-in.
                if renewal::step(&kept, refused, self.clock.now()) == Step::Use
                    && kept.dead.is_none()
                {
                    return Ok(kept.credentials());
                }
                Err(SignInError::Refused {
                    account: record.name(),
                    reason,
                })
            }
            Err(source) => Err(SignInError::Unreachable {
                account: record.name(),
                source,
            }),
        }
    }

    /// Puts new tokens on disk; what the disk does not take is kept for the next attempt, and not used before.
    async fn save(&self, id: &str, rotation: Rotation) -> Result<Record, SignInError> {
        self.memory()
            .unsaved
            .insert(id.to_owned(), rotation.clone());
        let account = id.to_owned();
        let saved = self
            .in_store(move |store| {
                store.update(&account, |record| {
                    // Else the person has signed in anew meanwhile, and those tokens are the better ones.
                    if record.refresh_token.as_ref() == Some(&rotation.spent) {
                        renewal::apply(record, rotation.tokens, rotation.at);
                    }
                })
            })
            .await?;
        self.memory().unsaved.remove(id);
        saved.ok_or(SignInError::Removed)
    }

    /// Looks whether the Codex CLI has renewed its login.
    async fn reread(
        &self,
        record: &Record,
        path: &Path,
        refused: Option<&Secret<String>>,
    ) -> Outcome {
        let account = record.name();
        let file = path.to_owned();
        let read = spawn_blocking(move || import::read(&file)).await;
        let login = read
            .map_err(|_| SignInError::Interrupted)?
            .map_err(|error| SignInError::ImportUnreadable {
                account: account.clone(),
                source: Arc::new(error),
            })?;
        let path = path.to_owned();
        let now = self.clock.now();
        if login.id().as_ref() != Some(&record.id) {
            return Err(SignInError::ImportChanged { account, path });
        }
        if freshness(login.claims.expires_at, now) == Freshness::Expired {
            return Err(SignInError::ImportExpired { account, path });
        }
        if Some(&login.access_token) == refused {
            return Err(SignInError::ImportRefused { account, path });
        }
        if login.access_token == record.access_token {
            // Ending, and the Codex CLI has not renewed it yet.
            return Ok(record.credentials());
        }
        let id = record.id.clone();
        let adopted = self
            .in_store(move |store| store.update(&id, |record| login.adopt_into(record, now)))
            .await?
            .ok_or(SignInError::Removed)?;
        tracing::info!(account = adopted.id, "token adopted from the Codex login");
        Ok(adopted.credentials())
    }
}
