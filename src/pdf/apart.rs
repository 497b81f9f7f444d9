//! Reads a PDF in a process of its own.
//!
//! A file that a stranger made can bring a reader to loop, to take all memory, or to overrun its stack. None of that
//! may end a session, so it happens in a short-lived child: no environment, no terminal, its memory and time limited.
//! The child is given the file on standard input and answers with a line for each page, so that what was read before
//! the end still counts.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::text::{self, Found};

/// First word of the command line of the process.
pub const READ_WORD: &str = "--ccx-read-pdf";

/// How long one file may take. A manual of 500 pages takes about a second.
const LONGEST: Duration = Duration::from_secs(10);

/// How much longer the child is waited for: it ends itself after [`LONGEST`].
const GRACE: Duration = Duration::from_secs(2);

/// What the child may take of memory, where the system keeps to that (Linux).
const MEMORY_BYTES: u64 = 1 << 30;

/// The child's stack: objects in a PDF are nested by recursion.
const STACK_BYTES: usize = 64 << 20;

/// The largest file that is read. A request is not larger.
const LARGEST_FILE: u64 = 64 << 20;

/// The most that the child may say.
const LARGEST_ANSWER: u64 = 16 << 20;

/// What was read of a PDF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How many pages it has; 0 if it could not be read.
    pub pages: usize,
    /// The texts of the first of them; `None` is one that could not be read.
    pub texts: Vec<Option<String>>,
}

/// A line of the child's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Pages(usize),
    Page(Option<String>),
}

/// Starts the processes.
#[derive(Clone, Debug)]
pub struct Reader {
    program: PathBuf,
}

impl Reader {
    /// Runs `program`, which is ccx itself.
    pub const fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Reads `pdf`, up to about `enough` bytes of text. Blocks its thread for as long as that takes, which is
    /// limited.
    ///
    /// # Errors
    ///
    /// The process could not be started.
    pub fn read(&self, pdf: &[u8], enough: usize) -> io::Result<Reading> {
        let mut child = Command::new(&self.program)
            .arg(READ_WORD)
            .arg(enough.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Where it breaks is said there, in words that nobody understands.
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let end = Instant::now() + LONGEST + GRACE;
        let reading = exchange(&mut child, pdf, end);
        // Killed although it may have ended: it has nothing that is to be kept.
        let _ = child.kill();
        child.wait()?;
        reading
    }
}

fn exchange(child: &mut Child, pdf: &[u8], end: Instant) -> io::Result<Reading> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    thread::scope(|scope| {
        // It reads everything before it says anything; one that does not is killed, which ends the pipe.
        let giving = scope.spawn(move || stdin.write_all(pdf));
        let reading = listen(Until { stdout, end });
        let _ = child.kill();
        let _ = giving.join();
        Ok(reading)
    })
}

fn listen(answer: impl Read) -> Reading {
    let mut reading = Reading::default();
    for line in BufReader::new(answer.take(LARGEST_ANSWER)).lines() {
        let Ok(line) = line else {
            break;
        };
        match serde_json::from_str(&line) {
            Ok(Line::Pages(pages)) => reading.pages = pages,
            Ok(Line::Page(text)) => reading.texts.push(text),
            // The library says something of its own.
            Err(_) => {}
        }
    }
    reading
}

/// A pipe that is at its end when the time is over.
struct Until<R> {
    stdout: R,
    end: Instant,
}

impl<R: Read + AsFd> Read for Until<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            let mut waited = [PollFd::new(&self.stdout, PollFlags::IN)];
            match poll(&mut waited, Some(&left)) {
                Ok(0) => return Ok(0),
                Ok(_) => return self.stdout.read(buffer),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Is the child: reads a PDF from standard input and answers on standard output, up to about `enough` bytes of text.
///
/// # Errors
///
/// Input or output broke.
pub fn serve(enough: usize) -> io::Result<()> {
    limit(Resource::As, MEMORY_BYTES);
    limit(Resource::Cpu, (LONGEST + GRACE).as_secs());
    limit(Resource::Core, 0);
    let mut pdf = Vec::new();
    io::stdin().take(LARGEST_FILE).read_to_end(&mut pdf)?;
    let (done, wait) = channel();
    thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let mut said = 0;
            text::read(&pdf, |found| {
                let line = match found {
                    Found::Pages(pages) => Line::Pages(pages),
                    Found::Page(text) => {
                        said += text.as_ref().map_or(0, String::len);
                        Line::Page(text)
                    }
                };
                say(&line).is_ok() && said < enough
            });
            // Nobody listens once the time is over.
            let _ = done.send(());
        })?;
    match wait.recv_timeout(LONGEST) {
        // The process ends, and with it whatever still reads.
        Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
    }
}

fn limit(resource: Resource, most: u64) {
    let limits = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    // A system that has no such limit still has the others.
    let _ = setrlimit(resource, limits);
}

fn say(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}
