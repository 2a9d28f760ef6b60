//! The command line: what can be asked, and doing it.

pub mod feeds;
pub mod generate;
pub mod inspect;
pub mod publish;
pub mod serve;
pub mod shutdown;
pub mod tail;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use self::feeds::FeedsOptions;
use self::generate::GenerateOptions;
use self::inspect::InspectOptions;
use self::publish::PublishOptions;
use self::tail::TailOptions;
use crate::config::{self, ServeOptions};
use crate::server::http::jwt::{self, TokenOptions};

/// Broadcasts recorded market data to thousands of WebSocket subscribers.
///
/// Without a command, `serve` runs; its options are listed by `flowcast serve --help`.
#[derive(Debug, Parser)]
#[command(name = "flowcast", version)]
struct Cli {
    #[command(subcommand)]
    command: Asked,
}

#[derive(Debug, Subcommand)]
enum Asked {
    /// Serve a recorded day (the default command)
    ///
    /// Every setting is a flag, an environment variable, or a key of the same name in the file given
    /// with --config, in this order of precedence.
    Serve(Box<ServeArgs>),
    /// Print what a dataset holds
    Inspect(InspectOptions),
    /// Write a synthetic trading day
    Generate(GenerateOptions),
    /// Subscribe to a hub and print its records
    Tail(TailOptions),
    /// Replay a recorded day, or a file, into a Kafka topic
    Publish(PublishOptions),
    /// Mint a token for /ws and POST /api/publish
    Token(TokenOptions),
    /// Try the broker feeds of a settings file, or print their records
    Feeds(FeedsOptions),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// TOML file of settings; keys are the flags' names
    #[arg(long, env = "FLOWCAST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: ServeOptions,
    #[command(flatten, next_help_heading = "Logging")]
    log: LogOptions,
}

