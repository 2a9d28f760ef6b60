//! `--log-level` and `--log-format`, and the log as they say.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::health::log_limit;

/// The level of what is not mentioned.
const DEFAULT: &str = "info";

/// What is logged, and how it looks. The log goes to standard error.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// What is logged: a level (error, warn, info, debug, trace), or levels of targets such as
    /// info,librdkafka=debug
    #[arg(long, env = "FLOWCAST_LOG_LEVEL", default_value = DEFAULT, value_name = "LEVEL", value_parser = log_filter)]
    log_level: String,
    /// Format of the log lines
    #[arg(long, env = "FLOWCAST_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Lines a second that the log may have about single clients, such as connection opened; further ones are left out
    /// and counted
    #[arg(long, env = "FLOWCAST_CLIENT_LOG_LINES", default_value_t = 50, value_name = "LINES")]
    client_log_lines: u32,
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
    log_limit::limit_client_lines(options.client_log_lines);
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match options.log_format {
        LogFormat::Text => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines).with(filter).init();
    guard
}

/// The directives as a filter, without the one line that holds secrets: at `trace` tungstenite writes
/// the requests of its clients, and their URLs hold the brokers' tokens.
///
/// Directives of spans and fields are refused: nothing here opens a span, and one of a field would
/// outrank the silence.
fn filter(text: &str) -> Result<Targets, String> {
    if text.contains('[') {
        return Err("spans and fields, in [], cannot be chosen".to_owned());
    }
    // An empty directive would be the level `error`, for all targets.
    let mut directives: Vec<&str> = text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    let levels = directives.iter().filter(|directive| !directive.contains('='));
    // To the library a word alone is a target, of which all is logged and of others nothing.
    if let Some(unknown) = levels.clone().find(|level| level.parse::<LevelFilter>().is_err()) {
        return Err(format!("no such level: {unknown:?}"));
    }
    if directives.is_empty() {
        return Err("no level".to_owned());
    }
    // Levels of some targets leave the others as they are by default, and do not silence them.
    if levels.count() == 0 {
        directives.push(DEFAULT);
    }
    let targets: Targets = directives.join(",").parse().map_err(|error: ParseError| error.to_string())?;
    Ok(targets.with_target("tungstenite::handshake::client", LevelFilter::INFO))
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
        assert!(filter("tungstenite::handshake::client[{message}]=trace").is_err());
    }

    #[test]
    fn a_comma_too_many_changes_no_level() {
        for asked in ["debug,", ",debug", "librdkafka=debug,,debug", " debug , librdkafka=info"] {
            assert_eq!(filter(asked).unwrap().default_level(), Some(LevelFilter::DEBUG), "{asked}");
        }
    }

    #[test]
    fn a_level_that_does_not_exist_silences_nothing() {
        for asked in ["", " ", ",", "warning", "verbose", "info,librdkafka", "librdkafka=loud"] {
            assert!(filter(asked).is_err(), "{asked:?}");
        }
        assert_eq!(filter("librdkafka=debug").unwrap().default_level(), Some(LevelFilter::INFO));
        assert_eq!(filter("off").unwrap().default_level(), Some(LevelFilter::OFF));
    }
}
