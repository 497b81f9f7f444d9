//! A sign-in of our own as an account: whose the tokens are, and until when.
//!
//! Values only; `store` keeps them.

use serde_json::Map;

use crate::account::record::{Record, Source, identity};
use crate::account::renewal;
use crate::oauth::answer::Tokens;
use crate::oauth::claims::Claims;
use crate::secret::Secret;
use crate::time::UnixSeconds;

/// The tokens say neither who signed in nor for which workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tokens do not say which account they are for")]
pub struct Nobody;

/// Makes the record of what the issuer gave at `now`.
///
/// A person is known by user id, else by e-mail address; a workspace that the tokens do not name stays empty, and
/// upstream takes its default.
///
/// # Errors
///
/// [`Nobody`]: two such sign-ins could not be told apart.
pub fn record(tokens: Tokens, now: UnixSeconds) -> Result<Record, Nobody> {
    record_of(tokens, None, None, now)
}

/// As [`record`], with a workspace and an e-mail address that somebody wrote down beside the tokens, where the
/// tokens themselves do not say.
///
/// # Errors
///
/// [`Nobody`].
pub fn record_of(
    tokens: Tokens,
    workspace: Option<String>,
    email: Option<String>,
    now: UnixSeconds,
) -> Result<Record, Nobody> {
    let claims = claims(&tokens);
    let email = claims.email.or(email);
    let user = claims.chatgpt_user_id.or_else(|| email.clone());
    let user = user.unwrap_or_default();
    let workspace = claims.chatgpt_account_id.or(workspace).unwrap_or_default();
    if user.is_empty() && workspace.is_empty() {
        return Err(Nobody);
    }
    let mut record = Record {
        id: identity(&user, &workspace),
        email,
        label: None,
        chatgpt_account_id: workspace,
        chatgpt_user_id: user,
        plan: None,
        source: Source::Own,
        access_token: Secret::default(),
        refresh_token: None,
        id_token: None,
        expires_at: None,
        added_at: now,
        renewed_at: None,
        keychain: None,
        dead: None,
        unknown: Map::new(),
    };
    renewal::apply(&mut record, tokens, now);
    // Signed in, not renewed: a refusal right away is answered by a renewal all the same.
    record.renewed_at = None;
    Ok(record)
}

/// Reads what the tokens say.
pub fn claims(tokens: &Tokens) -> Claims {
    let id_token = tokens.id_token.as_ref();
    Claims::of_pair(
        id_token.map(|token| token.expose().as_str()),
        tokens.access_token.expose(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use serde_json::{Value, json};
    use std::time::Duration;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);
    const AUTH: &str = "https://api.openai.com/auth";

    fn jwt(payload: &Value) -> Secret<String> {
        let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload.to_string());
        Secret::new(format!("e30.{part}.c2ln"))
    }

    fn tokens(id: &Value, access: &Value, expires_in: Option<u64>) -> Tokens {
        Tokens {
            access_token: jwt(access),
            refresh_token: Some("rt".to_owned().into()),
            id_token: Some(jwt(id)),
            expires_in: expires_in.map(Duration::from_secs),
        }
    }

    #[test]
    fn an_account_is_a_person_in_a_workspace() {
        let id = json!({"email": "ann@x.com", AUTH: {"chatgpt_user_id": "u", "chatgpt_account_id": "w",
            "chatgpt_plan_type": "team"}});
        let made = record(tokens(&id, &json!({"exp": NOW.0 + 50}), Some(100)), NOW).unwrap();
        assert_eq!(made.id, identity("u", "w"));
        assert_eq!(
            (
                made.chatgpt_user_id.as_str(),
                made.chatgpt_account_id.as_str()
            ),
            ("u", "w")
        );
        assert_eq!(made.email.as_deref(), Some("ann@x.com"));
        assert_eq!(made.plan.as_deref(), Some("team"));
        assert_eq!(made.source, Source::Own);
        assert_eq!(made.refresh_token, Some("rt".to_owned().into()));
        assert_eq!(made.expires_at, Some(UnixSeconds(NOW.0 + 100)));
        assert_eq!((made.added_at, made.renewed_at), (NOW, None));
    }

    #[test]
    fn what_the_tokens_do_not_say_is_tolerated_down_to_a_name() {
        let by_address = json!({"email": "../..\u{7}@x"});
        let made = record(tokens(&by_address, &json!({"exp": NOW.0 + 50}), None), NOW).unwrap();
        assert_eq!(made.id, identity("../..\u{7}@x", ""));
        assert!(made.id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(made.expires_at, Some(UnixSeconds(NOW.0 + 50)));
        let nobody = json!({"forged": true});
        assert_eq!(record(tokens(&nobody, &nobody, Some(5)), NOW), Err(Nobody));
        let opaque = Tokens {
            access_token: "opaque".to_owned().into(),
            refresh_token: None,
            id_token: None,
            expires_in: None,
        };
        assert_eq!(record(opaque, NOW), Err(Nobody));
    }
}
