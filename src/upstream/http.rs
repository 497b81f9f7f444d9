//! Calls to the ChatGPT backend over HTTP.
//!
//! Owns the connections. Knows nothing of what is in a request or an answer: bodies come and go as
//! bytes, a refusal becomes a [`Failure`] in `failure`.
//!
//! Making a [`Client`] is cheap: see `connections`.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;

use crate::account::credentials::Credentials;
use crate::catalogue::model::Lane;
use crate::time::UnixSeconds;
use crate::upstream::answer::{Answer, ERROR_BODY_LIMIT};
use crate::upstream::connections::{CONNECT_LIMIT, ClientError, Connections, LookupError};
use crate::upstream::endpoints::Endpoints;
use crate::upstream::failure::Failure;
use crate::upstream::lane::{CLIENT_VERSION, Identity, Turn};
use crate::upstream::limits::Limits;
use crate::upstream::routing::{Route, Routes};

/// Upstream may think this long before the first byte of an answer; its own client waits as long.
const HEADER_LIMIT: Duration = Duration::from_secs(300);

/// For the small calls beside the turns.
const SIDE_LIMIT: Duration = Duration::from_secs(10);

/// For the rest of an error's body once its headers are there.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(10);

/// The catalogue holds long texts for each model; this is ten times what it was seen to be.
const CATALOGUE_LIMIT: usize = 8 * 1024 * 1024;

const RESPONSES: &str = "/backend-api/codex/responses";
const ACCOUNTS_CHECK: &str = "/backend-api/wham/accounts/check";
const MODELS: &str = "/backend-api/codex/models";
const USAGE: &str = "/backend-api/wham/usage";

/// A report on usage is about 2 kB; the check of an account a little more for each workspace.
const REPORT_LIMIT: usize = 256 * 1024;

/// One model turn.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The translated request; freed once it is sent.
    pub body: Bytes,
    /// The form that `body` has.
    pub lane: Lane,
    /// Upstream's name of the model.
    pub model: &'a str,
    /// The conversation; the same from turn to turn.
    pub conversation: &'a str,
    /// Upstream's turn state, when this call goes on with a turn.
    pub turn_state: Option<&'a str>,
    /// The service tier asked for in `body`.
    pub tier: Option<&'a str>,
}

/// The catalogue as upstream sent it.
#[derive(Clone, Debug)]
pub struct Models {
    /// The JSON body.
    pub body: Bytes,
    /// Its `etag`, without quotes.
    pub etag: Option<String>,
}

/// Is told ccx's id of an account and what a reply's headers say of its limits, refusals included. Called in the
/// middle of a turn: it must not wait.
pub type Listener = Box<dyn Fn(&str, &Limits) + Send + Sync>;

