//! What a token says of its bearer.
//!
//! Reads the payload only and checks no signature: upstream is the judge of a token, ccx merely has to
//! know whose it is and when it ends. A claim of a wrong type counts as absent.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::time::UnixSeconds;

/// JWTs come without padding (RFC 7515, section 2); one that has it is read too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The issuer's namespaces.
const AUTH: &str = "https://api.openai.com/auth";
const PROFILE: &str = "https://api.openai.com/profile";

/// What is known of a token's bearer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// E-mail address.
    pub email: Option<String>,
    /// When the token ends (`exp`, RFC 7519, section 4.1.4), by the issuer's clock.
    pub expires_at: Option<UnixSeconds>,
    /// The workspace.
    pub chatgpt_account_id: Option<String>,
    /// The person.
    pub chatgpt_user_id: Option<String>,
    /// `free`, `plus`, `pro`, `business`, `enterprise`, `edu`, …
    pub plan: Option<String>,
}

/// The text is not a token with readable claims. Carries nothing of it: it may be a secret all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token has no readable claims")]
pub struct Unreadable;

impl Claims {
    /// Reads the claims of one JWT.
    ///
    /// # Errors
    ///
    /// Not three parts with a JSON object in the middle. Access tokens may legally be opaque.
    pub fn read(token: &str) -> Result<Self, Unreadable> {
        let payload = token.split('.').nth(1).ok_or(Unreadable)?;
        let payload = BASE64.decode(payload).map_err(|_| Unreadable)?;
        let payload: Value = serde_json::from_slice(&payload).map_err(|_| Unreadable)?;
        if !payload.is_object() {
            return Err(Unreadable);
        }
        let auth = &payload[AUTH];
        let dotted = |name: &str| text(&payload[format!("{AUTH}.{name}")]);
        let anywhere = |name: &str| {
            text(&auth[name])
                .or_else(|| text(&payload[name]))
                .or_else(|| dotted(name))
        };
        Ok(Self {
            email: text(&payload["email"]).or_else(|| text(&payload[PROFILE]["email"])),
            expires_at: seconds(&payload["exp"]),
            chatgpt_account_id: anywhere("chatgpt_account_id")
                .or_else(|| text(&auth["organizations"][0]["id"]))
                .or_else(|| text(&payload["organizations"][0]["id"])),
            chatgpt_user_id: anywhere("chatgpt_user_id")
                .or_else(|| text(&auth["user_id"]))
                .or_else(|| text(&payload["sub"])),
            plan: anywhere("chatgpt_plan_type"),
        })
    }

    /// Reads what the tokens of one sign-in say together: each claim from the id token if it is there, else
    /// from the access token. The end is the access token's alone.
    pub fn of_pair(id_token: Option<&str>, access_token: &str) -> Self {
        let identity = id_token
            .and_then(|token| Self::read(token).ok())
            .unwrap_or_default();
        let access = Self::read(access_token).unwrap_or_default();
        Self {
            email: identity.email.or(access.email),
            expires_at: access.expires_at,
            chatgpt_account_id: identity.chatgpt_account_id.or(access.chatgpt_account_id),
            chatgpt_user_id: identity.chatgpt_user_id.or(access.chatgpt_user_id),
            plan: identity.plan.or(access.plan),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// `exp` is a number and may have a fraction (RFC 7519, "NumericDate").
fn seconds(value: &Value) -> Option<UnixSeconds> {
    let whole = value.as_u64();
    // `as` saturates: a negative end is long ago, a huge one far away.
    whole
        .or_else(|| value.as_f64().map(|fraction| fraction as u64))
        .map(UnixSeconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn jwt(payload: &Value) -> String {
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.c2ln",
            part("{\"alg\":\"none\"}"),
            part(&payload.to_string())
        )
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_recorded_claims_are_read() {
        let payload = include_str!("../../tests/fixtures/codex/auth/id-token-claims.json");
        assert_eq!(
            Claims::read(&jwt(&serde_json::from_str(payload).unwrap())),
            Ok(Claims {
                email: some("user@example.com"),
                expires_at: Some(UnixSeconds(1_796_321_000)),
                chatgpt_account_id: some("acc-00000000-forged"),
                chatgpt_user_id: some("user-forged"),
                plan: some("pro"),
            })
        );
    }

    #[test]
    fn the_account_has_fallbacks_in_order() {
        let organizations = json!([{"id": "org-1"}, {"id": "org-2"}]);
        for (payload, expected) in [
            (
                json!({AUTH: {"chatgpt_account_id": "a"}, "chatgpt_account_id": "b"}),
                some("a"),
            ),
            (
                json!({"chatgpt_account_id": "b", "https://api.openai.com/auth.chatgpt_account_id": "c"}),
                some("b"),
            ),
            (
                json!({"https://api.openai.com/auth.chatgpt_account_id": "c", AUTH: {"organizations": organizations}}),
                some("c"),
            ),
            (
                json!({AUTH: {"organizations": organizations}}),
                some("org-1"),
            ),
            (json!({"organizations": organizations}), some("org-1")),
            (
                json!({AUTH: {"chatgpt_account_id": "", "organizations": []}}),
                None,
            ),
            (json!({}), None),
        ] {
            let claims = Claims::read(&jwt(&payload)).unwrap();
            assert_eq!(claims.chatgpt_account_id, expected, "{payload}");
        }
    }

    #[test]
    fn wrong_types_are_absent() {
        let claims = Claims::read(&jwt(&json!({
            "email": 3, "exp": "soon", "chatgpt_account_id": [], "sub": {}, AUTH: "x", PROFILE: null
        })));
        assert_eq!(claims, Ok(Claims::default()));
    }

    #[test]
    fn ends_are_numbers() {
        for (exp, expected) in [
            (json!(5), Some(5)),
            (json!(5.9), Some(5)),
            (json!(-5), Some(0)),
            (json!(1e30), Some(u64::MAX)),
            (json!("5"), None),
            (json!(null), None),
        ] {
            let claims = Claims::read(&jwt(&json!({"exp": exp}))).unwrap();
            assert_eq!(claims.expires_at.map(|at| at.0), expected, "{exp}");
        }
    }

    #[test]
    fn what_is_no_token_is_an_error() {
        for token in [
            "",
            "a",
            "a.b",
            "..",
            "a.!!.c",
            "a.bnVsbA.c",
            "a.W10.c",
            "sk-proj-1",
        ] {
            assert_eq!(Claims::read(token), Err(Unreadable), "{token}");
        }
    }

    #[test]
    fn padding_does_not_matter() {
        assert_eq!(Claims::read("e30.e30=.x"), Ok(Claims::default()));
        assert_eq!(Claims::read("e30.e30.x"), Ok(Claims::default()));
    }

    #[test]
    fn the_id_token_goes_first() {
        let id = jwt(&json!({"email": "id@x", "exp": 1, AUTH: {"chatgpt_account_id": "of-id"}}));
        let access = jwt(
            &json!({"email": "ac@x", "exp": 2, "sub": "user", AUTH: {"chatgpt_account_id": "of-access", "chatgpt_plan_type": "plus"}}),
        );
        assert_eq!(
            Claims::of_pair(Some(&id), &access),
            Claims {
                email: some("id@x"),
                expires_at: Some(UnixSeconds(2)),
                chatgpt_account_id: some("of-id"),
                chatgpt_user_id: some("user"),
                plan: some("plus"),
            }
        );
        assert_eq!(Claims::of_pair(None, "opaque"), Claims::default());
        assert_eq!(Claims::of_pair(Some(&id), "opaque").expires_at, None);
    }
}
