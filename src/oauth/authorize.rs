//! Where a person's browser is sent to sign in, and what it comes back with.
//!
//! Text only: who opens the URL, who listens and who pastes is decided elsewhere.
//! Source: contract chatgpt-codex §10.1; RFC 6749, section 4.1.

use crate::account::record::printable;
use crate::oauth::form;
use crate::oauth::pkce::Pkce;
use crate::secret::Secret;

/// The public client of the Codex CLI; ChatGPT plans are reached under it.
pub const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// The path of a callback.
pub const CALLBACK_PATH: &str = "/auth/callback";

/// The ports that the issuer sends a browser back to; no others.
pub const CALLBACK_PORTS: [u16; 2] = [1455, 1457];

/// What the tokens may be used for.
const SCOPE: &str = "openid profile email offline_access api.connectors.read api.connectors.invoke";

/// What is shown of the issuer's own words.
const WORDS_LIMIT: usize = 200;

/// Returns where the issuer sends the browser back to when `port` listens.
pub fn redirect_uri(port: u16) -> String {
    format!("http://127.0.0.1:{port}{CALLBACK_PATH}")
}

/// Returns the URL of the issuer's sign-in page. Holds no secret: the state is worth nothing without the verifier.
pub fn url(auth_origin: &str, pkce: &Pkce, redirect_uri: &str) -> String {
    let pairs = form::encode(&[
        ("response_type", "code"),
        ("client_id", CLIENT_ID),
        ("redirect_uri", redirect_uri),
        ("code_challenge", pkce.challenge()),
        ("code_challenge_method", "S256"),
        ("state", pkce.state()),
        ("scope", SCOPE),
        ("id_token_add_organizations", "true"),
        ("codex_cli_simplified_flow", "true"),
        // The client is registered under this name; the issuer knows no other one for it.
        ("originator", "codex_cli_rs"),
    ]);
    format!("{auth_origin}/oauth/authorize?{pairs}")
}

/// What came back with the right state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A code to be exchanged for tokens.
    Code(Secret<String>),
    /// The issuer, or the person, said no.
    Denied(Denial),
}

/// A no. Safe to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}{}", words.as_ref().map(|words| format!(": {words}")).unwrap_or_default())]
pub struct Denial {
    /// RFC 6749, section 4.1.2.1: `access_denied`, `server_error`, …
    pub code: String,
    /// The issuer's words, as far as they can be shown.
    pub words: Option<String>,
}

/// Why a callback, or what a person pasted, is nothing to go on with. The sign-in itself stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// It belongs to another sign-in, or to nobody's.
    #[error("it belongs to another sign-in")]
    WrongState,
    /// Neither a code nor an error is in it.
    #[error("there is no code in it")]
    Incomplete,
    /// The address of the sign-in page instead of the one that the browser ends at.
    #[error("this is the address of the sign-in page, not of the page after it")]
    NotYet,
    /// Nothing was pasted.
    #[error("nothing was pasted")]
    Empty,
}

/// Reads the query of a callback. A wrong state makes everything else in it worthless, an error included: any
/// web page can send a browser here.
///
/// # Errors
///
/// [`NoReply::WrongState`], [`NoReply::Incomplete`].
pub fn read_callback(query: &str, pkce: &Pkce) -> Result<Reply, NoReply> {
    let given = |name: &str| form::value(query, name).filter(|value| !value.is_empty());
    if !pkce.is_state(&given("state").unwrap_or_default()) {
        return Err(NoReply::WrongState);
    }
    if let Some(code) = given("error") {
        return Ok(Reply::Denied(Denial {
            code: shown(&code),
            words: given("error_description").map(|words| shown(&words)),
        }));
    }
    given("code")
        .map(|code| Reply::Code(code.into()))
        .ok_or(NoReply::Incomplete)
}

/// Reads what a person pasted: the whole address that the browser ended at, its query, or the bare code. A bare
/// code has no state, and needs none: the person vouches for it, and the verifier still has to fit.
///
/// # Errors
///
/// See [`NoReply`].
pub fn read_pasted(text: &str, pkce: &Pkce) -> Result<Reply, NoReply> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    let text = text.trim_matches(['"', '\'', '<', '>']);
    if text.is_empty() {
        return Err(NoReply::Empty);
    }
    let query = match text.split_once('?') {
        Some((page, _)) if page.ends_with("/oauth/authorize") => return Err(NoReply::NotYet),
        Some((_, query)) => query,
        None if text.contains('=') => text,
        None if text.contains("://") || text.contains(char::is_whitespace) => {
            return Err(NoReply::Incomplete);
        }
        None => return Ok(Reply::Code(text.to_owned().into())),
    };
    read_callback(query.split('#').next().unwrap_or_default(), pkce)
}

