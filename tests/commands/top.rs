//! `flowcast top`: what the live page shows, in a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use crate::common::client::{Client, JSON};
use crate::common::dataset::{Dataset, group};
use crate::common::eventually;
use crate::common::http;
use crate::common::server::{Server, program, refusal, serve};
use crate::common::socket::Socket;
use crate::replay::{takes_lines, terminal};
use crate::{said, url};

const JSON_TYPE: (&str, &str) = ("Content-Type", "application/json");

/// A running `top` in a terminal of 40 lines.
struct Screen {
    child: Child,
    keyboard: File,
    terminal: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    fn open(address: &str) -> Self {
        let (keyboard, terminal) = terminal();
        let size = Winsize { ws_row: 40, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let mut command = program(&["top", address]);
        command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, text) = (keyboard.try_clone().unwrap(), Arc::clone(&written));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                text.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, keyboard, terminal, written }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// What was drawn last, as a whole.
    fn last(&self) -> String {
        let text = self.text();
        let whole = text.rsplit_once("\x1b[J").map_or("", |(before, _)| before);
        whole.rsplit("\x1b[H").next().unwrap().to_owned()
    }

    /// Waits until the screen has these words.
    fn shows(&self, words: &str) -> String {
        eventually(&format!("the screen shows {words:?}"), || Some(self.last()).filter(|screen| screen.contains(words)))
    }

