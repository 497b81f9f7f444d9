//! A home without an account, an issuer, and the hands of a person: a browser and a look at the store.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ccx::files::lock::Lock;
use ccx::simulate::backend::Backend;
use ccx::simulate::forge::Account;
use ccx::simulate::scenario::Scenario;
use serde_json::{Value, json};

use crate::support::screen::{PATIENCE, Screen};

/// The two ports of the callback, for one test at a time, in whatever process it runs.
pub(crate) struct Ports(#[allow(dead_code, reason = "held")] Lock);

/// Waits for the ports. Fails if a program that is no test of ours has one.
pub(crate) fn ports() -> Ports {
    let file = std::env::temp_dir().join("ccx-test-callback-ports.lock");
    let lock = Lock::acquire(&file, 5 * PATIENCE).unwrap();
    for port in [1455, 1457] {
        drop(
            TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|error| {
                panic!("this test needs 127.0.0.1:{port}, and another program has it: {error}")
            }),
        );
    }
    Ports(lock)
}

/// The home and the issuer.
pub(crate) struct Hall {
    root: tempfile::TempDir,
    pub(crate) backend: Backend,
    environment: Vec<(String, String)>,
}

impl Hall {
    pub(crate) fn new() -> Self {
        Self::with(&json!([]))
    }

    /// A hall whose issuer first gives these canned replies.
    pub(crate) fn with(routes: &Value) -> Self {
        let scenario = json!({"about": "signing in", "steps": [], "routes": routes});
        let scenario = Scenario::parse("login", &scenario.to_string()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accounts = vec![Account::new("ann"), Account::new("bob")];
        let backend = Backend::start(listener, scenario, accounts).unwrap();
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        for name in ["home", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let environment = [
            ("HOME", path("home")),
            ("CCX_HOME", path("ccx")),
            ("CCX_UPSTREAM_URL", backend.base_url()),
            ("CCX_AUTH_URL", backend.base_url()),
            ("CCX_NO_BROWSER", "1".to_owned()),
            ("PATH", std::env::var("PATH").unwrap()),
            ("TERM", "xterm-256color".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
        ];
        Self {
            environment: environment
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            backend,
            root,
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Starts `ccx` with `arguments`, without a terminal.
    pub(crate) fn ccx(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ccx"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.path("work"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Run::start(command)
    }

    /// Starts `ccx` with `arguments` on a terminal.
    pub(crate) fn screen(&self, arguments: &[&str], size: (u16, u16)) -> Screen {
        // As under a person's shell. When the leader of a session ends, the kernel hangs its terminal up and throws
        // away what nobody has read yet: that must not be the last words of ccx.
        let shell = r#"trap : INT; "$0" "$@"; status=$?; sleep 0.1; exit $status"#;
        let mut words = vec!["-c", shell, env!("CARGO_BIN_EXE_ccx")];
        words.extend(arguments);
        Screen::start(
            Path::new("/bin/sh"),
            &words,
            &self.environment,
            &self.path("work"),
            size,
        )
    }

    /// The accounts on disk.
    pub(crate) fn accounts(&self) -> Vec<Value> {
        let Ok(text) = std::fs::read_to_string(self.path("ccx/state/accounts.json")) else {
            return Vec::new();
        };
        let store: Value = serde_json::from_str(&text).unwrap();
        store["accounts"].as_array().unwrap().clone()
    }

    /// The only account on disk.
    #[track_caller]
    pub(crate) fn account(&self) -> Value {
        let mut accounts = self.accounts();
        assert_eq!(accounts.len(), 1, "{accounts:?}");
        accounts.remove(0)
    }

    /// Follows the link of the sign-in page called `id`; returns where the browser is sent.
    pub(crate) fn click(&self, url: &str, id: &str) -> String {
        let page = get(url, &[]);
        assert_eq!(page.status, 200, "{}", page.body);
        let link = page.body.split(&format!("id=\"{id}\" href=\"")).nth(1);
        let link = link.unwrap_or_else(|| panic!("no link {id}: {}", page.body));
        let link = link.split('"').next().unwrap().replace("&amp;", "&");
        let sent = get(&format!("{}{link}", self.backend.base_url()), &[]);
        assert_eq!(sent.status, 302, "{}", sent.body);
        sent.header("location").unwrap().to_owned()
    }
}

/// A running `ccx` and what it has said.
pub(crate) struct Run {
    child: Child,
    lines: Receiver<String>,
    pub(crate) said: String,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) said: String,
}

impl Ended {
    /// Everything it said holds none of the forged secrets.
    #[track_caller]
    pub(crate) fn keeps_secrets(&self) {
        keeps_secrets(&format!("{}{}", self.out, self.said));
    }
}

#[track_caller]
pub(crate) fn keeps_secrets(text: &str) {
    for secret in [
        "rt_forged",
        "ac_forged",
        "cv_forged",
        "deviceauth_forged",
        "eyJ",
    ] {
        assert!(!text.contains(secret), "{secret} in: {text}");
    }
}

impl Run {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            said: String::new(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on stderr that holds `text`, and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("waited for {text:?} in:\n{}", self.said);
            };
            self.said.push_str(&line);
            self.said.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for the address of the sign-in page.
    #[track_caller]
    pub(crate) fn url(&mut self) -> String {
        let url = self.wait_for("/oauth/authorize?").trim().to_owned();
        self.wait_for("browser");
        url
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits for its end; standard input is closed.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        drop(self.child.stdin.take());
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                panic!("it does not end:\n{}", self.said);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        let mut out = String::new();
        let stdout = self.child.stdout.take();
        stdout.unwrap().read_to_string(&mut out).unwrap();
        Ended {
            code: status.code(),
            out,
            said: std::mem::take(&mut self.said),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Fetches a page as a browser would, without following redirects.
#[track_caller]
pub(crate) fn get(url: &str, headers: &[(&str, &str)]) -> Got {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, target) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("GET /{target} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("Host: {host}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream
        .write_all(format!("{request}\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Got {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
