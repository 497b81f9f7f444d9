//! Where upstream is: the public origins, or what `CCX_UPSTREAM_URL` and `CCX_AUTH_URL` put in their place.
//!
//! Pure: the values of the variables are passed in. It does not know what is sent to an origin.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::Uri;

/// The public origin of the ChatGPT backend.
pub const CHATGPT: &str = "https://chatgpt.com";

/// The public origin of the issuer of tokens.
pub const AUTH: &str = "https://auth.openai.com";

/// The public origin of Kilo's gateway.
pub const KILO: &str = "https://api.kilo.ai";

/// The origins that ccx speaks to: scheme, host and port, no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The backend; paths begin with `/backend-api/`.
    pub chatgpt: String,
    /// The issuer; paths begin with `/oauth/`.
    pub auth: String,
    /// Kilo's gateway; paths begin with `/api/openrouter/`. Nothing is sent there unless the person wants it.
    pub kilo: String,
}

/// Why an override cannot be used. Names the variable, never its value: a URL may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No `http` or `https` URL.
    #[error("{variable} is not an http or https URL")]
    NotAUrl {
        /// Which variable.
        variable: &'static str,
    },
    /// User, path, query or fragment: an origin has none.
    #[error("{variable} must be an origin only: scheme, host and port")]
    NotAnOrigin {
        /// Which variable.
        variable: &'static str,
    },
    /// Plain http to another machine would show the tokens to the network.
    #[error("{variable} may use http only for this machine (127.0.0.1, [::1], localhost)")]
    PlainHttp {
        /// Which variable.
        variable: &'static str,
    },
    /// A test server would be sent the tokens of a real account.
    #[error("{variable} points at this machine, which needs CCX_HOME to be set too")]
    NeedsOwnHome {
        /// Which variable.
        variable: &'static str,
    },
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            chatgpt: CHATGPT.to_owned(),
            auth: AUTH.to_owned(),
            kilo: KILO.to_owned(),
        }
    }
}

impl Endpoints {
    /// Returns the endpoints for the values of `CCX_UPSTREAM_URL` and `CCX_AUTH_URL`; unset and empty mean the
    /// public ones.
    ///
    /// A loopback override sends every token of the store to whatever listens there, so it is
    /// refused unless `home_is_set` (`CCX_HOME`: a store of its own).
    pub fn resolve(
        chatgpt: Option<&str>,
        auth: Option<&str>,
        home_is_set: bool,
    ) -> Result<Self, EndpointError> {
        let one = |variable, value: Option<&str>, public: &str| match value.map(str::trim) {
            None | Some("") => Ok(public.to_owned()),
            Some(value) => {
                let origin = origin(variable, value)?;
                if is_loopback_origin(&origin) && !home_is_set {
                    return Err(EndpointError::NeedsOwnHome { variable });
                }
                Ok(origin)
            }
        };
        Ok(Self {
            chatgpt: one("CCX_UPSTREAM_URL", chatgpt, CHATGPT)?,
            auth: one("CCX_AUTH_URL", auth, AUTH)?,
            kilo: KILO.to_owned(),
        })
    }

    /// Puts the value of `CCX_KILO_URL` in the place of Kilo's origin; unset and empty mean the public one. No token goes
    /// there, so a server on this machine needs no home of its own.
    ///
    /// # Errors
    ///
    /// The value is no origin, or plain http to another machine.
    pub fn with_kilo(self, value: Option<&str>) -> Result<Self, EndpointError> {
        match value.map(str::trim) {
            None | Some("") => Ok(self),
            Some(value) => Ok(Self {
                kilo: origin("CCX_KILO_URL", value)?,
                ..self
            }),
        }
    }
}

