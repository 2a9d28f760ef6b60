//! The broker: one for all tests, or one of a test's own that it may stop.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A running `broker.py`. It ends with its standard input, so with this process at the latest.
pub struct Broker {
    child: Child,
    /// `None` only while it is dropped.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Address without proof.
    pub plain: String,
    /// Address with SASL/PLAIN: user flowcast, password secret.
    pub sasl: String,
    /// Address with TLS and SASL/SCRAM-SHA-256, and the file of the certificate that vouches for it.
    pub tls: Option<(String, String)>,
}

impl Broker {
    pub fn start() -> Self {
        Self::with(&[])
    }

    #[cfg(feature = "kafka-ssl")]
    /// One that speaks TLS as well.
    pub fn with_tls() -> Self {
        Self::with(&["tls"])
    }

    fn with(args: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/broker.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3, which runs the broker");
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut broker = Self { child, commands, answers, plain: String::new(), sasl: String::new(), tls: None };
        let ready = broker.answer();
        let mut words = ready.split_whitespace().map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some("ready"), "expected the broker to start, got {ready:?}");
        broker.plain = words.next().unwrap();
        broker.sasl = words.next().unwrap();
        broker.tls = words.next().zip(words.next());
        broker
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        let answer = self.answer();
        let expected = if command == "start" { "ready" } else { "stopped" };
        assert!(answer.starts_with(expected), "{command}: {answer:?}");
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        self.ask("stop");
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.ask("kill");
    }

    /// Starts it again: the same addresses, the same data.
    pub fn resume(&mut self) {
        self.ask("start");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The end of its input ends it, and lets it clean up.
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The broker all tests share: that of `KAFKA_BROKERS`, or one that this process starts.
pub fn shared() -> String {
    static STARTED: OnceLock<Mutex<Broker>> = OnceLock::new();
    match env::var("KAFKA_BROKERS") {
        Ok(brokers) if !brokers.is_empty() => brokers,
        _ => locked(STARTED.get_or_init(|| Mutex::new(Broker::start()))).plain.clone(),
    }
}

/// A broker that the one who holds it may stop; it runs at the beginning.
pub fn of_its_own() -> MutexGuard<'static, Broker> {
    static STARTED: OnceLock<Mutex<Broker>> = OnceLock::new();
    locked(STARTED.get_or_init(|| Mutex::new(Broker::start())))
}
