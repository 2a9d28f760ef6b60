//! `flowcast top`: the live page in a terminal, from the same events (`docs/live.md`).
//!
//! The screen is plain text, written anew with each event: a terminal library would be twenty more crates for three
//! tables. Keys are those of `nats-top`.

mod live_client;
mod screen;
mod tables;
mod units;

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::termios::tcgetwinsize;
use serde::Deserialize;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::live_client::{LiveClient, LiveSnapshots};
use self::screen::{TopView, lines};
use self::tables::TopTable;
use crate::commands::terminal_mode::TerminalMode;
use crate::server::http::live::live_snapshot::LiveSnapshot;

/// How long is waited before a lost server is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Keys that wait; further ones are dropped.
const WAITING: usize = 16;

/// Width and height of a terminal that does not say.
const USUAL_SIZE: (usize, usize) = (120, 40);

/// Numbers of rows between which `n` changes.
const ROWS: [Option<usize>; 4] = [None, Some(10), Some(25), Some(50)];

/// Which server, and how it is shown.
#[derive(Debug, Clone, clap::Args)]
pub struct TopOptions {
    /// The server: an http(s):// URL, with a path if a proxy has it below one, or host:port
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Print it once, and end
    #[arg(long)]
    pub once: bool,
    /// With --once: the snapshot as JSON
    #[arg(long, requires = "once")]
    pub json: bool,
}

/// Shows a server until `q`, or once.
pub fn top(options: &TopOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(options))
}

async fn run(options: &TopOptions) -> anyhow::Result<()> {
    let client = LiveClient::new(&options.url)?;
    let mut snapshots = client.follow().await?;
    if options.once {
        return once(&mut snapshots, options.json).await;
    }
    let Some(terminal) = TerminalMode::with_screen() else {
        bail!("expected a terminal; without one, use --once");
    };
    let signal = tokio::select! {
        // In this order: signals are listened for before anything is drawn.
        biased;
        signal = terminal.until_ended() => Some(signal.context("cannot listen for signals")?),
        shown = show(&client, snapshots) => shown.map(|()| None).context("cannot listen for signals")?,
    };
    drop(terminal);
    if let Some(signal) = signal {
        // As a shell counts the end by a signal. The terminal is as it was.
        std::process::exit(128 + signal);
    }
    Ok(())
}

/// Prints the second snapshot: the first one has no rates.
async fn once(snapshots: &mut LiveSnapshots, is_json: bool) -> anyhow::Result<()> {
    snapshots.next().await?;
    let snapshot = snapshots.next().await?;
    let mut out = io::stdout().lock();
    let written = if is_json {
        writeln!(out, "{snapshot}")
    } else {
        lines(&read(snapshot)?, TopView::FIRST, 240, 200)
            .iter()
            .try_for_each(|line| writeln!(out, "{}", line.trim_end()))
    };
    match written.and_then(|()| out.flush()) {
        // `top --once | head` ends quietly.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print"),
    }
}

fn read(snapshot: &Value) -> anyhow::Result<LiveSnapshot> {
    LiveSnapshot::deserialize(snapshot).context("expected the snapshot of a flowcast of this version")
}

/// Shows snapshot after snapshot until `q` is pressed, and goes on when a lost server is back.
async fn show(client: &LiveClient, first: LiveSnapshots) -> io::Result<()> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut view = TopView::FIRST;
    let (mut keys, mut snapshots, mut shown) = (read_keys(), Some(first), LiveSnapshot::default());
    let mut trouble = None;
    loop {
        draw(client, &shown, trouble.as_deref(), view);
        // All are cancel-safe: a part of an event stays in `snapshots`, and a key in its channel.
        tokio::select! {
            key = keys.recv() => match key {
                // Without keys it could only be killed.
                None | Some(b'q' | b'Q') => return Ok(()),
                Some(key) => press(key, &mut view),
            },
            _ = resized.recv() => {}
            next = next(client, &mut snapshots) => match next {
                Ok(_) if view.is_paused => {}
                Ok(snapshot) => (shown, trouble) = (snapshot, None),
                Err(error) => trouble = Some(format!("{error:#}; trying again")),
            },
        }
    }
}

