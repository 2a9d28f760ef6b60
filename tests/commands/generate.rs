//! `flowcast generate`: the same bytes every time, and a day that can be served.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::eventually;
use crate::common::server::{Server, program, refusal};
use crate::{said, url};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(
                tree(&path)
                    .into_iter()
                    .map(|(name, bytes)| (path.file_name().unwrap().into(), name, bytes))
                    .map(|(folder, name, bytes): (PathBuf, PathBuf, Vec<u8>)| (folder.join(name), bytes)),
            );
        } else {
            files.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn generate_is_deterministic_and_what_it_writes_can_be_served() {
    let generated = |seed: &str| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        let args = ["generate", "--out", out, "--date", "2026-03-03", "--tickers", "SPX,ES_SPX", "--records", "300"];
        let args = [&args[..], &["--categories", "orderflow"]].concat();
        let said = said(&[&args[..], &["--seed", seed]].concat());
        assert!(said.starts_with("wrote 600 records of 2 tickers, "), "{said}");
        folder
    };
    let (one, again, other) = (generated("7"), generated("7"), generated("8"));
    let files = tree(one.path());
    let names: Vec<_> = files.keys().map(|path| path.display().to_string()).collect();
    let expected = [
        "2026-03-03/ES_SPX/orderflow/orderflow.jsonl",
        "2026-03-03/SPX/orderflow/orderflow.jsonl",
        "2026-03-03/streams/portfolio.jsonl",
        "2026-03-03/streams/signals.jsonl",
        "2026-03-03/streams/trades.jsonl",
    ];
    assert_eq!(names, expected);
    assert_eq!(files, tree(again.path()), "same seed, same bytes");
    assert_ne!(files, tree(other.path()), "another seed, other bytes");

    for bytes in files.iter().filter(|(path, _)| path.ends_with("orderflow.jsonl")).map(|(_, bytes)| bytes) {
        let lines: Vec<Value> = bytes
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 300);
        for (at, line) in lines.iter().enumerate() {
            assert_eq!(line.as_object().unwrap().len(), 37);
            // 2026-03-03 9:30 in New York, and a record a second.
            assert_eq!(line["timestamp"], 1_772_548_200 + at as u64);
        }
    }
    let folder = one.path().to_str().unwrap();
    let mut command = program(&["--data-dir", folder, "--strict", "--interval", "5ms"]);
    let server = Server::launch(command.env("WS_BIND_ADDRESS", "127.0.0.1:0")).serving();
    assert_eq!(said(&["tail", &url(&server), "--count", "4"]).lines().count(), 4);

    let refused = refusal(&mut program(&["generate", "--out", folder, "--date", "2026-03-03", "--tickers", "SPX"]));
    assert!(refused.contains("orderflow.jsonl"), "it does not overwrite: {refused}");
}

#[test]
fn the_sample_data_is_served_strictly_and_is_small() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let files = tree(&data);
    assert!(files.values().map(Vec::len).sum::<usize>() < 4_000_000);
    let of_spx = files.keys().filter(|file| file.starts_with("2025-11-28/SPX")).count();
    assert_eq!(of_spx, 15, "one ticker has every category");
    for ticker in ["SPX", "ES_SPX", "NDX", "SPY"] {
        assert!(
            files.contains_key(&PathBuf::from(format!("2025-11-28/{ticker}/orderflow/orderflow.jsonl"))),
            "{ticker}"
        );
    }
    said(&["inspect", "--strict", "--data-dir", data.to_str().unwrap()]);
}

#[test]
fn all_categories_of_a_ticker_share_its_times_and_prices_and_hold_nothing_odd() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let args = ["generate", "--out", out, "--tickers", "SPX,AAPL", "--records", "40", "--strikes", "30"];
    assert!(said(&args).starts_with("wrote 1200 records of 2 tickers, "));
    let files: Vec<_> =
        tree(folder.path()).into_iter().filter(|(path, _)| !path.iter().any(|part| part == "streams")).collect();
    assert_eq!(files.len(), 30);
    for ticker in ["SPX", "AAPL"] {
        let of_ticker = files.iter().filter(|(path, _)| path.iter().any(|part| part == ticker));
        let paths: Vec<Vec<(Value, Value)>> = of_ticker.map(|(_, bytes)| times_and_prices(bytes)).collect();
        assert!(paths.len() == 15 && paths[0].len() == 40 && paths.iter().all(|path| *path == paths[0]), "{ticker}");
    }
    let inspected = said(&["inspect", "--strict", "--data-dir", out]);
    assert_eq!(
        inspected.lines().count(),
        1 + 2 * 16 + 4 + 1,
        "a table per ticker and one of the streams, and no problem behind them: {inspected}"
    );
}

fn times_and_prices(bytes: &[u8]) -> Vec<(Value, Value)> {
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let records = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
    records.map(|record| (record["timestamp"].clone(), record["spot"].clone())).collect()
}

#[test]
fn a_category_alone_has_the_same_bytes_as_among_all() {
    let generated = |categories: &str| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        said(&["generate", "--out", out, "--tickers", "SPX", "--records", "35", "--categories", categories]);
        tree(folder.path())
    };
    let (all, some) = (generated("all"), generated("orderflow,state/gamma_one"));
    assert_eq!(some.len(), 5);
    assert!(some.iter().all(|(path, bytes)| all.get(path) == Some(bytes)));
    let refused = refusal(&mut program(&["generate", "--categories", "state/gex_all"]));
    assert!(refused.contains("classic/gex_full"), "it lists the categories: {refused}");
}

#[test]
fn an_interrupted_generate_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let mut command = program(&["generate", "--out", out.to_str().unwrap(), "--date", "2026-03-03"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = eventually("an unfinished file is there", || fs::read_dir(out.join("2026-03-03/SPX/classic")).ok()?.next());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("interrupted; nothing was written"), "{said}");
    assert!(!out.exists(), "neither files nor folders");
}
