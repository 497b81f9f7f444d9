//! A terminal for a program under test, and pipes: what the client, the terminal and the shell observe.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, SlavePty, native_pty_system};
use rustix::process::{Pid, test_kill_process};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr,
    tcsetattr,
};

use crate::support::stage::Stage;

/// Which part this process plays.
pub(crate) const PART: &str = "CCX_TEST_PART";
/// The driver's client: words between unit separators.
pub(crate) const WORDS: &str = "CCX_TEST_WORDS";
/// `no_pty` for the driver.
pub(crate) const NO_PTY: &str = "CCX_TEST_NO_PTY";
/// The part that the driver's client plays.
pub(crate) const CLIENT_PART: &str = "CCX_TEST_CLIENT_PART";
/// What the test harness printed comes before this byte.
pub(crate) const BEGIN: u8 = 0x1e;
/// Nothing here takes nearly as long, unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How the client is tied to ccx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In a terminal of its own.
    Pty,
    /// With `--ccx-no-pty`.
    Plain,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Pty, Self::Plain];

    fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Pty => &[],
            Self::Plain => &[(NO_PTY, "1")],
        }
    }

    /// ccx's own words for it.
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            Self::Pty => &[],
            Self::Plain => &["--ccx-no-pty"],
        }
    }
}

pub(crate) fn joined(words: &[&OsStr]) -> OsString {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    OsString::from_vec(words.join(&0x1f))
}

pub(crate) fn script(text: &str) -> Vec<OsString> {
    ["/bin/sh", "-c", text].map(OsString::from).to_vec()
}

pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// What the test program is told to play a part.
pub(crate) const PART_ARGUMENTS: [&str; 3] = ["part", "--exact", "--nocapture"];

#[derive(Default)]
struct Output {
    bytes: Mutex<Vec<u8>>,
    more: Condvar,
    is_held: Mutex<bool>,
    is_over: AtomicBool,
    let_go: Condvar,
}

/// A terminal with a driver (or a shell) in it.
pub(crate) struct Terminal {
    pub(crate) master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn std::io::Write + Send>,
    _slave: Box<dyn SlavePty + Send>,
    pub(crate) side: File,
    before: Termios,
    child: Box<dyn Child + Send + Sync>,
    output: Arc<Output>,
    reader: Option<JoinHandle<()>>,
    is_closed: bool,
}

pub(crate) const SIZE: PtySize = PtySize {
    rows: 30,
    cols: 100,
    pixel_width: 1000,
    pixel_height: 600,
};

impl Terminal {
    pub(crate) fn with(way: Way, words: &[OsString], variables: &[(&str, &str)]) -> Self {
        let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
        let mut command = CommandBuilder::new(this_program());
        command.args(PART_ARGUMENTS);
        command.env(PART, "driver");
        command.env(WORDS, joined(&words));
        for (name, value) in way.variables().iter().chain(variables) {
            command.env(name, value);
        }
        Self::open(command)
    }

    /// A driver whose client is a script.
    pub(crate) fn script(way: Way, text: &str) -> Self {
        Self::with(way, &script(text), &[])
    }

    /// A driver whose client is this program, in another part.
    pub(crate) fn playing(way: Way, part: &str) -> Self {
        let mut words = vec![this_program().into_os_string()];
        words.extend(PART_ARGUMENTS.map(OsString::from));
        Self::with(way, &words, &[(CLIENT_PART, part)])
    }

    /// A shell with job control, which is then told to start a driver whose client is a script.
    pub(crate) fn shell(way: Way, client: &str) -> (Self, String) {
        let mut command = CommandBuilder::new("/bin/sh");
        command.arg("-i");
        command.env("PS1", "\x1eprompt> ");
        command.env("ENV", "/dev/null");
        command.env(PART, "driver");
        for (name, value) in way.variables() {
            command.env(name, value);
        }
        let client = script(client);
        let words: Vec<&OsStr> = client.iter().map(OsString::as_os_str).collect();
        command.env(WORDS, joined(&words));
        let terminal = Self::open(command);
        terminal.until_text("prompt>");
        let start = format!(
            "'{}' {}",
            this_program().display(),
            PART_ARGUMENTS.join(" ")
        );
        (terminal, start)
    }

    /// Waits until the shell has shown its prompt `count` times.
    pub(crate) fn prompt(&self, count: usize) -> Vec<u8> {
        self.until("the prompt", |shown| {
            String::from_utf8_lossy(shown).matches("prompt>").count() >= count
        })
    }

