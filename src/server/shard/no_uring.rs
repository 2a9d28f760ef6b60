//! What stands for `uring` in a build without the feature `io-uring`: there is never one.

use std::io;
use std::os::fd::BorrowedFd;

/// None.
pub enum Uring {}

impl Uring {
    /// Fails.
    pub fn new(_sends: u32) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "built without the feature io-uring"))
    }

    /// Never called.
    pub fn send_all<'a>(
        &mut self,
        _offers: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
        _sent: &mut Vec<io::Result<usize>>,
    ) -> io::Result<()> {
        match *self {}
    }
}
