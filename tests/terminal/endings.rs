//! How it ends: codes, signals, a closed window, a kill; and what is put back then.

use std::fs;
use std::num::NonZero;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::bed::{SIZE, Terminal, Way, await_gone, client, processes, until};
use crate::support::stage::Stage;

#[test]
fn t12_exit_codes_and_signals() {
    for way in Way::BOTH {
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
            let ended = Terminal::script(way, text).end_as_before();
            assert_eq!(ended.0, code, "{way:?} {text}");
        }
    }
}

#[test]
fn t12_the_code_of_the_real_ccx_is_the_clients() {
    let mut stage = Stage::new("chat");
    client(&mut stage, "exit 9");
    for way in Way::BOTH {
        assert_eq!(Terminal::ccx(&stage, way, &["-c"]).end_as_before().0, 9);
    }
}

/// What a client does to the terminal and does not put back.
const SPOILT: &str = "stty raw -echo -ixon intr ^Y";

#[test]
fn t13_settings_are_put_back_however_it_ends() {
    for way in Way::BOTH {
        for (how, code) in [
            ("exit 3", 3),
            ("kill -KILL $$", 137),
            ("kill -SEGV $$", 139),
        ] {
            let text = format!("{SPOILT}; {how}");
            let ended = Terminal::script(way, &text).end_as_before();
            assert_eq!(ended.0, code, "{way:?} {how}");
        }
        for (signal, code) in [
            (Signal::TERM, 143),
            (Signal::HUP, 129),
            (Signal::INT, 130),
            (Signal::QUIT, 131),
        ] {
            // With the terminal of ccx itself INT and QUIT are the keyboard's, which come to the client by themselves.
            let waits = way == Way::Plain && [Signal::INT, Signal::QUIT].contains(&signal);
            let text = format!("{SPOILT}; printf 'pid=%d\\r' $$; exec sleep 60");
            let mut terminal = Terminal::script(way, &text);
            let pid = terminal.number("pid");
            assert!(!terminal.is_as_before());
            kill_process(terminal.driver(), signal).unwrap();
            if waits {
                kill_process(pid, signal).unwrap();
            }
            assert_eq!(terminal.end_as_before().0, code, "{way:?} {signal:?}");
        }
    }
}

#[test]
fn t13_settings_are_as_before_when_the_client_cannot_be_started() {
    let mut stage = Stage::new("chat");
    let nowhere = stage.path("work/none").to_str().unwrap().to_owned();
    stage.environment.push(("CCX_CLAUDE".to_owned(), nowhere));
    for way in Way::BOTH {
        assert_eq!(Terminal::ccx(&stage, way, &[]).end_as_before().0, 127);
    }
}

/// All that a client switches on (F11), as it may be cut.
const ON: &str = "\\033[?1049h\\033[?2004h\\033[?1000h\\033[?1002h\\033[?1003;1006h\\033[?1004h\\033[?2031h\
                  \\033[?25l\\033[>5u\\033[>4;2m\\033[?2026h";

#[test]
fn t14_exactly_what_a_killed_client_left_on_is_switched_off() {
    for (on, off) in [
        ("plain", ""),
        ("\\033[?2004h", "\x1b[?2004l"),
        ("\\033[?2004h\\033[?2004l\\033[?1004h", "\x1b[?1004l"),
        (
            ON,
            "\x1b[?2026l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l\x1b[?2031l\
             \x1b[?25h\x1b[>4m\x1b[<1u\x1b[?1049l",
        ),
    ] {
        let text = format!("stty raw -echo; printf '{on}'; printf 'pid=%d\\r' $$; exec sleep 60");
        let mut terminal = Terminal::script(Way::Pty, &text);
        let pid = terminal.number("pid");
        kill_process(pid, Signal::KILL).unwrap();
        let (code, shown) = terminal.end_as_before();
        assert_eq!(code, 137);
        let (_, added) = shown
            .split_once(&format!("pid={}\r", pid.as_raw_nonzero()))
            .unwrap();
        assert_eq!(added, off, "{on}");
    }
}

