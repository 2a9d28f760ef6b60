//! One second of one worker, and the same second of all of them.

use hdrhistogram::Histogram;

use super::histogram;

/// What a worker did in one second of the run.
#[derive(Clone, Debug)]
pub struct Interval {
    /// The second, counted from the start of the run.
    pub second: u64,
    /// From scheduled tick to receipt.
    pub latency: Histogram<u64>,
    /// How long the receive loop was away from its sockets, weighted by the events it came back to.
    pub loop_delay: Histogram<u64>,
    /// Data frames received.
    pub frames: u64,
    /// Data frames found right.
    pub verified: u64,
    /// Data frames that were decoded rather than compared.
    pub decoded: u64,
    /// Bytes received, with all headers of frames.
    pub bytes: u64,
    /// Reads from sockets.
    pub reads: u64,
    /// Clients that are up, at the end of the second.
    pub up: u64,
    /// Faults found so far, at the end of the second.
    pub faults: u64,
    /// Connections that failed or were dropped so far, at the end of the second.
    pub failures: u64,
    /// How long the interval was: the last one is shorter.
    pub length_ns: u64,
    /// Time not spent waiting for events.
    pub busy_ns: u64,
    /// CPU time of the worker's thread.
    pub cpu_ns: u64,
    /// Time the thread was ready to run but had no processor.
    pub starved_ns: u64,
}

impl Interval {
    /// An empty second.
    pub fn new(second: u64) -> Self {
        Self {
            second,
            latency: histogram::new(),
            loop_delay: histogram::new(),
            frames: 0,
            verified: 0,
            decoded: 0,
            bytes: 0,
            reads: 0,
            up: 0,
            faults: 0,
            failures: 0,
            length_ns: 0,
            busy_ns: 0,
            cpu_ns: 0,
            starved_ns: 0,
        }
    }

    /// Adds the same second (or any other) of another worker.
    pub fn add(&mut self, other: &Self) {
        // All histograms of the swarm have the same bounds, so adding cannot fail.
        let _ = self.latency.add(&other.latency);
        let _ = self.loop_delay.add(&other.loop_delay);
        self.frames += other.frames;
        self.verified += other.verified;
        self.decoded += other.decoded;
        self.bytes += other.bytes;
        self.reads += other.reads;
        self.up += other.up;
        self.faults += other.faults;
        self.failures += other.failures;
        self.length_ns += other.length_ns;
        self.busy_ns += other.busy_ns;
        self.cpu_ns += other.cpu_ns;
        self.starved_ns += other.starved_ns;
    }
}
