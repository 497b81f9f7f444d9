//! The headers of a call upstream, for each lane.
//!
//! Pure and deterministic: the same call gives the same headers. Sends nothing.
//!
//! The lite lane answers "model unavailable" to user agents that do not look like the upstream
//! client's (contract chatgpt-codex §2.1), so there the originator and the form of the user agent are
//! the upstream client's. `ccx/<version>` stands in every user agent all the same: ccx never hides
//! who it is.

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::account::credentials::Credentials;
use crate::catalogue::model::Lane;

/// The version of the upstream client whose catalogue ccx asks for. Upstream hides newer models from older
/// versions.
pub const CLIENT_VERSION: &str = "0.169.0";

const LITE_ORIGINATOR: &str = "codex_cli_rs";
const FULL_ORIGINATOR: &str = "ccx";

const SYSTEM: &str = if cfg!(target_os = "macos") {
    "macOS"
} else if cfg!(target_os = "linux") {
    "Linux"
} else {
    "Unix"
};

const MACHINE: &str = if cfg!(target_arch = "x86_64") {
    "x86_64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "unknown"
};

const ACCOUNT_ID: HeaderName = HeaderName::from_static("chatgpt-account-id");
const BETA_FEATURES: HeaderName = HeaderName::from_static("x-codex-beta-features");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");
const LITE: HeaderName = HeaderName::from_static("x-openai-internal-codex-responses-lite");
const ORIGINATOR: HeaderName = HeaderName::from_static("originator");
const ROUTING_HINT: HeaderName = HeaderName::from_static("x-codex-routing-hint");
const ROUTING_OVERRIDE: HeaderName = HeaderName::from_static("x-openai-account-routing-override");
const SESSION_ID: HeaderName = HeaderName::from_static("session-id");
const THREAD_ID: HeaderName = HeaderName::from_static("thread-id");
const TURN_STATE: HeaderName = HeaderName::from_static("x-codex-turn-state");
const VERSION: HeaderName = HeaderName::from_static("version");
const WINDOW_ID: HeaderName = HeaderName::from_static("x-codex-window-id");

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The version of ccx.
    pub version: String,
}

/// What the headers of a model turn depend on.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The form of the body.
    pub lane: Lane,
    /// Upstream's name of the model.
    pub model: &'a str,
    /// The conversation; the same from turn to turn.
    pub conversation: &'a str,
    /// Upstream's `x-codex-turn-state` of the turn that this call goes on with.
    pub turn_state: Option<&'a str>,
    /// The service tier asked for in the body.
    pub tier: Option<&'a str>,
    /// `us` or `us_cr`, where the account's workspace is bound to a region.
    pub routing_override: Option<&'a str>,
}

impl Identity {
    /// Returns the user agent of a lane.
    pub fn user_agent(&self, lane: Lane) -> String {
        let version = &self.version;
        match lane {
            Lane::Full => format!("ccx/{version} ({SYSTEM}; {MACHINE})"),
            Lane::Lite => {
                format!("{LITE_ORIGINATOR}/{CLIENT_VERSION} ({SYSTEM}; {MACHINE}) ccx/{version}")
            }
        }
    }

    /// Returns the headers of a model turn. What cannot stand in a header is left out.
    pub fn turn(&self, credentials: &Credentials, turn: &Turn<'_>) -> HeaderMap {
        let mut headers = self.common(credentials, turn.lane);
        headers.insert(VERSION, HeaderValue::from_static(CLIENT_VERSION));
        headers.insert(
            BETA_FEATURES,
            HeaderValue::from_static("remote_compaction_v2"),
        );
        let conversation = header_id(turn.conversation);
        set(&mut headers, WINDOW_ID, &format!("{conversation}:0"));
        if turn.lane == Lane::Lite {
            headers.insert(LITE, HeaderValue::from_static("true"));
        }
        let hint = match turn.tier {
            Some(tier) => format!("model={};tier={tier}", turn.model),
            None => format!("model={}", turn.model),
        };
        set(&mut headers, ROUTING_HINT, &hint);
        if let Some(state) = turn.turn_state {
            set(&mut headers, TURN_STATE, state);
        }
        if let Some(region) = turn.routing_override {
            set(&mut headers, ROUTING_OVERRIDE, region);
        }
        for name in [CLIENT_REQUEST_ID, SESSION_ID, THREAD_ID] {
            set(&mut headers, name, &conversation);
        }
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers
    }

