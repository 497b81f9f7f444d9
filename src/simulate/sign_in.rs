//! The issuer's pages and device endpoints as HTTP answers.
//!
//! The pages are plain forms: a person, a headless browser and a test that follows links all get through.
//! Source: contract chatgpt-codex §10.1, §10.2; recorded in `tests/fixtures/codex/auth/`.

use serde_json::{Value, json};

use super::desk::{DEVICE_VERIFIER, DeviceState};
use super::forge::CLIENT_ID;
use super::issuer::{Grant, Issuer, error, simple_error};
use super::scenario::Reply;
use crate::time::UnixSeconds;

/// How often a program should ask whether a device code was typed, in seconds.
const INTERVAL: &str = "1";

/// Where the browser may be sent back to.
const REDIRECTS: [&str; 2] = [
    "http://127.0.0.1:1455/auth/callback",
    "http://127.0.0.1:1457/auth/callback",
];

/// What an authorize request must say, beside challenge and state.
const FIXED: [(&str, &str); 7] = [
    ("response_type", "code"),
    ("client_id", CLIENT_ID),
    ("code_challenge_method", "S256"),
    (
        "scope",
        "openid profile email offline_access api.connectors.read api.connectors.invoke",
    ),
    ("id_token_add_organizations", "true"),
    ("codex_cli_simplified_flow", "true"),
    ("originator", "codex_cli_rs"),
];

/// A request, as far as it matters here.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// The query as it came.
    pub(super) query: &'a str,
    /// A value of the query.
    pub(super) value: &'a dyn Fn(&str) -> Option<String>,
    /// A field of the body.
    pub(super) field: &'a dyn Fn(&str) -> Option<String>,
}

/// Answers what belongs to signing in; `None` for everything else.
pub(super) fn answer(issuer: &mut Issuer, asked: &Asked<'_>, now: UnixSeconds) -> Option<Reply> {
    Some(match (asked.method, asked.path) {
        ("GET", "/oauth/authorize") => authorize(issuer, asked),
        ("GET", "/oauth/authorize/allow") => allow(issuer, asked, now),
        ("GET", "/codex/device") => device_page(issuer),
        ("GET", "/codex/device/allow") => settle(issuer, asked),
        ("POST", "/api/accounts/deviceauth/usercode") => user_code(issuer, asked, now),
        ("POST", "/api/accounts/deviceauth/token") => device_token(issuer, asked, now),
        _ => return None,
    })
}

/// What is wrong with an authorize request.
fn wrong(asked: &Asked<'_>) -> Option<String> {
    let value = |name: &str| (asked.value)(name).unwrap_or_default();
    for (name, expected) in FIXED {
        if value(name) != expected {
            return Some(format!("{name} must be {expected}"));
        }
    }
    for name in ["code_challenge", "state"] {
        let text = value(name);
        if text.len() != 43
            || !text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        {
            return Some(format!("{name} must be 43 characters of base64url"));
        }
    }
    // It goes into the page's links as it is.
    if asked.query.contains(['<', '>', '"', '\'']) {
        return Some("the query has characters that belong escaped".to_owned());
    }
    (!REDIRECTS.contains(&value("redirect_uri").as_str()))
        .then(|| "redirect_uri is not one of the registered ones".to_owned())
}

fn authorize(issuer: &Issuer, asked: &Asked<'_>) -> Reply {
    if let Some(wrong) = wrong(asked) {
        return page(400, "Invalid request", &format!("<p>{wrong}</p>"));
    }
    let query = asked.query.replace('&', "&amp;");
    let link = |id: &str, words: &str, more: &str| {
        format!(
            "<p><a id=\"{id}\" href=\"/oauth/authorize/allow?{query}&amp;{more}\">{words}</a></p>"
        )
    };
    let mut links: String = issuer
        .accounts()
        .iter()
        .map(|account| {
            let name = &account.name;
            link(
                &format!("allow-{name}"),
                &format!("Sign in as {name}"),
                &format!("account={name}"),
            )
        })
        .collect();
    links.push_str(&link("deny", "Cancel", "deny=1"));
    page(200, "Simulated sign-in", &links)
}

