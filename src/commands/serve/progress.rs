//! How far loading has come: a bar on a terminal, a log line every two seconds elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::system_clock;

/// Counts the bytes read and shows them; see the module's documentation.
pub struct Progress {
    bar: Option<ProgressBar>,
    told_ns: AtomicU64,
}

impl Progress {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "loading {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
            ProgressBar::new(0).with_style(ProgressStyle::with_template(style).expect("a valid template"))
        });
        Self { bar, told_ns: AtomicU64::new(system_clock::monotonic_ns()) }
    }

    /// `done` bytes of `total` are read. Called from several threads.
    pub fn tell(&self, done: u64, total: u64) {
        const TWO_SECONDS: u64 = 2_000_000_000;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let (now, told) = (system_clock::monotonic_ns(), self.told_ns.load(Ordering::Relaxed));
        // One thread wins the exchange and writes the line.
        if now - told >= TWO_SECONDS
            && self.told_ns.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::info!(done, total, "loading");
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
