//! The size of the terminal, in cells and in pixels.

use crate::bed::{Terminal, Way};

#[test]
fn t04_the_first_size_is_the_terminals() {
    for way in Way::BOTH {
        let mut terminal = Terminal::playing(way, "look");
        terminal.until_text("size 30 100 1000 600 ");
        assert_eq!(terminal.end_as_before().0, 0);
    }
}

#[test]
fn t05_the_last_size_of_a_burst_arrives() {
    for way in Way::BOTH {
        let mut terminal = Terminal::playing(way, "watch");
        terminal.until_text("ready");
        for step in 1..=60u16 {
            terminal.resize(10 + step, 200 - step, 500 + step, 900 - step);
        }
        terminal.until_text("size 70 140 560 840.");
        terminal.press(b"\r");
        assert_eq!(terminal.end_as_before().0, 0);
    }
}

#[test]
fn t27_a_terminal_without_a_size_is_no_error() {
    for way in Way::BOTH {
        let text = "echo ready; until [ \"$(stty size)\" = '0 0' ]; do sleep 0.05; done; echo none; read line";
        let mut terminal = Terminal::script(way, text);
        terminal.until_text("ready");
        for (rows, cols) in [(1, 1), (0, 0)] {
            terminal.resize(rows, cols, 0, 0);
        }
        terminal.until_text("none\r\n");
        terminal.press(b"\n");
        assert_eq!(terminal.end_as_before().0, 0);
    }
}
