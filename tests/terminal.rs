//! A client in a terminal, and without one: what the client, the terminal and the shell observe.
//!
//! The test program plays several parts, chosen by a variable: the driver (calls `session::run` as
//! `ccx` would), and clients that look at their terminal more closely than a shell script can. Item
//! numbers are those of the supervision contract.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use ccx::terminal::session::{Launch, run};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, SlavePty, native_pty_system};
use rustix::process::{Pid, Signal, getpgrp, kill_process, test_kill_process};
use rustix::stdio;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetpgrp,
    tcgetwinsize, tcsetattr,
};

/// Which part this process plays.
const PART: &str = "CCX_TEST_PART";
/// The driver's client: words between unit separators.
const WORDS: &str = "CCX_TEST_WORDS";
/// `no_pty` for the driver.
const NO_PTY: &str = "CCX_TEST_NO_PTY";
/// The part that the driver's client plays.
const CLIENT_PART: &str = "CCX_TEST_CLIENT_PART";
/// What the test harness printed comes before this byte.
const BEGIN: u8 = 0x1e;
/// Nothing here takes nearly as long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

// ---- the parts -------------------------------------------------------------------------------

/// Not a test of its own: the entry of the processes that the tests start.
#[test]
fn part() {
    match std::env::var(PART).as_deref() {
        Ok("driver") => drive(),
        Ok("look") => look(),
        Ok("watch") => watch(),
        Ok("slow") => read_slowly(),
        _ => {}
    }
}

fn begin() {
    std::io::stdout().write_all(&[BEGIN]).unwrap();
    std::io::stdout().flush().unwrap();
}

fn drive() {
    let words = std::env::var_os(WORDS).unwrap();
    let mut words = words
        .as_bytes()
        .split(|byte| *byte == 0x1f)
        .map(|word| OsString::from_vec(word.to_vec()));
    let mut set = Vec::new();
    if let Some(part) = std::env::var_os(CLIENT_PART) {
        set.push((OsString::from(PART), part));
    }
    set.push(("CCX_ADDED".into(), "yes".into()));
    let launch = Launch {
        program: words.next().unwrap().into(),
        arguments: words.collect(),
        set,
        unset: [PART, WORDS, NO_PTY, CLIENT_PART, "CCX_REMOVED"]
            .map(OsString::from)
            .to_vec(),
        leader: env!("CARGO_BIN_EXE_ccx").into(),
        no_pty: std::env::var_os(NO_PTY).is_some(),
    };
    begin();
    let ending = run(&launch).unwrap();
    std::process::exit(ending.exit_code().into());
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// The signals that this thread blocks and the process ignores. The test harness's own thread may still be in
/// the middle of starting this one, with everything blocked.
fn masks() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status
        .lines()
        .filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn"))
        .map(|line| line.replace('\t', " "))
        .collect()
}

/// Says what its terminal is like.
fn look() {
    let size = tcgetwinsize(stdio::stdin()).unwrap();
    let terminals = [stdio::stdin(), stdio::stdout(), stdio::stderr()].map(isatty);
    let has_foreground = tcgetpgrp(stdio::stdin()).unwrap() == getpgrp();
    let opens = File::open("/dev/tty").is_ok();
    let masks = masks();
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    say(&format!(
        "size {} {} {} {} terminals {terminals:?} foreground {has_foreground} tty {opens} \
         masks {masks:?} descriptors {descriptors}.\r\n",
        size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel
    ));
    std::process::exit(0);
}

/// Says the size at every change, until a byte comes.
fn watch() {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGWINCH]).unwrap();
    say("ready\r\n");
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let size = tcgetwinsize(stdio::stdin()).unwrap();
            say(&format!(
                "size {} {} {} {}.\r\n",
                size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel
            ));
        }
    });
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0);
}

const PASTE: usize = 1 << 20;

fn paste() -> Vec<u8> {
    (0..PASTE)
        .map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap())
        .collect()
}

