//! What the client is told for one session: where the proxy is, and which models there are.
//!
//! Works on values only. Contract claude-code §11 has the set that was tried; §6.3 how the window
//! reaches the client. The text it returns holds the session's secret: it goes into a private file,
//! nowhere else.

use serde_json::{Map, Value, json};

use crate::catalogue::model::Model;
use crate::secret::Secret;
use crate::terminal::guard;

use super::merge::merge;

/// The client's own model whose handling (effort list, output limit) our models get.
const BEHAVES_AS: &str = "claude-opus-5-5";

/// The smallest window that the client takes.
const SMALLEST_WINDOW: u64 = 100_000;

/// What would take the session elsewhere or make the client send a second credential. An empty value
/// counts as unset (contract supervision F15), so that a user's settings file cannot bring it back.
const EMPTIED: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_GATEWAY",
    "CLAUDE_CODE_USE_VERTEX",
];

/// Variables that a launch removes from the client's environment: the client warns at every start if
/// it finds a key beside a token.
pub const UNSET: &[&str] = &["ANTHROPIC_API_KEY"];

/// Variables that name an outbound proxy.
const PROXIES: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Where the proxy listens, as it stands in [`Plan::base_url`].
const LOOPBACK: &str = "127.0.0.1";

/// The models of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct OverlayModels<'a> {
    /// The one that a session starts with; its window is the session's window.
    pub default: Option<&'a Model>,
    /// What the client's `opus` means.
    pub opus: Option<&'a Model>,
    /// What `sonnet` means.
    pub sonnet: Option<&'a Model>,
    /// What `haiku` means.
    pub haiku: Option<&'a Model>,
    /// What `fable` means.
    pub fable: Option<&'a Model>,
    /// What `/model` offers, in this order.
    pub listed: &'a [&'a Model],
}

/// What one session's overlay is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The proxy: `http://127.0.0.1:PORT`.
    pub base_url: &'a str,
    /// What the client shows the proxy.
    pub secret: &'a Secret<String>,
    /// The models.
    pub models: OverlayModels<'a>,
    /// The client's `model` setting; `None` leaves the choice to the user's own settings.
    pub default_model: Option<&'a str>,
    /// The command of the client's status line; `None` leaves it to the user's own settings.
    pub status_line: Option<&'a str>,
}

/// Returns the text of the settings file for one session, on top of the user's own `--settings`.
///
/// Theirs stays, except for the keys of `env` that are ours.
pub fn overlay(plan: &Plan<'_>, user: Option<Map<String, Value>>) -> String {
    let mut user = user.unwrap_or_default();
    if let Some(Value::Object(env)) = user.get_mut("env") {
        let value = |name: &str| env.get(name).and_then(Value::as_str).map(str::to_owned);
        for (name, value) in proxy_exceptions(value) {
            env.insert(name.to_owned(), value.into());
        }
    }
    Value::Object(merge(user, ours(plan))).to_string()
}

fn ours(plan: &Plan<'_>) -> Map<String, Value> {
    let mut ours = Map::new();
    ours.insert("env".into(), Value::Object(env(plan)));
    if let Some(model) = plan.default_model {
        ours.insert("model".into(), model.into());
    }
    if let Some(command) = plan.status_line {
        ours.insert(
            "statusLine".into(),
            json!({ "type": "command", "command": command }),
        );
    }
    if !plan.models.listed.is_empty() {
        let options: Vec<Value> = plan
            .models
            .listed
            .iter()
            .map(|model| {
                json!({
                    "model": model.slug,
                    "label": model.display_name,
                    "description": description(model),
                    "behavesAs": BEHAVES_AS,
                })
            })
            .collect();
        ours.insert(
            "modelPicker".into(),
            json!({ "options": options, "replaceBuiltInOptions": true }),
        );
    }
    ours
}