/// Connections to upstream. Clones share them.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: Endpoints,
    identity: Identity,
    connections: Connections,
    routes: Routes,
    listener: Listener,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("endpoints", &self.endpoints)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client that has no connections yet. Reads no certificates and opens nothing.
    pub fn new(endpoints: Endpoints, identity: Identity) -> Result<Self, ClientError> {
        Self::heard_by(endpoints, identity, Box::new(|_, _| {}))
    }

    /// As [`Client::new`]; `listener` hears what the replies to turns say of the accounts' limits.
    pub fn heard_by(
        endpoints: Endpoints,
        identity: Identity,
        listener: Listener,
    ) -> Result<Self, ClientError> {
        let connections = Connections::new(&endpoints.chatgpt)?;
        Ok(Self {
            shared: Arc::new(Shared {
                endpoints,
                identity,
                connections,
                routes: Routes::default(),
                listener,
            }),
        })
    }

    /// Opens a connection and finds the account's route, so that the first turn waits for neither. Spends nothing of
    /// the plan. What fails here is tried again, and reported, by the turn.
    pub async fn warm(&self, credentials: &Credentials) {
        let Ok(route) = self.route(credentials).await else {
            return;
        };
        if route.origin != self.shared.endpoints.chatgpt {
            let url = format!("{}{RESPONSES}", route.origin);
            let _ = self.side_call(Method::HEAD, &url, credentials, 0).await;
        }
    }

    /// Sends one model turn and waits until upstream has begun to answer.
    ///
    /// A reply that is no success is a [`Failure`]; so is JSON or a page under a status of success.
    /// Waits as long as upstream may take (300 s: [`Failure::Stalled`]). Dropping the future cancels.
    pub async fn respond(
        &self,
        credentials: &Credentials,
        call: Call<'_>,
    ) -> Result<Answer, Failure> {
        let route = self.route(credentials).await?;
        let headers = self.shared.identity.turn(
            credentials,
            &Turn {
                lane: call.lane,
                model: call.model,
                conversation: call.conversation,
                turn_state: call.turn_state,
                tier: call.tier,
                routing_override: route.routing_override,
            },
        );
        let request = self
            .connections()
            .await?
            .post(format!("{}{RESPONSES}", route.origin))
            .headers(headers)
            .body(call.body);
        let begin = async {
            let reply = request.send().await.map_err(|error| failure(&error))?;
            let mut reply = http::Response::<reqwest::Body>::from(reply);
            if !reply.status().is_success() {
                self.tell(credentials, &Limits::read(reply.headers()));
                return Err(refused(&mut reply, credentials).await);
            }
            let mut answer = Answer::new(reply, now());
            self.tell(credentials, &answer.facts.limits);
            if !answer.promises_events() {
                answer.look().await?;
            }
            Ok(answer)
        };
        within(HEADER_LIMIT, begin).await
    }

    /// Fetches the catalogue: JSON, as upstream sends it.
    pub async fn models(&self, credentials: &Credentials) -> Result<Bytes, Failure> {
        Ok(self.models_with_etag(credentials).await?.body)
    }

    /// Fetches the catalogue and its etag.
    pub async fn models_with_etag(&self, credentials: &Credentials) -> Result<Models, Failure> {
        let route = self.route(credentials).await?;
        let url = format!("{}{MODELS}?client_version={CLIENT_VERSION}", route.origin);
        let (headers, body) = self
            .side_call(Method::GET, &url, credentials, CATALOGUE_LIMIT)
            .await?;
        let etag = headers
            .get(http::header::ETAG)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.trim_start_matches("W/").trim_matches('"').to_owned());
        Ok(Models { body, etag })
    }

    /// Asks how much of the plan is left: JSON, as upstream sends it. Spends nothing.
    pub async fn usage(&self, credentials: &Credentials) -> Result<Bytes, Failure> {
        let route = self.route(credentials).await?;
        let url = format!("{}{USAGE}", route.origin);
        let reply = self.side_call(Method::GET, &url, credentials, REPORT_LIMIT);
        Ok(reply.await?.1)
    }

    /// Asks whether upstream takes the account's token. Spends nothing.
    ///
    /// # Errors
    ///
    /// [`Failure::Unauthorized`] when it does not; any other failure leaves it open.
    pub async fn check(&self, credentials: &Credentials) -> Result<(), Failure> {
        let url = format!("{}{ACCOUNTS_CHECK}", self.shared.endpoints.chatgpt);
        let reply = self.side_call(Method::GET, &url, credentials, REPORT_LIMIT);
        reply.await.map(|_| ())
    }

    fn tell(&self, credentials: &Credentials, limits: &Limits) {
        if !limits.is_empty() {
            (self.shared.listener)(&credentials.account, limits);
        }
    }

    async fn route(&self, credentials: &Credentials) -> Result<Route, Failure> {
        let base = &self.shared.endpoints.chatgpt;
        let ask = async {
            let url = format!("{base}{ACCOUNTS_CHECK}");
            let reply = self
                .side_call(Method::GET, &url, credentials, CATALOGUE_LIMIT)
                .await;
            reply.map(|(_, body)| body.to_vec())
        };
        self.shared
            .routes
            .of(credentials, base, Instant::now(), ask)
            .await
    }

    /// Makes a small call and reads at most `limit_bytes` of its answer.
    async fn side_call(
        &self,
        method: Method,
        url: &str,
        credentials: &Credentials,
        limit_bytes: usize,
    ) -> Result<(HeaderMap, Bytes), Failure> {
        let headers = self.shared.identity.side_call(credentials);
        let request = self
            .connections()
            .await?
            .request(method, url)
            .headers(headers);
        within(SIDE_LIMIT, async {
            let reply = request.send().await.map_err(|error| failure(&error))?;
            let mut reply = http::Response::<reqwest::Body>::from(reply);
            if !reply.status().is_success() {
                return Err(refused(&mut reply, credentials).await);
            }
            let body = read_up_to(reply.body_mut(), limit_bytes).await;
            match body {
                Ok(body) if body.len() <= limit_bytes => {
                    let (parts, _) = reply.into_parts();
                    Ok((parts.headers, body))
                }
                Ok(_) => Err(Failure::Malformed {
                    what: format!("more than {limit_bytes} bytes"),
                }),
                Err(failure) => Err(failure),
            }
        })
        .await
    }

    async fn connections(&self) -> Result<&reqwest::Client, Failure> {
        let prepared = self.shared.connections.get().await;
        prepared.map_err(|_| Failure::Unreachable {
            what: "the system's root certificates cannot be read".to_owned(),
        })
    }
}

