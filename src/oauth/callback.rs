//! The listener that a browser comes back to after the sign-in page.
//!
//! Bound to one of the two loopback ports that the issuer knows. Whoever still holds one is asked to let go with
//! `GET /cancel`, and the same request ends a sign-in here: that is the Codex CLI's custom. Says what came and
//! shows the page it is given; whether a callback is right is decided by `authorize`.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, ORIGIN, REFERER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::oauth::authorize::{self, CALLBACK_PATH, CALLBACK_PORTS};
use crate::oauth::page::{self, Page};

/// How long a holder of the port may take to answer, and then to let go. The Codex CLI takes under a second.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);
const RELEASE_LIMIT: Duration = Duration::from_secs(2);
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// How long a browser may take to send a request, and to fetch the last page once the sign-in has ended.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Largest request head. A callback with its code is about 1 kB.
const HEAD_LIMIT: usize = 16 * 1024;

/// How many connections at once: a browser opens a handful. More wait in the kernel.
const CONNECTIONS: usize = 16;

/// What came.
#[derive(Debug)]
pub enum Event {
    /// A browser, with this query; somebody has to tell it what to show.
    Came {
        /// Not checked in any way.
        query: String,
        /// Where the page goes.
        viewer: Viewer,
    },
    /// Another program wants the port, as the person has started another sign-in.
    Cancelled,
}

/// A browser that waits for its page. If it is dropped, the browser learns that the sign-in has ended.
#[derive(Debug)]
pub struct Viewer(oneshot::Sender<Page>);

impl Viewer {
    /// Shows `page`. A browser that has gone does not see it.
    pub fn show(self, page: Page) {
        let _ = self.0.send(page);
    }
}

