//! `swarm`: arguments in, report out, exit code for scripts.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use swarm::cli::{Cli, Command, MergeArgs, OutputArgs, RunArgs};
use swarm::http::Trust;
use swarm::processes;
use swarm::report::{Report, live_page, table};
use swarm::run::run;

/// The run could not take place.
const NO_RUN: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Some(Command::Merge(args)) => merge(args),
        None => load(&cli.run),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Every error of ours says its cause itself.
            eprintln!("swarm: {error}");
            ExitCode::from(NO_RUN)
        }
    }
}

fn load(args: &RunArgs) -> anyhow::Result<u8> {
    let count = processes::needed(args);
    let facts = if count > 1 { processes::run(args, count)? } else { run(args)? };
    let report = Report::new(facts);
    if args.child {
        report.write(&OutputArgs { report: None, ..args.output.clone() })?;
    } else {
        report.write(&args.output)?;
        println!("{}", table::render(&report));
        show(&report, &args.output, &swarm::preflight::trust(args)?);
    }
    Ok(report.summary.exit_code)
}

fn merge(args: &MergeArgs) -> anyhow::Result<u8> {
    let mut reports = args.files.iter().map(|path| Report::read(path));
    let mut facts = reports.next().context("no report to merge")??.facts;
    for report in reports {
        facts.merge(report?.facts);
    }
    let report = Report::new(facts);
    report.write(&args.output)?;
    println!("{}", table::render(&report));
    show(&report, &args.output, &Trust::default());
    Ok(report.summary.exit_code)
}

/// Shows the verdict where it was asked for. The run has its result all the same.
fn show(report: &Report, output: &OutputArgs, trust: &Trust) {
    if let Err(error) = live_page::show(&report.summary, output, trust) {
        eprintln!("swarm: the verdict is not on the live page: {error}");
    }
}