#[test]
fn t14_a_screen_is_of_use_after_a_killed_client() {
    for way in Way::BOTH {
        let text =
            format!("stty raw -echo; printf 'before{ON}'; printf 'pid=%d\\r' $$; exec sleep 60");
        let mut terminal = Terminal::script(way, &text);
        let pid = terminal.number("pid");
        kill_process(pid, Signal::KILL).unwrap();
        let (code, shown) = terminal.end_as_before();
        assert_eq!(code, 137);
        let [rows, columns] = [SIZE.rows, SIZE.cols].map(|n| NonZero::new(n).unwrap());
        let mut parser = vt100::Parser::new(rows, columns, 0);
        parser.process(shown.as_bytes());
        let screen = parser.screen();
        assert_eq!(screen.contents().trim(), "before", "{way:?}");
        assert!(!screen.alternate_screen() && !screen.bracketed_paste() && !screen.hide_cursor());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        for mode in ["?1004l", "?2031l", "?2026l", ">4m"] {
            assert!(shown.contains(&format!("\x1b[{mode}")), "{way:?} {mode}");
        }
    }
}

#[test]
fn t14_after_a_tidy_end_nothing_is_added() {
    for way in Way::BOTH {
        for (how, code) in [("exit 0", 0), ("exit 143", 143)] {
            let text = format!("stty -opost; printf '\\033[?2004h'; {how}");
            let (found, shown) = Terminal::script(way, &text).end_as_before();
            assert_eq!((found, shown.as_str()), (code, "\x1b[?2004h"), "{way:?}");
        }
    }
}

#[test]
fn t15_term_and_hup_are_the_clients_to_answer() {
    for way in Way::BOTH {
        for (signal, code) in [(Signal::TERM, 9), (Signal::HUP, 10)] {
            let mut terminal = Terminal::script(
                way,
                "trap 'exit 9' TERM; trap 'exit 10' HUP; echo ready; while :; do sleep 0.05; done",
            );
            terminal.until_text("ready");
            kill_process(terminal.driver(), signal).unwrap();
            assert_eq!(terminal.end_as_before().0, code, "{way:?}");
        }
    }
}

#[test]
fn t15_a_client_that_does_not_listen_is_killed_after_five_seconds() {
    let started = Way::BOTH.map(|way| {
        let terminal = Terminal::script(
            way,
            "trap 'echo asked' TERM HUP; printf 'pid=%d\\r' $$; while :; do sleep 0.1; done",
        );
        let client = terminal.number("pid");
        kill_process(terminal.driver(), Signal::TERM).unwrap();
        (Instant::now(), terminal, client)
    });
    for (begin, mut terminal, client) in started {
        assert_eq!(terminal.end_as_before().0, 137);
        let took = begin.elapsed();
        assert!(took > Duration::from_millis(4900), "{took:?}");
        assert!(took < Duration::from_secs(17), "{took:?}");
        await_gone(client, Duration::from_secs(5));
    }
}

#[test]
fn t15_a_second_term_shortens_the_wait() {
    for way in Way::BOTH {
        let mut terminal = Terminal::script(
            way,
            "trap 'echo asked' TERM; printf 'pid=%d\\r' $$; while :; do sleep 0.1; done",
        );
        let client = terminal.number("pid");
        kill_process(terminal.driver(), Signal::TERM).unwrap();
        terminal.until_text("asked");
        let begin = Instant::now();
        kill_process(terminal.driver(), Signal::TERM).unwrap();
        assert_eq!(terminal.end_as_before().0, 137);
        assert!(begin.elapsed() < Duration::from_secs(4), "{way:?}");
        await_gone(client, Duration::from_secs(5));
    }
}

#[test]
fn t16_the_keyboards_interrupt_comes_once() {
    for way in Way::BOTH {
        // The interrupt key is the odd one that the terminal was given.
        let mut terminal = Terminal::script(
            way,
            "n=0; trap 'n=$((n+1))' INT; echo ready; while [ $n -eq 0 ]; do sleep 0.05; done; \
             sleep 0.2; echo n=$n",
        );
        terminal.until_text("ready");
        terminal.press(&[0x07]);
        let (code, shown) = terminal.end_as_before();
        assert_eq!(code, 0);
        assert!(shown.contains("n=1\r\n"), "{way:?} {shown}");
    }
}

#[test]
fn t16_in_raw_mode_it_is_a_byte() {
    for way in Way::BOTH {
        let text = "stty raw -echo; printf ready; head -c 2 | od -An -tx1";
        let mut terminal = Terminal::script(way, text);
        terminal.until_text("ready");
        terminal.press(&[0x07, 0x03]);
        let (code, shown) = terminal.end_as_before();
        assert_eq!(code, 0);
        assert!(shown.contains("07 03"), "{way:?} {shown}");
    }
}

