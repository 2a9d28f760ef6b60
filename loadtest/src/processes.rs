//! One run in several processes, because one process can hold only so many sockets.
//!
//! The parent starts copies of itself with their shares, adds their progress lines up while they run,
//! and their reports at the end.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::{RunArgs, shown};
use crate::limits;
use crate::live::{Live, Progress};
use crate::membership::Wanted;
use crate::preflight::{self, PreflightError};
use crate::report::facts::Facts;
use crate::report::{Report, ReportError};
use crate::sequence::publisher::{Publisher, Publishing};

/// What a child may take beyond everything its arguments allow it.
const GRACE: Duration = Duration::from_secs(90);

/// Why several processes did not make one report.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A child could not be started or watched.
    #[error("process {number}: {source}")]
    Io {
        /// Which.
        number: u32,
        /// What was said.
        source: std::io::Error,
    },
    /// A child ended without a report.
    #[error("process {number} ended without a report ({status}): see its message above")]
    NoReport {
        /// Which.
        number: u32,
        /// How it ended.
        status: String,
    },
    /// A child did not end in time and was killed.
    #[error("process {number} did not end in time")]
    Stuck {
        /// Which.
        number: u32,
    },
    /// The publisher cannot be set up.
    #[error("{0}")]
    Preflight(#[from] PreflightError),
    /// A child's report cannot be read.
    #[error("{0}")]
    Report(#[from] ReportError),
}

/// How many processes the run needs.
pub fn needed(args: &RunArgs) -> u32 {
    let by_files = connections(args).div_ceil(limits::connections_per_process().max(1)) as u32;
    args.processes.unwrap_or(by_files).clamp(1, args.connections.max(1))
}

/// The connections of all clients, at most.
fn connections(args: &RunArgs) -> u64 {
    // A list that cannot be read is refused in the preflight.
    let hubs = Wanted::typed(&args.groups).map_or(1, |wanted| wanted.hub_count());
    u64::from(args.connections) * u64::from(hubs)
}

/// A process of the run.
struct Part {
    number: u32,
    child: Child,
    report: PathBuf,
}

impl Drop for Part {
    fn drop(&mut self) {
        // Has no effect on a child that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.report);
    }
}

/// Runs `count` processes and returns their facts as one.
pub fn run(args: &RunArgs, count: u32) -> Result<Facts, ProcessError> {
    let mut live = Live::new(args.output.quiet, false);
    live.note(&format!("{count} processes share {} clients", args.connections));
    let publishing = match args.streams.publish_rate {
        0 => None,
        _ => Some(preflight::publishing(args, &preflight::trust(args).map_err(PreflightError::from)?)?),
    };
    let (sink, lines) = channel();
    let mut parts = Vec::new();
    let mut first_client = args.first_client;
    for number in 0..count {
        let fail = |source| ProcessError::Io { number, source };
        let share = share(args.connections, count, number);
        let report = std::env::temp_dir().join(format!("swarm-{}-{number}.json", std::process::id()));
        let ramp = share_of_ramp(args.ramp, count, number);
        let mut child = spawn(share, first_client, ramp, &report, publishing.is_some()).map_err(fail)?;
        first_client += share;
        if let Some(output) = child.stdout.take() {
            let sink = sink.clone();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if let Ok(progress) = serde_json::from_str::<Progress>(&line)
                        && sink.send((number, progress)).is_err()
                    {
                        return;
                    }
                }
            });
        }
        parts.push(Part { number, child, report });
    }
    drop(sink);
    let publisher = watch(&lines, count, &mut live, deadline(args), publishing);
    live.clear();
    let mut sum: Option<Facts> = None;
    for part in &mut parts {
        let facts = conclude(part)?;
        match &mut sum {
            None => sum = Some(facts),
            Some(sum) => sum.merge(facts),
        }
    }
    let mut facts = sum.ok_or(ProcessError::Stuck { number: 0 })?;
    facts.setup.command = shown(std::env::args());
    if let Some(publisher) = publisher {
        let publisher = publisher.map_err(|source| ProcessError::Io { number: 0, source })?;
        facts.aborted = facts.aborted.or(publisher.stop().error());
    }
    Ok(facts)
}

/// Starts one process of the run. With a publisher in the parent, children follow its numbers.
fn spawn(share: u32, first_client: u32, ramp: u32, report: &Path, parent_publishes: bool) -> std::io::Result<Child> {
    let mut command = command(share, first_client, ramp, report)?;
    if parent_publishes {
        command.args(["--publish-rate", "0", "--external-producer"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
}

/// Adds the children's lines up until all have closed their output, or the deadline. Publishing begins
/// when all are up, and goes on while any is there: its numbers tell each that its end is covered.
fn watch(
    lines: &Receiver<(u32, Progress)>,
    count: u32,
    live: &mut Live,
    deadline: Instant,
    mut publishing: Option<Publishing>,
) -> Option<std::io::Result<Publisher>> {
    let mut latest = vec![Progress::default(); count as usize];
    let mut publisher = None;
    while Instant::now() < deadline {
        match lines.recv_timeout(Duration::from_millis(250)) {
            Ok((number, progress)) => latest[number as usize] = progress,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if latest.iter().all(|part| !matches!(part.stage.as_str(), "" | "ramp")) {
            publisher = publishing.take().map(|publishing| Publisher::start(publishing, Vec::new())).or(publisher);
        }
        let mut sum = Progress::default();
        for part in &latest {
            sum.add(part);
        }
        live.show(&sum);
    }
    publisher
}

/// A child has closed its output, so it is about to end.
fn conclude(part: &mut Part) -> Result<Facts, ProcessError> {
    let number = part.number;
    let until = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match part.child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(20)),
            Ok(None) => return Err(ProcessError::Stuck { number }),
            Err(source) => return Err(ProcessError::Io { number, source }),
        }
    };
    if !part.report.exists() {
        return Err(ProcessError::NoReport { number, status: status.to_string() });
    }
    Ok(Report::read(&part.report)?.facts)
}

/// This program again with the same arguments; the later ones count.
fn command(connections: u32, first_client: u32, ramp: u32, report: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let own: Vec<OsString> = std::env::args_os().skip(1).collect();
    command.args(own);
    command.args(["--processes", "1", "--child"]);
    command.args(["--connections", &connections.to_string()]);
    command.args(["--first-client", &first_client.to_string()]);
    command.args(["--ramp", &ramp.to_string()]);
    command.arg("--json").arg(report);
    Ok(command)
}

fn share(total: u32, count: u32, number: u32) -> u32 {
    total / count + u32::from(number < total % count)
}

fn share_of_ramp(ramp: u32, count: u32, number: u32) -> u32 {
    share(ramp, count, number).max(1)
}

/// Everything the arguments allow a child, and then some.
fn deadline(args: &RunArgs) -> Instant {
    let ramp = Duration::from_secs_f64(3.0 * connections(args) as f64 / f64::from(args.ramp.max(1)));
    Instant::now() + ramp + 2 * args.setup_timeout + args.duration + args.drain + GRACE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (total, count) in [(10, 3), (7, 7), (100, 1)] {
            assert_eq!((0..count).map(|number| share(total, count, number)).sum::<u32>(), total);
        }
        assert_eq!(share_of_ramp(1, 4, 3), 1);
    }
}