fn allow(issuer: &mut Issuer, asked: &Asked<'_>, now: UnixSeconds) -> Reply {
    if let Some(wrong) = wrong(asked) {
        return page(400, "Invalid request", &format!("<p>{wrong}</p>"));
    }
    let value = |name: &str| (asked.value)(name).unwrap_or_default();
    let (home, state) = (value("redirect_uri"), value("state"));
    if (asked.value)("deny").is_some() {
        return redirect(format!(
            "{home}?error=access_denied&error_description=The%20user%20said%20no&state={state}"
        ));
    }
    let name = (asked.value)("account");
    let Some(name) = issuer.account(name.as_deref()).map(|a| a.name.clone()) else {
        return page(404, "No such account", "");
    };
    let code = issuer
        .desk()
        .issue(&name, &value("code_challenge"), &home, now);
    redirect(format!("{home}?code={code}&state={state}"))
}

fn device_page(issuer: &Issuer) -> Reply {
    let accounts: String = issuer
        .accounts()
        .iter()
        .map(|account| format!("<option>{}</option>", account.name))
        .collect();
    let form = format!(
        "<form action=\"/codex/device/allow\"><p><input name=\"user_code\" placeholder=\"Code\"> \
         <select name=\"account\">{accounts}</select></p>\
         <p><button>Allow</button> <button name=\"deny\" value=\"1\">Deny</button></p></form>"
    );
    page(200, "Simulated device sign-in", &form)
}

fn settle(issuer: &mut Issuer, asked: &Asked<'_>) -> Reply {
    let name = (asked.value)("account");
    let account = issuer.account(name.as_deref()).map(|a| a.name.clone());
    let state = match ((asked.value)("deny"), account) {
        (Some(_), _) => DeviceState::Denied,
        (None, Some(name)) => DeviceState::Approved(name),
        (None, None) => return page(404, "No such account", ""),
    };
    let user_code = (asked.value)("user_code").unwrap_or_default();
    if issuer.desk().settle_device(&user_code, state) {
        page(200, "Done", "<p>Go back to the terminal.</p>")
    } else {
        page(404, "No such code", "")
    }
}

fn user_code(issuer: &mut Issuer, asked: &Asked<'_>, now: UnixSeconds) -> Reply {
    if (asked.field)("client_id").as_deref() != Some(CLIENT_ID) {
        return of(simple_error(401, "invalid_client", "unknown client_id"));
    }
    if issuer.desk().is_device_disabled {
        return of(error(404, "deviceauth_disabled", "Not found"));
    }
    let device = issuer.desk().start_device(now);
    whole(
        200,
        json!({
            "device_auth_id": device.id,
            "user_code": device.user_code,
            "interval": INTERVAL,
        }),
    )
}

fn device_token(issuer: &mut Issuer, asked: &Asked<'_>, now: UnixSeconds) -> Reply {
    let field = |name: &str| (asked.field)(name).unwrap_or_default();
    let (id, user_code) = (field("device_auth_id"), field("user_code"));
    let refused = |code: &str| of(error(403, code, code));
    match issuer.desk().ask_device(&id, &user_code, now) {
        None => of(error(404, "deviceauth_not_found", "unknown code")),
        Some((DeviceState::Pending, _)) => refused("deviceauth_authorization_pending"),
        Some((DeviceState::Hurried, _)) => refused("slow_down"),
        Some((DeviceState::Denied, _)) => refused("access_denied"),
        Some((DeviceState::Expired, _)) => refused("expired_token"),
        Some((DeviceState::Approved(_), code)) => whole(
            200,
            json!({
                "authorization_code": code,
                "code_challenge": "(not looked at)",
                "code_verifier": DEVICE_VERIFIER,
            }),
        ),
    }
}

fn page(status: u16, title: &str, body: &str) -> Reply {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\
         <body><h1>{title}</h1>{body}</body></html>\n"
    );
    whole(status, Value::from(html))
}

fn redirect(target: String) -> Reply {
    let mut reply = whole(302, Value::Null);
    reply.headers.insert("location".to_owned(), target);
    reply
}

fn of(grant: Grant) -> Reply {
    whole(grant.status, grant.body)
}

fn whole(status: u16, body: Value) -> Reply {
    Reply {
        status,
        headers: Default::default(),
        body,
    }
}
