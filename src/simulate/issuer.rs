//! The issuer: refresh tokens that rotate and are good once, access tokens that can be refused.
//!
//! Knows no sockets and no clock. Source: contract chatgpt-codex §10.3, §10.7.

use serde_json::{Value, json};

use super::forge::{Account, Bearer, CLIENT_ID, LIFETIME};
use crate::time::UnixSeconds;

/// The tokens of all accounts.
#[derive(Debug)]
pub struct Issuer {
    holders: Vec<Holder>,
}

#[derive(Debug)]
struct Holder {
    account: Account,
    /// Number of the refresh token that is good, and of the access token that came with it.
    serial: u64,
    /// Access tokens below this number are refused although they have not expired.
    oldest_access: u64,
    is_revoked: bool,
}

/// Why an access token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It is no token at all.
    Unreadable,
    /// It has expired, or was refused on purpose.
    Expired,
    /// It speaks for an account that is not the one named, or that there is not.
    Stranger,
}

/// The answer of the token endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body.
    pub body: Value,
}

impl Issuer {
    /// Issues for `accounts`, whose logins have the tokens number 0.
    pub fn new(accounts: Vec<Account>) -> Self {
        Self {
            holders: accounts
                .into_iter()
                .map(|account| Holder {
                    account,
                    serial: 0,
                    oldest_access: 0,
                    is_revoked: false,
                })
                .collect(),
        }
    }

    /// Returns the account that `token` speaks for, if it may be used at `now` for `account_id`.
    pub fn admit(
        &self,
        token: &str,
        account_id: Option<&str>,
        now: UnixSeconds,
    ) -> Result<&Account, NotTaken> {
        let bearer = Bearer::read(token).ok_or(NotTaken::Unreadable)?;
        let holder = self
            .holders
            .iter()
            .find(|holder| holder.account.chatgpt_account_id == bearer.chatgpt_account_id)
            .ok_or(NotTaken::Stranger)?;
        if bearer.expires_at <= now || bearer.serial < holder.oldest_access {
            return Err(NotTaken::Expired);
        }
        if account_id != Some(bearer.chatgpt_account_id.as_str()) {
            return Err(NotTaken::Stranger);
        }
        Ok(&holder.account)
    }

    /// Refuses from now on every access token issued so far, as upstream does now and then before
    /// their time.
    pub fn expire_access(&mut self) {
        for holder in &mut self.holders {
            holder.oldest_access = holder.serial + 1;
        }
    }

    /// Answers `POST /oauth/token` with the fields of its body.
    pub fn token(&mut self, field: impl Fn(&str) -> Option<String>, now: UnixSeconds) -> Grant {
        if field("client_id").as_deref() != Some(CLIENT_ID) {
            return simple_error(401, "invalid_client", "unknown client_id");
        }
        if field("grant_type").as_deref() != Some("refresh_token") {
            return simple_error(400, "unsupported_grant_type", "only refresh_token is taken");
        }
        let Some(given) = field("refresh_token") else {
            return simple_error(400, "invalid_request", "refresh_token is missing");
        };
        let Some((holder, serial)) = self.holder(&given) else {
            return simple_error(400, "invalid_grant", "unknown refresh token");
        };
        if holder.is_revoked {
            return coded_error(
                "refresh_token_invalidated",
                "The refresh token was revoked.",
            );
        }
        if serial < holder.serial {
            return coded_error(
                "refresh_token_reused",
                "The refresh token has already been used to get a new access token.",
            );
        }
        holder.serial += 1;
        let account = &holder.account;
        Grant {
            status: 200,
            body: json!({
                "id_token": account.id_token(now, LIFETIME, holder.serial).expose(),
                "access_token": account.access_token(now, LIFETIME, holder.serial).expose(),
                "refresh_token": account.refresh_token(holder.serial).expose(),
                "expires_in": LIFETIME.as_secs(),
                "token_type": "Bearer",
                "scope": "openid profile email offline_access",
            }),
        }
    }

    /// Answers `POST /oauth/revoke`: an unknown token is answered like a known one.
    pub fn revoke(&mut self, field: impl Fn(&str) -> Option<String>) -> Grant {
        if let Some(token) = field("token")
            && let Some((holder, _)) = self.holder(&token)
        {
            holder.is_revoked = true;
        }
        Grant {
            status: 200,
            body: json!({}),
        }
    }