    /// The real `ccx` on `stage`, with the client that [`client`] wrote.
    pub(crate) fn ccx(stage: &Stage, way: Way, words: &[&str]) -> Self {
        // The crate that starts it adds a `SHELL`.
        let mut command = CommandBuilder::new("/usr/bin/env");
        command.args(["-u", "SHELL", env!("CARGO_BIN_EXE_ccx")]);
        command.args(way.words());
        command.args(words);
        command.env_clear();
        for (name, value) in &stage.environment {
            command.env(name, value);
        }
        command.cwd(stage.path("work"));
        let terminal = Self::open_in(command);
        // Nothing comes before what the client says.
        terminal.output.bytes.lock().unwrap().insert(0, BEGIN);
        terminal
    }

    /// A shell that does one line on `stage`; its words are those of `sh`.
    pub(crate) fn sh(stage: &Stage, words: &[&str]) -> Self {
        let mut command = CommandBuilder::new("/bin/sh");
        command.args(words);
        command.env_clear();
        for (name, value) in &stage.environment {
            command.env(name, value);
        }
        command.cwd(stage.path("work"));
        let terminal = Self::open_in(command);
        terminal.output.bytes.lock().unwrap().insert(0, BEGIN);
        terminal
    }

    pub(crate) fn resize(&self, rows: u16, cols: u16, pixel_width: u16, pixel_height: u16) {
        let size = PtySize {
            rows,
            cols,
            pixel_width,
            pixel_height,
        };
        self.master.resize(size).unwrap();
    }

    pub(crate) fn open(mut command: CommandBuilder) -> Self {
        command.cwd(std::env::current_dir().unwrap());
        Self::open_in(command)
    }

    pub(crate) fn open_in(command: CommandBuilder) -> Self {
        let pair = native_pty_system().openpty(SIZE).unwrap();
        let side = OpenOptions::new()
            .read(true)
            .write(true)
            .open(pair.master.tty_name().unwrap())
            .unwrap();
        // Settings that nobody has by default: they have to come back.
        let mut odd = tcgetattr(&side).unwrap();
        odd.special_codes[SpecialCodeIndex::VERASE] = 0x08;
        odd.special_codes[SpecialCodeIndex::VINTR] = 0x07;
        odd.special_codes[SpecialCodeIndex::VEOL] = 0x0e;
        odd.local_modes.remove(LocalModes::ECHOE);
        odd.input_modes
            .insert(InputModes::IXANY | InputModes::IUTF8);
        odd.output_modes.insert(OutputModes::ONLRET);
        tcsetattr(&side, OptionalActions::Now, &odd).unwrap();
        let before = tcgetattr(&side).unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        let output = Arc::new(Output::default());
        let mut reader = pair.master.try_clone_reader().unwrap();
        let filled = Arc::clone(&output);
        let reader = std::thread::spawn(move || {
            let mut chunk = vec![0; 1 << 16];
            loop {
                // A terminal that is held shows nothing more, and takes nothing more.
                let held = filled.is_held.lock().unwrap();
                drop(filled.let_go.wait_while(held, |held| *held).unwrap());
                let Ok(read @ 1..) = reader.read(&mut chunk) else {
                    break;
                };
                if filled.is_over.load(Ordering::SeqCst) {
                    break;
                }
                filled
                    .bytes
                    .lock()
                    .unwrap()
                    .extend_from_slice(&chunk[..read]);
                filled.more.notify_all();
            }
        });
        Self {
            keyboard: pair.master.take_writer().unwrap(),
            master: pair.master,
            _slave: pair.slave,
            side,
            before,
            child,
            output,
            reader: Some(reader),
            is_closed: false,
        }
    }

    pub(crate) fn shown(bytes: &[u8]) -> &[u8] {
        let begin = bytes.iter().position(|byte| *byte == BEGIN);
        begin.map_or(&[], |at| &bytes[at + 1..])
    }