    /// Returns the headers of a call beside the turns: routing, catalogue.
    pub fn side_call(&self, credentials: &Credentials) -> HeaderMap {
        let mut headers = self.common(credentials, Lane::Lite);
        headers.insert(VERSION, HeaderValue::from_static(CLIENT_VERSION));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers
    }

    fn common(&self, credentials: &Credentials, lane: Lane) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(20);
        let bearer = format!("Bearer {}", credentials.access_token.expose());
        if let Ok(mut value) = HeaderValue::try_from(bearer) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if !credentials.chatgpt_account_id.is_empty() {
            set(&mut headers, ACCOUNT_ID, &credentials.chatgpt_account_id);
        }
        let originator = match lane {
            Lane::Full => FULL_ORIGINATOR,
            Lane::Lite => LITE_ORIGINATOR,
        };
        headers.insert(ORIGINATOR, HeaderValue::from_static(originator));
        set(&mut headers, USER_AGENT, &self.user_agent(lane));
        headers
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Returns the conversation as it may stand in a header: as it is, or a digest when it is long or has unusual
/// characters (the client may say anything there).
fn header_id(conversation: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=64).contains(&conversation.len()) && conversation.chars().all(plain) {
        return conversation.to_owned();
    }
    Sha256::digest(conversation.as_bytes())[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::time::UnixSeconds;

    fn credentials() -> Credentials {
        Credentials {
            account: "a1".to_owned(),
            access_token: Secret::new("forged-token".to_owned()),
            chatgpt_account_id: "acc-1".to_owned(),
            expires_at: UnixSeconds(0),
        }
    }

    fn turn(lane: Lane) -> Turn<'static> {
        Turn {
            lane,
            model: "gpt-6.1-sol",
            conversation: "0193-abc",
            turn_state: None,
            tier: None,
            routing_override: None,
        }
    }

    fn listed(headers: &HeaderMap) -> Vec<String> {
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    fn identity() -> Identity {
        Identity {
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn the_lite_lane_says_what_it_needs_and_who_we_are() {
        let mut turn = turn(Lane::Lite);
        turn.turn_state = Some("opaque");
        turn.tier = Some("priority");
        turn.routing_override = Some("us");
        assert_eq!(
            listed(&identity().turn(&credentials(), &turn)),
            [
                "authorization: Bearer forged-token",
                "chatgpt-account-id: acc-1",
                "originator: codex_cli_rs",
                &format!("user-agent: codex_cli_rs/0.169.0 ({SYSTEM}; {MACHINE}) ccx/0.1.0"),
                "version: 0.169.0",
                "x-codex-beta-features: remote_compaction_v2",
                "x-codex-window-id: 0193-abc:0",
                "x-openai-internal-codex-responses-lite: true",
                "x-codex-routing-hint: model=gpt-6.1-sol;tier=priority",
                "x-codex-turn-state: opaque",
                "x-openai-account-routing-override: us",
                "x-client-request-id: 0193-abc",
                "session-id: 0193-abc",
                "thread-id: 0193-abc",
                "accept: text/event-stream",
                "content-type: application/json",
            ]
        );
    }

    #[test]
    fn the_full_lane_is_ours_and_has_no_lite_header() {
        let headers = identity().turn(&credentials(), &turn(Lane::Full));
        assert_eq!(headers[ORIGINATOR], "ccx");
        assert_eq!(
            headers[USER_AGENT].to_str().unwrap(),
            format!("ccx/0.1.0 ({SYSTEM}; {MACHINE})")
        );
        for absent in [LITE, TURN_STATE, ROUTING_OVERRIDE] {
            assert!(!headers.contains_key(&absent), "{absent}");
        }
    }

    #[test]
    fn the_token_does_not_show_in_debug_output() {
        let headers = identity().side_call(&credentials());
        assert!(!format!("{headers:?}").contains("forged-token"));
    }

    #[test]
    fn an_odd_conversation_becomes_a_stable_digest() {
        for odd in ["", "a b", "x\r\ny", "ü", &"a".repeat(65)] {
            let id = header_id(odd);
            assert_eq!(id.len(), 32, "{odd:?}");
            assert_eq!(id, header_id(odd));
        }
        assert_ne!(header_id("a b"), header_id("a c"));
    }

    #[test]
    fn an_unknown_account_id_is_not_sent() {
        let mut credentials = credentials();
        credentials.chatgpt_account_id.clear();
        assert!(!identity().side_call(&credentials).contains_key(ACCOUNT_ID));
    }
}
