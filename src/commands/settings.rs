//! The settings of `serve`: which there are, and which values hold.

use std::any::TypeId;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use serde::Serialize;

use crate::config::{self, SettingsFile};
use crate::server::http::live::live_options::ShownSetting;

/// How the settings are printed.
#[derive(Debug, Clone, clap::Args)]
pub struct SettingsOptions {
    /// As a JSON array, in the order of `flowcast serve --help`
    #[arg(long, required = true)]
    pub json: bool,
}

/// One setting, as `settings --json` prints it.
#[derive(Debug, Serialize)]
struct Setting {
    /// The heading in `--help`.
    group: String,
    /// Such as `--data-dir`.
    flag: String,
    /// The environment variable.
    env: String,
    /// The key in a settings file; `null` for `--config` itself.
    key: Option<String>,
    /// `boolean`, `integer`, `number`, `duration`, `path`, `choice` or `string`.
    r#type: &'static str,
    /// Whether it is a comma-separated list of values of this type.
    list: bool,
    /// What a `choice` may be; empty for other types.
    choices: Vec<String>,
    /// As it would be typed; `null` without one.
    default: Option<String>,
    /// What stands for the value in `--help`.
    value_name: Option<String>,
    help: String,
    /// Whether its value is never shown.
    secret: bool,
}

/// Every setting of the command as a JSON array.
pub fn as_json(serve: &Command) -> String {
    let settings: Vec<Setting> = serve.get_arguments().filter_map(setting).collect();
    serde_json::to_string_pretty(&settings).expect("texts and booleans are JSON")
}

/// Describes an argument; `None` for what is no setting, such as `--help`.
fn setting(arg: &Arg) -> Option<Setting> {
    let choices = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let (r#type, choices) = match value_type(arg) {
        "string" if !arg.get_possible_values().is_empty() => ("choice", choices),
        known => (known, Vec::new()),
    };
    Some(Setting {
        group: arg.get_help_heading().unwrap_or("Options").to_owned(),
        flag: format!("--{}", arg.get_long()?),
        env: arg.get_env()?.to_string_lossy().into_owned(),
        key: config::is_setting(arg).then(|| config::flag(arg)),
        r#type,
        list: arg.get_value_delimiter().is_some(),
        choices,
        default: Some(joined(arg.get_default_values())).filter(|_| !arg.get_default_values().is_empty()),
        value_name: arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string),
        help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        secret: is_secret(arg),
    })
}

fn value_type(arg: &Arg) -> &'static str {
    let parsed = arg.get_value_parser().type_id();
    let is_one_of = |types: &[TypeId]| types.iter().any(|known| parsed == *known);
    let integers = [
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i32>(),
        TypeId::of::<i64>(),
    ];
    match () {
        () if is_one_of(&[TypeId::of::<bool>()]) => "boolean",
        () if is_one_of(&integers) => "integer",
        () if is_one_of(&[TypeId::of::<f32>(), TypeId::of::<f64>()]) => "number",
        () if is_one_of(&[TypeId::of::<Duration>()]) => "duration",
        () if is_one_of(&[TypeId::of::<PathBuf>()]) => "path",
        () => "string",
    }
}

/// Arguments that hide their value in `--help` are secrets.
fn is_secret(arg: &Arg) -> bool {
    arg.is_hide_env_values_set()
}

fn joined<'a>(values: impl IntoIterator<Item = &'a (impl AsRef<OsStr> + ?Sized + 'a)>) -> String {
    values.into_iter().map(|value| value.as_ref().to_string_lossy()).collect::<Vec<_>>().join(",")
}

/// The values that hold, of every setting that has one. `declared` has the defaults that are built in.
pub fn effective(declared: &Command, matches: &ArgMatches, file: Option<&SettingsFile>) -> Vec<ShownSetting> {
    let describe = |arg: &Arg| {
        let (id, name) = (arg.get_id().as_str(), config::flag(arg));
        let source = match matches.value_source(id)? {
            ValueSource::CommandLine => "flag",
            ValueSource::EnvVariable => "environment",
            // The file's values are clap's defaults by now.
            _ if file.is_some_and(|file| file.has(&name)) => "file",
            _ => "default",
        };
        let value = joined(matches.get_raw(id)?);
        let is_default = value == joined(arg.get_default_values());
        let is_text = ["string", "path"].contains(&value_type(arg)) && arg.get_possible_values().is_empty();
        let value = if is_secret(arg) { "***".to_owned() } else { value };
        Some(ShownSetting { name, value, source, is_default, is_text })
    };
    declared.get_arguments().filter(|arg| config::is_setting(arg)).filter_map(describe).collect()
}

/// Logs what differs from the defaults at `info`, and every setting at `debug`.
pub fn log(settings: &[ShownSetting]) {
    let listed =
        |of: &mut dyn Iterator<Item = &ShownSetting>| of.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let changed = listed(&mut settings.iter().filter(|setting| !setting.is_default));
    if changed.is_empty() {
        tracing::info!("every setting has its default value");
    } else {
        tracing::info!(settings = changed, "settings that differ from their defaults");
    }
    tracing::debug!(settings = listed(&mut settings.iter()), "all settings");
}

/// Environment variables named like settings that no setting reads: probably a typing error.
/// (Kubernetes sets variables of a similar form for services, so this is a warning.)
pub fn unknown_environment(command: &Command) -> Vec<String> {
    let known: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()).collect();
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("FLOWCAST_") && !known.contains(&name.as_os_str()))
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}
