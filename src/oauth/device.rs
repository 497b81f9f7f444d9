//! Signing in on another device: a code to type there, and the question whether it has been typed.
//!
//! One call each; how often to ask and when to stop is the caller's, by [`Started::interval`] and [`LIFETIME`].
//! Source: contract chatgpt-codex §10.2; the words `slow_down`, `access_denied` and `expired_token` RFC 8628,
//! section 3.5.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::oauth::answer::{ExchangeError, is_markup, refuse};
use crate::oauth::authorize::CLIENT_ID;
use crate::oauth::issuer::{Issuer, Reply};
use crate::secret::Secret;

/// How long a code is good.
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How much slower to ask after `slow_down`.
pub const SLOWER: Duration = Duration::from_secs(5);

/// How often to ask when the issuer does not say, and the bounds of what it may say.
const INTERVAL: u64 = 5;
const INTERVALS: std::ops::RangeInclusive<u64> = 1..=60;

/// A code to be typed on another device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// What the person types: short, and worth nothing here without the id.
    pub user_code: String,
    /// How long to wait between two questions.
    pub interval: Duration,
    id: Secret<String>,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not typed yet.
    Pending,
    /// Not typed yet, and asked too often.
    SlowDown,
    /// Signed in there: this is to be exchanged for tokens.
    Granted {
        /// The code.
        code: Secret<String>,
        /// Its verifier; here the issuer makes it.
        verifier: Secret<String>,
    },
}

/// Why this way leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Switched off in the security settings of the account or the workspace.
    #[error("signing in with a code is switched off for this account")]
    Disabled,
    /// The person, or the workspace's rules, said no.
    #[error("the sign-in was refused on the other device")]
    Denied,
    /// The code was not typed in time.
    #[error("the code has expired")]
    Expired,
    /// The issuer failed. While waiting that may pass.
    #[error(transparent)]
    Issuer(#[from] ExchangeError),
}

impl DeviceError {
    /// Says whether asking again may help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Issuer(ExchangeError::Unreachable { .. }) => true,
            Self::Issuer(ExchangeError::Status { status, .. }) => {
                // 403 only comes here as a page that something between us and the issuer made.
                matches!(*status, 403 | 408 | 500..)
            }
            _ => false,
        }
    }
}

/// The device endpoints of an issuer.
#[derive(Clone, Debug)]
pub struct Device {
    issuer: Issuer,
}

impl Device {
    /// Speaks to `issuer`.
    pub const fn of(issuer: Issuer) -> Self {
        Self { issuer }
    }

    /// Returns the page where the code is typed.
    pub fn page(&self) -> String {
        format!("{}/codex/device", self.issuer.origin())
    }

    /// Returns the address that the code has to be exchanged with.
    pub fn redirect_uri(&self) -> String {
        format!("{}/deviceauth/callback", self.issuer.origin())
    }

    /// Asks for a code.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Disabled`], [`DeviceError::Issuer`].
    pub async fn start(&self) -> Result<Started, DeviceError> {
        let asked = json!({ "client_id": CLIENT_ID });
        read_start(&self.post("usercode", &asked).await?)
    }

    /// Asks whether the code has been typed.
    ///
    /// # Errors
    ///
    /// See [`DeviceError`]; [`DeviceError::is_transient`] says whether to go on.
    pub async fn ask(&self, started: &Started) -> Result<Answer, DeviceError> {
        let asked = json!({"device_auth_id": started.id.expose(), "user_code": started.user_code});
        read_answer(&self.post("token", &asked).await?)
    }

    async fn post(&self, what: &str, body: &Value) -> Result<Reply, ExchangeError> {
        let path = format!("/api/accounts/deviceauth/{what}");
        let body = body.to_string().into_bytes();
        self.issuer.post(&path, "application/json", body).await
    }
}

fn read_start(reply: &Reply) -> Result<Started, DeviceError> {
    #[derive(Deserialize)]
    struct Given {
        device_auth_id: String,
        user_code: String,
        #[serde(default)]
        interval: Value,
    }
    if reply.status == 404 && !is_markup(&reply.body) {
        return Err(DeviceError::Disabled);
    }
    if !reply.is_success() {
        return Err(refuse(reply.status, &reply.body).into());
    }
    let malformed = |what| DeviceError::Issuer(ExchangeError::Malformed { what });
    let given: Given =
        serde_json::from_slice(&reply.body).map_err(|_| malformed("no code to show"))?;
    // Shown as it is: anything but a short code would be somebody else's words on the terminal.
    let is_code = (1..=32).contains(&given.user_code.len())
        && given
            .user_code
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !is_code || given.device_auth_id.is_empty() {
        return Err(malformed("no code to show"));
    }
    // A string in what was recorded.
    let interval = match &given.interval {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_u64(),
    };
    let interval = interval
        .unwrap_or(INTERVAL)
        .clamp(*INTERVALS.start(), *INTERVALS.end());
    Ok(Started {
        user_code: given.user_code,
        interval: Duration::from_secs(interval),
        id: given.device_auth_id.into(),
    })
}

