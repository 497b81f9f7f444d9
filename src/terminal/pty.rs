//! A terminal for the client: opened, sized, read and written.
//!
//! Uses portable-pty for the pair only. Its way to start a child is not used: it closes every
//! descriptor above 2 (so that `claude --mcp-config <(…)` would lose its file), hides a failed exec,
//! adds `SHELL` and starts in the home directory. The leader makes the session itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use portable_pty::{MasterPty, PtySize, SlavePty, native_pty_system};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, Termios, Winsize, tcsetattr};

/// What the two threads of the relay hold of the terminal.
pub(super) struct Ends {
    /// What the client writes. Its end is the end of the last process that has the terminal open.
    pub(super) output: Box<dyn Read + Send>,
    /// What the client reads. Never dropped: the crate would type a newline and an end of file into
    /// whoever still has the terminal open.
    pub(super) input: ManuallyDrop<Box<dyn Write + Send>>,
}

/// The pair before the leader has it.
pub(super) struct Pty {
    master: Box<dyn MasterPty + Send>,
    // Keeps the terminal alive until the leader has opened it.
    slave: Box<dyn SlavePty + Send>,
    path: PathBuf,
}

fn wrap(error: anyhow::Error) -> io::Error {
    io::Error::other(error)
}

const fn in_crate_terms(size: Winsize) -> PtySize {
    PtySize {
        rows: size.ws_row,
        cols: size.ws_col,
        pixel_width: size.ws_xpixel,
        pixel_height: size.ws_ypixel,
    }
}

impl Pty {
    /// Opens a terminal with the size and settings of the person's.
    ///
    /// # Errors
    ///
    /// When the system has no terminal to give.
    pub(super) fn open(size: Winsize, settings: &Termios) -> io::Result<Self> {
        let pair = native_pty_system()
            .openpty(in_crate_terms(size))
            .map_err(wrap)?;
        let path = pair
            .master
            .tty_name()
            .ok_or_else(|| io::Error::other("the new terminal has no name"))?;
        let pty = Self {
            master: pair.master,
            slave: pair.slave,
            path,
        };
        tcsetattr(pty.client_side()?, OptionalActions::Now, settings)?;
        Ok(pty)
    }

    /// Opens the client's side, without becoming its owner.
    pub(super) fn client_side(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0))
            .open(&self.path)
    }

    /// Returns both directions and the side that stays here. From now on the terminal lives as long
    /// as the processes in it.
    pub(super) fn split(self) -> io::Result<(Ends, Master)> {
        let ends = Ends {
            output: self.master.try_clone_reader().map_err(wrap)?,
            input: ManuallyDrop::new(self.master.take_writer().map_err(wrap)?),
        };
        drop(self.slave);
        Ok((ends, Master(self.master)))
    }
}

/// Our side of the terminal. While it is held the terminal is not hung up.
pub(super) struct Master(Box<dyn MasterPty + Send>);

impl Master {
    /// Passes a size on; the kernel tells the foreground group if it is a new one.
    pub(super) fn resize(&self, size: Winsize) -> io::Result<()> {
        self.0.resize(in_crate_terms(size)).map_err(wrap)
    }
}
