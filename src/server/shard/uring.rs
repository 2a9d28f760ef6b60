//! Many sends in one system call, where the kernel has io_uring and allows it.
//!
//! The bytes and their order are those of `send(2)`; what is saved is the way into the kernel and
//! back. Linux 6.1 or newer; containers often forbid it, so it is asked for when a shard starts. A build
//! without the feature `io-uring` never has one.

use std::io;
#[cfg(feature = "io-uring")]
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

#[cfg(feature = "io-uring")]
use io_uring::{IoUring, Probe, opcode, squeue, types};
#[cfg(feature = "io-uring")]
use rustix::net::SendFlags;

/// A ring of one thread. Between two calls of [`Uring::send_all`] the kernel holds nothing of it.
#[cfg(feature = "io-uring")]
pub struct Uring {
    /// `None` after a failure that left entries behind: a ring that is never entered again.
    ring: Option<IoUring>,
    entries: Vec<squeue::Entry>,
}

#[cfg(feature = "io-uring")]
impl Uring {
    /// A ring for so many sends at once, of the calling thread only.
    pub fn new(sends: u32) -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(sends)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Send::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { ring: Some(ring), entries: Vec::with_capacity(sends as usize) })
    }

    /// Offers each socket its bytes, once and without waiting, like `send(2)` with `MSG_DONTWAIT`.
    /// Puts what became of each into `sent`, in the order of `offers`: the bytes taken, 0 if it took
    /// none now, or the socket's error.
    ///
    /// An error means that the ring cannot be used any more; sends that were not tried took nothing. Never
    /// fails for what the sockets do.
    pub fn send_all<'a>(
        &mut self,
        offers: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
        sent: &mut Vec<io::Result<usize>>,
    ) -> io::Result<()> {
        let flags = (SendFlags::DONTWAIT | SendFlags::NOSIGNAL).bits().cast_signed();
        self.entries.clear();
        sent.clear();
        // Before anything is queued: the iterator is not ours, and may panic.
        for (at, (socket, bytes)) in offers.enumerate() {
            // A longer message is sent in part, as by a socket that takes no more.
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), length).flags(flags).build();
            self.entries.push(entry.user_data(at as u64));
            sent.push(Ok(0));
        }
        // Out of `self`: whatever happens below, a ring that is not put back is never entered again.
        let Some(mut ring) = self.ring.take() else { return Err(io::ErrorKind::Unsupported.into()) };
        let mut done = 0;
        for entries in self.entries.chunks(ring.params().sq_entries() as usize) {
            // SAFETY: an entry points to bytes that `offers` lent for 'a, which is longer than this
            // call, and the kernel is done with them when it returns: either every completion has
            // been taken below, or the ring is dropped here with the entries that were never
            // submitted. What was submitted is tried within the submitting system call and not kept
            // for later, because it has `MSG_DONTWAIT` (`REQ_F_NOWAIT` in the kernel's `io_uring/net.c`).
            #[expect(unsafe_code, reason = "an entry of the submission queue is a pointer for the kernel")]
            let pushed = unsafe { ring.submission().push_multiple(entries) };
            pushed.map_err(|_| io::Error::other("expected an empty submission queue"))?;
            let until = done + entries.len();
            while done < until {
                let submitted = ring.submit_and_wait(until - done);
                for completion in ring.completion() {
                    done += 1;
                    if let Some(sent) = sent.get_mut(completion.user_data() as usize) {
                        *sent = outcome(completion.result());
                    }
                }
                match submitted {
                    Ok(_) => {}
                    // A signal, or completions had to be taken first.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
                    // The call took no entry: those before it are over, the others never begin.
                    Err(error) => return Err(error),
                }
            }
        }
        self.ring = Some(ring);
        Ok(())
    }
}

#[cfg(feature = "io-uring")]
fn outcome(result: i32) -> io::Result<usize> {
    match result {
        taken if taken >= 0 => Ok(taken as usize),
        // EINTR too: tried again with the next frame or when the socket is writable, like one that is full.
        error if matches!(-error, libc::EAGAIN | libc::EINTR) => Ok(0),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Stands for the ring in a build without it.
#[cfg(not(feature = "io-uring"))]
pub enum Uring {}

#[cfg(not(feature = "io-uring"))]
impl Uring {
    /// Always fails: this build has no io_uring.
    pub fn new(_sends: u32) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "built without the feature io-uring"))
    }

    /// Never called: there is no value of this type.
    pub fn send_all<'a>(
        &mut self,
        _offers: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
        _sent: &mut Vec<io::Result<usize>>,
    ) -> io::Result<()> {
        match *self {}
    }
}

#[cfg(all(test, feature = "io-uring"))]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (server, client)
    }

    /// `None` where the kernel has none: the fallback is tested by every other test.
    fn uring(sends: u32) -> Option<Uring> {
        Uring::new(sends).inspect_err(|error| eprintln!("io_uring is not tested: {error}")).ok()
    }

    #[test]
    fn each_socket_gets_its_own_bytes_however_many_there_are() {
        let Some(mut uring) = uring(4) else { return };
        let mut pairs: Vec<_> = (0..11).map(|_| pair()).collect();
        let texts: Vec<_> = (0..11).map(|number| format!("to {number:02}")).collect();
        let mut sent = Vec::new();
        for _ in 0..3 {
            let offers = pairs.iter().zip(&texts).map(|((server, _), text)| (server.as_fd(), text.as_bytes()));
            uring.send_all(offers, &mut sent).unwrap();
            assert!(sent.iter().all(|sent| matches!(sent, Ok(5))), "{sent:?}");
        }
        for ((_, client), text) in pairs.iter_mut().zip(&texts) {
            let mut read = [0; 15];
            client.read_exact(&mut read).unwrap();
            assert_eq!(read, text.repeat(3).as_bytes());
        }
    }

    #[test]
    fn a_full_socket_takes_a_part_then_nothing_and_a_closed_one_fails_alone() {
        let Some(mut uring) = uring(8) else { return };
        let ((full, _reader), (closed, gone), (well, _other)) = (pair(), pair(), pair());
        drop(gone);
        let megabytes = vec![7; 64 << 20];
        let mut sent = Vec::new();
        // The first bytes to a closed peer are taken; its reset comes back, and then they are refused.
        for _ in 0..3 {
            let offers = [(full.as_fd(), &megabytes[..]), (closed.as_fd(), b"x"), (well.as_fd(), b"x")];
            uring.send_all(offers.into_iter(), &mut sent).unwrap();
        }
        assert!(matches!(sent[..], [Ok(0), Err(_), Ok(1)]), "{sent:?}");
    }

    #[test]
    fn nothing_to_send_is_no_system_call() {
        let Some(mut uring) = uring(4) else { return };
        let mut sent = vec![Ok(7)];
        uring.send_all(std::iter::empty(), &mut sent).unwrap();
        assert!(sent.is_empty());
    }
}
