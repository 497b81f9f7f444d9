//! Carries bytes between the person's terminal and the client's, each way on a thread of its own.
//!
//! Every byte as it is and as soon as it is there: no timers, no lines. A slow side holds the other
//! one up; nothing is dropped while the client lives. Knows nothing of processes and signals.

use std::io::{self, ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio;

use crate::fault;

use super::modes::Modes;
use super::pty::Ends;
use super::raw;
use super::signals::{Alarm, Note};
use super::supervise::Event;

/// Bytes for one read. The kernel holds at most this much of a terminal's output back.
const CHUNK: usize = 64 * 1024;

/// What may still be shown after the client's end: all that the kernel can hold of it, with room to
/// spare, but not an endless stream from a process that it left behind.
const AFTER_END: usize = 4 * CHUNK;

/// How long nothing more may come before a stopped client counts as having said all: what it wrote is in
/// the kernel already and only has to pass through the output thread.
const SETTLED: Duration = Duration::from_millis(30);

/// How long a slow terminal may hold that up; the rest is shown when the client goes on.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);

/// How long keys wait that are not for us: somebody else has the terminal.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(50);

/// What the output thread and the session know of each other.
struct Shared {
    modes: Mutex<Modes>,
    is_writing: AtomicBool,
    has_ended: AtomicBool,
    is_muted: AtomicBool,
    left: AtomicUsize,
    /// How often something was read.
    reads: AtomicUsize,
}

/// The two threads. Output that somebody still holds up is left behind, muted.
pub(super) struct Relay {
    shared: Arc<Shared>,
    // Closing it wakes the input thread.
    wake: Option<OwnedFd>,
}

impl Relay {
    /// Starts both directions.
    ///
    /// # Errors
    ///
    /// When a pipe or a thread cannot be had.
    pub(super) fn start(ends: Ends, notes: &SyncSender<Note>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            modes: Mutex::default(),
            is_writing: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            is_muted: AtomicBool::new(false),
            left: AtomicUsize::new(AFTER_END),
            reads: AtomicUsize::new(0),
        });
        let (sleep, wake) = pipe_with(PipeFlags::CLOEXEC)?;
        let Ends { output, input } = ends;
        let for_output = Arc::clone(&shared);
        let to_output = notes.clone();
        thread::Builder::new()
            .name("ccx-output".into())
            .spawn(move || {
                let _alarm = Alarm(to_output.clone());
                carry_output(output, &for_output, &to_output);
            })?;
        let to_input = notes.clone();
        thread::Builder::new()
            .name("ccx-input".into())
            .spawn(move || {
                let _alarm = Alarm(to_input.clone());
                carry_input(input, &sleep, &to_input);
            })?;
        Ok(Self {
            shared,
            wake: Some(wake),
        })
    }

    /// Reads no more keys.
    pub(super) fn stop_input(&mut self) {
        self.wake = None;
        self.shared.has_ended.store(true, Ordering::SeqCst);
    }

    /// Says whether all that was read has been written.
    pub(super) fn is_quiet(&self) -> bool {
        !self.shared.is_writing.load(Ordering::SeqCst)
    }

    /// Waits until all is shown that a client wrote which has just stopped: the last of it is how it tidies
    /// the screen up for the shell.
    pub(super) fn settle(&self) {
        let end = Instant::now() + SETTLE_LIMIT;
        let reads = || self.shared.reads.load(Ordering::SeqCst);
        loop {
            let before = reads();
            thread::sleep(SETTLED);
            if self.is_quiet() && reads() == before || Instant::now() >= end {
                return;
            }
        }
    }

    /// Shows nothing more and returns the modes that the client left on.
    pub(super) fn finish(&self) -> Modes {
        self.shared.is_muted.store(true, Ordering::SeqCst);
        let modes = self.shared.modes.lock();
        modes.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn carry_output(mut from: Box<dyn Read + Send>, shared: &Shared, notes: &SyncSender<Note>) {
    let mut buffer = vec![0; CHUNK];
    let mut is_lost = false;
    loop {
        shared.is_writing.store(false, Ordering::SeqCst);
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        shared.is_writing.store(true, Ordering::SeqCst);
        fault::point("output");
        shared.reads.fetch_add(1, Ordering::SeqCst);
        let mut bytes = &buffer[..read];
        if shared.has_ended.load(Ordering::SeqCst) {
            let left = shared.left.load(Ordering::SeqCst);
            bytes = &bytes[..read.min(left)];
            shared.left.store(left - bytes.len(), Ordering::SeqCst);
            if bytes.is_empty() {
                break;
            }
        }
        if shared.is_muted.load(Ordering::SeqCst) {
            break;
        }
        // A terminal that is gone takes nothing; the client must not be held up by that.
        if !is_lost {
            let mut modes = shared.modes.lock().unwrap_or_else(PoisonError::into_inner);
            modes.feed(bytes);
            drop(modes);
            if write_all(stdio::stdout(), bytes).is_err() {
                is_lost = true;
                let _ = notes.send(Note::Event(Event::TerminalLost));
            }
        }
    }
    shared.is_writing.store(false, Ordering::SeqCst);
    // Nobody listens once the session is over.
    let _ = notes.send(Note::Event(Event::OutputEnded));
}

fn carry_input(
    mut to: ManuallyDrop<Box<dyn Write + Send>>,
    sleep: &OwnedFd,
    notes: &SyncSender<Note>,
) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(stdio::stdin(), PollFlags::IN),
            PollFd::new(sleep, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        // Reading from the background would stop us.
        if !raw::is_foreground() {
            thread::sleep(BACKGROUND_PAUSE);
            continue;
        }
        match rustix::io::read(stdio::stdin(), &mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                fault::point("input");
                // Fails when nobody has the client's terminal open any more.
                if to.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => break,
        }
    }
    let _ = notes.send(Note::Event(Event::TerminalLost));
}

/// Writes all of `bytes`, also to a terminal that another process has set to not block.
pub(super) fn write_all(to: impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&to, PollFlags::OUT)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
