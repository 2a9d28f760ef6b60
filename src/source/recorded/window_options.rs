//! Settings of the window, and how much memory there is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::wire::payload::{EncoderOptions, Profile};
use crate::wire::webpubsub::{PlainForm, Syntax};

/// How frames are built, how far ahead, and how many are kept.
#[derive(Debug, Clone, clap::Args)]
pub struct WindowOptions {
    /// Profile whose frames are built before anybody asks for them; the other profile's are built for the first
    /// client that does
    #[arg(long, env = "FLOWCAST_PROFILE", value_enum, default_value_t = Profile::V2026_04)]
    pub profile: Profile,
    /// Use --profile on every endpoint, whichever generation of clients the endpoint is for
    #[arg(long, env = "FLOWCAST_PIN_PROFILE", default_value_t = false, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub pin_profile: bool,
    /// Bytes of frames to keep in memory, such as 1GiB. By default half of the memory that the process may use
    #[arg(long, env = "FLOWCAST_ARENA_BYTES", value_name = "BYTES", value_parser = bytes)]
    pub arena_bytes: Option<u64>,
    /// How far ahead of the clock the frames of groups with subscribers are built: a number with a unit, such as
    /// 10s. At least the next two blocks always are
    #[arg(long, env = "FLOWCAST_WINDOW_AHEAD", default_value = "10s", value_name = "DURATION")]
    #[arg(value_parser = humantime::parse_duration)]
    pub window_ahead: Duration,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub encoder: EncoderOptions,
}

impl WindowOptions {
    /// The forms that are built before anybody asks for them.
    pub fn at_start(&self) -> [PlainForm; 2] {
        [Syntax::Protobuf, Syntax::Json].map(|syntax| PlainForm { syntax, profile: self.profile })
    }

    /// [`WindowOptions::arena_bytes`], or half of the memory there is.
    pub fn budget(&self) -> u64 {
        self.arena_bytes.unwrap_or_else(|| memory() / 2)
    }
}

/// The smallest arena: a few blocks of the largest lines there may be.
const LEAST: u64 = 16 << 20;

/// A number of bytes, with or without a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "kib" => Some(10),
        "mib" => Some(20),
        "gib" => Some(30),
        "tib" => Some(40),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    let bytes = bytes.ok_or("expected bytes as a number with or without KiB, MiB, GiB or TiB, such as 512MiB")?;
    if bytes >= LEAST {
        Ok(bytes)
    } else {
        Err(format!("expected at least 16MiB, so that a block of frames fits; got {text}"))
    }
}

/// The bytes of memory that this process may use: the machine's, or less if a control group says so.
fn memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib << 10)
    });
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limits(&groups, Path::new("/sys/fs/cgroup")).min();
    machine.into_iter().chain(limit).min().unwrap_or(4 * LEAST)
}

/// The limits of the control groups in `/proc/self/cgroup`, of both versions, and of the groups above them.
fn limits<'a>(groups: &'a str, root: &'a Path) -> impl Iterator<Item = u64> + 'a {
    groups.lines().flat_map(move |line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => (root.join("-"), "-"),
        };
        // In a container the path may be that of the host: then only the root of what is mounted exists.
        let group = root.join(path.trim_start_matches('/'));
        let above =
            group.ancestors().take_while(|group| group.starts_with(&root)).map(Path::to_owned).collect::<Vec<_>>();
        above.into_iter().filter_map(move |group| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit_or_none() {
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("512 mib"), Ok(512 << 20));
        assert_eq!(bytes("16777216"), Ok(16 << 20));
        for text in ["", "GiB", "1GB", "-1GiB", "99999999999TiB", "1.5GiB"] {
            assert!(bytes(text).unwrap_err().starts_with("expected bytes"), "{text}");
        }
        assert!(bytes("1MiB").unwrap_err().starts_with("expected at least 16MiB"));
    }

    #[test]
    fn the_limits_of_control_groups_count_in_both_versions_and_upwards() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "1000\n");
        write("memory/c/memory.limit_in_bytes", "2000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let found = |groups| limits(groups, root.path()).collect::<Vec<u64>>();
        assert_eq!(found("0::/a/b\n"), [1000]);
        assert_eq!(found("4:cpu:/c\n3:memory:/c\n"), [2000, 9_223_372_036_854_771_712]);
        assert_eq!(found("3:memory:/of/the/host\n"), [9_223_372_036_854_771_712]);
        assert_eq!(found("nonsense\n"), [0; 0]);
        assert!(memory() > 0);
    }
}
