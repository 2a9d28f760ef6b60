//! The command line as it was typed: its default command, and what is said when it is refused.

use std::error::Error as _;
use std::ffi::OsString;
use std::num::ParseIntError;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};

/// `flowcast --port 1` means `flowcast serve --port 1`.
pub fn with_default_command(mut line: Vec<OsString>) -> Vec<OsString> {
    const OWN: [&str; 4] = ["-h", "--help", "-V", "--version"];
    let first = line.get(1).map(|arg| arg.to_string_lossy().into_owned());
    if first.is_none_or(|first| first.starts_with('-') && !OWN.contains(&first.as_str())) {
        line.insert(1, "serve".into());
    }
    line
}

/// Parses the line. Ends the process if it is refused or asks for help.
pub fn matches(command: &Command, line: &[OsString]) -> ArgMatches {
    command.clone().try_get_matches_from(line).unwrap_or_else(|error| refuse(&error, command))
}

/// Prints why the line is refused, with the other places the bad value may have come from, and ends.
pub fn refuse(error: &clap::Error, command: &Command) -> ! {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) if error.kind() != ErrorKind::UnknownArgument => arg.split(' ').next(),
        _ => None,
    };
    let args = || command.get_subcommands().flat_map(Command::get_arguments);
    let variable = args()
        .find(|arg| arg.get_long().is_some_and(|long| flag == Some(&format!("--{long}"))))
        .and_then(clap::Arg::get_env);
    let _ = error.print();
    let is_no_number = error.source().and_then(|reason| reason.downcast_ref::<ParseIntError>()).is_some();
    if let Some(flag) = flag.filter(|_| is_no_number) {
        eprintln!("\nA whole number{} is accepted.", accepted_range(command, flag).unwrap_or_default());
    }
    if let Some(variable) = variable {
        let variable = variable.display();
        eprintln!("\nThe value may also come from the environment variable {variable} or the --config file.");
    }
    std::process::exit(error.exit_code());
}

/// The range of a number, as ` in 1..=10`.
///
/// clap tells the range only when a number is outside it, not when the text is no number at all. So it
/// is asked about a number that is outside every range.
fn accepted_range(command: &Command, flag: &str) -> Option<String> {
    const FAR_OUT: &str = "9223372036854775807";
    let line = ["flowcast".to_owned(), "serve".to_owned(), format!("{flag}={FAR_OUT}")];
    let error = command.clone().try_get_matches_from(line).err()?;
    let reason = error.source()?.to_string();
    reason.strip_prefix(FAR_OUT)?.strip_prefix(" is not").map(str::to_owned)
}
