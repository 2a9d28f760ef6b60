//! The command line: settings, and the commands that do not serve.

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod generate;
mod import;
mod inspect;
mod paper;
mod record;
mod replay;
mod settings;
mod tail;
mod top;

use common::server::{Server, program, run};

/// Runs a command that must succeed; what it prints.
pub fn said(args: &[&str]) -> String {
    let output = run(&mut program(args));
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Where a server is.
pub fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}