fn env(plan: &Plan<'_>) -> Map<String, Value> {
    let mut env = Map::new();
    let mut set = |name: &str, value: &str| {
        env.insert(name.to_owned(), value.into());
    };
    set("ANTHROPIC_BASE_URL", plan.base_url);
    set("ANTHROPIC_AUTH_TOKEN", plan.secret.expose());
    for name in EMPTIED {
        set(name, "");
    }
    // A ccx that the client's tools start is a session of its own, not one that came back.
    set(guard::VARIABLE, "");
    // Each request says what it is for; without the block of the other the prefix stays the same.
    set("CLAUDE_CODE_GATEWAY_HINT_HEADERS", "1");
    set("CLAUDE_CODE_ATTRIBUTION_HEADER", "0");
    // Upstream knows no permission check: the client makes its own, and does not warn about the other.
    set("CLAUDE_CODE_AUTO_MODE_SERVER", "0");
    if let Some(model) = plan.models.default {
        let window = model.usable_window().max(SMALLEST_WINDOW);
        set("CLAUDE_CODE_AUTO_COMPACT_WINDOW", &window.to_string());
    }
    let models = &plan.models;
    for (family, model) in [
        ("OPUS", models.opus),
        ("SONNET", models.sonnet),
        ("HAIKU", models.haiku),
        ("FABLE", models.fable),
    ] {
        if let Some(model) = model {
            let name = format!("ANTHROPIC_DEFAULT_{family}_MODEL");
            set(&name, &model.slug);
            set(&format!("{name}_NAME"), &model.display_name);
            set(&format!("{name}_DESCRIPTION"), &description(model));
        }
    }
    env
}

fn description(model: &Model) -> String {
    format!("{}k tokens of context", model.usable_window() / 1000)
}

/// Returns what the client's process gets beside the file: where the proxy is, for the case that the
/// client drops the file. It does so, with one line and without ending, when the user's own part of it
/// has a known key of a wrong type (contract claude-code §8.4).
pub fn environment(plan: &Plan<'_>) -> [(&'static str, Secret<String>); 2] {
    [
        ("ANTHROPIC_BASE_URL", plan.base_url.to_owned().into()),
        ("ANTHROPIC_AUTH_TOKEN", plan.secret.clone()),
    ]
}

