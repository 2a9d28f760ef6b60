//! A stage: a market, the window that builds its frames, and the threads that do it.
//!
//! What a clock plays. Several clocks may share one, and it ends with the last of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jiff::civil::Date;

use super::dataset::{Dataset, DatasetError, DatasetOptions, dates};
use super::market::{FileError, Market};
use super::stand::Stand;
use super::window::Window;
use super::window_figures::WindowFigures;
use super::window_options::WindowOptions;
use crate::engine::hub::Hub;
use crate::replay::snapshot::Axis;

/// A market and the builders of its frames.
pub struct Stage {
    market: Arc<Market>,
    window: Arc<Window>,
    stop: Arc<AtomicBool>,
}

impl Stage {
    /// A stage on which nothing is built before [`Stage::build`] is called.
    pub fn new(market: Market, hub: &Arc<Hub>, options: WindowOptions, figures: Arc<WindowFigures>) -> Self {
        let market = Arc::new(market);
        let window = Window::new(Arc::clone(&market), Arc::clone(hub), options, figures);
        Self { market, window: Arc::new(window), stop: Arc::default() }
    }

    /// Starts the builders.
    pub fn build(&self) -> io::Result<()> {
        for _ in 0..builders() {
            let (window, stop) = (Arc::clone(&self.window), Arc::clone(&self.stop));
            thread::Builder::new().name("builder".to_owned()).spawn(move || window.run(&stop))?;
        }
        Ok(())
    }

    /// Its tracks.
    pub fn market(&self) -> &Arc<Market> {
        &self.market
    }

    /// What is in memory.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// The dates, and from when to when they were recorded.
    pub fn axis(&self) -> Axis {
        let dates: Vec<Date> = self.market.days.iter().map(|day| day.date).collect();
        Axis { dates, span: self.market.whole_span() }
    }

    /// Waits until the first blocks of everything that a clock needs are built, but not longer than `patience`.
    pub fn prepare(&self, stand: &Arc<Stand>, patience: Duration) {
        let began = std::time::Instant::now();
        while !self.window.is_prepared(stand) && began.elapsed() < patience {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.window.alarm().wake();
    }
}

/// Threads that build frames: half of the processors, the others are for the shards.
fn builders() -> usize {
    thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// The files of the dates that are wanted, in order.
pub fn datasets(options: &DatasetOptions, wanted: &[Date]) -> Result<Vec<Dataset>, DatasetError> {
    let available = dates(&options.data_dir)?;
    wanted.iter().map(|&date| Dataset::among(&options.data_dir, date, &available)).collect()
}

/// Logs why files are left out.
pub fn report(datasets: &[Dataset], errors: &[FileError]) {
    for remark in datasets.iter().flat_map(Dataset::remarks) {
        tracing::warn!("{remark}");
    }
    for error in errors {
        tracing::error!("{error}; this group is not served");
    }
}
