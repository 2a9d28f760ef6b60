//! The terminal on standard input while keys are read one by one: no lines, no echo, and on request a screen of its own.
//! It is put back whatever happens, except if the process is killed with SIGKILL.

use std::io::{self, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Whether the other screen is shown.
    has_screen: Arc<AtomicBool>,
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
        let mode = Self { before: tcgetattr(&stdin).ok()?, has_screen: Arc::default() };
        mode.take().ok()?;
        Some(mode)
    }

    /// Takes keys, and the whole screen too. `None` likewise, and if standard output is no terminal.
    pub fn with_screen() -> Option<Self> {
        let mode = Self::for_keys().filter(|_| isatty(io::stdout()))?;
        mode.enter();
        // What a panic says belongs on the screen that stays.
        let (before, has_screen, tell) = (mode.before.clone(), Arc::clone(&mode.has_screen), panic::take_hook());
        panic::set_hook(Box::new(move |panicked| {
            put_back(&before, &has_screen);
            tell(panicked);
        }));
        Some(mode)
    }

    fn enter(&self) {
        self.has_screen.store(true, Ordering::Relaxed);
        show(ENTER);
    }

    fn take(&self) -> rustix::io::Result<()> {
        let mut mode = self.before.clone();
        // Ctrl-C and Ctrl-Z stay signals.
        mode.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        mode.special_codes[SpecialCodeIndex::VMIN] = 1;
        mode.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &mode)
    }

    /// Waits for a signal that ends the process, and returns its number. While the process is suspended (Ctrl-Z), the
    /// terminal is as it was.
    pub async fn until_ended(&self) -> io::Result<i32> {
        let (mut hangup, mut interrupt, mut terminate, mut quit) = (
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::quit())?,
        );
        let mut suspend = signal(SignalKind::from_raw(libc::SIGTSTP))?;
        let mut go_on = signal(SignalKind::from_raw(libc::SIGCONT))?;
        loop {
            // All of them are cancel-safe.
            tokio::select! {
                _ = hangup.recv() => return Ok(libc::SIGHUP),
                _ = interrupt.recv() => return Ok(libc::SIGINT),
                _ = terminate.recv() => return Ok(libc::SIGTERM),
                _ = quit.recv() => return Ok(libc::SIGQUIT),
                _ = suspend.recv() => {
                    let had_screen = put_back(&self.before, &self.has_screen);
                    kill_process(getpid(), Signal::STOP)?;
                    let _ = go_on.recv().await;
                    self.take()?;
                    if had_screen {
                        self.enter();
                    }
                }
            }
        }
    }
}

impl Drop for TerminalMode {
    fn drop(&mut self) {
        put_back(&self.before, &self.has_screen);
    }
}

/// A terminal that is gone shows nothing.
fn show(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Leaves the other screen if it is shown, and returns whether it was.
fn put_back(before: &Termios, screen: &AtomicBool) -> bool {
    let had_screen = screen.swap(false, Ordering::Relaxed);
    if had_screen {
        show(LEAVE);
    }
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
    had_screen
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// Set for the process that panics.
    const IN_TERMINAL: &str = "FLOWCAST_TEST_PANICS";

    #[test]
    fn a_panic_puts_the_terminal_back_and_is_read_on_the_screen_that_stays() {
        if std::env::var_os(IN_TERMINAL).is_some() {
            let _mode = TerminalMode::with_screen().expect("a terminal");
            panic!("as a fault would");
        }
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let this =
            "commands::terminal_mode::tests::a_panic_puts_the_terminal_back_and_is_read_on_the_screen_that_stays";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this, "--nocapture"])
            .env(IN_TERMINAL, "1")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        assert!(!child.wait().unwrap().success(), "it panics");
        let is_line = |modes: LocalModes| modes.contains(LocalModes::ICANON | LocalModes::ECHO);
        assert!(is_line(tcgetattr(&terminal).unwrap().local_modes));
        drop(terminal);
        let mut shown = Vec::new();
        // The end of a terminal that nobody has open any more is an error.
        let _ = std::fs::File::from(keyboard).read_to_end(&mut shown);
        let shown = String::from_utf8(shown).unwrap();
        let (_, after) = shown.split_once(ENTER).expect("its own screen");
        let (_, stays) = after.split_once(LEAVE).expect("the screen that stays");
        assert!(stays.contains("as a fault would") && !stays.contains(LEAVE), "{shown:?}");
    }
}