async fn next(client: &LiveClient, snapshots: &mut Option<LiveSnapshots>) -> anyhow::Result<LiveSnapshot> {
    let following = match snapshots {
        Some(following) => following,
        None => {
            tokio::time::sleep(AGAIN).await;
            snapshots.insert(client.follow().await?)
        }
    };
    let read = match following.next().await {
        Ok(snapshot) => read(snapshot),
        Err(error) => Err(error),
    };
    if read.is_err() {
        *snapshots = None;
    }
    read
}

fn press(key: u8, view: &mut TopView) {
    let mut turn = |table| {
        let table = if view.table == table { TopTable::Connections } else { table };
        (view.table, view.order, view.is_reversed) = (table, 0, false);
    };
    match key.to_ascii_lowercase() {
        b's' => turn(TopTable::Groups),
        b'c' => turn(TopTable::Closed),
        b'f' => turn(TopTable::Sources),
        b'o' => view.order = view.order.wrapping_add(1),
        b'r' => view.is_reversed = !view.is_reversed,
        b'p' => view.is_paused = !view.is_paused,
        b'n' => {
            let at = ROWS.iter().position(|rows| *rows == view.rows).unwrap_or(0);
            view.rows = ROWS[(at + 1) % ROWS.len()];
        }
        _ => {}
    }
}

fn draw(client: &LiveClient, snapshot: &LiveSnapshot, trouble: Option<&str>, view: TopView) {
    let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let (width, height) = size.map_or(USUAL_SIZE, |size| (size.ws_col.into(), size.ws_row.into()));
    let mut text = String::from("\x1b[H");
    if let Some(trouble) = trouble {
        text.push_str(&units::cut(&units::plain(&format!("{}: {trouble}", client.base())), width));
        text.push_str("\x1b[K\r\n");
    }
    let height = height.saturating_sub(usize::from(trouble.is_some()));
    for (at, line) in lines(snapshot, view, width, height).iter().enumerate() {
        let separator = if at == 0 { "" } else { "\r\n" };
        // What is wrong is red.
        let (begin, end) = if line.starts_with('!') { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        let _ = write!(text, "{separator}{begin}{line}{end}\x1b[K");
    }
    text.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    // A terminal that is gone sends a signal, too.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Reads standard input on a thread of its own, which ends with the process.
fn read_keys() -> mpsc::Receiver<u8> {
    let (sender, keys) = mpsc::channel(WAITING);
    thread::spawn(move || {
        let (mut bytes, mut escape) = ([0; 16], Escape::None);
        while let Ok(length @ 1..) = io::stdin().read(&mut bytes) {
            for &byte in &bytes[..length] {
                let is_key = escape.take(byte);
                if is_key && matches!(sender.try_send(byte), Err(mpsc::error::TrySendError::Closed(_))) {
                    return;
                }
            }
        }
    });
    keys
}

/// How far an escape sequence is: an arrow or a function key comes as one, and its letters are no keys.
#[derive(Clone, Copy)]
enum Escape {
    None,
    Begun,
    Within,
}

impl Escape {
    /// Goes on by a byte; whether that is a key.
    fn take(&mut self, byte: u8) -> bool {
        let before = *self;
        *self = match (before, byte) {
            (_, 0x1b) => Self::Begun,
            // Parameters may follow; the sequence ends with a letter or `~`.
            (Self::Begun, b'[' | b'O') | (Self::Within, 0x20..=0x3f) => Self::Within,
            _ => Self::None,
        };
        matches!((before, *self), (Self::None, Self::None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_letters_of_escape_sequences_are_no_keys() {
        let keys = |typed: &[u8]| {
            let mut escape = Escape::None;
            typed.iter().copied().filter(|&byte| escape.take(byte)).collect::<Vec<u8>>()
        };
        assert_eq!(keys(b"s\x1b[Cs\x1bOPq\x1b[15~o\x1b[1;5Ar"), b"ssqor");
        assert_eq!(keys(b"\x1b\x1b[As"), b"s");
    }
}
