//! `flowcast replay`: steers the replay of a running server, over its HTTP resource (`docs/replay.md`).
//!
//! What is asked for goes to the server as it was typed, and the server says what is wrong with it.

mod clock_client;
mod clock_lines;
mod replay_command;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

pub use self::clock_client::ClockClient;
pub use self::clock_lines::clock_line;
use self::clock_lines::{clock_text, date_line, job_line, resolved_line};
pub use self::replay_command::ReplayCommand;
use self::replay_command::{ReplayAction, until};
use crate::replay::wanted_dates::WantedDates;

/// How often `--watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// How often a load is looked at.
const LOAD: Duration = Duration::from_millis(100);

/// Does what the command line asks for, and prints what became of it.
pub fn replay(command: &ReplayCommand) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(command))
}

async fn run(command: &ReplayCommand) -> anyhow::Result<()> {
    let client = ClockClient::new(&command.url, command.session.as_deref(), command.token.clone())?;
    let change = match &command.action {
        None if command.watch => return watch(&client, command.json).await,
        None => return print(&client.clock().await?, command.json),
        Some(ReplayAction::Load { dates }) => return load(&client, dates, command.json).await,
        Some(ReplayAction::Dates) => return dates(&client, command.json).await,
        Some(ReplayAction::Pause) => json!({ "state": "paused" }),
        Some(ReplayAction::Play) => json!({ "state": "playing" }),
        Some(ReplayAction::Stop) => json!({ "state": "stopped" }),
        Some(ReplayAction::Speed { speed }) => json!({ "speed": as_number(speed) }),
        Some(ReplayAction::Seek { moment }) => json!({ "seek": moment }),
        Some(ReplayAction::Step { ticks }) => json!({ "step": ticks }),
        Some(ReplayAction::Until { moment, speed }) => until(moment, speed.as_deref().map(as_number)),
    };
    print(&client.change(&change).await?, command.json)?;
    if command.watch { watch(&client, command.json).await } else { Ok(()) }
}

/// A speed as JSON: the server refuses what is no number by what was typed.
fn as_number(text: &str) -> Value {
    let number = text.parse().ok().and_then(serde_json::Number::from_f64);
    number.map_or_else(|| text.into(), Value::from)
}

async fn watch(client: &ClockClient, is_json: bool) -> anyhow::Result<()> {
    loop {
        let clock = client.clock().await?;
        say(&if is_json { clock.to_string() } else { clock_line(&clock) })?;
        tokio::time::sleep(WATCH).await;
    }
}

async fn load(client: &ClockClient, dates: &WantedDates, is_json: bool) -> anyhow::Result<()> {
    let body = match dates {
        WantedDates::Range { from, to } => json!({ "from": from.to_string(), "to": to.to_string() }),
        WantedDates::List(dates) => json!({ "dates": dates.iter().map(ToString::to_string).collect::<Vec<_>>() }),
    };
    let mut job = client.load(&body).await?;
    let mut told = String::new();
    loop {
        let line = if is_json { job.to_string() } else { job_line(&job) };
        if line != told {
            say(&line)?;
            told = line;
        }
        match job["state"].as_str() {
            Some("loading") => {}
            Some("loaded") => return Ok(()),
            _ => bail!("the dates are not loaded: {}", job["error"].as_str().unwrap_or("the server does not say why")),
        }
        tokio::time::sleep(LOAD).await;
        let id = job["job"].as_str().context("expected a job from the server")?.to_owned();
        job = client.job(&id).await?;
    }
}

async fn dates(client: &ClockClient, is_json: bool) -> anyhow::Result<()> {
    let answer = client.dates().await?;
    if is_json {
        return say(&answer.to_string());
    }
    answer["dates"].as_array().into_iter().flatten().try_for_each(|date| say(&date_line(date)))
}

fn print(clock: &Value, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        return say(&clock.to_string());
    }
    say(&clock_text(clock))?;
    resolved_line(clock).map_or(Ok(()), |line| say(&line))
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // `replay --watch | head` ends quietly.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("cannot print"),
    }
}
