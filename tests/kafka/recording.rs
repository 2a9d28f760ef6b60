//! `flowcast record` of topics: everything once, also over a restart.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker;
use crate::common::eventually;
use crate::common::server::program;
use crate::topic::{self, Writer, numbered};

fn recorder(brokers: &str, topic: &str, folder: &Path) -> Child {
    let group = format!("record-{topic}");
    let args = ["record", "--brokers", brokers, "--topics", topic, "--kafka-group", &group, "--data-dir"];
    let mut command = program(&[&args[..], &[folder.to_str().unwrap(), "--sync", "100ms"]].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The lines of all days.
fn lines(folder: &Path, topic: &str) -> Vec<String> {
    let mut days: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|day| day.unwrap().path()).collect();
    days.sort();
    let read = |day: &std::path::PathBuf| fs::read_to_string(day.join(format!("streams/{topic}.jsonl")));
    days.iter().filter_map(|day| read(day).ok()).collect::<String>().lines().map(str::to_owned).collect()
}

#[test]
fn a_topic_is_recorded_once_over_a_restart() {
    let (brokers, lines_topic) = (broker::shared(), topic::name("kept"));
    topic::create(&brokers, &lines_topic, 1);
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::new(&brokers);
    let mut first = recorder(&brokers, &lines_topic, folder.path());
    // A group that has never read starts behind the newest message: write until it has begun.
    let mut written = 0;
    eventually("it records", || {
        writer.count(&lines_topic, 1, written..written + 1);
        written += 1;
        (!lines(folder.path(), &lines_topic).is_empty()).then_some(())
    });
    kill_process(Pid::from_child(&first), Signal::TERM).unwrap();
    assert!(first.wait().unwrap().success());
    writer.count(&lines_topic, 1, written..written + 20);
    let mut again = recorder(&brokers, &lines_topic, folder.path());
    let last = numbered(0, written + 19);
    eventually("it has caught up", || (lines(folder.path(), &lines_topic).last() == Some(&last)).then_some(()));
    kill_process(Pid::from_child(&again), Signal::TERM).unwrap();
    assert!(again.wait().unwrap().success());
    let recorded = lines(folder.path(), &lines_topic);
    let begins = written + 20 - recorded.len() as u64;
    let expected: Vec<String> = (begins..written + 20).map(|number| numbered(0, number)).collect();
    assert_eq!(recorded, expected, "nothing is missing, and nothing twice");
}
