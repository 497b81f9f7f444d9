//! Starting, ending and looking at the daemon from another process.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cli::environment::Environment;
use crate::cli::setup::{self, Setup, VERSION};
use crate::cli::{launch, sign_in, ui};
use crate::daemon::slot::{self, Holder, Record};
use crate::error::{Kind, Report};
use crate::time::UnixSeconds;

use super::{DETACHED, READY, port_of};

/// How long a start may take.
const START: Duration = Duration::from_secs(10);

/// How long an end may take beyond the time that answers in flight have.
const MARGIN: Duration = Duration::from_secs(5);

/// Between two looks at a daemon.
const PAUSE: Duration = Duration::from_millis(20);

/// Exit code of `status` if none runs.
const NOT_RUNNING: u8 = 3;

/// What the terminal, the editor or a client of whoever starts a daemon has set, and what means nothing to a daemon;
/// `_` at the end stands for all names that begin so.
const NOT_FOR_A_DAEMON: &[&str] = &[
    "ANTHROPIC_",
    "CCX_GUARD",
    "CLAUDECODE",
    "CLAUDE_CODE_",
    "COLORTERM",
    "COLUMNS",
    "EDITOR",
    "LINES",
    "PAGER",
    "PORT",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "STY",
    "TERM",
    "TERM_",
    "TMUX",
    "TMUX_",
    "VISUAL",
    "VSCODE_",
    "WINDOWID",
];

fn internal(error: anyhow::Error) -> Report {
    Report::new(Kind::Internal, error)
}

fn look(state: &Path) -> Result<Holder, Report> {
    slot::look(state)
        .context("could not look for a daemon")
        .map_err(internal)
}

/// Starts the daemon, unless one runs. Returns once it answers.
pub(super) fn start(environment: &Environment, port: Option<u16>) -> Result<u8, Report> {
    let setup = Setup::new(environment)?;
    let end = Instant::now() + START;
    let record = loop {
        if look(&setup.places.state)? == Holder::Nobody {
            setup.settle_secrets()?;
            // Here somebody can be asked.
            sign_in::require_account(&setup, environment, None)?;
            let port = port_of(environment, port, &setup.places.state)?;
            spawn(environment, &setup, port)?;
        }
        match await_ready(&setup.places.state)? {
            Some(record) => break record,
            None if Instant::now() >= end => {
                return Err(internal(anyhow!("the daemon ended at once")).hint(log_hint(&setup)));
            }
            // The one that was there was on its way out.
            None => {}
        }
    };
    ui::note(&format!(
        "ccx: the daemon serves on http://127.0.0.1:{}; its key is in {}",
        record.port,
        setup.places.state.join("daemon.key").display()
    ));
    Ok(0)
}

/// Starts one of our own and waits for its word, or for its end.
fn spawn(environment: &Environment, setup: &Setup, port: u16) -> Result<(), Report> {
    let mut command = Command::new(launch::own_executable()?);
    command
        .args(["daemon", "run", DETACHED, "--port", &port.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in environment.names() {
        let text = name.to_string_lossy();
        let is_unfit = |unfit: &&str| match unfit.ends_with('_') {
            true => text.starts_with(*unfit),
            false => text == **unfit,
        };
        if NOT_FOR_A_DAEMON.iter().any(is_unfit) {
            command.env_remove(name);
        }
    }
    if let Some(home) = environment.path("CCX_HOME") {
        command.env("CCX_HOME", std::path::absolute(&home).unwrap_or(home));
    }
    // What the caller has open beyond the three is not the daemon's: a pipe would never end.
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    let mut child = command
        .spawn()
        .context("could not start the daemon")
        .map_err(internal)?;
    let (Some(out), Some(mut error)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(internal(anyhow!("the daemon has no voice")));
    };
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(out).read_line(&mut line);
        let _ = said.send(line);
    });
    match heard.recv_timeout(START) {
        Ok(line) if line.trim_end() == READY => Ok(()),
        Ok(_) => {
            let mut words = String::new();
            let _ = error.read_to_string(&mut words);
            let _ = child.wait();
            if look(&setup.places.state)? != Holder::Nobody {
                // Another start was quicker.
                return Ok(());
            }
            let words = words.trim().trim_start_matches("error: ").to_owned();
            Err(internal(anyhow!("the daemon did not start: {words}")).hint(log_hint(setup)))
        }
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(
                internal(anyhow!("the daemon was not ready in {} s", START.as_secs()))
                    .hint(log_hint(setup)),
            )
        }
    }
}

fn log_hint(setup: &Setup) -> String {
    format!(
        "its log is {}",
        setup.places.state.join("ccx.log").display()
    )
}

/// Waits until the daemon that has the place answers; `None` if nobody has it any more.
fn await_ready(state: &Path) -> Result<Option<Record>, Report> {
    let end = Instant::now() + START;
    loop {
        match look(state)? {
            Holder::Ready(record) if answers(state, &record) => return Ok(Some(record)),
            Holder::Nobody => return Ok(None),
            _ if Instant::now() >= end => {
                let pid = look(state)?
                    .pid()
                    .map_or_else(String::new, |pid| format!(" (process {pid})"));
                return Err(Report::new(
                    Kind::Busy,
                    anyhow!("a daemon{pid} holds its place and does not answer"),
                )
                .hint("`ccx daemon stop --now` ends it"));
            }
            _ => std::thread::sleep(PAUSE),
        }
    }
}