/// Why nobody can come back.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on 127.0.0.1:{first} or :{second}", first = CALLBACK_PORTS[0], second = CALLBACK_PORTS[1])]
pub struct CallbackError(#[source] io::Error);

/// The open listener. Closed when dropped; [`Callback::close`] lets the last page arrive first.
#[derive(Debug)]
pub struct Callback {
    port: u16,
    events: mpsc::Receiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Callback {
    /// Listens on the first of the ports that is free or is let go.
    ///
    /// # Errors
    ///
    /// Neither can be had.
    pub async fn open() -> Result<Self, CallbackError> {
        let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
        for port in CALLBACK_PORTS {
            match bind(port).await {
                Ok(listener) => return Ok(Self::serve(listener, port)),
                Err(error) => refused = error,
            }
        }
        Err(CallbackError(refused))
    }

    fn serve(listener: TcpListener, port: u16) -> Self {
        // Few, since each is waited for: what does not fit is answered with 503.
        let (sender, events) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel();
        let door = Arc::new(Door { port, sender });
        Self {
            port,
            events,
            stop: Some(stop),
            serving: tokio::spawn(accept(listener, door, stopped)),
        }
    }

    /// Returns the address that the browser has to be sent back to.
    pub fn redirect_uri(&self) -> String {
        authorize::redirect_uri(self.port)
    }

    /// Waits for the next thing to come. May be dropped and called again.
    pub async fn next(&mut self) -> Event {
        // The serving task holds a sender until it is told to stop.
        self.events.recv().await.unwrap_or(Event::Cancelled)
    }

    /// Stops listening at once, and waits a little until pages under way have arrived.
    pub async fn close(mut self) {
        drop(self.stop.take());
        self.events.close();
        while self.events.try_recv().is_ok() {}
        let _ = timeout(CLOSE_LIMIT + CANCEL_LIMIT, &mut self.serving).await;
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn bind(port: u16) -> io::Result<TcpListener> {
    let address = (Ipv4Addr::LOCALHOST, port);
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other,
    }
    // What it answers, if anything, does not matter: only whether it lets go.
    let _ = timeout(CANCEL_LIMIT, ask_to_let_go(port)).await;
    let end = Instant::now() + RELEASE_LIMIT;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                sleep(RELEASE_PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn ask_to_let_go(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request =
        format!("GET /cancel HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.read(&mut [0; 512]).await.map(drop)
}

async fn accept(listener: TcpListener, door: Arc<Door>, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            _ = &mut stopped => break,
            next = next => next,
        };
        let Ok((stream, _)) = accepted else {
            // Without descriptors it takes a while; a peer that left is no reason to stop.
            sleep(RELEASE_PAUSE).await;
            continue;
        };
        let door = Arc::clone(&door);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_LIMIT)
            .max_buf_size(HEAD_LIMIT)
            .keep_alive(false)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| {
                    let door = Arc::clone(&door);
                    async move { Ok::<_, Infallible>(door.answer(&request).await) }
                }),
            );
        let connection = graceful.watch(connection);
        // Ends by itself: after one request, or without one after its time.
        tokio::spawn(async move {
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    let _ = timeout(CLOSE_LIMIT, graceful.shutdown()).await;
}

#[derive(Debug)]
struct Door {
    port: u16,
    sender: mpsc::Sender<Event>,
}

type Answer = Response<Full<Bytes>>;

impl Door {
    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        if !self.is_for_us(request) {
            return shown(&Page::new(
                421,
                "Not here",
                "This address is not the one of the sign-in.",
            ));
        }
        if request.method() != Method::GET {
            return shown(&Page::new(
                405,
                "Not this way",
                "Only GET is answered here.",
            ));
        }
        match request.uri().path() {
            CALLBACK_PATH => self.come(request.uri().query().unwrap_or_default()).await,
            "/cancel" => self.cancel(request),
            _ => shown(&Page::new(404, "Nothing here", "ccx waits for a sign-in.")),
        }
    }

    /// A name that merely resolves to this machine is somebody's attempt to read the page.
    fn is_for_us<B>(&self, request: &Request<B>) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let ours = [
            format!("127.0.0.1:{}", self.port),
            format!("localhost:{}", self.port),
        ];
        hosts.next().is_none()
            && host.is_some_and(|host| ours.iter().any(|ours| host.eq_ignore_ascii_case(ours)))
    }

    async fn come(&self, query: &str) -> Answer {
        let (sender, page) = oneshot::channel();
        let event = Event::Came {
            query: query.to_owned(),
            viewer: Viewer(sender),
        };
        if self.sender.try_send(event).is_err() {
            return shown(&Page::new(
                503,
                "One moment",
                "Reload this page in a moment.",
            ));
        }
        let ended = Page::new(
            410,
            "This sign-in has ended",
            "Start it again in the terminal.",
        );
        shown(&page.await.unwrap_or(ended))
    }

    /// Programs may end a sign-in; a web page that a browser has open may not.
    fn cancel<B>(&self, request: &Request<B>) -> Answer {
        let is_browser = ["sec-fetch-site", "sec-fetch-mode"]
            .iter()
            .any(|name| request.headers().contains_key(*name))
            || [ORIGIN, REFERER]
                .iter()
                .any(|name| request.headers().contains_key(name));
        if is_browser {
            return shown(&Page::new(
                403,
                "Not this way",
                "Press Ctrl-C in the terminal.",
            ));
        }
        // Full: another event ends or outlives this sign-in anyway.
        let _ = self.sender.try_send(Event::Cancelled);
        shown(&Page::new(200, "Cancelled", "The sign-in was cancelled."))
    }
}

fn shown(page: &Page) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(page.html())));
    *answer.status_mut() =
        StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in page::headers() {
        if let Ok(value) = http::HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> (Door, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(4);
        (Door { port: 1455, sender }, events)
    }

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[tokio::test]
    async fn only_the_callback_is_answered_and_only_under_our_own_name() {
        const HOME: (&str, &str) = ("host", "127.0.0.1:1455");
        const NAME: (&str, &str) = ("host", "LOCALHOST:1455");
        for (method, target, headers, status) in [
            ("GET", "/", &[HOME][..], 404),
            ("GET", "/auth/callback/", &[HOME], 404),
            ("POST", "/auth/callback?code=x", &[HOME], 405),
            ("HEAD", "/auth/callback?code=x", &[HOME], 405),
            ("GET", "/auth/callback?code=x", &[], 421),
            (
                "GET",
                "/auth/callback?code=x",
                &[("host", "127.0.0.1")],
                421,
            ),
            (
                "GET",
                "/auth/callback",
                &[("host", "evil.example:1455")],
                421,
            ),
            ("GET", "/auth/callback?code=x", &[HOME, NAME], 421),
            ("GET", "/cancel", &[("host", "evil.example:1455")], 421),
            (
                "GET",
                "/cancel",
                &[HOME, ("sec-fetch-site", "cross-site")],
                403,
            ),
            (
                "GET",
                "/cancel",
                &[HOME, ("origin", "https://x.example")],
                403,
            ),
            ("GET", "/cancel", &[NAME], 200),
        ] {
            let (door, mut events) = door();
            let answer = door.answer(&request(method, target, headers)).await;
            assert_eq!(answer.status(), status, "{method} {target} {headers:?}");
            assert_eq!(events.try_recv().is_ok(), status == 200, "{target}");
            assert_eq!(answer.headers()["cache-control"], "no-store");
        }
    }

    #[tokio::test]
    async fn a_browser_waits_for_its_page() {
        let (door, mut events) = door();
        let request = request("GET", "/auth/callback?a=b", &[("host", "localhost:1455")]);
        let show = async {
            let Some(Event::Came { query, viewer }) = events.recv().await else {
                panic!("nothing came");
            };
            assert_eq!(query, "a=b");
            viewer.show(Page::new(200, "Signed in", "x"));
        };
        let (answer, ()) = tokio::join!(door.answer(&request), show);
        assert_eq!(answer.status(), 200);
        // Whoever is not shown anything is not left waiting.
        let leave = async { drop(events.recv().await) };
        let (answer, ()) = tokio::join!(door.answer(&request), leave);
        assert_eq!(answer.status(), 410);
    }
}
