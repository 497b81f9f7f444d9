//! A terminal for a program under test: a PTY, and what a person would see on it.

use std::io::{Read as _, Write};
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::termios::LocalFlags;
use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

struct Seen {
    parser: vt100::Parser,
    /// Every byte, for what a screen does not show.
    bytes: Vec<u8>,
    is_ended: bool,
}

/// A running program and its screen.
pub struct Screen {
    master: Box<dyn MasterPty + Send>,
    writer: Arc<Mutex<Box<dyn Write + Send>>>,
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

/// Questions that terminals answer, and a plain answer to each.
const ANSWERS: &[(&[u8], &[u8])] = &[
    (b"\x1b[c", b"\x1b[?62;22c"),
    (b"\x1b[>0q", b"\x1bP>|test(1)\x1b\\"),
];

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

impl Screen {
    /// Starts `program` on a screen of `rows` × `columns`.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
        directory: &Path,
        (rows, cols): (u16, u16),
    ) -> Self {
        let size = PtySize {
            rows,
            cols,
            pixel_width: cols * 8,
            pixel_height: rows * 16,
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(program);
        command.args(arguments);
        command.env_clear();
        for (name, value) in environment {
            command.env(name, value);
        }
        command.cwd(directory);
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let writer = Arc::new(Mutex::new(pair.master.take_writer().unwrap()));
        let seen = Arc::new((
            Mutex::new(Seen {
                parser: vt100::Parser::new(cells(rows), cells(cols), 0),
                bytes: Vec::new(),
                is_ended: false,
            }),
            Condvar::new(),
        ));
        let (shared, answers) = (seen.clone(), writer.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 16 * 1024];
            loop {
                let count = reader.read(&mut piece).unwrap_or(0);
                let mut state = shared.0.lock().unwrap();
                state.parser.process(&piece[..count]);
                state.bytes.extend_from_slice(&piece[..count]);
                state.is_ended = count == 0;
                drop(state);
                shared.1.notify_all();
                if count == 0 {
                    break;
                }
                for (question, answer) in ANSWERS {
                    if piece[..count]
                        .windows(question.len())
                        .any(|w| w == *question)
                    {
                        let _ = answers.lock().unwrap().write_all(answer);
                    }
                }
            }
        });
        Self {
            master: pair.master,
            writer,
            child,
            seen,
        }
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.process_id().unwrap()
    }

    /// Types `text`.
    pub fn send(&self, text: &str) {
        let mut writer = self.writer.lock().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        writer.flush().unwrap();
    }

    /// Changes the size of the terminal.
    pub fn resize(&self, rows: u16, cols: u16) {
        let mut state = self.seen.0.lock().unwrap();
        state.parser.screen_mut().set_size(cells(rows), cells(cols));
        drop(state);
        let size = PtySize {
            rows,
            cols,
            pixel_width: cols * 8,
            pixel_height: rows * 16,
        };
        self.master.resize(size).unwrap();
    }

    /// What a person sees now.
    pub fn text(&self) -> String {
        self.seen.0.lock().unwrap().parser.screen().contents()
    }

    /// Every byte that came so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.0.lock().unwrap().bytes.clone()
    }

    /// The modes that the program left the terminal in.
    pub fn modes(&self) -> (bool, bool, bool) {
        let state = self.seen.0.lock().unwrap();
        let screen = state.parser.screen();
        (
            screen.alternate_screen(),
            screen.bracketed_paste(),
            screen.hide_cursor(),
        )
    }

    /// Says whether the terminal echoes what is typed and hands it over line by line, as shells want it.
    pub fn is_cooked(&self) -> bool {
        let modes = self.master.get_termios().unwrap().local_flags;
        modes.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    /// Waits until the screen shows something, and returns the whole screen.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_shown: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        let mut state = self.seen.0.lock().unwrap();
        loop {
            let text = state.parser.screen().contents();
            if is_shown(&text) {
                return text;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !state.is_ended,
                "waited for {what}; the screen shows:\n{text}"
            );
            state = self.seen.1.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) -> String {
        self.wait_for(text, |screen| screen.contains(text))
    }

    /// Waits for the program's end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}