    fn is_put_back(&self) -> bool {
        takes_lines(&self.terminal) && self.text().ends_with("\x1b[?7h\x1b[?25h\x1b[?1049l")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_screen_shows_head_hubs_connections_and_groups_and_q_puts_the_terminal_back() {
    let server = Server::start(&Dataset::usual());
    let headers = [("Sec-WebSocket-Protocol", JSON), ("User-Agent", "sdk\u{202e}\u{9b}2J")];
    let socket = Socket::open(server.address, "/client/hubs/orderflow?access_token=k42:1", &headers);
    let mut client = Client::on(socket.unwrap(), server.address, JSON).joined(&["SPX", "NOPE"]);
    client.take(2);
    let mut screen = Screen::open(&url(&server));
    let shown = screen.shows("1 of 1 connections, worst first");
    let id = &client.connected().connection_id[..7];
    for words in [
        "flowcast ",
        "serving   2025-11-28",
        "clock playing ",
        "epoch 1",
        "q: quit",
        "sockets 1/",
        "orderflow",
        "k42",
        id,
        "CONNECTIONS",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(shown.contains("! 1 group has subscribers and no data: "), "{shown}");
    assert!(shown.contains("sdk\u{fffd}\u{fffd}2J") && !shown.contains(['\u{202e}', '\u{9b}']), "{shown}");
    screen.press("o");
    screen.shows("connections, by groups");
    screen.press("or");
    screen.shows("connections, by behind, reversed");
    // The letter of an arrow key is no key.
    screen.press("\x1b[C");
    screen.press("s");
    let groups = screen.shows("groups, worst first");
    let at = |ticker: &str| groups.find(&group(ticker)).unwrap();
    assert!(at("NOPE") < at("SPX") && at("SPX") < at("ES_SPX") && groups.contains("no data"), "{groups}");
    screen.press("nsn");
    screen.shows("1 of 1 connections, worst first");
    screen.press("f");
    let sources = screen.shows("sources, worst first");
    assert!(sources.contains("data files") && sources.contains("records"), "{sources}");
    screen.press("p");
    screen.shows("PAUSED");
    let path = format!("/live/connections/{}/close", client.connected().connection_id);
    assert_eq!(http::request_with(server.address, "POST", &path, &[JSON_TYPE], "{}").status, 200);
    screen.press("pc");
    let closed = screen.shows("1 of 1 closed, last first");
    for words in ["operator", "1008", "closed by an operator", "closed since the start: operator 1"] {
        assert!(closed.contains(words), "{words}: {closed}");
    }
    screen.press("q");
    assert!(screen.child.wait().unwrap().success());
    eventually("the terminal is put back", || screen.is_put_back().then_some(()));
}

#[test]
fn a_signal_puts_the_terminal_back() {
    let server = Server::start(&Dataset::usual());
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let mut screen = Screen::open(&url(&server));
        screen.shows("connections, worst first");
        kill_process(Pid::from_child(&screen.child), signal).unwrap();
        assert!(!screen.child.wait().unwrap().success());
        eventually("the terminal is put back", || screen.is_put_back().then_some(()));
    }
}

#[test]
fn a_terminal_that_shrinks_gets_what_fits_at_once_and_is_put_back() {
    let server = Server::start(&Dataset::usual());
    let mut screen = Screen::open(&url(&server));
    screen.shows("q: quit");
    for (columns, rows) in [(20, 5), (1, 1), (200, 3), (80, 24)] {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&screen.terminal, size).unwrap();
        // The terminal is no controlling one here, so it sends nothing itself.
        kill_process(Pid::from_child(&screen.child), Signal::WINCH).unwrap();
        eventually(&format!("it fits into {columns} × {rows}"), || {
            let shown = screen.last();
            // The terminal puts a return of its own before each line feed.
            let lines: Vec<&str> = shown.split('\n').map(|line| line.trim_end_matches('\r')).collect();
            let longest = lines.iter().map(|line| plain_length(line)).max().unwrap_or(0);
            (lines.len() <= usize::from(rows) && longest <= usize::from(columns) && longest > 0).then_some(())
        });
    }
    screen.press("q");
    assert!(screen.child.wait().unwrap().success());
    eventually("the terminal is put back", || screen.is_put_back().then_some(()));
}

/// Characters without what only colours them.
fn plain_length(line: &str) -> usize {
    line.replace("\x1b[K", "").replace("\x1b[31m", "").replace("\x1b[0m", "").chars().count()
}

#[test]
fn a_terminal_that_goes_ends_it() {
    let server = Server::start(&Dataset::usual());
    let (keyboard, terminal) = terminal();
    let mut command = program(&["top", &url(&server)]);
    command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    eventually("it takes keys", || (!takes_lines(&terminal)).then_some(()));
    drop((keyboard, terminal));
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert!(status.code().is_some(), "by itself, not by a signal: {status}");
}

#[test]
fn a_server_that_goes_and_comes_back_is_shown_again() {
    let dataset = Dataset::usual();
    let server = Server::start(&dataset);
    let address = server.address.to_string();
    let screen = Screen::open(&address);
    screen.shows("connections, worst first");
    drop(server);
    screen.shows("trying again");
    let _again = Server::launch(serve(&dataset, &[]).env("WS_BIND_ADDRESS", &address)).serving();
    eventually("it is shown again", || {
        let screen = screen.last();
        (screen.contains("connections, worst first") && !screen.contains("trying again")).then_some(())
    });
}

#[test]
fn once_prints_the_page_or_its_json_and_ends() {
    let server = Server::start(&Dataset::usual());
    let _client = Client::open(&server, JSON);
    let text = said(&["top", &url(&server), "--once"]);
    assert!(text.contains("1 of 1 connections") && text.contains("frames/s") && !text.contains('\u{1b}'), "{text}");
    let snapshot: Value =
        serde_json::from_str(&said(&["top", &server.address.to_string(), "--once", "--json"])).unwrap();
    assert!(
        snapshot["head"]["name"] == "flowcast" && snapshot["flow"]["total"]["frames_per_s"].is_number(),
        "{snapshot}"
    );
    assert_eq!(snapshot["connections"]["rows"].as_object().unwrap().len(), 1);
}

#[test]
fn without_a_terminal_a_page_or_a_server_it_says_so() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_LIVE_PAGE", "off")]);
    let refused = refusal(&mut program(&["top", &url(&server), "--once"]));
    assert!(refused.contains("has no live page"), "{refused}");
    let refused = refusal(&mut program(&["top", "127.0.0.1:1", "--once"]));
    assert!(refused.contains("cannot connect to 127.0.0.1:1"), "{refused}");
    let server = Server::start(&Dataset::usual());
    let refused = refusal(&mut program(&["top", &url(&server)]));
    assert!(refused.contains("expected a terminal; without one, use --once"), "{refused}");
}
