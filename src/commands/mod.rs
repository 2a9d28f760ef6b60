//! The commands of `flowcast`: parses the command line, and does what it asks for.

mod command_line;
mod control_client;
pub mod faults;
pub mod feeds;
pub mod generate;
mod hub_client;
pub mod import;
pub mod inspect;
mod line_hints;
mod logging;
pub mod publish;
pub mod record;
pub mod replay;
pub mod serve;
pub mod settings;
pub mod shutdown;
pub mod tail;
mod terminal_mode;
pub mod token;
pub mod top;
mod unfinished_file;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::faults::FaultsCommand;
use self::feeds::FeedsOptions;
use self::generate::GenerateOptions;
use self::import::ImportOptions;
use self::inspect::InspectOptions;
use self::logging::LogOptions;
use self::publish::PublishOptions;
use self::record::RecordOptions;
use self::replay::ReplayCommand;
use self::settings::SettingsOptions;
use self::tail::TailOptions;
use self::token::TokenOptions;
use self::top::TopOptions;
use crate::config::{self, ServeOptions};

/// Broadcasts recorded market data to thousands of WebSocket subscribers.
///
/// Without a command, `serve` runs; `flowcast serve --help` lists its options.
#[derive(Debug, Parser)]
#[command(name = "flowcast", version)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Serve a recorded day (the default command)
    ///
    /// Every setting is a flag, an environment variable, or a key of the same name in the file given
    /// with --config, in this order of precedence.
    Serve(Box<ServeArgs>),
    /// Print what a recorded day contains
    Inspect(InspectOptions),
    /// Write a synthetic trading day
    Generate(GenerateOptions),
    /// Turn GexBot's end-of-day archives into recorded days
    Import(ImportOptions),
    /// Subscribe to a hub and print its records
    Tail(TailOptions),
    /// Record a hub, the streams of a /ws, broker feeds or Kafka topics into the files of a day
    Record(Box<RecordOptions>),
    /// Publish a recorded day, or the lines of a file, to a Kafka topic
    Publish(PublishOptions),
    /// Steer the replay of a running server: pause, play, seek, step, speed, dates
    Replay(ReplayCommand),
    /// Show what goes on in a running server: the live page in a terminal
    Top(TopOptions),
    /// Order faults from a running server: resets, delays, lost frames and more, as a plan says
    Faults(FaultsCommand),
    /// Make a token for /ws and POST /api/publish
    Token(TokenOptions),
    /// Try the broker feeds of a settings file, or print their records
    Feeds(FeedsOptions),
    /// Print every setting of `serve`, for scripts
    #[command(hide = true)]
    Settings(SettingsOptions),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// TOML file of settings; its keys are named like the flags
    #[arg(long, env = "FLOWCAST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: ServeOptions,
    #[command(flatten, next_help_heading = "Logging")]
    log: LogOptions,
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

/// An error with its causes. Most of ours name the cause themselves; it is not repeated then.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        _ if text.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}

fn try_run() -> anyhow::Result<()> {
    let line = command_line::with_default_command(std::env::args_os().collect());
    match parse(&Cli::command(), &line) {
        CliCommand::Serve(args) => serve(&line, args.config.as_deref()),
        CliCommand::Inspect(options) => Ok(inspect::inspect(&options)?),
        CliCommand::Generate(options) => print(generate::generate(&options, &*shutdown::raised_by_signal()?)?),
        CliCommand::Import(options) => print(import::import(&options)?),
        CliCommand::Tail(options) => tail::tail(options),
        CliCommand::Record(options) => record::record(&options),
        CliCommand::Publish(options) => {
            let summary = publish::publish(&options, &*shutdown::raised_by_signal()?)?;
            print(&summary)?;
            if summary.is_complete() { Ok(()) } else { bail!("not every message was delivered") }
        }
        CliCommand::Replay(command) => replay::replay(&command),
        CliCommand::Top(options) => top::top(&options),
        CliCommand::Faults(command) => faults::faults(&command),
        CliCommand::Token(options) => print(token::token(&options).context("cannot sign a token")?),
        CliCommand::Feeds(options) => Ok(feeds::run(&options)?),
        CliCommand::Settings(_) => print(settings::as_json(serve_command(&Cli::command()))),
    }
}

fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}

fn parse(command: &Command, line: &[OsString]) -> CliCommand {
    let matches = command_line::matches(command, line);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| command_line::refuse(&error, command));
    cli.command
}

fn serve_command(command: &Command) -> &Command {
    command.find_subcommand("serve").expect("declared above")
}

/// `serve` takes its settings from a file too: the line is parsed again with the file's values as
/// defaults.
fn serve(line: &[OsString], path: Option<&Path>) -> anyhow::Result<()> {
    let declared = Cli::command();
    let mut file = path.map(config::read).transpose()?;
    let mut command = declared.clone();
    if let Some(file) = &file {
        let serve = config::with_file_defaults(serve_command(&declared).clone(), file)?;
        command = command.mut_subcommand("serve", |_| serve);
    }
    let CliCommand::Serve(mut args) = parse(&command, line) else { unreachable!("the same line") };
    if let Some(file) = &mut file {
        args.options.broker.feeds = std::mem::take(&mut file.feeds);
    }
    config::check(&args.options).map_err(anyhow::Error::msg)?;

    let _log = logging::start(&args.log);
    for name in settings::unknown_environment(serve_command(&declared)) {
        tracing::warn!(name, "no setting reads this environment variable");
    }
    let matches = command_line::matches(&command, line);
    let (_, matches) = matches.subcommand().expect("a subcommand is required");
    let settings = settings::effective(serve_command(&declared), matches, file.as_ref());
    settings::log(&settings);
    serve::serve(args.options, settings)
}
