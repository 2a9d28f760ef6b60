//! The line that shows how the run is going: on a terminal in place, elsewhere one every few seconds,
//! and as JSON towards a parent process.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::clock::{SECOND, now_ns};
use crate::report::table::{thousands, time};

/// Between two lines where there is no terminal.
const LOG_INTERVAL_NS: u64 = 5 * SECOND;

/// What the line shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What the run is doing.
    pub stage: String,
    /// Connections that are up.
    pub up: u64,
    /// Connections in all.
    pub connections: u64,
    /// Data frames in the last second.
    pub frames_per_s: u64,
    /// 99 % of the last second's latencies are at most this.
    pub p99_us: f64,
    /// The receive loop's own delay in the last second.
    pub loop_p99_us: f64,
    /// Faults so far.
    pub faults: u64,
    /// Connections failed or dropped so far.
    pub failures: u64,
}

impl Progress {
    /// Adds another process.
    pub fn add(&mut self, other: &Self) {
        self.stage.clone_from(&other.stage);
        self.up += other.up;
        self.connections += other.connections;
        self.frames_per_s += other.frames_per_s;
        self.p99_us = self.p99_us.max(other.p99_us);
        self.loop_p99_us = self.loop_p99_us.max(other.loop_p99_us);
        self.faults += other.faults;
        self.failures += other.failures;
    }

    fn line(&self) -> String {
        format!(
            "{:<8} {}/{} connections, {} frames/s, p99 {}, own delay {}, {} faults, {} failed or dropped",
            self.stage,
            self.up,
            self.connections,
            thousands(self.frames_per_s as f64),
            time(self.p99_us),
            time(self.loop_p99_us),
            self.faults,
            self.failures
        )
    }
}

/// See the module's documentation.
pub struct Live {
    output: Output,
}

enum Output {
    Nothing,
    Terminal(ProgressBar),
    Log { next_ns: u64 },
    Parent { last: Progress },
}

impl Live {
    /// The line that fits the surroundings.
    pub fn new(is_quiet: bool, is_child: bool) -> Self {
        let output = if is_child {
            Output::Parent { last: Progress::default() }
        } else if is_quiet {
            Output::Nothing
        } else if stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            Output::Terminal(bar)
        } else {
            Output::Log { next_ns: 0 }
        };
        Self { output }
    }

    /// Shows how things are.
    pub fn show(&mut self, progress: &Progress) {
        match &mut self.output {
            Output::Nothing => {}
            Output::Terminal(bar) => bar.set_message(progress.line()),
            Output::Log { next_ns } => {
                if now_ns() >= *next_ns {
                    *next_ns = now_ns() + LOG_INTERVAL_NS;
                    // Nobody reads it: nothing is lost.
                    let _ = writeln!(stderr(), "{}", progress.line());
                }
            }
            Output::Parent { last } => {
                if last != progress {
                    last.clone_from(progress);
                    if let Ok(json) = serde_json::to_string(progress) {
                        // A parent that is gone will not read the report either.
                        let _ = writeln!(stdout(), "{json}");
                    }
                }
            }
        }
    }

    /// Says something for good, above the line.
    pub fn note(&self, note: &str) {
        match &self.output {
            Output::Terminal(bar) => bar.println(note),
            Output::Log { .. } => {
                let _ = writeln!(stderr(), "{note}");
            }
            Output::Nothing | Output::Parent { .. } => {}
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if let Output::Terminal(bar) = &self.output {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_add_up_to_one_line() {
        let part = Progress { up: 2, connections: 3, frames_per_s: 1_000, p99_us: 500.0, ..Progress::default() };
        let mut sum = Progress::default();
        sum.add(&part);
        sum.add(&Progress { p99_us: 800.0, stage: "measure".to_owned(), ..part });
        assert!(sum.line().starts_with("measure  4/6 connections, 2,000 frames/s, p99 800 µs"), "{}", sum.line());
    }
}
