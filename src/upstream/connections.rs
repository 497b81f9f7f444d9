//! The pool of connections to one origin, prepared when it is first needed.
//!
//! What costs time, reading the system's root certificates, is done on another thread; a loopback
//! origin has no use for TLS and does without. Knows nothing of what goes over the connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::upstream::endpoints::is_loopback_origin;

/// A name lookup, a TCP connection and a TLS handshake together take no longer.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// Connections stay open this long without use: people think longer between turns than servers like.
const IDLE_LIMIT: Duration = Duration::from_secs(600);

/// The pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The HTTP library refused its settings, or the system has no root certificates.
    #[error("cannot prepare connections to upstream")]
    Build(#[source] reqwest::Error),
    /// ccx itself is ending.
    #[error("the preparation of connections to upstream was interrupted")]
    Interrupted,
}

/// The connections to one origin.
#[derive(Debug)]
pub struct Connections {
    origin: String,
    pool: OnceCell<reqwest::Client>,
}

impl Connections {
    /// Makes a pool without connections. Reads no certificates and opens nothing.
    pub fn new(origin: &str) -> Result<Self, ClientError> {
        let pool = if origin.starts_with("http:") {
            OnceCell::new_with(Some(build(origin)?))
        } else {
            OnceCell::new()
        };
        Ok(Self {
            origin: origin.to_owned(),
            pool,
        })
    }

    /// Returns the pool, after preparing it at the first call.
    pub async fn get(&self) -> Result<&reqwest::Client, ClientError> {
        self.pool
            .get_or_try_init(|| async {
                let origin = self.origin.clone();
                tokio::task::spawn_blocking(move || build(&origin))
                    .await
                    .map_err(|_| ClientError::Interrupted)?
            })
            .await
    }
}

impl From<reqwest::Client> for Connections {
    /// Takes a pool that is there already.
    fn from(client: reqwest::Client) -> Self {
        Self {
            origin: String::new(),
            pool: OnceCell::new_with(Some(client)),
        }
    }
}

/// Builds the connection pool. Reads the root certificates unless `origin` is plain http.
fn build(origin: &str) -> Result<reqwest::Client, ClientError> {
    // Fails only when it was installed before, by us or by another client in this process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .pool_idle_timeout(IDLE_LIMIT)
        .pool_max_idle_per_host(32)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        .tcp_keepalive_interval(Duration::from_secs(10))
        .tcp_keepalive_retries(3)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .dns_resolver(Lookup);
    // A connection whose other end is gone (sleep, another network) is given up, not waited for.
    #[cfg(target_os = "linux")]
    let builder = builder.tcp_user_timeout(Duration::from_secs(60));
    let builder = if is_loopback_origin(origin) {
        builder.no_proxy()
    } else {
        builder
    };
    let builder = if origin.starts_with("http:") {
        // Trusts nobody: no TLS connection is ever made, since routes of a loopback endpoint are loopback too.
        builder.http1_only().tls_backend_preconfigured(
            rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        )
    } else {
        builder
    };
    builder.build().map_err(ClientError::Build)
}

/// Looks names up with the system's resolver. Exists so that a failure has a type of its own.
struct Lookup;

#[derive(Debug, thiserror::Error)]
#[error("name not found")]
/// A host name that has no address.
pub struct LookupError(#[source] std::io::Error);

impl reqwest::dns::Resolve for Lookup {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map_err(LookupError)?;
            let found: Vec<SocketAddr> = found.collect();
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}
