//! `--log-level` and `--log-format`, and the log as they say.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// What is logged, and how it looks. The log goes to standard error.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// What is logged: a level (error, warn, info, debug, trace) or tracing directives
    #[arg(long, env = "FLOWCAST_LOG_LEVEL", default_value = "info", value_name = "LEVEL", value_parser = log_filter)]
    log_level: String,
    /// Format of the log lines
    #[arg(long, env = "FLOWCAST_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Logs from now on, until the guard is dropped.
///
/// A thread of its own writes the lines: a terminal or pipe that does not keep up loses lines (at
/// most 128,000 wait), and never stops a shard.
pub fn start(options: &LogOptions) -> WorkerGuard {
    let filter = filter(&options.log_level).expect("checked when it was parsed");
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match options.log_format {
        LogFormat::Text => log.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    guard
}

/// The directives as a filter, without the one line that holds secrets: at `trace` tungstenite writes
/// the requests of its clients, and their URLs hold the brokers' tokens.
fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let silenced = "tungstenite::handshake::client=info".parse().expect("a directive");
    Ok(EnvFilter::try_new(text)?.add_directive(silenced))
}

fn log_filter(text: &str) -> Result<String, String> {
    match filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("expected a level such as info, or directives such as info,flowcast=debug: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_log_level_shows_the_requests_that_hold_tokens() {
        for asked in ["trace", "tungstenite=trace", "tungstenite::handshake::client=trace"] {
            let directives = filter(asked).unwrap().to_string();
            assert!(directives.contains("tungstenite::handshake::client=info"), "{directives}");
            assert!(!directives.contains("client=trace"), "{directives}");
        }
    }
}