/// Reads a large paste in small bites, talking meanwhile; says whether every byte came as it was.
fn read_slowly() {
    let mut raw = tcgetattr(stdio::stdin()).unwrap();
    raw.make_raw();
    tcsetattr(stdio::stdin(), OptionalActions::Now, &raw).unwrap();
    say("ready\r\n");
    let wanted = paste();
    let mut got = Vec::new();
    let mut bite = [0; 1000];
    while got.len() < wanted.len() {
        let read = rustix::io::read(stdio::stdin(), &mut bite).unwrap();
        assert_ne!(read, 0);
        got.extend_from_slice(&bite[..read]);
        if got.len() % 64_000 < read {
            say("bite\r\n");
        }
        std::thread::yield_now();
    }
    say(if got == wanted {
        "same\r\n"
    } else {
        "other\r\n"
    });
    std::process::exit(0);
}

// ---- the person's side -----------------------------------------------------------------------

fn joined(words: &[&OsStr]) -> OsString {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    OsString::from_vec(words.join(&0x1f))
}

fn script(text: &str) -> Vec<OsString> {
    ["/bin/sh", "-c", text].map(OsString::from).to_vec()
}

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// What the test program is told to play a part.
const PART_ARGUMENTS: [&str; 3] = ["part", "--exact", "--nocapture"];

#[derive(Default)]
struct Output {
    bytes: Mutex<Vec<u8>>,
    more: Condvar,
}

/// A terminal with a driver (or a shell) in it.
struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn std::io::Write + Send>,
    _slave: Box<dyn SlavePty + Send>,
    side: File,
    before: Termios,
    child: Box<dyn Child + Send + Sync>,
    output: Arc<Output>,
}

const SIZE: PtySize = PtySize {
    rows: 30,
    cols: 100,
    pixel_width: 1000,
    pixel_height: 600,
};

impl Terminal {
    fn with(words: &[OsString], variables: &[(&str, &str)]) -> Self {
        let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
        let mut command = CommandBuilder::new(this_program());
        command.args(PART_ARGUMENTS);
        command.env(PART, "driver");
        command.env(WORDS, joined(&words));
        for (name, value) in variables {
            command.env(name, value);
        }
        Self::open(command)
    }

    fn script(text: &str) -> Self {
        Self::with(&script(text), &[])
    }

    fn playing(part: &str) -> Self {
        let mut words = vec![this_program().into_os_string()];
        words.extend(PART_ARGUMENTS.map(OsString::from));
        Self::with(&words, &[(CLIENT_PART, part)])
    }