fn read_answer(reply: &Reply) -> Result<Answer, DeviceError> {
    #[derive(Deserialize)]
    struct Granted {
        authorization_code: String,
        code_verifier: String,
    }
    if reply.is_success() {
        let malformed = ExchangeError::Malformed {
            what: "no code to exchange",
        };
        return match serde_json::from_slice(&reply.body) {
            Ok(Granted {
                authorization_code: code,
                code_verifier: verifier,
            }) if !code.is_empty() && !verifier.is_empty() => Ok(Answer::Granted {
                code: code.into(),
                verifier: verifier.into(),
            }),
            _ => Err(malformed.into()),
        };
    }
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let error = &body["error"];
    let word = error["code"]
        .as_str()
        .or_else(|| error.as_str())
        .unwrap_or_default();
    match (reply.status, word) {
        (400..=499, "slow_down") | (429, _) => Ok(Answer::SlowDown),
        (400..=499, "access_denied" | "deviceauth_access_denied") => Err(DeviceError::Denied),
        (400..=499, "expired_token" | "deviceauth_expired_token") => Err(DeviceError::Expired),
        (400, "authorization_pending") => Ok(Answer::Pending),
        (403 | 404, _) if !is_markup(&reply.body) => Ok(Answer::Pending),
        _ => Err(refuse(reply.status, &reply.body).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            body: body.as_bytes().to_vec(),
        }
    }

    fn recorded(name: &str) -> String {
        let text = include_str!("../../tests/fixtures/codex/auth/device-login-responses.json");
        serde_json::from_str::<Value>(text).unwrap()[name].to_string()
    }

    fn status(status: u16, code: Option<&str>) -> DeviceError {
        DeviceError::Issuer(ExchangeError::Status {
            status,
            code: code.map(str::to_owned),
        })
    }

    #[test]
    fn the_recorded_start_is_read() {
        assert_eq!(
            read_start(&reply(200, &recorded("usercode_200"))),
            Ok(Started {
                user_code: "ABCD-12345".to_owned(),
                interval: Duration::from_secs(1),
                id: "deviceauth_forged".to_owned().into(),
            })
        );
    }

    #[test]
    fn starts_that_are_none() {
        let malformed = |what| Err(DeviceError::Issuer(ExchangeError::Malformed { what }));
        let no_code = malformed("no code to show");
        for (number, body, expected) in [
            (404, "{}", Err(DeviceError::Disabled)),
            (404, "", Err(DeviceError::Disabled)),
            (404, "<html>", Err(status(404, None))),
            (500, "oops", Err(status(500, None))),
            (403, "<html>wait</html>", Err(status(403, None))),
            (200, "<html>", no_code.clone()),
            (200, "{}", no_code.clone()),
            (
                200,
                r#"{"device_auth_id":"d","user_code":"A\u001b[2J"}"#,
                no_code.clone(),
            ),
            (200, r#"{"device_auth_id":"","user_code":"A"}"#, no_code),
        ] {
            assert_eq!(
                read_start(&reply(number, body)),
                expected,
                "{number} {body}"
            );
        }
    }

    #[test]
    fn intervals_have_bounds() {
        for (interval, seconds) in [
            (json!("1"), 1),
            (json!(7), 7),
            (json!("0"), 1),
            (json!(99_999), 60),
            (json!(null), 5),
            (json!("soon"), 5),
            (json!(-1), 5),
        ] {
            let body = json!({"device_auth_id": "d", "user_code": "A-1", "interval": interval});
            let started = read_start(&reply(200, &body.to_string())).unwrap();
            assert_eq!(started.interval.as_secs(), seconds, "{interval}");
        }
    }

    #[test]
    fn answers() {
        let granted = Ok(Answer::Granted {
            code: "ac_forged".to_owned().into(),
            verifier: "cv_forged".to_owned().into(),
        });
        let coded = |code: &str| json!({"error": {"code": code, "message": "x"}}).to_string();
        for (number, body, expected) in [
            (200, recorded("token_200"), granted),
            (403, recorded("token_pending_403"), Ok(Answer::Pending)),
            (403, String::new(), Ok(Answer::Pending)),
            (404, "{}".to_owned(), Ok(Answer::Pending)),
            (
                400,
                r#"{"error":"authorization_pending"}"#.to_owned(),
                Ok(Answer::Pending),
            ),
            (
                400,
                r#"{"error":"slow_down"}"#.to_owned(),
                Ok(Answer::SlowDown),
            ),
            (403, coded("slow_down"), Ok(Answer::SlowDown)),
            (429, String::new(), Ok(Answer::SlowDown)),
            (403, coded("access_denied"), Err(DeviceError::Denied)),
            (400, coded("expired_token"), Err(DeviceError::Expired)),
            (400, coded("else"), Err(status(400, Some("else")))),
            (403, "<html>wait</html>".to_owned(), Err(status(403, None))),
            (502, "<html>".to_owned(), Err(status(502, None))),
            (
                200,
                "{}".to_owned(),
                Err(DeviceError::Issuer(ExchangeError::Malformed {
                    what: "no code to exchange",
                })),
            ),
        ] {
            assert_eq!(
                read_answer(&reply(number, &body)),
                expected,
                "{number} {body}"
            );
        }
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        let unreachable = ExchangeError::Unreachable { what: "x" };
        for (error, expected) in [
            (unreachable.into(), true),
            (status(502, None), true),
            (status(403, None), true),
            (status(400, None), false),
            (DeviceError::Denied, false),
            (DeviceError::Expired, false),
            (DeviceError::Disabled, false),
        ] {
            assert_eq!(error.is_transient(), expected, "{error:?}");
        }
    }
}
