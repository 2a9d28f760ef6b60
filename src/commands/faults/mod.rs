//! `flowcast faults`: the plan of faults of a running server, over its HTTP resource (`docs/faults.md`).

mod fault_lines;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use http::Method;
use serde_json::{Value, json};

use self::fault_lines::plan_text;
use super::control_client::{ControlClient, ControlToken};
use crate::faults::fault_plan::FaultPlan;
use crate::server::http::faults::fault_options::read_plan_file;

/// Path of the resource.
const FAULTS: &str = "/faults";

/// Which server, and what is to be done.
#[derive(Debug, Clone, clap::Args)]
pub struct FaultsCommand {
    /// Server to steer: an http(s):// URL without a path, or host:port
    #[arg(long, global = true, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub token: ControlToken,
    /// Print what the server answers, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub action: Option<FaultsAction>,
}

/// What is to be done. Without it, the plan is shown.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum FaultsAction {
    /// Show the plan that runs, and what it has done
    Show,
    /// Begin the plan in a file; one that runs ends
    Set {
        /// A plan: TOML, or JSON if it is called *.json
        file: PathBuf,
    },
    /// End the plan that runs
    Clear,
    /// Check the plan in a file; no server is asked
    Check {
        /// A plan: TOML, or JSON if it is called *.json
        file: PathBuf,
    },
}

/// Does what the command line asks for, and prints what became of it.
pub fn faults(command: &FaultsCommand) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(command))
}

async fn run(command: &FaultsCommand) -> anyhow::Result<()> {
    let client = ControlClient::new(&command.url, command.token.clone())?;
    let answer = match &command.action {
        None | Some(FaultsAction::Show) => client.call(Method::GET, FAULTS, None).await?,
        Some(FaultsAction::Set { file }) => client.call(Method::PUT, FAULTS, Some(&as_json(&read(file)?))).await?,
        Some(FaultsAction::Clear) => client.call(Method::DELETE, FAULTS, None).await?,
        Some(FaultsAction::Check { file }) => return check(file, command.json),
    };
    say(&if command.json { answer.to_string() } else { plan_text(&answer) })
}

fn check(file: &Path, is_json: bool) -> anyhow::Result<()> {
    let plan = read(file)?;
    if is_json {
        return say(&as_json(&plan).to_string());
    }
    let faults = plan.faults.len();
    say(&format!("{}: a plan of {faults} {}", file.display(), if faults == 1 { "fault" } else { "faults" }))
}

fn read(file: &Path) -> anyhow::Result<FaultPlan> {
    Ok(read_plan_file(file)?)
}

/// A plan as it is put: the server reads it as this program did.
fn as_json(plan: &FaultPlan) -> Value {
    json!({ "seed": plan.seed, "fault": plan.faults_json(true) })
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot print")
}