#[test]
fn t16_int_and_quit_never_end_ccx_while_the_client_lives() {
    for way in Way::BOTH {
        let mut terminal = Terminal::script(
            way,
            "trap : INT QUIT; echo ready; read line; read line; echo read; exit 5",
        );
        terminal.until_text("ready");
        for signal in [Signal::INT, Signal::QUIT, Signal::INT, Signal::QUIT] {
            kill_process(terminal.driver(), signal).unwrap();
        }
        // A read that a signal cut short is one of the two.
        terminal.press(b"a\nb\nc\n");
        let (code, shown) = terminal.end_as_before();
        assert_eq!(code, 5, "{way:?} {shown}");
        assert!(shown.contains("read\r\n"), "{way:?} {shown}");
    }
}

/// Seconds of processor time that a process has used; `None` when it is gone.
fn used(pid: Pid) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let rest = stat.rsplit(')').next()?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?;
    (fields[0] != "Z").then_some(ticks / 100.0)
}

#[test]
fn t17_a_closed_window_ends_both_without_a_spin() {
    for way in Way::BOTH {
        // A client that does not listen: ccx has to wait for it with a terminal that is gone.
        let text =
            "trap '' HUP; printf 'pid=%d\\r' $$; while :; do sleep 0.1; echo x; done 2>/dev/null";
        let terminal = Terminal::script(way, text);
        let (client, driver) = (terminal.number("pid"), terminal.driver());
        let before = used(driver).unwrap();
        let begin = Instant::now();
        terminal.close_window();
        let mut last = before;
        while let Some(now) = used(driver) {
            last = now;
            assert!(begin.elapsed() < Duration::from_secs(12), "{way:?} goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(last - before < 1.0, "{way:?} used {} s", last - before);
        await_gone(client, Duration::from_secs(4));
    }
}

#[test]
fn t17_a_closed_window_leaves_no_settings_behind() {
    let mut stage = Stage::new("chat");
    client(&mut stage, "printf 'pid=%d\\r' $$; exec sleep 60");
    for way in Way::BOTH {
        let terminal = Terminal::ccx(&stage, way, &["-c"]);
        let client = terminal.number("pid");
        let driver = terminal.driver();
        assert_eq!(private_files(&stage), 1);
        terminal.close_window();
        await_gone(client, Duration::from_secs(8));
        await_gone(driver, Duration::from_secs(8));
        assert_eq!(private_files(&stage), 0, "{way:?}");
    }
}

fn private_files(stage: &Stage) -> usize {
    let run = fs::read_dir(stage.path("ccx/run")).unwrap();
    let names = run.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".json"))
        .count()
}

#[test]
fn t18_the_client_does_not_outlive_ccx() {
    for way in Way::BOTH {
        // Without a leader nobody could insist, so that this one may listen to TERM.
        let deaf = match way {
            Way::Pty => "HUP TERM",
            Way::Plain => "HUP",
        };
        let text = format!("trap '' {deaf}; printf 'pid=%d\\r' $$; while :; do sleep 0.1; done");
        let terminal = Terminal::script(way, &format!("stty -opost; {text}"));
        let client = terminal.number("pid");
        kill_process(terminal.driver(), Signal::KILL).unwrap();
        await_gone(client, Duration::from_secs(5));
    }
}

#[test]
fn t18_the_client_of_the_real_ccx_does_not_outlive_it() {
    let mut stage = Stage::new("chat");
    client(&mut stage, "printf 'pid=%d\\r' $$; exec sleep 60");
    for way in Way::BOTH {
        let terminal = Terminal::ccx(&stage, way, &["-c"]);
        let client = terminal.number("pid");
        kill_process(terminal.driver(), Signal::KILL).unwrap();
        await_gone(client, Duration::from_secs(5));
    }
}

#[test]
fn t20_what_the_client_left_running_holds_nobody_up_and_lives_on() {
    for way in Way::BOTH {
        // It has the terminal open.
        let text = "trap '' HUP; sleep 30 & printf 'pid=%d\\r\\n' $!; exit 3";
        let mut terminal = Terminal::script(way, text);
        let left = terminal.number("pid");
        let begin = Instant::now();
        let driver = terminal.driver();
        assert_eq!(terminal.end_as_before().0, 3);
        assert!(begin.elapsed() < Duration::from_secs(4), "{way:?}");
        assert!(test_kill_process(left).is_ok(), "{way:?}");
        let driver = driver.as_raw_nonzero().to_string();
        for helper in ["--ccx-leader", "--ccx-child"] {
            until("the end of the helpers", || {
                processes(&[helper, &driver]).is_empty()
            });
        }
        kill_process(left, Signal::KILL).unwrap();
    }
}
