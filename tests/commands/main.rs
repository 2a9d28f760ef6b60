//! The command line: settings, and the commands that do not serve.

#[path = "../common/mod.rs"]
mod common;

mod paper;
mod settings;
mod tail_inspect_generate;
