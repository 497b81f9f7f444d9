//! Bytes both ways: all of them, as they are, and nothing else.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::bed::{Terminal, Way, await_gone, client, contains, until};
use crate::parts::paste;
use crate::support::stage::Stage;

#[test]
fn t06_output_is_unchanged_and_nothing_of_ours_is_on_the_screen() {
    let mut stage = Stage::new("chat");
    let all: Vec<u8> = (0..=255u8).filter(|byte| *byte != 0x1e).collect();
    fs::write(stage.path("work").join("all"), all.repeat(50)).unwrap();
    client(&mut stage, "stty raw -echo; cat all; head -c 1 >/dev/null");
    for way in Way::BOTH {
        let mut terminal = Terminal::ccx(&stage, way, &["-c"]);
        terminal.until("all bytes", |shown| shown.len() >= all.len() * 50);
        terminal.press(b"x");
        let (code, shown) = terminal.end();
        assert_eq!(code, 0);
        assert!(shown == all.repeat(50), "{way:?}");
        assert!(terminal.is_as_before(), "{way:?}");
    }
}

#[test]
fn t07_all_output_is_shown_also_on_a_slow_terminal() {
    for way in Way::BOTH {
        let text = "stty -opost; printf 'pid=%d\\r' $$; head -c 50000000 /dev/zero; printf last";
        let mut terminal = Terminal::script(way, text);
        let pid = terminal.number("pid");
        terminal.until("most of it", |shown| shown.len() > 10_000_000);
        // It stands still for a while, as one behind a slow line does.
        terminal.hold(true);
        std::thread::sleep(Duration::from_millis(300));
        terminal.hold(false);
        terminal.until("nearly all", |shown| shown.len() > 49_000_000);
        let (code, shown) = terminal.end();
        assert_eq!(code, 0);
        let begin = shown.iter().position(|byte| *byte == b'\r').unwrap() + 1;
        assert_eq!(shown.len() - begin, 50_000_004, "{way:?}");
        assert!(shown.ends_with(b"\0last"));
        await_gone(pid, Duration::from_secs(5));
    }
}

#[test]
fn t07_a_terminal_that_stands_still_when_the_client_ends_gets_the_rest() {
    let mut terminal = Terminal::script(
        Way::Pty,
        "stty -opost; printf 'pid=%d\\r' $$; head -n 1 >/dev/null; head -c 20000 /dev/zero; printf last",
    );
    let pid = terminal.number("pid");
    terminal.hold(true);
    // The reader may be waiting for a byte already.
    terminal.press(b"\n");
    await_gone(pid, Duration::from_secs(20));
    // Longer than silence is waited for.
    std::thread::sleep(Duration::from_secs(2));
    terminal.hold(false);
    let (code, shown) = terminal.end();
    assert_eq!(code, 0);
    assert!(shown.ends_with(b"\0last"), "{}", shown.len());
    let zeros = shown.iter().filter(|byte| **byte == 0).count();
    assert_eq!(zeros, 20_000);
}

#[test]
fn t07_the_last_words_of_a_client_that_dies_at_once_are_shown() {
    for way in Way::BOTH {
        for _ in 0..10 {
            let text = "stty -opost; printf gone; kill -KILL $$";
            let (code, shown) = Terminal::script(way, text).end();
            assert_eq!(code, 137);
            assert!(shown.starts_with(b"gone"), "{way:?} {shown:?}");
        }
    }
}

#[test]
fn t08_every_byte_value_arrives() {
    for way in Way::BOTH {
        let text = "stty raw -echo; printf ready; head -c 256 | od -An -v -tx1; cat";
        let mut terminal = Terminal::script(way, text);
        terminal.until_text("ready");
        let all: Vec<u8> = (0..=255).collect();
        terminal.press(&all);
        let wanted: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
        terminal.until("all bytes", |shown| {
            let text: String = String::from_utf8_lossy(shown).split_whitespace().collect();
            text.contains(&wanted)
        });
    }
}

