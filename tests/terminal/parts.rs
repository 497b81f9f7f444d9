//! The parts that the test program plays in the processes that the tests start: the driver, which calls `session::run`
//! as `ccx` does, and clients that look at their terminal more closely than a shell script can.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use ccx::terminal::session::{Launch, run};
use rustix::process::getpgrp;
use rustix::stdio;
use rustix::termios::{OptionalActions, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

use crate::bed::{BEGIN, CLIENT_PART, NO_PTY, PART, WORDS};

/// Plays the part that this process was started for, if it was.
pub(crate) fn play() {
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
///
/// But for the two that the C library keeps to itself: no program can ask for them, and glibc's `posix_spawn` leaves
/// them ignored, so that they tell by whom the test was started.
pub(crate) fn masks() -> Vec<String> {
    const OF_THE_LIBRARY: u64 = 0b11 << 31;
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status
        .lines()
        .filter_map(|line| {
            let (name, mask) = line.split_once(":\t")?;
            let mask = u64::from_str_radix(mask, 16).ok()? & !OF_THE_LIBRARY;
            matches!(name, "SigBlk" | "SigIgn").then(|| format!("{name} {mask:x}"))
        })
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

pub(crate) fn paste() -> Vec<u8> {
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
