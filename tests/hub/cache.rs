//! Frames kept from one start to the next: never other bytes than the source's, whatever became of the file.

use crate::common;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::dataset::{self, FIRST, group, line};
use crate::common::server::{Server, program, run};
use bytes::Bytes;
use clap::{Args, Command, FromArgMatches};
use flowcast::engine::frames::{Form, FrameStore};
use flowcast::health::status::Status;
use flowcast::source::recorded::arena::{self, ArenaOptions, Encodings, Track};
use flowcast::source::recorded::cache::{Cache, CacheOptions};
use flowcast::source::recorded::dataset::{DataDate, Dataset, DatasetOptions};
use flowcast::source::recorded::load;
use flowcast::source::recorded::loaded::Loaded;
use flowcast::wire::webpubsub::PlainForm;
use proptest::prelude::*;
use tempfile::TempDir;

fn options<T: Args + FromArgMatches>(args: &[&str]) -> T {
    let command = T::augment_args(Command::new("test").no_binary_name(true));
    T::from_arg_matches(&command.get_matches_from(args)).unwrap()
}

/// A day, a cache for it, and starts of a server without the server.
struct Starts {
    data: dataset::Dataset,
    folder: TempDir,
}

/// One start.
struct Start {
    loaded: Loaded,
    encodings: Arc<Encodings>,
    arena: ArenaOptions,
}

impl Starts {
    /// Several chunks of SPX, one of ES_SPX.
    fn new() -> Self {
        let data = dataset::Dataset::new(&[("ES_SPX", 70), ("SPX", 1500)]);
        Self { data, folder: tempfile::tempdir().unwrap() }
    }

    fn cache_of(&self, more: &[&str]) -> Cache {
        let folder = self.folder.path().to_str().unwrap();
        Cache::open(&options::<CacheOptions>(&[&["--cache-dir", folder], more].concat())).unwrap()
    }

    fn cache(&self) -> Cache {
        self.cache_of(&[])
    }

    fn start_as(&self, prefix: &str, args: &[&str]) -> Start {
        let wanted =
            DatasetOptions { data_dir: self.data.path().to_owned(), data_date: DataDate::Latest, strict: false };
        let dataset = Dataset::find(&wanted).unwrap();
        let (arena, encodings) = (options::<ArenaOptions>(args), Arc::new(Encodings::new(&Status::default())));
        let loaded = load::load(&dataset, prefix, &arena, Some(&self.cache()), &encodings, &|_, _| ()).unwrap();
        Start { loaded, encodings, arena }
    }

    fn start(&self) -> Start {
        self.start_as("blue", &[])
    }

    fn keep(&self, start: &Start) {
        let cache = self.cache();
        cache.store(&cache.unsaved(&start.loaded, &start.arena), &start.arena);
    }

    /// The cached file of a ticker: the longer one is SPX's.
    fn file(&self, ticker: &str) -> PathBuf {
        let mut files = self.cache().files().unwrap();
        files.sort_by_key(|path| fs::metadata(path).unwrap().len());
        assert_eq!(files.len(), 2);
        files.swap_remove(usize::from(ticker == "SPX"))
    }
}

impl Start {
    fn track(&self, ticker: &str) -> &Arc<Track> {
        self.loaded.tracks.iter().find(|track| track.ticker() == ticker).unwrap()
    }

    fn frames(&self, ticker: &str) -> Vec<Bytes> {
        let track = self.track(ticker);
        let records = 0..track.records() as u32;
        records.flat_map(|record| PlainForm::ALL.map(|form| track.frame(record, Form::new(form.index())))).collect()
    }

