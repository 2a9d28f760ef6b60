//! Sends through io_uring: many to a system call.
//!
//! Sockets are registered files, each at its member's place. Every send is tried at once and never
//! waited for, so it is over when the call that submits it returns; only failures are reported.

use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::net::SendFlags;

/// Sends per system call.
const BATCH: u32 = 512;

/// Sockets there may be.
pub const MAX_MEMBERS: u32 = 19_500;

/// See the module's documentation.
pub struct Uring {
    ring: IoUring,
}

impl Uring {
    /// A ring for the calling thread only. Fails where the kernel has none, or forbids it.
    pub fn new() -> anyhow::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(BATCH)
            .context("this kernel does not offer io_uring")?;
        ring.submitter().register_files_sparse(MAX_MEMBERS).context("cannot register files with io_uring")?;
        Ok(Self { ring })
    }

    /// Puts a socket at a place.
    pub fn seat(&self, place: usize, socket: &TcpStream) -> anyhow::Result<()> {
        let place = u32::try_from(place)?;
        self.ring.submitter().register_files_update(place, &[socket.as_raw_fd()]).context("too many members")?;
        Ok(())
    }

    /// Sends `bytes` to the first `count` places; appends those that did not take all of them to `failed`.
    pub fn send_all(&mut self, count: usize, bytes: &[u8], failed: &mut Vec<usize>) -> anyhow::Result<()> {
        let flags = (SendFlags::DONTWAIT | SendFlags::NOSIGNAL).bits() | MSG_WAITALL;
        for place in 0..count {
            let send = opcode::Send::new(types::Fixed(place as u32), bytes.as_ptr(), bytes.len() as u32)
                .flags(flags as i32)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(place as u64);
            if self.ring.submission().is_full() {
                self.submit(failed)?;
            }
            // SAFETY: `bytes` must stay valid until the send is over. It never waits (`DONTWAIT`), so it
            // is over when `submit` has returned, which is within this function and the borrow.
            #[expect(unsafe_code, reason = "a submission is a pointer for the kernel")]
            unsafe {
                self.ring.submission().push(&send).context("room was made just now")?;
            }
        }
        self.submit(failed)
    }

    fn submit(&mut self, failed: &mut Vec<usize>) -> anyhow::Result<()> {
        self.ring.submit().context("io_uring does not take the sends")?;
        failed.extend(self.ring.completion().map(|failure| failure.user_data() as usize));
        Ok(())
    }
}

/// A send that took only a part counts as failed, and is reported. Not among rustix's flags for sends.
const MSG_WAITALL: u32 = 0x100;