#[test]
fn t08_a_large_paste_reaches_a_slow_reader_whole_while_it_talks() {
    for way in Way::BOTH {
        let mut terminal = Terminal::playing(way, "slow");
        terminal.until_text("ready");
        terminal.press(&paste());
        terminal.until_text("bite");
        terminal.until_text("same");
        assert_eq!(terminal.end_as_before().0, 0);
    }
}

#[test]
fn t08_nothing_is_typed_into_the_terminal_when_the_client_ends() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("typed");
    for way in Way::BOTH {
        let text = format!(
            "stty raw -echo; trap '' HUP; (cat </dev/tty >'{0}'; echo over >'{0}.over') & sleep 0.2; exit 0",
            file.display()
        );
        let mut terminal = Terminal::script(way, &text);
        assert_eq!(terminal.end().0, 0);
        if way == Way::Pty {
            // Its terminal is gone by now.
            until("the end of its input", || {
                file.with_extension("over").exists()
            });
        }
        assert_eq!(fs::read(&file).unwrap(), b"", "{way:?}");
        drop(terminal);
        let _ = fs::remove_file(file.with_extension("over"));
    }
}

#[test]
fn t09_line_mode_echoes_once_and_ends_once() {
    for way in Way::BOTH {
        let mut terminal = Terminal::script(way, "printf ready; cat; echo over; cat; echo again");
        terminal.until_text("ready");
        terminal.press(b"hello\n");
        terminal.until_text("hello\r\nhello\r\n");
        terminal.press(b"\x04");
        terminal.until_text("over\r\n");
        // The one end was used up: the next reader waits.
        terminal.press(b"more\n");
        terminal.until_text("more\r\nmore\r\n");
        terminal.press(b"\x04");
        let (code, shown) = terminal.end_as_before();
        let wanted = "readyhello\r\nhello\r\nover\r\nmore\r\nmore\r\nagain\r\n";
        assert_eq!((code, shown.as_str()), (0, wanted), "{way:?}");
    }
}

#[test]
fn t10_answers_of_the_terminal_reach_the_client() {
    let asked =
        "\x1b[c\x1b[>0q\x1b[?u\x1b[16t\x1b[?2026$p\x1b_Gi=31,s=1,v=1,a=q;AAAA\x1b\\\x1b]11;?\x07";
    let answer = "\x1b[?62;22c\x1bP>|test(1)\x1b\\\x1b[?0u\x1b[6;16;8t\x1b[?2026;2$y\x1b_Gi=31;OK\x1b\\\x1b]11;rgb:0/0/0\x07";
    for way in Way::BOTH {
        let text = format!(
            "stty raw -echo; printf '%s' '{asked}'; head -c {} | od -An -v -tx1; exit 0",
            answer.len()
        );
        let mut terminal = Terminal::script(way, &text);
        terminal.until("the questions", |shown| contains(shown, asked));
        terminal.press(answer.as_bytes());
        let (code, shown) = terminal.end();
        assert_eq!(code, 0);
        let (_, told) = shown.split_at(asked.len());
        let told: String = String::from_utf8_lossy(told).split_whitespace().collect();
        let wanted: String = answer.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(told, wanted, "{way:?}");
    }
}

/// Not how fast it is, which the benches say, but that nothing waits for a line or for more.
#[test]
fn t11_a_single_key_goes_through_at_once() {
    for way in Way::BOTH {
        let text = "stty raw -echo; printf ready; while :; do head -c 1 >/dev/null; printf k; done";
        let mut terminal = Terminal::script(way, text);
        terminal.until_text("ready");
        let begin = Instant::now();
        for count in 1..=20 {
            terminal.press(b"x");
            terminal.until("its echo", |shown| {
                shown.iter().filter(|byte| **byte == b'k').count() == count
            });
        }
        assert!(begin.elapsed() < Duration::from_secs(20));
        kill_process(terminal.driver(), Signal::TERM).unwrap();
        terminal.end();
    }
}
