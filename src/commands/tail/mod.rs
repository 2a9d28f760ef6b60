//! `flowcast tail`: a small subscriber that shows data in one command.
//!
//! It negotiates like GexBot's client, joins, decodes, and prints one JSON line per record, with flowcast or
//! the real service at the other end. It opens one connection per hub that its groups belong to. It recovers no
//! session: when a connection ends, the command ends. In a terminal, keys steer what the server replays.

mod clock_keys;
mod tail_options;

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::tail_options::TailOptions;
use crate::commands::control_client::ControlToken;
use crate::commands::hub_client::hub_address;
use crate::commands::hub_client::hub_connection::{Capture, HubConnection};
use crate::commands::terminal_mode::TerminalMode;

/// Lines on their way from the hubs' connections to the output.
const LINES: usize = 64;

/// How long a group may be silent before that is said.
const SILENCE: Duration = Duration::from_secs(5);

/// How long closing the connections may take.
const CLOSING: Duration = Duration::from_secs(2);

/// Subscribes and prints until a connection ends, or enough records came.
pub fn tail(options: TailOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(options))
}

async fn run(options: TailOptions) -> anyhow::Result<()> {
    let capture = Capture::create(options.capture.as_deref())?;
    let (lines, received) = mpsc::channel(LINES);
    let (mut connections, mut silent) = (JoinSet::new(), HashSet::new());
    let request = options.request()?;
    for address in hub_address::find(&request).await? {
        silent.extend(address.print.iter().cloned());
        let connection = HubConnection::connect(address, &request, capture.clone()).await?;
        connections.spawn(connection.forward(lines.clone()));
    }
    drop(lines);
    let printed = tokio::select! {
        printed = print(received, silent, options.count) => printed,
        signal = take_keys(&request.url, &options.token) => {
            // As a shell counts the end by a signal. The terminal is as it was.
            std::process::exit(128 + signal);
        }
    };
    // Without a receiver the connections close and end. A service that takes no close frame holds up nobody.
    let _ = tokio::time::timeout(CLOSING, connections.join_all()).await;
    printed
}

/// Lets keys steer the server's clock, if both are there; returns the signal that ends the process.
async fn take_keys(url: &str, token: &ControlToken) -> i32 {
    if !io::stdin().is_terminal() || url.starts_with("ws") {
        return std::future::pending().await;
    }
    let Some(client) = clock_keys::clock_of(url, token).await else { return std::future::pending().await };
    let Some(terminal) = TerminalMode::for_keys() else { return std::future::pending().await };
    let keys = async {
        clock_keys::steer(&client).await;
        std::future::pending().await
    };
    tokio::select! {
        // Without its signals the terminal would not be put back, so keys are not taken either.
        signal = terminal.until_ended() => match signal {
            Ok(signal) => signal,
            Err(_) => {
                drop(terminal);
                std::future::pending().await
            }
        },
        never = keys => never,
    }
}

/// Prints what comes. The end of any connection ends it.
async fn print(
    mut received: mpsc::Receiver<anyhow::Result<Value>>,
    mut silent: HashSet<String>,
    count: Option<u64>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + SILENCE;
    let mut printed = 0;
    while count.is_none_or(|count| printed < count) {
        // `recv` is cancel-safe: a line that was there stays there.
        let line = tokio::select! {
            line = received.recv() => line,
            () = tokio::time::sleep_until(deadline), if !silent.is_empty() => {
                say_silent(&std::mem::take(&mut silent));
                continue;
            }
        };
        let Some(line) = line else { bail!("the connections ended") };
        let line = line?;
        silent.remove(line["group"].as_str().unwrap_or_default());
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            // `tail | head` ends quietly.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot print")?,
        }
        printed += 1;
    }
    Ok(())
}

/// A server lets clients join groups without data, and then nothing comes.
fn say_silent(silent: &HashSet<String>) {
    const SHOWN: usize = 10;
    let mut names: Vec<&str> = silent.iter().map(String::as_str).collect();
    names.sort_unstable();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    names.truncate(SHOWN);
    let (names, seconds) = (names.join(", "), SILENCE.as_secs());
    eprintln!("no record in {seconds} s in {names}{more}: the server has no data for it, or the day has ended");
}
