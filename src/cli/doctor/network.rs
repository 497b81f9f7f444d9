//! The ways in and out: proxies that would take the client's requests, and, if asked to look, upstream.

use std::time::Duration;

use super::Check;
use crate::cli::environment::Environment;
use crate::settings::overlay;
use crate::time::UnixSeconds;
use crate::upstream::connections::Connections;
use crate::upstream::endpoints::{AUTH, CHATGPT, Endpoints};

/// How long one origin may take.
const LIMIT: Duration = Duration::from_secs(15);

/// A clock that is wrong by more renews tokens at the wrong time.
const SKEW: u64 = 300;

/// Looks for a proxy that would also take requests to this machine.
pub(super) fn proxies(environment: &Environment) -> Option<Check> {
    let value = |name: &str| environment.text(name).map(str::to_owned);
    let caught = !overlay::proxy_exceptions(value).is_empty();
    caught.then(|| {
        let words = "a proxy is set and NO_PROXY does not name 127.0.0.1; `ccx` tells Claude Code so itself";
        Check::note("proxy", words)
            .hint("other programs that use a ccx daemon need NO_PROXY=127.0.0.1")
    })
}

/// Says whom ccx speaks to, and with `is_online` whether they answer.
pub(super) fn upstream(environment: &Environment, is_online: bool, now: UnixSeconds) -> Vec<Check> {
    let endpoints = Endpoints::resolve(
        environment.text("CCX_UPSTREAM_URL"),
        environment.text("CCX_AUTH_URL"),
        environment.get("CCX_HOME").is_some(),
    );
    let endpoints = match endpoints {
        Ok(endpoints) => endpoints,
        Err(error) => {
            let check = Check::finding("upstream", error.to_string());
            return vec![check.hint("unset that variable")];
        }
    };
    let mut checks = Vec::new();
    for (origin, public, variable) in [
        (&endpoints.chatgpt, CHATGPT, "CCX_UPSTREAM_URL"),
        (&endpoints.auth, AUTH, "CCX_AUTH_URL"),
    ] {
        if origin != public {
            let words = format!("{variable} puts {origin} in the place of {public}");
            checks.push(Check::note("upstream", words));
        }
        checks.push(match is_online {
            true => asked(origin, now),
            false => Check::fine("upstream", format!("{origin}, not asked without --online")),
        });
    }
    checks
}

/// Asks an origin for anything at all, without a token.
fn asked(origin: &str, now: UnixSeconds) -> Check {
    let failed = |error: anyhow::Error| Check::error("upstream", &error);
    let connections = match Connections::new(origin) {
        Ok(connections) => connections,
        Err(error) => return failed(error.into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(error.into()),
    };
    let answer = runtime.block_on(async {
        let pool = connections.get().await?;
        let answer = pool.get(origin).timeout(LIMIT).send().await?;
        anyhow::Ok(answer)
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let why = error
                .downcast_ref::<reqwest::Error>()
                .map_or_else(|| format!("{error:#}"), why);
            return Check::finding("upstream", format!("{origin} cannot be reached: {why}"))
                .hint("look at the network connection and at HTTPS_PROXY");
        }
    };
    let date = answer.headers().get(http::header::DATE);
    let theirs = date.and_then(|date| date.to_str().ok()).and_then(point);
    match theirs.map(|theirs| now.0.abs_diff(theirs.0)) {
        Some(skew) if skew > SKEW => {
            let words = format!("{origin} answers, but its clock and this one are {skew} s apart");
            Check::finding("clock", words).hint("set the clock")
        }
        _ => Check::fine("upstream", format!("{origin} answers")),
    }
}

/// The library's words name the address; its kind and cause are what a person needs.
fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Reads the time of an answer (RFC 9110, section 5.6.7).
fn point(text: &str) -> Option<UnixSeconds> {
    let at = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    u64::try_from(at.as_second()).ok().map(UnixSeconds)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn the_time_of_an_answer_is_read() {
        assert_eq!(
            point("Fri, 15 Jan 2027 08:00:00 GMT"),
            Some(UnixSeconds(1_800_000_000))
        );
        for other in ["", "tomorrow", "Fri, 15 Jan 2027 08:00:00"] {
            assert_eq!(point(other), None);
        }
    }

    #[test]
    fn a_proxy_that_spares_this_machine_is_no_matter() {
        let mut environment = Environment::default();
        assert_eq!(proxies(&environment), None);
        environment.set("HTTPS_PROXY", "http://user:SECRET@p:1");
        let found = proxies(&environment).unwrap();
        assert_eq!(found.state, State::Note);
        assert!(!format!("{found:?}").contains("SECRET"));
        environment.set("NO_PROXY", "127.0.0.1");
        environment.set("no_proxy", "127.0.0.1");
        assert_eq!(proxies(&environment), None);
    }

    #[test]
    fn an_override_is_told_and_a_bad_one_found() {
        let mut environment = Environment::default();
        let now = UnixSeconds(1_800_000_000);
        let states = |environment: &Environment| -> Vec<State> {
            let checks = upstream(environment, false, now);
            checks.iter().map(|check| check.state).collect()
        };
        assert_eq!(states(&environment), [State::Fine, State::Fine]);
        environment.set("CCX_UPSTREAM_URL", "https://mirror.example");
        assert_eq!(
            states(&environment),
            [State::Note, State::Fine, State::Fine]
        );
        environment.set("CCX_UPSTREAM_URL", "http://127.0.0.1:1");
        assert_eq!(states(&environment), [State::Finding]);
    }
}