    fn open(mut command: CommandBuilder) -> Self {
        command.cwd(std::env::current_dir().unwrap());
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
        odd.local_modes.remove(LocalModes::ECHOE);
        tcsetattr(&side, OptionalActions::Now, &odd).unwrap();
        let before = tcgetattr(&side).unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        let output = Arc::new(Output::default());
        let mut reader = pair.master.try_clone_reader().unwrap();
        let filled = Arc::clone(&output);
        std::thread::spawn(move || {
            let mut chunk = vec![0; 1 << 16];
            while let Ok(read @ 1..) = reader.read(&mut chunk) {
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
        }
    }

    fn shown(bytes: &[u8]) -> &[u8] {
        let begin = bytes.iter().position(|byte| *byte == BEGIN);
        begin.map_or(&[], |at| &bytes[at + 1..])
    }

    /// Waits until what the client has shown meets `wanted`, and returns it.
    fn until(&self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
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

    fn until_text(&self, text: &str) -> String {
        let shown = self.until(text, |shown| contains(shown, text));
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Returns the number after `name=` that the client has shown, once the line is whole.
    fn number(&self, name: &str) -> Pid {
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

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
        self.keyboard.flush().unwrap();
    }

    fn driver(&self) -> Pid {
        Pid::from_raw(self.child.process_id().unwrap().try_into().unwrap()).unwrap()
    }

    fn settings(&self) -> String {
        format!("{:?}", tcgetattr(&self.side).unwrap())
    }

    fn is_as_before(&self) -> bool {
        self.settings() == format!("{:?}", self.before)
    }

    /// Waits for the end; returns the exit code and everything shown.
    fn end(&mut self) -> (u32, Vec<u8>) {
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

    fn end_as_before(&mut self) -> (u32, String) {
        let (code, shown) = self.end();
        assert!(self.is_as_before(), "{}", self.settings());
        (code, String::from_utf8_lossy(&shown).into_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn await_gone(pid: Pid, limit: Duration) {
    let begin = Instant::now();
    while test_kill_process(pid).is_ok() && !is_zombie(pid) {
        assert!(begin.elapsed() < limit, "{pid:?} still lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// In a container nobody may collect an orphan; dead it is all the same.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

// ---- in a terminal ---------------------------------------------------------------------------

#[test]
fn t2_t3_t4_the_client_has_a_terminal_of_the_same_size_and_nothing_else() {
    let mut terminal = Terminal::playing("look");
    terminal.until_text("descriptors");
    // 0 to 2 and the one that counts.
    let text = terminal.until_text(" descriptors 4.\r");
    assert!(
        text.contains("size 30 100 1000 600 terminals [true, true, true] foreground true tty true"),
        "{text}"
    );
    // The same as in this process, which is the same program.
    let expected = format!("masks {:?}", masks());
    assert!(text.contains(&expected), "{text}, not {expected}");
    assert_eq!(terminal.end_as_before().0, 0);
}

#[test]
fn t5_the_last_size_of_a_burst_arrives() {
    let mut terminal = Terminal::playing("watch");
    terminal.until_text("ready");
    for step in 1..=60u16 {
        let size = PtySize {
            rows: 10 + step,
            cols: 200 - step,
            pixel_width: 500 + step,
            pixel_height: 900 - step,
        };
        terminal.master.resize(size).unwrap();
    }
    terminal.until_text("size 70 140 560 840.");
    terminal.press(b"\r");
    assert_eq!(terminal.end_as_before().0, 0);
}

#[test]
fn t12_exit_codes_and_signals() {
    for (text, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -SEGV $$", 139),
        ("kill -INT $$", 130),
        ("kill -PIPE $$", 141),
    ] {
        assert_eq!(Terminal::script(text).end_as_before().0, code, "{text}");
    }
}

#[test]
fn t14_what_a_killed_client_left_on_is_switched_off() {
    let mut terminal = Terminal::script(
        "stty raw -echo; printf '\\033[?1049h\\033[?2004h\\033[?1003;1006h\\033[?25l\\033[>5u'; \
         printf 'pid=%d\\r' $$; exec sleep 60",
    );
    let client = terminal.number("pid");
    kill_process(client, Signal::KILL).unwrap();
    let (code, shown) = terminal.end_as_before();
    assert_eq!(code, 137);
    assert!(
        shown.ends_with("\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[<1u\x1b[?1049l"),
        "{shown:?}"
    );
    let [rows, columns] = [SIZE.rows, SIZE.cols].map(|n| NonZero::new(n).unwrap());
    let mut parser = vt100::Parser::new(rows, columns, 0);
    parser.process(shown.as_bytes());
    let screen = parser.screen();
    assert!(!screen.alternate_screen() && !screen.bracketed_paste() && !screen.hide_cursor());
    assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
}

#[test]
fn t14_after_a_tidy_end_nothing_is_added() {
    let (code, shown) = Terminal::script("stty -opost; printf '\\033[?2004h'").end_as_before();
    assert_eq!((code, shown.as_str()), (0, "\x1b[?2004h"));
}

#[test]
fn t15_term_and_hup_are_the_clients_to_answer() {
    for (signal, code) in [(Signal::TERM, 9), (Signal::HUP, 10), (Signal::INT, 11)] {
        let mut terminal = Terminal::script(
            "trap 'exit 9' TERM; trap 'exit 10' HUP; trap 'exit 11' INT; echo ready; \
             while :; do sleep 0.05; done",
        );
        terminal.until_text("ready");
        kill_process(terminal.driver(), signal).unwrap();
        assert_eq!(terminal.end_as_before().0, code);
    }
}

#[test]
fn t15_a_client_that_does_not_listen_is_killed() {
    let mut terminal = Terminal::script(
        "trap 'echo asked' TERM; printf 'pid=%d\\r' $$; while :; do sleep 0.1; done",
    );
    let client = terminal.number("pid");
    kill_process(terminal.driver(), Signal::TERM).unwrap();
    terminal.until_text("asked");
    let begin = Instant::now();
    // The second one shortens the wait.
    kill_process(terminal.driver(), Signal::TERM).unwrap();
    assert_eq!(terminal.end_as_before().0, 137);
    assert!(begin.elapsed() < Duration::from_secs(4));
    await_gone(client, LIMIT);
}

#[test]
fn t17_a_closed_window_ends_both() {
    let terminal = Terminal::script("printf 'pid=%d\\r' $$; exec sleep 60");
    let (client, driver) = (terminal.number("pid"), terminal.driver());
    drop(terminal);
    await_gone(client, Duration::from_secs(8));
    await_gone(driver, Duration::from_secs(8));
}

#[test]
fn t18_the_client_does_not_outlive_ccx() {
    for variables in [&[][..], &[(NO_PTY, "1")]] {
        // Without a leader nobody could insist, so that this one may listen to TERM.
        let deaf = if variables.is_empty() {
            "HUP TERM"
        } else {
            "HUP"
        };
        let text = format!("trap '' {deaf}; printf 'pid=%d\\r' $$; while :; do sleep 0.1; done");
        let terminal = Terminal::with(&script(&format!("stty -opost; {text}")), variables);
        let client = terminal.number("pid");
        kill_process(terminal.driver(), Signal::KILL).unwrap();
        await_gone(client, Duration::from_secs(5));
    }
}

#[test]
fn t19_a_stopped_client_gives_the_shell_its_terminal() {
    let mut command = CommandBuilder::new("/bin/sh");
    command.arg("-i");
    command.env("PS1", "\x1eprompt> ");
    command.env("ENV", "/dev/null");
    command.env(PART, "driver");
    let client = script(
        "stty raw -echo; trap 'printf back' CONT; trap 'exit 4' USR1; printf 'pid=%d\\r' $$; \
         while :; do sleep 0.05; done",
    );
    let words: Vec<&OsStr> = client.iter().map(OsString::as_os_str).collect();
    command.env(WORDS, joined(&words));
    let mut terminal = Terminal::open(command);
    terminal.until_text("prompt>");
    let line = format!(
        "'{}' {}\n",
        this_program().display(),
        PART_ARGUMENTS.join(" ")
    );
    terminal.press(line.as_bytes());
    let client = terminal.number("pid");

    kill_process(client, Signal::TSTP).unwrap();
    let text = terminal.until("the prompt", |shown| {
        String::from_utf8_lossy(shown).matches("prompt>").count() >= 2
    });
    assert!(contains(&text, "Stopped") || contains(&text, "Suspended"));
    assert!(terminal.is_as_before(), "{}", terminal.settings());

    terminal
        .master
        .resize(PtySize { rows: 41, ..SIZE })
        .unwrap();
    terminal.press(b"fg\n");
    terminal.until_text("back");
    assert!(!terminal.is_as_before(), "raw again");
    kill_process(client, Signal::USR1).unwrap();
    terminal.until("the prompt", |shown| {
        String::from_utf8_lossy(shown).matches("prompt>").count() >= 3
    });
    assert!(terminal.is_as_before(), "{}", terminal.settings());
    terminal.press(b"echo code=$?\n");
    terminal.until_text("code=4");
    terminal.press(b"exit\n");
    terminal.end();
}

/// What a client writes just before it stops is how it tidies the screen up: behind the shell's prompt it
/// would be too late. This used to be cut off now and then.
#[test]
fn t19_what_a_client_says_before_it_stops_is_shown_before_the_prompt() {
    let mut command = CommandBuilder::new("/bin/sh");
    command.arg("-i");
    command.env("PS1", "\x1eprompt> ");
    command.env("ENV", "/dev/null");
    command.env(PART, "driver");
    let client = script(
        "stty raw -echo; while :; do head -c 20000 /dev/zero | tr '\\0' x; printf 'tidied'; \
         kill -TSTP $$; done",
    );
    let words: Vec<&OsStr> = client.iter().map(OsString::as_os_str).collect();
    command.env(WORDS, joined(&words));
    let mut terminal = Terminal::open(command);
    let prompts = |shown: &[u8]| String::from_utf8_lossy(shown).matches("prompt>").count();
    terminal.until_text("prompt>");
    let mut line = format!(
        "'{}' {}\n",
        this_program().display(),
        PART_ARGUMENTS.join(" ")
    );
    for round in 1..=10 {
        terminal.press(line.as_bytes());
        let shown = terminal.until("the next prompt", |shown| prompts(shown) > round);
        let text = String::from_utf8_lossy(&shown);
        let (before, _) = text.rsplit_once("prompt>").unwrap();
        assert_eq!(before.matches("tidied").count(), round);
        line = "fg\n".to_owned();
    }
    terminal.press(b"kill -KILL %1; exit\nexit\n");
    terminal.end();
}

#[test]
fn t20_what_the_client_left_running_holds_nobody_up_and_lives_on() {
    let mut terminal = Terminal::script("sleep 20 & printf 'pid=%d\\r\\n' $!; exit 3");
    let left = terminal.number("pid");
    let begin = Instant::now();
    assert_eq!(terminal.end_as_before().0, 3);
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert!(test_kill_process(left).is_ok());
    kill_process(left, Signal::KILL).unwrap();
}

#[test]
fn t7_all_output_is_shown() {
    let mut terminal = Terminal::script("stty -opost; head -c 20000000 /dev/zero; printf last");
    let (code, shown) = terminal.end();
    assert_eq!((code, shown.len()), (0, 20_000_004));
    assert!(shown.ends_with(b"\0last"));
    // A client that dies at once.
    for _ in 0..20 {
        let (code, shown) = Terminal::script("stty -opost; printf gone; kill -KILL $$").end();
        assert_eq!((code, &shown[..]), (137, &b"gone"[..]));
    }
}

#[test]
fn t8_every_byte_value_arrives() {
    let mut terminal =
        Terminal::script("stty raw -echo; printf ready; head -c 256 | od -An -v -tx1; cat");
    terminal.until_text("ready");
    let all: Vec<u8> = (0..=255).collect();
    terminal.press(&all);
    let wanted: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
    terminal.until("all bytes", |shown| {
        let text: String = String::from_utf8_lossy(shown).split_whitespace().collect();
        text.contains(&wanted)
    });
}

#[test]
fn t8_a_large_paste_reaches_a_slow_reader_whole() {
    let mut terminal = Terminal::playing("slow");
    terminal.until_text("ready");
    terminal.press(&paste());
    terminal.until_text("bite");
    terminal.until_text("same");
    assert_eq!(terminal.end_as_before().0, 0);
}

#[test]
fn t9_line_mode_echoes_once_and_ends_once() {
    let mut terminal = Terminal::script("printf ready; cat; echo over");
    terminal.until_text("ready");
    terminal.press(b"hello\n");
    terminal.until_text("hello\r\nhello\r\n");
    terminal.press(b"\x04");
    let (code, shown) = terminal.end_as_before();
    assert_eq!(
        (code, shown.as_str()),
        (0, "readyhello\r\nhello\r\nover\r\n")
    );
}

#[test]
fn t16_the_keyboards_interrupt_comes_once() {
    // The interrupt key is the odd one that the terminal was given.
    let mut terminal = Terminal::script(
        "n=0; trap 'n=$((n+1))' INT; echo ready; while [ $n -eq 0 ]; do sleep 0.05; done; \
         sleep 0.2; echo n=$n",
    );
    terminal.until_text("ready");
    terminal.press(&[0x07]);
    let (code, shown) = terminal.end_as_before();
    assert_eq!(code, 0);
    assert!(shown.contains("n=1\r\n"), "{shown}");
}

#[test]
fn t27_a_terminal_without_a_size_is_no_error() {
    let mut terminal = Terminal::script("read line; stty size");
    for (rows, cols) in [(0, 0), (1, 1)] {
        let size = PtySize {
            rows,
            cols,
            pixel_width: 0,
            pixel_height: 0,
        };
        terminal.master.resize(size).unwrap();
    }
    terminal.press(b"\n");
    let (code, _) = terminal.end_as_before();
    assert_eq!(code, 0);
}

#[test]
fn no_pty_leaves_the_terminal_to_the_client() {
    let mut terminal = Terminal::with(
        &script("printf '\\033[?2004h'; stty -echo; kill -KILL $$"),
        &[(NO_PTY, "1")],
    );
    let (code, shown) = terminal.end_as_before();
    assert_eq!(code, 137);
    assert!(shown.contains("\x1b[?2004l"), "{shown:?}");
}

// ---- without a terminal ----------------------------------------------------------------------

fn piped(words: &[&OsStr]) -> Command {
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

fn piped_script(text: &str) -> Command {
    let words = script(text);
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    piped(&words)
}

#[test]
fn p1_p2_p5_pipes_stay_pipes() {
    let mut child = piped_script("cat; printf wrong >&2; exit 5")
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"in\0\xff\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(Terminal::shown(&output.stdout), b"in\0\xff\n");
    assert_eq!(output.stderr, b"wrong");
    assert_eq!(output.status.code(), Some(5));

    for (text, code) in [("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
        let output = piped_script(text).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(
            (Terminal::shown(&output.stdout), &output.stderr[..]),
            (&b""[..], &b""[..])
        );
    }
}

#[test]
fn p3_bulk_is_complete() {
    let output = piped_script("head -c 50000000 /dev/zero; printf last")
        .output()
        .unwrap();
    let shown = Terminal::shown(&output.stdout);
    assert_eq!(shown.len(), 50_000_004);
    assert!(shown.ends_with(b"\0last"));
}

#[test]
fn p4_a_reader_that_leaves_ends_both() {
    let mut child = piped_script("while :; do echo line; done").spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut head = [0; 256];
    stdout.read_exact(&mut head).unwrap();
    drop(stdout);
    let begin = Instant::now();
    let status = child.wait().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5));
    // PIPE has its default in the client.
    assert_eq!(status.code(), Some(141), "{:?}", status.signal());
}

#[test]
fn p6_term_is_passed_on_and_the_groups_interrupt_comes_once() {
    let mut child = piped_script("trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done")
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    while !contains(Terminal::shown(&seen), "ready") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let driver = Pid::from_child(&child);
    // Not ours to act on: the keyboard's reaches the client by itself.
    kill_process(driver, Signal::INT).unwrap();
    kill_process(driver, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn t1_arguments_environment_and_directory_are_unchanged() {
    let odd = OsString::from_vec(b"\xff\xfe".to_vec());
    let arguments: Vec<&OsStr> = vec![
        OsStr::new(""),
        OsStr::new("two words"),
        OsStr::new("a\nb"),
        OsStr::new("--settings"),
        OsStr::new("--"),
        &odd,
        OsStr::new("*$HOME'\""),
    ];
    let text =
        "for word; do printf '%s\\0' \"$word\"; done; printf '\\036'; pwd; printf '\\036'; env -0";
    let mut words: Vec<&OsStr> = ["/bin/sh", "-c", text, "name"].map(OsStr::new).to_vec();
    words.extend(&arguments);
    let directory = tempfile::tempdir().unwrap();
    let run = |command: &mut Command| {
        let output = command
            .current_dir(directory.path())
            .env_remove("SHELL")
            .env_remove("OLDPWD")
            .env("CCX_REMOVED", "1")
            .env("ODD", &odd)
            .env("EMPTY", "")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let through = run(&mut piped(&words));
    let parts: Vec<&[u8]> = Terminal::shown(&through)
        .split(|byte| *byte == BEGIN)
        .collect();
    let mut expected = Vec::new();
    for argument in &arguments {
        expected.extend_from_slice(argument.as_bytes());
        expected.push(0);
    }
    assert_eq!(parts[0], expected);
    let native = run(Command::new(words[0]).args(&words[1..]));
    let native: Vec<&[u8]> = native.split(|byte| *byte == BEGIN).collect();
    assert_eq!(parts[1], native[1], "working directory");
    let variables = |text: &[u8]| -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = text
            .split(|byte| *byte == 0)
            .map(<[u8]>::to_vec)
            .filter(|entry| !entry.starts_with(b"CCX_REMOVED="))
            .collect();
        all.sort();
        all
    };
    let mut wanted = variables(native[2]);
    wanted.push(b"CCX_ADDED=yes".to_vec());
    wanted.sort();
    assert_eq!(variables(parts[2]), wanted);
}

#[test]
fn t21_a_client_that_cannot_be_started_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("claude");
    for (make, code) in [(false, 127), (true, 126)] {
        if make {
            fs::write(&path, "text").unwrap();
        }
        let output = piped(&[path.as_os_str()]).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.starts_with(&format!("error: could not start {}\n", path.display())),
            "{said}"
        );
    }
}
