//! The built server, on a free port, killed with the test.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::dataset::Dataset;
use super::http::{self, Response};
use super::{PATIENCE, eventually};

/// The program with nothing of this process's environment.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowcast"));
    command.env_clear().args(args).stdin(Stdio::null());
    command
}

/// A server's command line: a free port, the dataset, a tick every 20 ms.
pub fn serve(dataset: &Dataset, settings: &[(&str, &str)]) -> Command {
    let mut command = program(&[]);
    command
        .env("WS_BIND_ADDRESS", "127.0.0.1:0")
        .env("DATA_DIR", dataset.path())
        .env("WS_STREAM_INTERVAL", "20ms")
        .envs(settings.iter().copied());
    command
}

/// Runs a command that ends by itself.
pub fn run(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (sender, output) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(PATIENCE) else {
        let _ = kill_process(pid, Signal::KILL);
        panic!("expected {command:?} to end by itself");
    };
    output.unwrap()
}

/// What a command that must fail says on standard error.
pub fn refusal(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "expected a refusal, got success: {said}");
    assert!(output.status.code().is_some(), "expected an exit code, got {}: {said}", output.status);
    said
}

pub struct Server {
    pub address: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    /// Starts with the usual settings and waits until it serves.
    pub fn start(dataset: &Dataset) -> Self {
        Self::with(dataset, &[])
    }

    /// Starts with more settings, as environment, and waits until it serves.
    pub fn with(dataset: &Dataset, settings: &[(&str, &str)]) -> Self {
        Self::launch(&mut serve(dataset, settings)).serving()
    }

    /// Starts a command line and waits for the line that tells the port.
    pub fn launch(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut stderr = child.stderr.take().unwrap();
        let written = Arc::clone(&log);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                written.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, line) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = line.recv_timeout(PATIENCE).expect("the line that tells the port");
        let address = line.trim().strip_prefix("flowcast listening on http://").and_then(|rest| rest.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("expected the line that tells the port, got {line:?}");
        };
        Self { address, child, log }
    }

    pub fn serving(self) -> Self {
        eventually("the server serves", || {
            let healthy = http::try_request(self.address, "GET", "/healthz", &[]).ok()?;
            (healthy.status == 200).then_some(())
        });
        // So that everything that was logged before is in `log` too.
        eventually("the log says so", || {
            let log = self.log();
            [" serving seconds=", r#""message":"serving""#].iter().any(|words| log.contains(words)).then_some(())
        });
        self
    }

    pub fn get(&self, path: &str) -> Response {
        http::get(self.address, path)
    }

    /// What the server has written to standard error so far.
    pub fn log(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }

    /// Waits until the log says so.
    pub fn logged(&self, words: &str) -> String {
        eventually(&format!("the log says {words:?}"), || Some(self.log()).filter(|log| log.contains(words)))
    }

    /// The value of a metric; its labels are part of the name.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("expected {name} in\n{text}")).parse().unwrap()
    }

    /// Waits until a metric has a value that will do.
    pub fn metric_until(&self, name: &str, will_do: impl Fn(u64) -> bool) -> u64 {
        eventually(&format!("{name} is as expected"), || Some(self.metric(name)).filter(|&value| will_do(value)))
    }

    /// How many connections ended for this reason.
    pub fn closed(&self, reason: &str) -> u64 {
        self.metric(&format!("flowcast_connections_closed_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until so many connections ended for this reason.
    pub fn closed_until(&self, reason: &str, count: u64) {
        eventually(&format!("{count} connections ended for {reason}"), || (self.closed(reason) == count).then_some(()));
    }

    /// The replay clock's tick.
    pub fn ordinal(&self) -> u64 {
        self.get("/websocket/status").json()["gexbot"]["replay_ordinal"].as_u64().unwrap()
    }

    /// Waits until the clock has beaten so many times more.
    pub fn ticks(&self, more: u64) {
        let from = self.ordinal();
        eventually(&format!("{more} more ticks"), || (self.ordinal() >= from + more).then_some(()));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kilobytes: Option<u64> =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        1024 * kilobytes.unwrap_or_else(|| panic!("expected VmRSS in {status}"))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end of the process.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the server ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            eprintln!("--- the server's log ---\n{}", &log[log.len().saturating_sub(4000)..]);
        }
    }
}
