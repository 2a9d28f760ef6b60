//! What does a small send to each of many sockets cost the thread that sends: `send(2)`, io_uring, io_uring with registered
//! files, and with those and without a completion for what was sent whole?
//!
//! The ways take turns within each round, sweep by sweep, since this is about a few percent. Readers empty the sockets on
//! another core. Printed is the thread's own CPU time, each way divided by plain io_uring.
//!
//! `cargo bench -p flowcast --bench sends -- SOCKETS ROUNDS SWEEPS BYTES` (1000 11 100 342)

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::{Timespec, epoll};
use rustix::net::{SendFlags, send};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Sends in one system call, as in the server.
const BATCH: usize = 128;

/// A send that took only a part must fail, or nobody would hear of it. Not among rustix's flags for sends.
const MSG_WAITALL: u32 = 0x100;

/// Between two sweeps: the readers must have emptied the sockets.
const REST: Duration = Duration::from_millis(3);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Send,
    Uring,
    Registered,
    Skipped,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Uring, "io_uring"),
    (Way::Send, "send(2)"),
    (Way::Registered, "registered files"),
    (Way::Skipped, "and no completions"),
];

fn main() {
    // Cargo adds `--bench`.
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let argument = |at: usize, default| given.get(at).copied().unwrap_or(default);
    let (sockets, rounds, sweeps, bytes) = (argument(0, 1000), argument(1, 11), argument(2, 100), argument(3, 342));
    let sockets = connect(sockets);
    pin(1);
    let mut sender = Sender::new(sockets, vec![7; bytes]);
    let mut spent = vec![[0_f64; WAYS.len()]; rounds];
    for (round, spent) in spent.iter_mut().enumerate() {
        for sweep in 0..sweeps {
            for turn in 0..WAYS.len() {
                let at = (turn + round + sweep) % WAYS.len();
                let began = cpu_ns();
                sender.sweep(WAYS[at].0);
                spent[at] += (cpu_ns() - began) as f64;
                thread::sleep(REST);
            }
        }
    }
    let sends = (sweeps * sender.sockets.len()) as f64;
    println!("{} sockets, {rounds} rounds of {sweeps} sweeps, {bytes} B", sender.sockets.len());
    for (at, (_, name)) in WAYS.iter().enumerate() {
        let [median, ..] = spread(spent.iter().map(|spent| spent[at] / sends));
        let [ratio, least, most] = spread(spent.iter().map(|spent| spent[at] / spent[0]));
        println!("{name:<20} {median:6.0} ns a send, {ratio:.3} ({least:.3} to {most:.3})");
    }
}

/// Median, least and most.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [values[values.len() / 2], values[0], values[values.len() - 1]]
}

fn cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Keeps the thread on a core, if the machine has it.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    if sched_setaffinity(None, &cores).is_err() {
        eprintln!("core {core} is not ours: both ends may share one");
    }
}

/// So many connections; a thread on the first core reads what arrives.
fn connect(sockets: usize) -> Vec<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..sockets {
        theirs.push(TcpStream::connect(address).expect("room for a connection (ulimit -n)"));
        ours.push(listener.accept().expect("its other end").0);
    }
    for socket in ours.iter().chain(&theirs) {
        socket.set_nonblocking(true).expect("an option of a socket");
        socket.set_nodelay(true).expect("an option of a socket");
    }
    thread::spawn(move || {
        pin(0);
        read(theirs);
    });
    ours
}

/// Reads for as long as the program runs.
fn read(mut sockets: Vec<TcpStream>) {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    for (at, socket) in sockets.iter().enumerate() {
        epoll::add(&poll, socket, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN).expect("room in epoll");
    }
    let mut buffer = vec![0; 64 << 10];
    let mut ready = Vec::with_capacity(256);
    loop {
        ready.clear();
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = epoll::wait(&poll, rustix::buffer::spare_capacity(&mut ready), Some(&patience));
        for event in &ready {
            let _ = sockets[event.data.u64() as usize].read(&mut buffer);
        }
    }
}

struct Sender {
    sockets: Vec<TcpStream>,
    payload: Vec<u8>,
    ring: IoUring,
}

impl Sender {
    fn new(sockets: Vec<TcpStream>, payload: Vec<u8>) -> Self {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(BATCH as u32)
            .expect("a kernel with io_uring");
        let files: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&files).expect("room for the files");
        Self { sockets, payload, ring }
    }

    /// One send to each socket.
    fn sweep(&mut self, way: Way) {
        if way == Way::Send {
            for socket in &self.sockets {
                let sent = send(socket.as_fd(), &self.payload, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                assert_eq!(sent, Ok(self.payload.len()), "the readers keep up");
            }
            return;
        }
        for begin in (0..self.sockets.len()).step_by(BATCH) {
            self.batch(way, begin..(begin + BATCH).min(self.sockets.len()));
        }
    }

    fn batch(&mut self, way: Way, places: std::ops::Range<usize>) {
        let flags = (SendFlags::DONTWAIT | SendFlags::NOSIGNAL).bits();
        let flags = if way == Way::Skipped { flags | MSG_WAITALL } else { flags };
        let (pointer, length) = (self.payload.as_ptr(), self.payload.len() as u32);
        for place in places.clone() {
            let send = if way == Way::Uring {
                opcode::Send::new(types::Fd(self.sockets[place].as_raw_fd()), pointer, length)
            } else {
                opcode::Send::new(types::Fixed(place as u32), pointer, length)
            };
            let mut entry = send.flags(flags.cast_signed()).build();
            if way == Way::Skipped {
                entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
            }
            // SAFETY: the payload lives as long as the ring, and nobody writes to it.
            #[expect(unsafe_code, reason = "an entry of the submission queue is a pointer for the kernel")]
            unsafe {
                self.ring.submission().push(&entry).expect("room for a batch");
            }
        }
        let completions = if way == Way::Skipped { 0 } else { places.len() };
        self.ring.submit_and_wait(completions).expect("the kernel takes the batch");
        for completion in self.ring.completion() {
            assert_eq!(completion.result(), length.cast_signed(), "the readers keep up");
        }
    }
}
