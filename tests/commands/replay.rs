//! `flowcast replay`, and the keys of `tail`: a running server steered from a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::LazyLock;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

use crate::common::dataset::Dataset;
use crate::common::eventually;
use crate::common::server::{Server, program, refusal, run};
use crate::{said, url};

/// The server reads its folder again when it is asked for dates: it stays as long as the tests.
fn day() -> &'static Dataset {
    static DAY: LazyLock<Dataset> = LazyLock::new(Dataset::usual);
    &DAY
}

fn paused() -> Server {
    Server::with(day(), &[("FLOWCAST_START_PAUSED", "true"), ("FLOWCAST_CONTROL_RATE", "10000")])
}

/// What `flowcast replay ARGS --json` prints.
fn replay(server: &Server, args: &[&str]) -> Value {
    let out = said(&[&["replay"], args, &["--json", "--url", &url(server)]].concat());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn every_word_of_the_command_steers_the_clock() {
    let server = paused();
    assert_eq!(replay(&server, &[])["state"], "paused");
    assert_eq!(replay(&server, &["seek", "record:50"])["record"], 50);
    assert_eq!(replay(&server, &["seek", "-10s"])["data_time"], "2025-11-28T14:30:40Z");
    assert_eq!(replay(&server, &["seek", "9:30:05"])["data_time"], "2025-11-28T14:30:05Z");
    let tick = replay(&server, &[])["tick"].as_u64().unwrap();
    assert_eq!(replay(&server, &["step"])["tick"], tick + 1);
    assert_eq!(replay(&server, &["step", "3"])["tick"], tick + 4);
    assert_eq!(replay(&server, &["step", "-1"])["state"], "paused");
    assert_eq!(replay(&server, &["speed", "10"])["speed"], 10);
    assert_eq!(replay(&server, &["speed", "max"])["speed"], "max");
    replay(&server, &["until", "9:30:50", "--speed", "max"]);
    eventually("it pauses there", || {
        let clock = replay(&server, &[]);
        (clock["state"] == "paused" && clock["data_time"] == "2025-11-28T14:30:50Z").then_some(())
    });
    assert_eq!(replay(&server, &["stop"])["state"], "stopped");
    assert_eq!(replay(&server, &["play"])["state"], "playing");
    assert_eq!(replay(&server, &["pause"])["state"], "paused");
    assert_eq!(replay(&server, &["dates"])["dates"][0]["date"], "2025-11-28");
    let out = said(&["replay", "load", "2025-11-01..2025-11-30", "--url", &url(&server)]);
    assert!(out.lines().last().unwrap().starts_with("loaded 2025-11-28"), "{out}");
    let text = said(&["replay", "--url", &server.address.to_string()]);
    assert!(text.starts_with("state ") && text.contains("2025-11-28T14:30:00Z to "), "{text}");
}

#[test]
fn what_the_server_refuses_is_said_as_the_server_says_it() {
    let server = paused();
    let refused = |args: &[&str]| refusal(program(&["replay", "--url", &url(&server)]).args(args));
    assert!(refused(&["speed", "0"]).contains("expected a speed above 0 or \"max\", got 0"));
    assert!(refused(&["speed", "fast"]).contains("got \"fast\""));
    assert!(refused(&["seek", "soon"]).contains("seek: expected a time such as"));
    assert!(refused(&["step", "0"]).contains("step: expected a whole number of ticks"));
    assert!(refused(&["load", "2025-11-25"]).contains("available dates: 2025-11-28"));
    assert!(refused(&["load", "tomorrow"]).contains("expected YYYY-MM-DD"));
    assert!(refused(&["--session", "none", "play"]).contains("no session \"none\""));
    let nobody = refusal(&mut program(&["replay", "--url", "http://127.0.0.1:1"]));
    assert!(nobody.contains("cannot connect to 127.0.0.1:1"), "{nobody}");
}

#[test]
fn the_token_comes_from_the_environment() {
    let settings = [("FLOWCAST_CONTROL_TOKEN", "a-token"), ("FLOWCAST_START_PAUSED", "true")];
    let server = Server::with(day(), &settings);
    let play = |token: Option<&str>| {
        let address = url(&server);
        let mut command = program(&["replay", "play", "--url", &address]);
        run(command.envs(token.map(|token| ("FLOWCAST_CONTROL_TOKEN", token))))
    };
    assert!(!play(None).status.success() && !play(Some("another")).status.success());
    let played = play(Some("a-token"));
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
    assert_eq!(replay(&server, &[])["state"], "playing", "reading needs no token");
}

/// Both ends of a terminal.
pub fn terminal() -> (File, OwnedFd) {
    // A program that had the keyboard's end itself would never see it go.
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    (File::from(master), terminal)
}

pub fn takes_lines(terminal: &OwnedFd) -> bool {
    tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
}

#[test]
fn keys_in_a_terminal_steer_the_clock_and_the_terminal_is_put_back() {
    let server = paused();
    for signal in [Signal::INT, Signal::TERM] {
        let (mut keyboard, terminal) = terminal();
        let address = url(&server);
        let mut command = program(&["tail", &address, "SPX"]);
        command.stdin(terminal.try_clone().unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        eventually("tail takes keys", || (!takes_lines(&terminal)).then_some(()));
        let state = |expected: &Value| {
            let clock = || server.get("/replay").json();
            eventually(&format!("the clock is {expected}"), || {
                let clock = clock();
                expected.as_object().unwrap().iter().all(|(key, value)| clock[key] == *value).then_some(clock)
            })
        };
        keyboard.write_all(b" ").unwrap();
        state(&json!({ "state": "playing" }));
        keyboard.write_all(b" ").unwrap();
        let tick = state(&json!({ "state": "paused" }))["tick"].as_u64().unwrap();
        keyboard.write_all(b"s").unwrap();
        state(&json!({ "tick": tick + 1 }));
        keyboard.write_all(b"\x1b[A").unwrap();
        state(&json!({ "interval_ms": 10 }));
        keyboard.write_all(b"\x1b[B").unwrap();
        state(&json!({ "interval_ms": 20 }));
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(takes_lines(&terminal), "{signal:?}");
    }
}

#[test]
fn without_a_terminal_nothing_is_read_from_standard_input() {
    let server = Server::start(day());
    let address = url(&server);
    let mut command = program(&["tail", &address, "SPX", "--count", "3"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"  s").unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!((out.lines().count(), &server.get("/replay").json()["state"]), (3, &json!("playing")));
}
