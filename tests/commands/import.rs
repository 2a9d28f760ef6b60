//! `flowcast import`: the vendor's archives become files that can be served, all of them or none.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::dataset::line;
use crate::common::eventually;
use crate::common::server::{program, refusal};
use crate::said;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const GEX: &str = include_str!("../fixtures/gexbot/gex_full.jsonl");
const GREEK: &str = include_str!("../fixtures/gexbot/gamma_zero.jsonl");
const DATE: &str = "2025-11-28";

/// A JSON array as the vendor makes it, and in other hands gets.
fn array(records: &[&str]) -> String {
    format!("[{}]", records.iter().map(|record| record.trim()).collect::<Vec<_>>().join(",\n  "))
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

fn zip(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        out.start_file(*name, SimpleFileOptions::default()).unwrap();
        out.write_all(content).unwrap();
    }
    out.finish().unwrap().into_inner()
}

/// A folder for sources, and one for the data.
struct Desk {
    folder: TempDir,
}

/// The arguments of an import into a data folder.
fn import_into<'a>(args: &[&'a str], data: &'a str) -> Vec<&'a str> {
    [&["import", "--data-dir", data][..], args].concat()
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        Self { folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Puts a source there; its path.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn import(&self, args: &[&str]) -> String {
        said(&import_into(args, self.data().to_str().unwrap()))
    }

    fn refuse(&self, args: &[&str]) -> String {
        refusal(&mut program(&import_into(args, self.data().to_str().unwrap())))
    }

    fn written(&self, file: &str) -> String {
        fs::read_to_string(self.data().join(DATE).join(file)).unwrap()
    }

    fn is_untouched(&self) -> bool {
        fs::read_dir(self.data()).unwrap().count() == 0
    }
}

fn member(ticker: &str, package: &str, category: &str) -> String {
    format!("{ticker}/{package}/{category}/{DATE}_{ticker}_{package}_{category}.json.gz")
}

#[test]
fn an_archive_becomes_a_day_that_inspect_accepts() {
    let desk = Desk::new();
    let orderflow: Vec<String> = (0..50).map(|n| line("ES_SPX", n)).collect();
    let orderflow: Vec<&str> = orderflow.iter().map(String::as_str).collect();
    let [first, second, third] =
        [("SPX", "classic", "gex_full"), ("SPX", "state", "gamma_zero"), ("ES_SPX", "orderflow", "orderflow")]
            .map(|(ticker, package, category)| member(ticker, package, category));
    let archive = zip(&[
        ("SPX/", Vec::new()),
        (&first, gzip(&array(&[GEX, GEX]))),
        (&second, gzip(&array(&[GREEK]))),
        (&third, gzip(&array(&orderflow))),
    ]);
    let path = desk.put("eod_report_SPX_2025-11-28.zip", archive);
    let out = desk.import(&[&path]);
    assert!(out.starts_with("imported 53 records into 3 files, "), "{out}");
    assert_eq!(desk.written("SPX/classic/gex_full.jsonl"), GEX.repeat(2));
    assert_eq!(desk.written("SPX/state/gamma_zero.jsonl"), GREEK);
    assert_eq!(desk.written("ES_SPX/orderflow/orderflow.jsonl"), orderflow.join("\n") + "\n");
    said(&["inspect", "--strict", "--data-dir", desk.data().to_str().unwrap()]);
}

#[test]
fn single_files_and_folders_are_imported_too_and_spread_elements_become_one_line() {
    let desk = Desk::new();
    let spread = GEX.trim().replace(",\"", ",\r\n \"");
    desk.put("in/a/2025-11-28_SPX_classic_gex_full.json.gz", gzip(&format!("[\n{spread}\n]")));
    let greek = GREEK.replace("\"SPX\"", "\"NDX\"");
    desk.put("in/2025-11-28_NDX_state_gamma_one.json", array(&[&greek]));
    desk.put("in/notes.txt", "none of ours");
    desk.put("in/settings.json", "{}");
    let folder = desk.folder.path().join("in").display().to_string();
    assert!(desk.import(&[&folder]).starts_with("imported 2 records into 2 files, "));
    let imported: serde_json::Value = serde_json::from_str(&desk.written("SPX/classic/gex_full.jsonl")).unwrap();
    assert_eq!(imported, serde_json::from_str::<serde_json::Value>(GEX).unwrap());
    assert_eq!(desk.written("SPX/classic/gex_full.jsonl").lines().count(), 1);
}

#[test]
fn an_existing_file_is_overwritten_only_by_force() {
    let desk = Desk::new();
    let path = desk.put("2025-11-28_SPX_classic_gex_full.json", array(&[GEX]));
    desk.import(&[&path]);
    fs::write(&path, array(&[GEX, GEX])).unwrap();
    assert!(desk.refuse(&[&path]).contains("--force"));
    assert_eq!(desk.written("SPX/classic/gex_full.jsonl"), GEX);
    desk.import(&["--force", &path]);
    assert_eq!(desk.written("SPX/classic/gex_full.jsonl"), GEX.repeat(2));
}

#[test]
fn a_bad_record_refuses_everything_unless_it_may_be_left_out() {
    let desk = Desk::new();
    let good = desk.put("2025-11-28_SPX_state_gamma_zero.json", array(&[GREEK]));
    let bad = desk.put("2025-11-28_SPX_classic_gex_full.json", array(&[GEX, "{\"timestamp\":1}", "7", GEX]));
    let refused = desk.refuse(&[&good, &bad]);
    assert!(refused.contains("gex_full.json, element 2: ticker: expected a non-empty string"), "{refused}");
    assert!(refused.contains("element 3: expected one JSON object"), "{refused}");
    assert!(refused.contains("2 elements are not records; --skip-bad imports the others"), "{refused}");
    assert!(desk.is_untouched(), "not even the good file");

    let out = desk.import(&["--skip-bad", &good, &bad]);
    assert!(out.contains("element 2: ") && out.contains("imported 3 records into 2 files"), "{out}");
    assert!(out.contains("left out 2 bad records"), "{out}");
    assert_eq!(desk.written("SPX/classic/gex_full.jsonl"), GEX.repeat(2));
}

#[test]
fn what_is_cut_off_or_damaged_leaves_nothing_behind() {
    let desk = Desk::new();
    let whole = gzip(&array(&[GEX; 20]));
    let member = member("SPX", "classic", "gex_full");
    let mut broken = zip(&[(&member, whole.clone())]);
    let middle = broken.len() / 2;
    broken[middle] ^= 0xff;
    let text = array(&[GEX, GEX]);
    for (name, content, expected) in [
        ("2025-11-28_SPX_classic_gex_full.json.gz", whole[..whole.len() / 2].to_vec(), "element"),
        ("2025-11-28_SPX_classic_gex_full.json", text.as_bytes()[..text.len() - 9].to_vec(), "element 2: "),
        ("2025-11-28_SPX_classic_gex_one.json", b"{\"a\":1} x".to_vec(), "element 2: "),
        ("2025-11-28_SPX_classic_gex_zero.json", Vec::new(), "got an empty file"),
        ("2025-11-28_SPX_classic_gex_zero.json.gz", gzip("[]"), "expected records, got none"),
        ("broken.zip", broken, "broken.zip"),
        ("no.zip", b"PK\x03\x04 nothing more".to_vec(), "no.zip: expected a file stored or deflated in a zip archive"),
    ] {
        let refused = desk.refuse(&[&desk.put(name, content)]);
        assert!(refused.contains(expected), "{name}: {refused}");
        assert!(desk.is_untouched(), "{name}");
    }
}

#[test]
fn a_member_with_another_name_is_refused_and_none_leaves_the_data_folder() {
    for name in ["../../2025-11-28_.._classic_gex_full.json.gz", "SPX/classic/volume_zero/readme.txt", "/etc/passwd"] {
        let desk = Desk::new();
        let good = member("SPX", "classic", "gex_full");
        let path = desk.put("x.zip", zip(&[(name, gzip(&array(&[GEX]))), (&good, gzip(&array(&[GEX])))]));
        let refused = desk.refuse(&[&path]);
        assert!(refused.contains(name) && refused.contains("--skip-bad"), "{refused}");
        assert!(desk.is_untouched());
        assert!(desk.import(&["--skip-bad", &path]).contains("imported 1 record into 1 file"));
        let beside: Vec<_> = fs::read_dir(desk.folder.path()).unwrap().collect();
        assert_eq!(beside.len(), 2, "the archive and the data folder");
    }
}

#[test]
fn a_bomb_ends_at_the_bounds() {
    let desk = Desk::new();
    let spaces = gzip(&format!("[{}]", " ".repeat(50 << 20)));
    let refused = desk.refuse(&[&desk.put("2025-11-28_SPX_classic_gex_full.json.gz", spaces)]);
    assert!(refused.contains("at most 1048576 bytes"), "{refused}");
    let many = gzip(&array(&[GEX; 1000]));
    let path = desk.put("2025-11-28_SPX_classic_gex_one.json.gz", many);
    assert!(desk.refuse(&["--max-bytes", "100000", &path]).contains("--max-bytes"));
    assert!(desk.is_untouched());
}

#[test]
fn the_same_day_twice_in_one_import_is_refused() {
    let desk = Desk::new();
    let one = desk.put("a/2025-11-28_SPX_classic_gex_full.json", array(&[GEX]));
    let two = desk.put("b/2025-11-28_SPX_classic_gex_full.json.gz", gzip(&array(&[GEX])));
    assert!(desk.refuse(&[&one, &two]).contains("another file of this import"));
    assert!(desk.is_untouched());
}

#[test]
fn what_stands_compressed_in_a_data_folder_is_turned_into_lines_by_the_command_that_inspect_names() {
    let desk = Desk::new();
    for (category, content) in
        [("gex_full", gzip(GEX)), ("gex_one", array(&[GEX, GEX]).into_bytes()), ("gex_zero", GEX.as_bytes().to_vec())]
    {
        desk.put(&format!("data/{DATE}/SPX/classic/{category}.jsonl"), content);
    }
    let data = desk.data().display().to_string();
    let out = said(&["inspect", "--data-dir", &data]);
    let commands: Vec<&str> =
        out.lines().filter_map(|line| line.split_once("flowcast import ")).map(|at| at.1).collect();
    assert_eq!(commands.len(), 2, "{out}");
    for command in commands {
        said(&["import"].into_iter().chain(command.split(' ')).collect::<Vec<_>>());
    }
    assert_eq!(desk.written("SPX/classic/gex_full.jsonl"), GEX);
    assert_eq!(desk.written("SPX/classic/gex_one.jsonl"), GEX.repeat(2));
    said(&["inspect", "--strict", "--data-dir", &data]);
}

#[test]
fn an_interrupted_import_leaves_nothing_behind() {
    let desk = Desk::new();
    // Members of gzip one behind the other are one text: far more of it than is read before the signal.
    let thousand = gzip(&format!("{},", GEX.trim()).repeat(1000));
    let path = desk.put("2025-11-28_SPX_classic_gex_full.json.gz", [gzip("["), thousand.repeat(2000)].concat());
    let data = desk.data().display().to_string();
    let mut command = program(&import_into(&[&path], &data));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let beside = desk.data().join(DATE).join("SPX/classic");
    let _ = eventually("the unfinished file is there", || fs::read_dir(&beside).ok()?.next());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("interrupted; nothing was imported"), "{said}");
    assert!(output.status.code() == Some(1) && desk.is_untouched());
}

