//! Memory of a block's frames.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::{Mmap, MmapMut};

/// Read-only pages of their own: an allocator rounds sizes like these up by an eighth, and keeps what is freed.
pub struct Pages {
    pages: Mmap,
    held: Arc<AtomicU64>,
}

impl Pages {
    /// The bytes of a copy. `held` counts its bytes as long as anybody holds some of them. Fails if the kernel gives no more
    /// mappings.
    pub fn copy(bytes: &[u8], held: &Arc<AtomicU64>) -> io::Result<Bytes> {
        if bytes.is_empty() {
            return Ok(Bytes::new());
        }
        let mut pages = MmapMut::map_anon(bytes.len())?;
        pages.copy_from_slice(bytes);
        let pages = pages.make_read_only()?;
        held.fetch_add(pages.len() as u64, Ordering::Relaxed);
        Ok(Bytes::from_owner(Self { pages, held: Arc::clone(held) }))
    }
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.pages
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.held.fetch_sub(self.pages.len() as u64, Ordering::Relaxed);
    }
}
