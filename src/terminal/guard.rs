//! The guard variable: how a ccx that was started in the client's place learns that it was.
//!
//! Text in, text out; whether a process still runs is asked elsewhere (`find`). The overlay sets the
//! variable to nothing inside the real client, so that a ccx which the client's own tools start sees
//! none.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The variable: lines of `pid=path`, one for each ccx that tries a program and waits for it.
pub const VARIABLE: &str = "CCX_GUARD";

/// One attempt: the process that made it, and what it started as the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The ccx that waits.
    pub pid: u32,
    /// The program it tried.
    pub path: PathBuf,
}

/// Reads the variable; lines that are none are left out.
pub fn parse(value: &OsStr) -> Vec<Attempt> {
    let lines = value.as_bytes().split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let at = memchr::memchr(b'=', line)?;
            Some(Attempt {
                pid: std::str::from_utf8(&line[..at]).ok()?.parse().ok()?,
                path: Path::new(OsStr::from_bytes(&line[at + 1..])).to_owned(),
            })
        })
        .collect()
}

/// Writes the variable.
pub fn format(attempts: &[Attempt]) -> OsString {
    let mut value = Vec::new();
    for attempt in attempts {
        if !value.is_empty() {
            value.push(b'\n');
        }
        value.extend_from_slice(format!("{}=", attempt.pid).as_bytes());
        value.extend_from_slice(attempt.path.as_os_str().as_bytes());
    }
    OsString::from_vec(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let attempts = [
            Attempt {
                pid: 7,
                path: "/a=b/claude".into(),
            },
            Attempt {
                pid: 8,
                path: OsString::from_vec(b"/\xff/claude".to_vec()).into(),
            },
        ];
        assert_eq!(parse(&format(&attempts)), attempts);
        assert_eq!(parse(&format(&[])), []);
    }

    #[test]
    fn what_is_no_line_is_left_out() {
        let found = parse(OsStr::new("\n=/x\nx=/y\n-1=/z\n12\n3=/a"));
        assert_eq!(
            found,
            [Attempt {
                pid: 3,
                path: "/a".into()
            }]
        );
    }
}