    fn cached(&self) -> Vec<&str> {
        self.loaded.tracks.iter().filter(|track| track.is_cached()).map(|track| track.ticker()).collect()
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// Damages every block, and nothing before them.
fn damage_blocks(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let index = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
    bytes[32 + index..].iter_mut().step_by(100).for_each(|byte| *byte ^= 1);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_restart_finds_every_record_and_frames_are_the_same_bytes_without_building_one() {
    let starts = Starts::new();
    let first = starts.start();
    assert!(first.cached().is_empty());
    starts.keep(&first);
    let second = starts.start();
    assert_eq!(second.cached(), ["ES_SPX", "SPX"]);
    assert_eq!((second.loaded.records(), second.loaded.bytes()), (1570, first.loaded.bytes()));
    for ticker in ["SPX", "ES_SPX"] {
        let (one, two) = (first.track(ticker), second.track(ticker));
        assert_eq!((one.begins(), one.starts()), (two.begins(), two.starts()));
        for record in 0..one.records() as u32 {
            assert_eq!((one.timestamp(record), one.spot(record)), (two.timestamp(record), two.spot(record)));
            for form in first.arena.at_start() {
                let form = Form::new(form.index());
                assert_eq!(one.frame(record, form), two.frame(record, form));
                assert_eq!(one.payload(record, form), two.payload(record, form));
            }
        }
    }
    assert!(PlainForm::ALL.iter().all(|&form| second.encodings.built(form) == 0));
    // Forms that are not kept are derived from what is.
    assert_eq!(first.frames("SPX"), second.frames("SPX"));
}

#[test]
fn what_is_kept_says_what_was_wrong_with_the_source() {
    let starts = Starts::new();
    let lines = format!("{}\nnonsense\n{}\n", line("SPX", 0), line("SPX", 9));
    starts.data.write("SPX", lines);
    let first = starts.start();
    starts.keep(&first);
    let second = starts.start();
    assert_eq!(second.cached().len(), 2);
    let report = |start: &Start| format!("{:?}", start.loaded.reports[1].lines);
    assert_eq!(report(&first), report(&second));
    assert!(!second.loaded.is_clean());
}

#[test]
fn a_source_that_changed_is_read_again_and_takes_its_old_files_place() {
    let starts = Starts::new();
    starts.keep(&starts.start());
    let mut lines = fs::read_to_string(starts.data.file("SPX")).unwrap();
    lines += &(line("SPX", 1500) + "\n");
    starts.data.write("SPX", lines);
    let second = starts.start();
    assert_eq!(second.cached(), ["ES_SPX"]);
    assert_eq!(second.track("SPX").records(), 1501);
    starts.keep(&second);
    assert_eq!(starts.start().cached(), ["ES_SPX", "SPX"]);
    assert_eq!(starts.cache().files().unwrap().len(), 2);
}

#[test]
fn a_source_rewritten_at_its_old_time_is_read_again() {
    let starts = Starts::new();
    starts.keep(&starts.start());
    let path = starts.data.file("SPX");
    let (modified, lines) = (fs::metadata(&path).unwrap().modified().unwrap(), fs::read_to_string(&path).unwrap());
    fs::write(&path, lines.replace("1764340200", "1764340199")).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let second = starts.start();
    assert_eq!((second.cached(), second.track("SPX").begins()), (vec!["ES_SPX"], FIRST - 1));
}

#[test]
fn frames_made_with_other_settings_are_not_used() {
    let starts = Starts::new();
    starts.keep(&starts.start());
    assert!(starts.start_as("red", &[]).cached().is_empty());
    for other in [&["--zstd-level=3"][..], &["--profile=2025-11"], &["--profile=2025-11", "--pin-profile"]] {
        let start = starts.start_as("blue", other);
        assert!(start.cached().is_empty(), "{other:?}");
        starts.keep(&start);
        assert_eq!(starts.start_as("blue", other).cached().len(), 2, "{other:?}");
    }
    assert_eq!(starts.cache().files().unwrap().len(), 8, "each has its own");
}

#[test]
fn a_damaged_block_is_made_anew_from_the_source() {
    let starts = Starts::new();
    let first = starts.start();
    starts.keep(&first);
    damage_blocks(&starts.file("SPX"));
    let second = starts.start();
    assert_eq!(second.cached().len(), 2, "the index is whole");
    assert_eq!(first.frames("SPX"), second.frames("SPX"));
    assert_eq!(first.frames("ES_SPX"), second.frames("ES_SPX"));
    arena::read_cached(&second.loaded.tracks, &second.arena.at_start(), 0);
    let third = starts.start();
    assert_eq!(third.cached(), ["ES_SPX"], "the damaged file is gone");
    starts.keep(&third);
    assert_eq!(starts.start().cached(), ["ES_SPX", "SPX"]);
}

#[test]
fn records_whose_block_is_damaged_and_whose_source_is_gone_are_lost_alone() {
    let starts = Starts::new();
    let first = starts.start();
    starts.keep(&first);
    damage_blocks(&starts.file("SPX"));
    let second = starts.start();
    fs::remove_file(starts.data.file("SPX")).unwrap();
    // The first chunk was wanted when the source was still there.
    let kept = second.track("SPX").starts()[1] as usize * PlainForm::ALL.len();
    let (wanted, lost) = (second.frames("SPX"), second.frames("SPX").split_off(kept));
    assert_eq!(wanted[..kept], first.frames("SPX")[..kept]);
    assert!(!lost.is_empty() && lost.iter().all(Bytes::is_empty));
    assert_eq!(first.frames("ES_SPX"), second.frames("ES_SPX"));
    load::build_forms(&second.loaded.tracks, &second.arena.at_start());
}

#[test]
fn a_file_that_others_may_write_to_is_not_believed() {
    let starts = Starts::new();
    starts.keep(&starts.start());
    fs::set_permissions(starts.file("SPX"), Permissions::from_mode(0o666)).unwrap();
    assert_eq!(starts.start().cached(), ["ES_SPX"]);
}

#[test]
fn where_nothing_can_be_written_there_is_no_cache() {
    let folder = tempfile::NamedTempFile::new().unwrap();
    let below = folder.path().join("cache");
    assert!(Cache::open(&options(&["--cache-dir", below.to_str().unwrap()])).is_none());
    assert!(Cache::open(&options(&[])).is_none());
}

#[test]
fn what_is_over_the_limit_or_was_never_finished_is_removed() {
    let starts = Starts::new();
    let first = starts.start();
    starts.keep(&first);
    let abandoned = starts.folder.path().join("0.1.part");
    fs::write(&abandoned, "x").unwrap();
    // Somebody is at this one: whoever writes holds its lock.
    let written = fs::File::create(starts.folder.path().join("0.2.part")).unwrap();
    written.lock().unwrap();
    let small = starts.cache_of(&["--cache-bytes=1"]);
    small.store(&[], &first.arena);
    assert!(small.files().unwrap().is_empty());
    assert!(!abandoned.exists());
    assert!(starts.folder.path().join("0.2.part").exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_changes_a_frame(place in 0.0..1.0, cut in any::<bool>()) {
        let starts = Starts::new();
        let first = starts.start();
        starts.keep(&first);
        let path = starts.file("ES_SPX");
        let length = fs::metadata(&path).unwrap().len();
        let at = (length as f64 * place) as usize;
        if cut {
            fs::File::options().write(true).open(&path).unwrap().set_len(at as u64).unwrap();
        } else {
            flip(&path, at);
        }
        let second = starts.start();
        prop_assert_eq!(second.loaded.records(), 1570);
        prop_assert_eq!(first.frames("ES_SPX"), second.frames("ES_SPX"));
    }
}

#[test]
fn a_server_restarted_on_unchanged_data_builds_nothing_and_serves_the_same() {
    let data = dataset::Dataset::usual();
    let folder = tempfile::tempdir().unwrap();
    let settings = [("FLOWCAST_CACHE_DIR", folder.path().to_str().unwrap())];
    let built = r#"flowcast_frames_built_total{syntax="protobuf",profile="2026-04"}"#;
    let first = Server::with(&data, &settings);
    assert_eq!(first.metric(built), 170);
    first.logged("frames are kept for the next start");
    drop(first);

    let second = Server::with(&data, &settings);
    assert!(second.log().contains("from_cache=2"), "{}", second.log());
    for subprotocol in common::client::ALL {
        let mut client = common::client::Client::open(&second, subprotocol).joined(&["SPX"]);
        for data in client.take(3) {
            assert_eq!(data.group, group("SPX"));
            let expected = dataset::payload("SPX", data.index(), dataset::Profile::V2026);
            assert_eq!(data.payload(), expected, "from {FIRST} on");
        }
    }
    assert_eq!(second.metric(built), 0);
}

#[test]
fn inspect_tells_what_is_kept_and_finds_what_is_damaged() {
    let starts = Starts::new();
    let folder = starts.folder.path().to_str().unwrap().to_owned();
    let inspect = |more: &[&str]| run(&mut program(&[&["inspect", "--cache", "--cache-dir", &folder], more].concat()));
    starts.keep(&starts.start());
    let output = inspect(&["--verify"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("current").count(), 2, "{said}");
    assert!(said.contains("2 good") && said.contains("SPX/orderflow/orderflow.jsonl"), "{said}");

    damage_blocks(&starts.file("ES_SPX"));
    assert!(inspect(&[]).status.success(), "only --verify looks at blocks");
    let output = inspect(&["--verify"]);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("2 of 2 bad"));

    starts.data.write("SPX", line("SPX", 0));
    let output = inspect(&[]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().matches("stale").count(), 1);
    let elsewhere = run(&mut program(&["inspect", "--cache", "--cache-dir", "/nonexistent/cache"]));
    assert!(!elsewhere.status.success());
    assert!(
        String::from_utf8(elsewhere.stderr).unwrap().contains("/nonexistent/cache: expected a folder of the cache")
    );
}