    /// Waits until what the client has shown meets `wanted`, and returns it.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let bytes = self.output.bytes.lock().unwrap();
        let (bytes, time) = self
            .output
            .more
            .wait_timeout_while(bytes, LIMIT, |bytes| !wanted(Self::shown(bytes)))
            .unwrap();
        assert!(
            !time.timed_out(),
            "{what} did not come; shown: {:?}",
            String::from_utf8_lossy(&bytes)
        );
        Self::shown(&bytes).to_vec()
    }

    pub(crate) fn until_text(&self, text: &str) -> String {
        let shown = self.until(text, |shown| contains(shown, text));
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Returns the number after `name=` that the client has shown, once the line is whole.
    pub(crate) fn number(&self, name: &str) -> Pid {
        let key = format!("{name}=");
        let find = |shown: &[u8]| {
            let text = String::from_utf8_lossy(shown).into_owned();
            let rest = text.split(&key).nth(1)?;
            let (digits, _) = rest.split_once('\r')?;
            digits.parse::<i32>().ok()
        };
        let shown = self.until(&key, |shown| find(shown).is_some());
        Pid::from_raw(find(&shown).unwrap()).unwrap()
    }

    /// Has the terminal take nothing more, or go on.
    pub(crate) fn hold(&self, is_held: bool) {
        *self.output.is_held.lock().unwrap() = is_held;
        self.output.let_go.notify_all();
    }

    /// Waits until the terminal's settings are as wanted.
    #[track_caller]
    pub(crate) fn until_settings(&self, is_so: impl Fn(&Self) -> bool) {
        until("the terminal's settings", || is_so(self));
    }

    /// Closes the window: the terminal is gone for whoever is in it, and nobody is killed.
    pub(crate) fn close_window(mut self) {
        self.is_closed = true;
        // With an end-of-file character the crate's writer would type one when it is dropped.
        let mut settings = tcgetattr(&self.side).unwrap();
        settings.special_codes[SpecialCodeIndex::VEOF] = 0;
        tcsetattr(&self.side, OptionalActions::Now, &settings).unwrap();
        self.output.is_over.store(true, Ordering::SeqCst);
        self.hold(false);
        self.side.write_all(b"x").unwrap();
        self.reader.take().unwrap().join().unwrap();
    }

    /// What the terminal has shown so far.
    pub(crate) fn so_far(&self) -> Vec<u8> {
        Self::shown(&self.output.bytes.lock().unwrap()).to_vec()
    }

    pub(crate) fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
        self.keyboard.flush().unwrap();
    }

    pub(crate) fn driver(&self) -> Pid {
        Pid::from_raw(self.child.process_id().unwrap().try_into().unwrap()).unwrap()
    }

    pub(crate) fn settings(&self) -> String {
        format!("{:?}", tcgetattr(&self.side).unwrap())
    }

    pub(crate) fn is_as_before(&self) -> bool {
        self.settings() == format!("{:?}", self.before)
    }

    /// Waits for the end; returns the exit code and everything shown.
    pub(crate) fn end(&mut self) -> (u32, Vec<u8>) {
        let begin = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.exit_code();
            }
            assert!(
                begin.elapsed() < LIMIT,
                "no end; shown: {:?}",
                String::from_utf8_lossy(&self.output.bytes.lock().unwrap())
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        // Order is kept: what comes before this mark is all that there was.
        self.side.write_all(b"\x1eEND").unwrap();
        let mut shown = self.until("the end", |shown| shown.ends_with(b"\x1eEND"));
        shown.truncate(shown.len() - b"\x1eEND".len());
        (code, shown)
    }

    pub(crate) fn end_as_before(&mut self) -> (u32, String) {
        let (code, shown) = self.end();
        assert!(self.is_as_before(), "{}", self.settings());
        (code, String::from_utf8_lossy(&shown).into_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if !self.is_closed {
            let _ = self.child.kill();
        }
    }
}

pub(crate) fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

pub(crate) fn await_gone(pid: Pid, limit: Duration) {
    let begin = Instant::now();
    while test_kill_process(pid).is_ok() && !is_zombie(pid) {
        assert!(begin.elapsed() < limit, "{pid:?} still lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// In a container nobody may collect an orphan; dead it is all the same.
pub(crate) fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

/// Writes the client of `stage`: a shell script.
pub(crate) fn client(stage: &mut Stage, text: &str) {
    let path = stage.path("work").join("client");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    stage.environment.retain(|(name, _)| name != "CCX_CLAUDE");
    let path = path.to_str().unwrap().to_owned();
    stage.environment.push(("CCX_CLAUDE".to_owned(), path));
}

/// A driver with pipes.
pub(crate) fn piped(words: &[&OsStr]) -> Command {
    let mut command = Command::new(this_program());
    command
        .args(PART_ARGUMENTS)
        .env(PART, "driver")
        .env(WORDS, joined(words))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The same, with a script for its client.
pub(crate) fn piped_script(text: &str) -> Command {
    let words = script(text);
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    piped(&words)
}

/// The processes whose command line has all of these words.
pub(crate) fn processes(words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if words.iter().all(|word| line.contains(word)) {
            found.push(line);
        }
    }
    found
}

/// Waits until `is_so`.
#[track_caller]
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LIMIT, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