    /// Returns who holds the refresh token `given`, and its number.
    fn holder(&mut self, given: &str) -> Option<(&mut Holder, u64)> {
        self.holders.iter_mut().find_map(|holder| {
            (0..=holder.serial)
                .rev()
                .find(|serial| holder.account.refresh_token(*serial).expose() == given)
                .map(|serial| (holder, serial))
        })
    }
}

fn simple_error(status: u16, error: &str, description: &str) -> Grant {
    Grant {
        status,
        body: json!({"error": error, "error_description": description}),
    }
}

fn coded_error(code: &str, message: &str) -> Grant {
    Grant {
        status: 401,
        body: json!({"error": {
            "code": code,
            "message": message,
            "type": "invalid_request_error",
            "param": null,
        }}),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_795_457_000);

    fn refresh(issuer: &mut Issuer, token: &str) -> Grant {
        issuer.token(
            |name| {
                Some(match name {
                    "client_id" => CLIENT_ID.to_owned(),
                    "grant_type" => "refresh_token".to_owned(),
                    _ => token.to_owned(),
                })
            },
            NOW,
        )
    }

    #[test]
    fn a_refresh_token_is_good_once() {
        let mut issuer = Issuer::new(vec![Account::new("a"), Account::new("b")]);
        let first = refresh(&mut issuer, "rt_forged_b_0000");
        assert_eq!(first.status, 200);
        assert_eq!(first.body["refresh_token"], "rt_forged_b_0001");
        let token = first.body["access_token"].as_str().unwrap();
        let admitted = issuer.admit(token, Some("acc-b-forged"), NOW).unwrap();
        assert_eq!(admitted.name, "b");
        let again = refresh(&mut issuer, "rt_forged_b_0000");
        assert_eq!(
            (again.status, &again.body["error"]["code"]),
            (401, &json!("refresh_token_reused"))
        );
        assert_eq!(refresh(&mut issuer, "rt_forged_b_0001").status, 200);
        assert_eq!(
            refresh(&mut issuer, "rt_other").body["error"],
            "invalid_grant"
        );
        issuer.revoke(|_| Some("rt_forged_b_0002".to_owned()));
        assert_eq!(
            refresh(&mut issuer, "rt_forged_b_0002").body["error"]["code"],
            "refresh_token_invalidated"
        );
        assert_eq!(refresh(&mut issuer, "rt_forged_a_0000").status, 200);
    }

    #[test]
    fn a_foreign_client_or_grant_is_refused() {
        let mut issuer = Issuer::new(Vec::new());
        assert_eq!(issuer.token(|_| None, NOW).body["error"], "invalid_client");
        let code = |name: &str| (name == "client_id").then(|| CLIENT_ID.to_owned());
        assert_eq!(
            issuer.token(code, NOW).body["error"],
            "unsupported_grant_type"
        );
    }

    #[test]
    fn an_access_token_is_taken_for_its_account_until_it_expires() {
        let account = Account::new("a");
        let mut issuer = Issuer::new(vec![account.clone()]);
        let minute = Duration::from_secs(60);
        let token = account.access_token(NOW, minute, 0);
        let admit = |issuer: &Issuer, token: &str, id, now| {
            issuer
                .admit(token, id, now)
                .map(|account| account.name.clone())
        };
        let id = Some("acc-a-forged");
        assert_eq!(admit(&issuer, token.expose(), id, NOW), Ok("a".to_owned()));
        for (given, id, now, want) in [
            (
                token.expose().as_str(),
                id,
                NOW.plus(minute),
                NotTaken::Expired,
            ),
            (token.expose(), None, NOW, NotTaken::Stranger),
            (
                token.expose(),
                Some("acc-b-forged"),
                NOW,
                NotTaken::Stranger,
            ),
            ("nonsense", id, NOW, NotTaken::Unreadable),
        ] {
            assert_eq!(admit(&issuer, given, id, now), Err(want));
        }
        let stranger = Account::new("x").access_token(NOW, minute, 0);
        assert_eq!(
            admit(&issuer, stranger.expose(), Some("acc-x-forged"), NOW),
            Err(NotTaken::Stranger)
        );
        issuer.expire_access();
        assert_eq!(
            admit(&issuer, token.expose(), id, NOW),
            Err(NotTaken::Expired)
        );
        let renewed = refresh(&mut issuer, "rt_forged_a_0000");
        let renewed = renewed.body["access_token"].as_str().unwrap();
        assert_eq!(admit(&issuer, renewed, id, NOW), Ok("a".to_owned()));
    }
}
