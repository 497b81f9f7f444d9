//! The issuer: refresh tokens that rotate and are good once, access tokens that can be refused, and logins.
//!
//! Knows no sockets and no clock. Source: contract chatgpt-codex §10.1-§10.3, §10.7.

use serde_json::{Value, json};

use super::desk::{Asked, Desk};
use super::forge::{Account, Bearer, CLIENT_ID, LIFETIME};
use crate::time::UnixSeconds;

/// How many tokens one login may get: the next login's numbers begin behind them.
const LOGIN_STEP: u64 = 10_000;

/// The tokens of all accounts.
#[derive(Debug)]
pub struct Issuer {
    /// One for each login: the forged ones first.
    holders: Vec<Holder>,
    accounts: Vec<Account>,
    desk: Desk,
}

#[derive(Debug)]
struct Holder {
    account: Account,
    /// Number of the login's first tokens.
    first: u64,
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
        let holders = accounts.iter().cloned();
        Self {
            holders: holders.map(|account| Holder::new(account, 0)).collect(),
            accounts,
            desk: Desk::default(),
        }
    }

    /// Returns where people sign in.
    pub const fn desk(&mut self) -> &mut Desk {
        &mut self.desk
    }

    /// Returns the account called `name`, or the first.
    pub fn account(&self, name: Option<&str>) -> Option<&Account> {
        match name {
            None => self.accounts.first(),
            Some(name) => self.accounts.iter().find(|account| account.name == name),
        }
    }

    /// Returns all accounts.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Changes what the tokens of later logins say about the account called `name`.
    pub fn change_account(&mut self, name: &str, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.iter_mut().find(|a| a.name == name) {
            change(account);
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
            .find(|holder| {
                holder.account.chatgpt_account_id == bearer.chatgpt_account_id
                    && holder.first == bearer.serial / LOGIN_STEP * LOGIN_STEP
            })
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
        match field("grant_type").as_deref() {
            Some("refresh_token") => {}
            Some("authorization_code") => return self.redeem(field, now),
            _ => return simple_error(400, "unsupported_grant_type", "unknown grant_type"),
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
        holder.grant(now)
    }

    /// A code becomes the tokens of a new login, which does not touch the others.
    fn redeem(&mut self, field: impl Fn(&str) -> Option<String>, now: UnixSeconds) -> Grant {
        let given = |name: &str| field(name).unwrap_or_default();
        let asked = Asked {
            code: &given("code"),
            verifier: &given("code_verifier"),
            redirect_uri: &given("redirect_uri"),
        };
        let name = match self.desk.redeem(&asked, now) {
            Ok(name) => name,
            Err(why) => return simple_error(400, "invalid_grant", why),
        };
        let Some(account) = self.account(Some(&name)).cloned() else {
            return simple_error(400, "invalid_grant", "the account is gone");
        };
        let logins = self.holders.iter().filter(|h| h.account.name == name);
        let first = LOGIN_STEP * logins.count() as u64;
        let holder = Holder::new(account, first);
        let grant = holder.grant(now);
        self.holders.push(holder);
        grant
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
            (holder.first..=holder.serial)
                .rev()
                .find(|serial| holder.account.refresh_token(*serial).expose() == given)
                .map(|serial| (holder, serial))
        })
    }
}

impl Holder {
    const fn new(account: Account, first: u64) -> Self {
        Self {
            account,
            first,
            serial: first,
            oldest_access: first,
            is_revoked: false,
        }
    }

    /// The tokens with the current number.
    fn grant(&self, now: UnixSeconds) -> Grant {
        let account = &self.account;
        Grant {
            status: 200,
            body: json!({
                "id_token": account.id_token(now, LIFETIME, self.serial).expose(),
                "access_token": account.access_token(now, LIFETIME, self.serial).expose(),
                "refresh_token": account.refresh_token(self.serial).expose(),
                "expires_in": LIFETIME.as_secs(),
                "token_type": "Bearer",
                "scope": "openid profile email offline_access",
            }),
        }
    }
}

pub(super) fn simple_error(status: u16, error: &str, description: &str) -> Grant {
    Grant {
        status,
        body: json!({"error": error, "error_description": description}),
    }
}

fn coded_error(code: &str, message: &str) -> Grant {
    error(401, code, message)
}

pub(super) fn error(status: u16, code: &str, message: &str) -> Grant {
    Grant {
        status,
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
    fn a_login_has_tokens_of_its_own() {
        let mut issuer = Issuer::new(vec![Account::new("a")]);
        let challenge = "4V-SgOdGE1JLyjG5cgY1hZtVtPn3Q1mDVD0jX6fyXNk";
        let verifier = "abc";
        let digest = <sha2::Sha256 as sha2::Digest>::digest(verifier);
        let challenge_of =
            base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, digest);
        let mut redeem = |challenge: &str| {
            let code = issuer.desk().issue("a", challenge, "home", NOW);
            let grant = issuer.token(
                |name| {
                    Some(match name {
                        "client_id" => CLIENT_ID.to_owned(),
                        "grant_type" => "authorization_code".to_owned(),
                        "code" => code.clone(),
                        "redirect_uri" => "home".to_owned(),
                        _ => verifier.to_owned(),
                    })
                },
                NOW,
            );
            (grant.status, grant.body)
        };
        assert_eq!(redeem(challenge).0, 400);
        let (status, body) = redeem(&challenge_of);
        assert_eq!(
            (status, &body["refresh_token"]),
            (200, &json!("rt_forged_a_10000"))
        );
        let token = body["access_token"].as_str().unwrap().to_owned();
        let first = Account::new("a").access_token(NOW, LIFETIME, 0);
        let id = Some("acc-a-forged");
        for token in [&token, first.expose()] {
            assert!(issuer.admit(token, id, NOW).is_ok());
        }
        // The login that was there before goes on by itself.
        assert_eq!(refresh(&mut issuer, "rt_forged_a_0000").status, 200);
        assert_eq!(refresh(&mut issuer, "rt_forged_a_10000").status, 200);
        let again = refresh(&mut issuer, "rt_forged_a_10000");
        assert_eq!(again.body["error"]["code"], "refresh_token_reused");
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