#[test]
fn what_is_not_there_is_named() {
    let desk = Desk::new();
    assert!(desk.refuse(&["/nonexistent.zip"]).contains("/nonexistent.zip: expected an archive"));
    let empty = desk.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(desk.refuse(&[empty.to_str().unwrap()]).contains("found none"));
    let other = desk.put("other.json", "[]");
    assert!(desk.refuse(&[&other]).contains("2026-07-17_SPX_classic_gex_full.json.gz"));
    assert!(Path::new(&other).exists());
}

#[test]
fn of_two_imports_at_once_one_finds_the_place_taken_and_leaves_nothing() {
    let desk = Desk::new();
    let own = desk.put("a/2025-11-28_SPX_classic_gex_full.json", array(&[GEX]));
    // Long enough for the other import to come and go.
    let thousand = gzip(&format!("{},", GEX.trim()).repeat(1000));
    let long = [gzip("["), thousand.repeat(200), gzip(&format!("{}]", GEX.trim()))].concat();
    let long = desk.put("a/2025-11-28_SPX_classic_gex_one.json.gz", long);
    let short = desk.put("b/2025-11-28_SPX_classic_gex_one.json", array(&[GEX]));
    let data = desk.data().display().to_string();
    let mut slow = program(&import_into(&[&own, &long], &data));
    let slow = slow.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let beside = desk.data().join(DATE).join("SPX/classic");
    let unfinished = || (fs::read_dir(&beside).ok()?.count() == 2).then_some(());
    eventually("both of its files are begun", unfinished);
    kill_process(Pid::from_child(&slow), Signal::STOP).unwrap();
    desk.import(&[&short]);
    kill_process(Pid::from_child(&slow), Signal::CONT).unwrap();
    let output = slow.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("gex_one.jsonl exists already; --force"), "{said}");
    assert_eq!(desk.written("SPX/classic/gex_one.jsonl"), GEX);
    assert_eq!(fs::read_dir(&beside).unwrap().count(), 1, "neither its other file nor an unfinished one");
}

#[test]
fn records_of_another_ticker_are_bad_records() {
    let desk = Desk::new();
    let path = desk.put("2025-11-28_NDX_classic_gex_full.json", array(&[GEX]));
    let refused = desk.refuse(&[&path]);
    assert!(refused.contains("element 1: ticker: expected NDX as in the file's name, got \"SPX\""), "{refused}");
    assert!(desk.is_untouched());
}

#[test]
fn a_name_with_an_unknown_category_is_told_with_those_there_are() {
    let desk = Desk::new();
    for category in ["volume_zero", "gex_20260230"] {
        let path = desk.put(&format!("in/2025-11-28_SPX_classic_{category}.json"), array(&[GEX]));
        let folder = desk.folder.path().join("in").display().to_string();
        for path in [&path, &folder] {
            let refused = desk.refuse(&[path]);
            assert!(
                refused.contains(&format!("gex_full, gex_zero, gex_one or gex_YYYYMMDD; got {category}")),
                "{refused}"
            );
        }
        fs::remove_file(path).unwrap();
    }
    assert!(desk.is_untouched());
}
