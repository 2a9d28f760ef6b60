//! The terminal on standard input while keys are read one by one: no lines, no echo, and on request a screen of its own.
//! It is put back whatever happens, except if the process is killed with SIGKILL.

use std::io::{self, Write};

use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::signal::unix::{SignalKind, signal};

/// Another screen, without a cursor, on which long lines are cut.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";

/// The screen as it was.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The terminal, in the mode for keys until this is dropped.
pub(super) struct TerminalMode {
    before: Termios,
    has_screen: bool,
}

impl TerminalMode {
    /// Begins to take keys. `None` if standard input is no terminal, or belongs to another program now.
    pub fn for_keys() -> Option<Self> {
        let stdin = io::stdin();
        // From the background, changing a terminal stops the process.
        let is_background = |foreground: Pid| foreground != getpgrp();
        if !isatty(&stdin) || tcgetpgrp(&stdin).is_ok_and(is_background) {
            return None;
        }
        let mode = Self { before: tcgetattr(&stdin).ok()?, has_screen: false };
        mode.take().ok()?;
        Some(mode)
    }

    /// Takes keys, and the whole screen too. `None` likewise, and if standard output is no terminal.
    pub fn with_screen() -> Option<Self> {
        let mut mode = Self::for_keys().filter(|_| isatty(io::stdout()))?;
        mode.has_screen = true;
        mode.show(ENTER);
        Some(mode)
    }

    /// A terminal that is gone shows nothing.
    fn show(&self, text: &str) {
        if self.has_screen {
            let mut out = io::stdout();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }

    fn take(&self) -> rustix::io::Result<()> {
        let mut mode = self.before.clone();
        // Ctrl-C and Ctrl-Z stay signals.
        mode.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        mode.special_codes[SpecialCodeIndex::VMIN] = 1;
        mode.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &mode)
    }

    fn put_back(&self) {
        self.show(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }

    /// Waits for a signal that ends the process, and returns its number. While the process is suspended (Ctrl-Z), the
    /// terminal is as it was.
    pub async fn until_ended(&self) -> io::Result<i32> {
        let (mut hangup, mut interrupt, mut terminate) =
            (signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut suspend = signal(SignalKind::from_raw(libc::SIGTSTP))?;
        let mut go_on = signal(SignalKind::from_raw(libc::SIGCONT))?;
        loop {
            // All of them are cancel-safe.
            tokio::select! {
                _ = hangup.recv() => return Ok(libc::SIGHUP),
                _ = interrupt.recv() => return Ok(libc::SIGINT),
                _ = terminate.recv() => return Ok(libc::SIGTERM),
                _ = suspend.recv() => {
                    self.put_back();
                    kill_process(getpid(), Signal::STOP)?;
                    let _ = go_on.recv().await;
                    self.take()?;
                    self.show(ENTER);
                }
            }
        }
    }
}

impl Drop for TerminalMode {
    fn drop(&mut self) {
        self.put_back();
    }
}