/// The issuer's words go to a terminal and a page: no control characters, and not without end.
fn shown(words: &str) -> String {
    printable(&words.chars().take(WORDS_LIMIT).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn pkce() -> Pkce {
        Pkce::new(&[7; 64], &[9; 32])
    }

    fn code(text: &str) -> Result<Reply, NoReply> {
        Ok(Reply::Code(text.to_owned().into()))
    }

    fn denied(code: &str, words: Option<&str>) -> Result<Reply, NoReply> {
        Ok(Reply::Denied(Denial {
            code: code.to_owned(),
            words: words.map(str::to_owned),
        }))
    }

    #[test]
    fn the_url_has_the_recorded_parameters_in_order() {
        let recorded = include_str!("../../tests/fixtures/codex/auth/authorize-url-params.json");
        let recorded: Value = serde_json::from_str(recorded).unwrap();
        let pkce = pkce();
        let url = url("https://auth.openai.com", &pkce, &redirect_uri(1455));
        let (page, query) = url.split_once('?').unwrap();
        assert_eq!(page, recorded["endpoint"]);
        let pairs: Vec<&str> = query.split('&').collect();
        let expected = recorded["params_in_order"].as_array().unwrap();
        assert_eq!(pairs.len(), expected.len());
        for (pair, expected) in pairs.iter().zip(expected) {
            let name = pair.split_once('=').unwrap().0;
            assert_eq!(name, expected[0]);
            let value = form::value(pair, name).unwrap();
            match name {
                "code_challenge" => assert_eq!(value, pkce.challenge()),
                "state" => assert_eq!(value, pkce.state()),
                _ => assert_eq!(value, expected[1]),
            }
        }
        assert_eq!(
            redirect_uri(CALLBACK_PORTS[1]),
            recorded["fallback_redirect_uri_when_1455_busy"]
        );
        assert!(!url.contains(pkce.verifier().expose()));
    }

    #[test]
    fn a_callback_counts_with_the_right_state_only() {
        let pkce = pkce();
        let state = pkce.state();
        for (query, expected) in [
            (format!("code=ac&state={state}"), code("ac")),
            (format!("state={state}&code=a%2Fc&scope=x"), code("a/c")),
            (
                format!("error=access_denied&error_description=No%1b%5B2J&state={state}"),
                denied("access_denied", Some("No\u{fffd}[2J")),
            ),
            (
                format!("error=server_error&code=ac&state={state}"),
                denied("server_error", None),
            ),
            (format!("state={state}"), Err(NoReply::Incomplete)),
            (format!("code=&state={state}"), Err(NoReply::Incomplete)),
            (format!("code=ac&state={state}x"), Err(NoReply::WrongState)),
            (
                format!("code=ac&state=x&state={state}"),
                Err(NoReply::WrongState),
            ),
            ("code=ac".to_owned(), Err(NoReply::WrongState)),
            ("error=access_denied".to_owned(), Err(NoReply::WrongState)),
            (String::new(), Err(NoReply::WrongState)),
        ] {
            assert_eq!(read_callback(&query, &pkce), expected, "{query}");
        }
    }

    #[test]
    fn a_paste_is_an_address_a_query_or_a_code() {
        let pkce = pkce();
        let state = pkce.state();
        for (text, expected) in [
            ("ac_1".to_owned(), code("ac_1")),
            ("  'ac_1'\r\n".to_owned(), code("ac_1")),
            ("\u{1b}ac_1".to_owned(), code("ac_1")),
            (
                format!("http://127.0.0.1:1455/auth/callback?code=ac_1&state={state}\n"),
                code("ac_1"),
            ),
            (
                format!("http://localhost:1455/auth/callback?code=ac_1&state={state}#"),
                code("ac_1"),
            ),
            (format!("code=ac_1&state={state}"), code("ac_1")),
            (
                format!("http://127.0.0.1:1455/auth/callback?error=access_denied&state={state}"),
                denied("access_denied", None),
            ),
            (
                "http://127.0.0.1:1455/auth/callback?code=ac_1&state=other".to_owned(),
                Err(NoReply::WrongState),
            ),
            (
                url("https://auth.openai.com", &pkce, &redirect_uri(1455)),
                Err(NoReply::NotYet),
            ),
            (
                "http://127.0.0.1:1455/auth/callback".to_owned(),
                Err(NoReply::Incomplete),
            ),
            ("what do I do".to_owned(), Err(NoReply::Incomplete)),
            (" \n".to_owned(), Err(NoReply::Empty)),
            ("\"\"".to_owned(), Err(NoReply::Empty)),
        ] {
            assert_eq!(read_pasted(&text, &pkce), expected, "{text}");
        }
    }

    #[test]
    fn a_denial_is_short() {
        let pkce = pkce();
        let query = format!(
            "error=x&error_description={}&state={}",
            "y".repeat(9999),
            pkce.state()
        );
        let Ok(Reply::Denied(denial)) = read_callback(&query, &pkce) else {
            panic!("no denial");
        };
        assert_eq!(
            denial.to_string(),
            format!("x: {}", "y".repeat(WORDS_LIMIT))
        );
    }
}