#[derive(Debug, Clone, Args)]
struct LogOptions {
    /// What is logged: a level (error, warn, info, debug, trace) or tracing directives
    #[arg(long, env = "FLOWCAST_LOG_LEVEL", default_value = "info", value_name = "LEVEL", value_parser = log_filter)]
    log_level: String,
    /// How log lines look
    #[arg(long, env = "FLOWCAST_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// What is logged, whatever was asked for without the one line that holds secrets: at `trace`
/// tungstenite writes the requests of its clients, whose URLs hold the brokers' tokens.
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

/// Parses the command line and does what it asks for.
pub fn run() -> ExitCode {
    match try_run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed terminal must not turn an error into a panic.
            let _ = writeln!(std::io::stderr(), "flowcast: {}", in_full(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes. Most of ours name the cause themselves; it is not said twice.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

fn try_run() -> anyhow::Result<()> {
    let line = with_default_command(std::env::args_os().collect());
    let cli = parse(&Cli::command(), &line);
    match cli.command {
        Asked::Serve(args) => serve_settings(&line, args.config.as_deref()),
        Asked::Inspect(options) => Ok(inspect::inspect(&options)?),
        Asked::Generate(options) => {
            let summary = generate::generate(&options)?;
            writeln!(std::io::stdout(), "{summary}").context("cannot print")
        }
        Asked::Tail(options) => tail::tail(options),
        Asked::Publish(options) => {
            let summary = publish::publish(&options, &*shutdown::raised_by_signal()?)?;
            writeln!(std::io::stdout(), "{summary}").context("cannot print")?;
            if summary.is_complete() { Ok(()) } else { bail!("not every message was delivered") }
        }
        Asked::Token(options) => {
            let token = jwt::mint(&options).context("cannot sign a token")?;
            writeln!(std::io::stdout(), "{token}").context("cannot print")
        }
        Asked::Feeds(options) => Ok(feeds::run(&options)?),
    }
}

/// `flowcast --port 1` means `flowcast serve --port 1`.
fn with_default_command(mut line: Vec<OsString>) -> Vec<OsString> {
    const OWN: [&str; 4] = ["-h", "--help", "-V", "--version"];
    let first = line.get(1).map(|arg| arg.to_string_lossy().into_owned());
    if first.is_none_or(|first| first.starts_with('-') && !OWN.contains(&first.as_str())) {
        line.insert(1, "serve".into());
    }
    line
}

/// Serving takes its settings from a file too: the line is parsed again with the file's values as
/// defaults.
fn serve_settings(line: &[OsString], file: Option<&Path>) -> anyhow::Result<()> {
    let mut command = Cli::command();
    let mut feeds = Vec::new();
    if let Some(path) = file {
        let mut settings = config::read(path)?;
        feeds = std::mem::take(&mut settings.feeds);
        let serve = command.find_subcommand("serve").expect("declared above").clone();
        let serve = config::with_file_defaults(serve, &settings)?;
        command = command.mut_subcommand("serve", |_| serve);
    }
    let matches = command.clone().try_get_matches_from(line).unwrap_or_else(|error| refuse(&error, &command));
    let Cli { command: Asked::Serve(mut args) } = parse(&command, line) else { unreachable!("the same line") };
    args.options.broker.feeds = feeds;
    config::check(&args.options).map_err(anyhow::Error::msg)?;
    let _log = start_log(&args.log);

    let serve_command = command.find_subcommand("serve").expect("declared above");
    let (_, serve_matches) = matches.subcommand().expect("a subcommand is required");
    for name in config::unknown_environment(serve_command) {
        tracing::warn!(name, "no setting reads this environment variable");
    }
    let settings = config::effective(serve_command, serve_matches, file).join(", ");
    tracing::info!(settings, "effective settings");
    serve::serve(args.options)
}

fn parse(command: &Command, line: &[OsString]) -> Cli {
    let matches = command.clone().try_get_matches_from(line).unwrap_or_else(|error| refuse(&error, command));
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| refuse(&error, command))
}

/// Prints why the line is refused, with the other places the bad value may have come from, and ends.
fn refuse(error: &clap::Error, command: &Command) -> ! {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) if error.kind() != ErrorKind::UnknownArgument => arg.split(' ').next(),
        _ => None,
    };
    let args = || command.get_subcommands().flat_map(Command::get_arguments);
    let variable = args()
        .find(|arg| arg.get_long().is_some_and(|long| flag == Some(&format!("--{long}"))))
        .and_then(clap::Arg::get_env);
    let _ = error.print();
    let reason = std::error::Error::source(error);
    if reason.and_then(|reason| reason.downcast_ref::<ParseIntError>()).is_some()
        && let Some(flag) = flag
    {
        eprintln!("\nA whole number{} is accepted.", accepted_range(command, flag).unwrap_or_default());
    }
    if let Some(variable) = variable {
        eprintln!(
            "\nThe value may also come from the environment variable {} or the --config file.",
            variable.display()
        );
    }
    std::process::exit(error.exit_code());
}

/// The range of a number, as ` in 1..=10`.
///
/// Of a text that is no number clap says only that; of a number out of range it tells the range. So
/// it is asked about one.
fn accepted_range(command: &Command, flag: &str) -> Option<String> {
    const FAR_OUT: &str = "9223372036854775807";
    let line = ["flowcast".to_owned(), "serve".to_owned(), format!("{flag}={FAR_OUT}")];
    let error = command.clone().try_get_matches_from(line).err()?;
    let reason = std::error::Error::source(&error)?.to_string();
    reason.strip_prefix(FAR_OUT)?.strip_prefix(" is not").map(str::to_owned)
}

/// Logs from now on, until the guard is dropped.
///
/// A thread of its own writes the lines: a terminal or pipe that does not keep up loses lines (at
/// most 128,000 wait), and never stops a shard.
fn start_log(options: &LogOptions) -> WorkerGuard {
    let filter = filter(&options.log_level).expect("checked when it was parsed");
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match options.log_format {
        LogFormat::Text => log.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    guard
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
