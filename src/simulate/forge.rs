//! Forged ChatGPT accounts: unsigned tokens, the `auth.json` of a Codex login, the routing entry.
//!
//! Nothing here is a secret of anybody: the tokens say who they pretend to be and are accepted only
//! by [`super::backend`]. Source of the claims and of the file: contract chatgpt-codex §10.4, §10.5.

use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::secret::Secret;
use crate::time::UnixSeconds;

/// The client id of the Codex login, which the issuer insists on.
pub const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// How long an access token lives when nothing else is asked for: ten days, as the real issuer's.
pub const LIFETIME: Duration = Duration::from_secs(864_000);

/// The claim that holds what ChatGPT knows about the account.
const AUTH_CLAIM: &str = "https://api.openai.com/auth";

/// A made-up ChatGPT account. The same name gives the same account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Goes into every id of the account.
    pub name: String,
    /// What the backend expects as `chatgpt-account-id`.
    pub chatgpt_account_id: String,
    /// `chatgpt_user_id` of the claims.
    pub user_id: String,
    /// The address of the login.
    pub email: String,
    /// The plan: `plus`, `pro`, …
    pub plan: String,
}

/// What an access token says about itself, read without a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The account it speaks for.
    pub chatgpt_account_id: String,
    /// When it expires.
    pub expires_at: UnixSeconds,
    /// Its number among the account's tokens; a forged login starts with 0.
    pub serial: u64,
}

impl Account {
    /// Makes the account `name` (letters, digits and `-`) on the plan `pro`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            chatgpt_account_id: format!("acc-{name}-forged"),
            user_id: format!("user-{name}-forged"),
            email: format!("{name}@example.com"),
            plan: "pro".to_owned(),
        }
    }

    /// Returns an unsigned access token that is valid for `lifetime` from `now`.
    pub fn access_token(
        &self,
        now: UnixSeconds,
        lifetime: Duration,
        serial: u64,
    ) -> Secret<String> {
        Secret::new(self.token(now, lifetime, serial, "https://api.openai.com/v1"))
    }

    /// Returns an unsigned id token with the claims that the client reads.
    pub fn id_token(&self, now: UnixSeconds, lifetime: Duration, serial: u64) -> Secret<String> {
        Secret::new(self.token(now, lifetime, serial, CLIENT_ID))
    }

    /// Returns the refresh token number `serial`; number 0 is the one of the forged login.
    pub fn refresh_token(&self, serial: u64) -> Secret<String> {
        Secret::new(format!("rt_forged_{}_{serial:04}", self.name))
    }

    fn token(&self, now: UnixSeconds, lifetime: Duration, serial: u64, audience: &str) -> String {
        let claims = json!({
            "iss": "https://auth.openai.com",
            "aud": [audience],
            "sub": format!("auth0|{}", self.name),
            "iat": now.0,
            "exp": now.plus(lifetime).0,
            "jti": format!("forged-{serial}"),
            "email": self.email,
            "email_verified": true,
            AUTH_CLAIM: {
                "chatgpt_account_id": self.chatgpt_account_id,
                "chatgpt_plan_type": self.plan,
                "chatgpt_user_id": self.user_id,
                "user_id": self.user_id,
                "organizations": [],
            },
            "https://api.openai.com/profile": { "email": self.email },
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!(
            "{}.{}.{}",
            part(&json!({"alg": "none", "typ": "JWT"})),
            part(&claims),
            URL_SAFE_NO_PAD.encode("forged")
        )
    }

    /// Returns the `auth.json` that a Codex login of this account leaves, signed in at `now`.
    pub fn auth_json(&self, now: UnixSeconds, lifetime: Duration) -> Value {
        json!({
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": null,
            "tokens": {
                "id_token": self.id_token(now, lifetime, 0).expose(),
                "access_token": self.access_token(now, lifetime, 0).expose(),
                "refresh_token": self.refresh_token(0).expose(),
                "oauth_provenance": {
                    "issuer": "https://auth.openai.com",
                    "client_id": CLIENT_ID,
                },
                "account_id": self.chatgpt_account_id,
            },
            "last_refresh": in_rfc3339(now),
        })
    }

    /// Writes that `auth.json` (mode 0600) into the existing directory `directory` and returns its
    /// path: what `ccx login --import` takes.
    pub fn write_auth_json(
        &self,
        directory: &Path,
        now: UnixSeconds,
        lifetime: Duration,
    ) -> io::Result<PathBuf> {
        let path = directory.join("auth.json");
        // A temporary file is made 0600, and renamed keeps that mode.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        let text = serde_json::to_vec_pretty(&self.auth_json(now, lifetime))?;
        file.write_all(&text)?;
        file.persist(&path).map_err(|refused| refused.error)?;
        Ok(path)
    }

    /// Returns the account's entry of `wham/accounts/check` (contract §2.2).
    pub fn routing_entry(&self) -> Value {
        json!({
            "id": self.chatgpt_account_id,
            "account_user_role": "account-owner",
            "structure": "personal",
            "plan_type": self.plan,
            "workspace_backend_origin": "NO_CONSTRAINT",
            "account_routing_override": "NO_CONSTRAINT",
            "is_deactivated": false,
            "name": null,
            "profile_picture_url": null,
        })
    }
}

impl Bearer {
    /// Reads an access token of [`Account::access_token`]; `None` if it is none.
    pub fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let claims = URL_SAFE_NO_PAD.decode(parts.nth(1)?).ok()?;
        parts.next()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        Some(Self {
            chatgpt_account_id: claims
                .get(AUTH_CLAIM)?
                .get("chatgpt_account_id")?
                .as_str()?
                .to_owned(),
            expires_at: UnixSeconds(claims.get("exp")?.as_u64()?),
            serial: claims
                .get("jti")?
                .as_str()?
                .strip_prefix("forged-")?
                .parse()
                .ok()?,
        })
    }
}

/// Returns `2026-11-23T18:22:07Z`; the epoch's start for a time that no calendar reaches.
fn in_rfc3339(time: UnixSeconds) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .unwrap_or_default()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_795_457_000);

    #[test]
    fn a_token_says_who_and_until_when() {
        let token = Account::new("demo").access_token(NOW, Duration::from_secs(60), 7);
        assert_eq!(
            Bearer::read(token.expose()),
            Some(Bearer {
                chatgpt_account_id: "acc-demo-forged".to_owned(),
                expires_at: UnixSeconds(NOW.0 + 60),
                serial: 7,
            })
        );
    }

    #[test]
    fn what_is_no_token_is_not_read() {
        for text in ["", "a", "a.b", "a.b.c", "e30.e30.e30"] {
            assert_eq!(Bearer::read(text), None, "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_login_file_is_private_and_complete() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = Account::new("demo")
            .write_auth_json(directory.path(), NOW, LIFETIME)
            .unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(value["auth_mode"], "chatgpt");
        assert_eq!(value["tokens"]["refresh_token"], "rt_forged_demo_0000");
        assert_eq!(value["tokens"]["account_id"], "acc-demo-forged");
        assert_eq!(value["last_refresh"], "2026-11-23T18:03:20Z");
    }
}
