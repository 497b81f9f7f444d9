//! A token endpoint on loopback. Each request is answered on a thread of its own by a function of the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// No event that a test waits for takes this long.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method and path.
    pub(crate) line: String,
    /// Header lines, names in lower case.
    pub(crate) headers: Vec<String>,
    /// The JSON body.
    pub(crate) body: Value,
}

/// What goes out.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status and body.
    Text(u16, String),
    /// Status, one more header line, no body.
    Header(u16, String),
    /// These bytes instead of a response.
    Raw(Vec<u8>),
    /// Nothing, and the connection closes.
    Close,
}

impl Reply {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self::Text(status, body.to_string())
    }

    pub(crate) fn refusal(code: &str) -> Self {
        Self::json(401, json!({"error": {"code": code, "message": "x"}}))
    }
}

/// Opens once; whoever waits at it goes on.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        let _open = self
            .0
            .1
            .wait_timeout_while(open, TIME_LIMIT, |open| !*open)
            .unwrap();
    }
}

/// The running issuer; dropping it stops it.
pub(crate) struct Issuer {
    pub(crate) origin: String,
    requests: Arc<Mutex<Vec<Request>>>,
    arrivals: Mutex<Receiver<()>>,
    stop: Arc<AtomicBool>,
}

impl Issuer {
    /// Starts one that answers request number `n` (from 0) with `answer(n, request)`.
    pub(crate) fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::default();
        let (sender, arrivals) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let answer = Arc::new(answer);
        thread::spawn({
            let (requests, stop) = (Arc::clone(&requests), Arc::clone(&stop));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let (requests, sender) = (Arc::clone(&requests), sender.clone());
                    let answer = Arc::clone(&answer);
                    thread::spawn(move || serve(stream, &requests, &sender, &*answer));
                }
            }
        });
        Self {
            origin,
            requests,
            arrivals: Mutex::new(arrivals),
            stop,
        }
    }

    /// Starts one that gives `at-1` and `rt-1` for `rt-0`, `at-2` and `rt-2` for `rt-1`, and so on, and refuses
    /// every token that was spent.
    pub(crate) fn rotating() -> Self {
        let next = AtomicU64::new(0);
        Self::start(move |_, request| {
            let current = next.load(Ordering::SeqCst);
            if request.body["refresh_token"] != format!("rt-{current}") {
                return Reply::refusal("refresh_token_reused");
            }
            next.store(current + 1, Ordering::SeqCst);
            tokens(current + 1)
        })
    }

    /// Starts one that always answers the same.
    pub(crate) fn always(reply: Reply) -> Self {
        Self::start(move |_, _| reply.clone())
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Waits until one more request has come in.
    pub(crate) async fn arrival(self: &Arc<Self>) {
        let issuer = Arc::clone(self);
        tokio::task::spawn_blocking(move || issuer.arrived())
            .await
            .unwrap();
    }

    /// As [`Issuer::arrival`], blocking.
    pub(crate) fn arrived(&self) {
        let arrivals = self.arrivals.lock().unwrap();
        arrivals.recv_timeout(TIME_LIMIT).unwrap();
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.origin.trim_start_matches("http://"));
    }
}

/// The answer with the `number`th tokens, good for ten days.
pub(crate) fn tokens(number: u64) -> Reply {
    Reply::json(
        200,
        json!({
            "access_token": format!("at-{number}"), "refresh_token": format!("rt-{number}"),
            "id_token": "opaque", "expires_in": 864_000, "token_type": "Bearer"
        }),
    )
}

fn serve(
    stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    arrived: &Sender<()>,
    answer: &dyn Fn(usize, &Request) -> Reply,
) {
    let mut reader = BufReader::new(stream);
    // A client that went away is no concern of the issuer's.
    while let Some(request) = receive(&mut reader) {
        let number = {
            let mut requests = requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        let _ = arrived.send(());
        let bytes = match answer(number, &request) {
            Reply::Text(status, body) => format!(
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
            Reply::Header(status, line) => {
                format!("HTTP/1.1 {status} x\r\n{line}\r\ncontent-length: 0\r\n\r\n").into_bytes()
            }
            Reply::Raw(bytes) => {
                let _ = reader.get_mut().write_all(&bytes);
                return;
            }
            Reply::Close => return,
        };
        if reader.get_mut().write_all(&bytes).is_err() {
            return;
        }
    }
}

fn receive(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers: Vec<String> = lines
        .drain(1..)
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            format!("{}: {value}", name.to_lowercase())
        })
        .collect();
    let length = headers
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "))?
        .parse()
        .unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        line: lines.remove(0),
        headers,
        body: serde_json::from_slice(&body).unwrap(),
    })
}