/// Returns what has to be set so that an outbound proxy does not take the loopback traffic: nothing
/// if there is none, else both spellings of `NO_PROXY` with `127.0.0.1` in them.
///
/// `value` returns a variable of the environment.
pub fn proxy_exceptions(value: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let value = |name: &str| value(name).filter(|value| !value.trim().is_empty());
    if PROXIES.iter().all(|name| value(name).is_none()) {
        return Vec::new();
    }
    [("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")]
        .into_iter()
        .filter_map(|(name, other)| {
            let own = value(name);
            let known = own.clone().or_else(|| value(other)).unwrap_or_default();
            let mut entries = known.split([',', ' ']).filter(|entry| !entry.is_empty());
            let list = if entries.any(|entry| entry == LOOPBACK || entry == "*") {
                known
            } else if known.is_empty() {
                LOOPBACK.to_owned()
            } else {
                format!("{known},{LOOPBACK}")
            };
            (own.as_ref() != Some(&list)).then_some((name, list))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(slug: &str, name: &str) -> Model {
        Model {
            slug: slug.into(),
            display_name: name.into(),
            listed: true,
            priority: 1,
            context_window: 272_000,
            effective_percent: 95,
            efforts: Vec::new(),
            default_effort: None,
            support_verbosity: false,
            default_verbosity: None,
            service_tiers: Vec::new(),
            images: true,
            lite: false,
        }
    }

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn overlay_has_the_set_that_works() {
        let (large, small) = (
            model("gpt-large", "GPT Large"),
            model("gpt-small", "GPT Small"),
        );
        let secret = Secret::new("s3cret".to_owned());
        let plan = Plan {
            base_url: "http://127.0.0.1:4711",
            secret: &secret,
            models: OverlayModels {
                default: Some(&large),
                opus: Some(&large),
                haiku: Some(&small),
                listed: &[&large, &small],
                ..OverlayModels::default()
            },
            default_model: Some("gpt-large"),
            status_line: Some("'/b/ccx' statusline"),
        };
        assert_eq!(
            Value::Object(object(&overlay(&plan, None))),
            json!({
                "env": {
                    "ANTHROPIC_BASE_URL": "http://127.0.0.1:4711",
                    "ANTHROPIC_AUTH_TOKEN": "s3cret",
                    "ANTHROPIC_API_KEY": "",
                    "CLAUDE_CODE_USE_BEDROCK": "",
                    "CLAUDE_CODE_USE_FOUNDRY": "",
                    "CLAUDE_CODE_USE_GATEWAY": "",
                    "CLAUDE_CODE_USE_VERTEX": "",
                    "CCX_GUARD": "",
                    "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
                    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
                    "CLAUDE_CODE_AUTO_MODE_SERVER": "0",
                    "CLAUDE_CODE_AUTO_COMPACT_WINDOW": "258400",
                    "ANTHROPIC_DEFAULT_OPUS_MODEL": "gpt-large",
                    "ANTHROPIC_DEFAULT_OPUS_MODEL_NAME": "GPT Large",
                    "ANTHROPIC_DEFAULT_OPUS_MODEL_DESCRIPTION": "258k tokens of context",
                    "ANTHROPIC_DEFAULT_HAIKU_MODEL": "gpt-small",
                    "ANTHROPIC_DEFAULT_HAIKU_MODEL_NAME": "GPT Small",
                    "ANTHROPIC_DEFAULT_HAIKU_MODEL_DESCRIPTION": "258k tokens of context",
                },
                "model": "gpt-large",
                "statusLine": {"type": "command", "command": "'/b/ccx' statusline"},
                "modelPicker": {
                    "options": [
                        {
                            "model": "gpt-large",
                            "label": "GPT Large",
                            "description": "258k tokens of context",
                            "behavesAs": "claude-opus-5-5",
                        },
                        {
                            "model": "gpt-small",
                            "label": "GPT Small",
                            "description": "258k tokens of context",
                            "behavesAs": "claude-opus-5-5",
                        },
                    ],
                    "replaceBuiltInOptions": true,
                },
            })
        );
    }

    #[test]
    fn the_users_own_settings_stay() {
        let secret = Secret::new("s3cret".to_owned());
        let plan = Plan {
            base_url: "http://127.0.0.1:1",
            secret: &secret,
            models: OverlayModels::default(),
            default_model: Some("gpt-large"),
            status_line: Some("ours"),
        };
        let user = object(
            r#"{"model":"theirs","hooks":{"Stop":[]},"statusLine":{"type":"command","command":"mine"},
                "env":{"ANTHROPIC_BASE_URL":"https://else.where","HTTPS_PROXY":"http://p:1","A":"b"}}"#,
        );
        let merged = object(&overlay(&plan, Some(user)));
        assert_eq!(merged["model"], "theirs");
        assert_eq!(merged["hooks"], json!({"Stop": []}));
        assert_eq!(merged["statusLine"]["command"], "mine");
        assert_eq!(merged["env"]["ANTHROPIC_BASE_URL"], "http://127.0.0.1:1");
        assert_eq!(merged["env"]["A"], "b");
        assert_eq!(merged["env"]["NO_PROXY"], "127.0.0.1");
        assert_eq!(merged["env"]["no_proxy"], "127.0.0.1");
    }

    #[test]
    fn loopback_is_kept_from_an_outbound_proxy() {
        let exceptions = |variables: &[(&str, &str)]| {
            proxy_exceptions(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let both = |list: &str| vec![("NO_PROXY", list.to_owned()), ("no_proxy", list.to_owned())];
        let proxy = ("https_proxy", "http://p:1");
        assert_eq!(exceptions(&[]), []);
        assert_eq!(exceptions(&[("HTTP_PROXY", "")]), []);
        assert_eq!(exceptions(&[proxy]), both("127.0.0.1"));
        assert_eq!(
            exceptions(&[proxy, ("NO_PROXY", "a.b,c")]),
            both("a.b,c,127.0.0.1")
        );
        assert_eq!(
            exceptions(&[proxy, ("NO_PROXY", "127.0.0.1")]),
            [("no_proxy", "127.0.0.1".to_owned())]
        );
        assert_eq!(
            exceptions(&[proxy, ("NO_PROXY", "*"), ("no_proxy", "*")]),
            []
        );
        assert_eq!(
            exceptions(&[proxy, ("NO_PROXY", "a"), ("no_proxy", "b")]),
            [
                ("NO_PROXY", "a,127.0.0.1".to_owned()),
                ("no_proxy", "b,127.0.0.1".to_owned())
            ]
        );
    }
}