/// Runs `call`, but no longer than `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or(Err(Failure::Stalled { idle: limit }))
}

/// Reads what came in place of a success and classifies it.
async fn refused(reply: &mut http::Response<reqwest::Body>, credentials: &Credentials) -> Failure {
    if reply.status().is_redirection() {
        return Failure::Malformed {
            what: format!("a redirect ({})", reply.status().as_u16()),
        };
    }
    let read = read_up_to(reply.body_mut(), ERROR_BODY_LIMIT);
    // Whatever came of the body: the status alone decides if it breaks off.
    let body = tokio::time::timeout(ERROR_BODY_WAIT, read).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let body = without_secrets(&body, credentials);
    Failure::from_reply(reply.status().as_u16(), reply.headers(), &body, now())
}

/// Reads a body until it ends or more than `limit_bytes` have come.
pub(super) async fn read_up_to(
    body: &mut reqwest::Body,
    limit_bytes: usize,
) -> Result<Bytes, Failure> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::Cut)?;
        if let Ok(bytes) = frame.into_data() {
            read.extend_from_slice(&bytes);
        }
        if read.len() > limit_bytes {
            break;
        }
    }
    Ok(read.freeze())
}

/// Returns an error's body without the account's own secrets, should upstream repeat them.
fn without_secrets(body: &[u8], credentials: &Credentials) -> Vec<u8> {
    let mut clean = body.to_vec();
    for secret in [
        credentials.access_token.expose(),
        &credentials.chatgpt_account_id,
    ] {
        // Anything shorter is no secret but a placeholder, and might be part of ordinary words.
        if secret.len() < 8 {
            continue;
        }
        let mut rest = clean.as_slice();
        let mut cleaner = Vec::with_capacity(clean.len());
        while let Some(at) = memchr::memmem::find(rest, secret.as_bytes()) {
            cleaner.extend_from_slice(&rest[..at]);
            cleaner.extend_from_slice(b"(hidden)");
            rest = &rest[at + secret.len()..];
        }
        cleaner.extend_from_slice(rest);
        clean = cleaner;
    }
    clean
}

/// Says why a call got no reply, by the types of the error's causes. Never shows the URL.
pub(super) fn failure(error: &reqwest::Error) -> Failure {
    let what = if !error.is_connect() {
        // The connection was there and broke before the reply.
        return Failure::Cut;
    } else if error.is_timeout() {
        format!("no connection within {} s", CONNECT_LIMIT.as_secs())
    } else {
        let mut what = "the connection failed".to_owned();
        let mut cause = error.source();
        while let Some(error) = cause {
            if error.is::<LookupError>() {
                what = "the host's name cannot be resolved".to_owned();
                break;
            }
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                what = format!("TLS: {tls}");
                break;
            }
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                what = of_kind(io.kind()).unwrap_or(&what).to_owned();
                // A TLS error travels inside an I/O error.
                cause = io.get_ref().map(|inner| inner as _);
                continue;
            }
            cause = error.source();
        }
        what
    };
    Failure::Unreachable { what }
}

fn of_kind(kind: std::io::ErrorKind) -> Option<&'static str> {
    use std::io::ErrorKind;
    Some(match kind {
        ErrorKind::ConnectionRefused => "the connection was refused",
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => "the connection was reset",
        ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => "there is no network",
        ErrorKind::HostUnreachable => "there is no way to the host",
        ErrorKind::TimedOut => "the connection timed out",
        ErrorKind::UnexpectedEof => "the connection was closed",
        _ => return None,
    })
}

pub(super) fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSeconds(since.map_or(0, |since| since.as_secs()))
}
