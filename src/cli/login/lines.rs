//! Lines that a person types or pastes while something else is waited for too.
//!
//! Reads standard input only when there is something, and stops at once when it is dropped: whoever reads the
//! terminal next, the client perhaps, misses nothing. The terminal's modes are left as they are.

use std::io;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio;
use tokio::sync::mpsc;

/// Longest line: a callback's address has about 1 kB, and a terminal takes 4 kB.
const LINE_LIMIT: usize = 64 * 1024;

/// The reader. Ends its thread when dropped.
#[derive(Debug)]
pub(super) struct Lines {
    lines: mpsc::Receiver<String>,
    // Closing it wakes the thread.
    wake: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    /// Starts to read.
    pub(super) fn start() -> io::Result<Self> {
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC)?;
        let (sender, lines) = mpsc::channel(4);
        let thread = std::thread::Builder::new()
            .name("ccx-lines".to_owned())
            .spawn(move || read(&woken, &sender))?;
        Ok(Self {
            lines,
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// Waits for a line; `None` at the end of input. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.lines.close();
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was already reported on its own.
            let _ = thread.join();
        }
    }
}

fn read(woken: &OwnedFd, sender: &mpsc::Sender<String>) {
    let stdin = stdio::stdin();
    let mut rest: Vec<u8> = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let mut fds = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(woken, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        match rustix::io::read(stdin, &mut piece) {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(_) | Ok(0) => break,
            Ok(count) => rest.extend_from_slice(&piece[..count]),
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if sender.blocking_send(in_text(&line)).is_err() {
                return;
            }
        }
        if rest.len() > LINE_LIMIT {
            return;
        }
    }
    // A last line without its end.
    if !rest.is_empty() {
        let _ = sender.blocking_send(in_text(&rest));
    }
}

fn in_text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}