/// Says whether it answers as itself. Only whoever holds the lock is sent the key, at the port that it wrote down.
fn answers(state: &Path, record: &Record) -> bool {
    let Ok(key) = fs::read_to_string(state.join("daemon.key")) else {
        return false;
    };
    let answer = ask(record.port, key.trim());
    let pid = answer.ok().and_then(|answer| {
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let body: Value = serde_json::from_str(body).ok()?;
        head.starts_with("HTTP/1.1 200 ")
            .then(|| body["pid"].as_u64())?
    });
    pid == Some(record.pid.into())
}

fn ask(port: u16, key: &str) -> io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Ends the daemon, if one runs. Returns once it is gone.
pub(super) fn stop(environment: &Environment, now: bool) -> Result<u8, Report> {
    let setup = Setup::new(environment)?;
    end(&setup.places.state, now)?;
    Ok(0)
}

fn end(state: &Path, now: bool) -> Result<(), Report> {
    let patience = if now { MARGIN } else { super::DRAIN + MARGIN };
    let until = Instant::now() + patience;
    let mut told = None;
    loop {
        let holder = look(state)?;
        // Another process in its place was started meanwhile, by somebody who wants one.
        let is_another = told.is_some() && holder.pid().is_some() && holder.pid() != told;
        if holder == Holder::Nobody || is_another {
            return Ok(());
        }
        // The holder of the lock lives, so the process is no other. Asked a second time it waits for no answer.
        if let Some(pid) = holder.pid().filter(|_| told.is_none() || now) {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
                told = holder.pid();
            }
        }
        if Instant::now() >= until {
            let pid = holder
                .pid()
                .map_or_else(String::new, |pid| format!(" (process {pid})"));
            return Err(Report::new(
                Kind::Busy,
                anyhow!("the daemon{pid} does not end"),
            ));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Ends the daemon and starts one, on the same port and with the same key.
pub(super) fn restart(environment: &Environment, port: Option<u16>) -> Result<u8, Report> {
    let setup = Setup::new(environment)?;
    let port = match look(&setup.places.state)? {
        Holder::Ready(record) => port.or(Some(record.port)),
        _ => port,
    };
    end(&setup.places.state, false)?;
    start(environment, port)
}

/// Says whether a daemon runs.
pub(super) fn status(environment: &Environment, as_json: bool) -> Result<u8, Report> {
    let places = setup::places(environment)?;
    let holder = match places.state.is_dir() {
        true => look(&places.state)?,
        false => Holder::Nobody,
    };
    let record = match &holder {
        Holder::Ready(record) if answers(&places.state, record) => Some(record),
        _ => None,
    };
    if as_json {
        ui::json(&json!({
            "running": record.is_some(),
            "pid": holder.pid(),
            "port": record.map(|record| record.port),
            "version": record.map(|record| &record.version),
            "started": record.map(|record| record.started),
            "ccx": VERSION,
        }));
    } else {
        ui::result(&match (record, &holder) {
            (Some(record), _) => in_words(record),
            (None, Holder::Nobody) => "no daemon runs; `ccx daemon start` starts one\n".to_owned(),
            (None, _) => "a daemon starts, ends or does not answer\n".to_owned(),
        });
    }
    Ok(if record.is_some() { 0 } else { NOT_RUNNING })
}

fn in_words(record: &Record) -> String {
    let started = crate::cli::draw::ago(UnixSeconds(record.started), crate::proxy::entry::now());
    let other = match record.version == VERSION {
        true => String::new(),
        false => format!(" (this is {VERSION}: `ccx daemon restart`)"),
    };
    format!(
        "running, process {}, http://127.0.0.1:{}, ccx {}{other}, started {started}\n",
        record.pid, record.port, record.version
    )
}

/// Prints the log; with `follow`, also what comes, until interrupted.
pub(super) fn logs(environment: &Environment, follow: bool) -> Result<u8, Report> {
    let path = setup::places(environment)?.state.join("ccx.log");
    let failed = |error: io::Error| {
        internal(anyhow::Error::new(error).context(format!("could not read {}", path.display())))
    };
    let mut out = io::stdout().lock();
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !follow => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    loop {
        // Who reads may have had enough.
        if io::copy(&mut file, &mut out)
            .and_then(|_| out.flush())
            .is_err()
            || !follow
        {
            return Ok(0);
        }
        std::thread::sleep(Duration::from_millis(200));
        let at = file.stream_position().map_err(failed)?;
        if let Ok(now) = fs::metadata(&path)
            && (now.ino() != file.metadata().map_err(failed)?.ino() || now.len() < at)
        {
            file = File::open(&path).map_err(failed)?;
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
        }
    }
}
