//! The clock and the sweep: at every tick the same bytes to every socket, and nothing else. On the JSON
//! streams a tick is what one request has posted.
//!
//! A socket that does not take everything at once is closed: a floor keeps no cursors.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use clap::ValueEnum;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::Timespec;
use swarm::clock::{SECOND, now_ns};

use super::recording::{Recording, TickFrames};
use super::tick_ledger::{Ledger, TickTimes};
use super::uring::Uring;

/// How a tick leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One `send(2)` per frame.
    Send,
    /// One `send(2)` of all frames of a tick.
    Joined,
    /// One submission of all frames of a tick, many to a system call.
    IoUring,
}

/// See the module's documentation.
pub struct Sender {
    mode: Mode,
    interval_ns: u64,
    joined: Receiver<Arc<TcpStream>>,
    ledger: Arc<Ledger>,
    members: Vec<Arc<TcpStream>>,
    uring: Option<Uring>,
    /// Places of members that did not take everything in this tick.
    failed: Vec<usize>,
}

impl Sender {
    /// A sender to whoever comes through `joined`. Fails where io_uring is asked for and not there.
    pub fn new(
        mode: Mode,
        interval: Duration,
        joined: Receiver<Arc<TcpStream>>,
        ledger: Arc<Ledger>,
    ) -> anyhow::Result<Self> {
        let interval_ns = (interval.as_nanos() as u64).max(1);
        let uring = (mode == Mode::IoUring).then(Uring::new).transpose()?;
        Ok(Self { mode, interval_ns, joined, ledger, members: Vec::new(), uring, failed: Vec::new() })
    }

    /// Sends what was posted, as it comes, until the process ends.
    pub fn relay(mut self, posted: &Receiver<TickFrames>) -> anyhow::Result<()> {
        for tick in posted {
            self.admit()?;
            self.sweep(&tick)?;
        }
        Ok(())
    }

    /// Ticks until the process ends.
    pub fn run(mut self, mut recording: Recording) -> anyhow::Result<()> {
        let mut scheduled_ns = now_ns();
        for ordinal in 0.. {
            sleep_until(scheduled_ns);
            // Before the members: whoever has joined until now gets this tick.
            let published_ns = now_ns();
            self.admit()?;
            let (tick, first_id) = recording.tick(ordinal);
            self.sweep(tick)?;
            self.ledger.append(TickTimes { ordinal, scheduled_ns, published_ns }, tick, first_id);
            // The grid does not move; beats that have passed are given up.
            scheduled_ns += self.interval_ns;
            scheduled_ns += now_ns().saturating_sub(scheduled_ns) / self.interval_ns * self.interval_ns;
        }
        Ok(())
    }

    fn admit(&mut self) -> anyhow::Result<()> {
        for socket in self.joined.try_iter() {
            if let Some(uring) = &self.uring {
                uring.seat(self.members.len(), &socket)?;
            }
            self.members.push(socket);
        }
        Ok(())
    }

    fn sweep(&mut self, tick: &TickFrames) -> anyhow::Result<()> {
        let Self { mode, members, uring, failed, .. } = self;
        match (mode, uring) {
            (Mode::IoUring, Some(uring)) => uring.send_all(members.len(), &tick.bytes, failed)?,
            (Mode::Send, _) => {
                failed.extend((0..members.len()).filter(|&place| !send_frames(&members[place], tick)));
            }
            _ => failed.extend((0..members.len()).filter(|&place| !send_whole(&members[place], &tick.bytes))),
        }
        // From the end, so that what takes an emptied place has been looked at.
        self.failed.sort_unstable();
        while let Some(place) = self.failed.pop() {
            let socket = self.members.swap_remove(place);
            // It may be gone already.
            let _ = socket.shutdown(Shutdown::Both);
            if let (Some(uring), Some(moved)) = (&self.uring, self.members.get(place)) {
                uring.seat(place, moved)?;
            }
        }
        Ok(())
    }
}

fn send_frames(socket: &TcpStream, tick: &TickFrames) -> bool {
    let mut begin = 0;
    tick.ends.iter().all(|&end| {
        let bytes = &tick.bytes[begin..end];
        begin = end;
        send_whole(socket, bytes)
    })
}

fn send_whole(socket: &TcpStream, bytes: &[u8]) -> bool {
    send(socket.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) == Ok(bytes.len())
}

fn sleep_until(deadline_ns: u64) {
    let deadline = Timespec { tv_sec: (deadline_ns / SECOND) as i64, tv_nsec: (deadline_ns % SECOND) as i64 };
    // Interrupted by a signal: sleep on, the deadline is absolute.
    while clock_nanosleep_absolute(ClockId::Monotonic, &deadline) == Err(Errno::INTR) {}
}