/// Returns `value` as an origin, or why it is none.
fn origin(variable: &'static str, value: &str) -> Result<String, EndpointError> {
    let not_a_url = EndpointError::NotAUrl { variable };
    let not_an_origin = EndpointError::NotAnOrigin { variable };
    // `Uri` drops a fragment silently.
    if value.contains('#') {
        return Err(not_an_origin);
    }
    let uri: Uri = value.parse().map_err(|_| not_a_url)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(not_a_url);
    };
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") || authority.host().is_empty() {
        return Err(not_a_url);
    }
    let has_path = uri
        .path_and_query()
        .is_some_and(|rest| !matches!(rest.as_str(), "" | "/"));
    if has_path || authority.as_str().contains('@') {
        return Err(not_an_origin);
    }
    let origin = format!("{scheme}://{}", authority.as_str().to_ascii_lowercase());
    if scheme == "http" && !is_loopback_origin(&origin) {
        return Err(EndpointError::PlainHttp { variable });
    }
    Ok(origin)
}

/// Says whether an origin is on this machine: 127.0.0.0/8, `[::1]` or `localhost`.
pub fn is_loopback_origin(origin: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
            .is_some_and(|ip| ip.is_loopback())
}

/// Returns `value` as an https origin without path, user, query or fragment; `None` if it is anything else.
/// An http origin is taken only when it is on this machine.
pub fn clean_origin(value: &str) -> Option<String> {
    origin("", value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_overrides_the_public_origins_are_used() {
        for (chatgpt, auth) in [(None, None), (Some(""), Some(" "))] {
            assert_eq!(
                Endpoints::resolve(chatgpt, auth, false),
                Ok(Endpoints::default())
            );
        }
    }

    #[test]
    fn origins_are_normalised_and_everything_else_is_refused() {
        let variable = "CCX_UPSTREAM_URL";
        let url = Err(EndpointError::NotAUrl { variable });
        let origin = Err(EndpointError::NotAnOrigin { variable });
        let plain = Err(EndpointError::PlainHttp { variable });
        for (value, expected) in [
            ("https://chatgpt.com", Ok("https://chatgpt.com")),
            (
                "HTTPS://Gov.ChatGPT.com:8443/",
                Ok("https://gov.chatgpt.com:8443"),
            ),
            ("http://127.0.0.1:9", Ok("http://127.0.0.1:9")),
            ("http://127.9.9.9:9/", Ok("http://127.9.9.9:9")),
            ("http://[::1]:80", Ok("http://[::1]:80")),
            ("http://LOCALHOST:1", Ok("http://localhost:1")),
            ("https://127.0.0.1:9", Ok("https://127.0.0.1:9")),
            ("chatgpt.com", url),
            ("/backend-api", url),
            ("ftp://127.0.0.1", url),
            ("unix:/run/x", url),
            ("https://", url),
            ("https://chatgpt.com/backend-api", origin),
            ("https://chatgpt.com/?a=1", origin),
            ("https://chatgpt.com?a=1", origin),
            ("https://chatgpt.com#x", origin),
            ("https://me:word@chatgpt.com", origin),
            ("http://chatgpt.com", plain),
            ("http://localhost.example.com", plain),
            ("http://127.0.0.1.example.com", plain),
            ("http://10.0.0.1", plain),
            ("http://0.0.0.0:1", plain),
            ("http://[::2]:1", plain),
            ("http://127.1:1", plain),
        ] {
            let found = Endpoints::resolve(Some(value), None, true).map(|found| found.chatgpt);
            assert_eq!(found, expected.map(str::to_owned), "{value}");
        }
    }

    #[test]
    fn a_loopback_override_needs_a_home_of_its_own() {
        let loopback = Some("http://127.0.0.1:1");
        assert_eq!(
            Endpoints::resolve(loopback, None, false),
            Err(EndpointError::NeedsOwnHome {
                variable: "CCX_UPSTREAM_URL"
            })
        );
        assert_eq!(
            Endpoints::resolve(None, loopback, false),
            Err(EndpointError::NeedsOwnHome {
                variable: "CCX_AUTH_URL"
            })
        );
        assert!(Endpoints::resolve(loopback, loopback, true).is_ok());
        assert!(Endpoints::resolve(Some("https://proxy.example"), None, false).is_ok());
    }

    #[test]
    fn errors_do_not_repeat_the_value() {
        let error = Endpoints::resolve(Some("https://me:pass@x"), None, true).unwrap_err();
        assert!(!error.to_string().contains("pass"));
    }
}
