//! The terminal on standard input while keys are read one by one: no lines, no echo. It is put back whatever happens,
//! except if the process is killed with SIGKILL.

use std::io;

use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::signal::unix::{SignalKind, signal};

/// The terminal, in the mode for keys until this is dropped.
pub(super) struct TerminalMode {
    before: Termios,
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
        let mode = Self { before: tcgetattr(&stdin).ok()? };
        mode.take().ok()?;
        Some(mode)
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
