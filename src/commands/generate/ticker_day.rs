//! The files of one ticker, written second by second.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::category_choice::Category;
use super::json_line::JsonLine;
use super::option_records::{MarketMoment, OptionBook};
use super::price_series::{KEYS, PricePath};
use super::{GenerateError, GenerateOptions};
use crate::commands::unfinished_file::{Existing, UnfinishedFile};
use crate::wire::gexbot::Package;

/// What was written of a ticker.
pub struct TickerDay {
    /// Its price each second, in cents.
    pub spots: Vec<i64>,
    /// Lines in its files.
    records: u64,
    /// Written, but not in their place yet.
    files: Vec<UnfinishedFile>,
}

/// Where a ticker's category goes.
pub fn path(options: &GenerateOptions, ticker: &str, (package, name): Category) -> PathBuf {
    let folder = options.out.join(options.date.to_string()).join(ticker).join(package.name());
    folder.join(format!("{name}.jsonl"))
}

impl TickerDay {
    /// Writes a ticker's categories beside their places, a record each for every second from `opening` on.
    pub fn write(
        options: &GenerateOptions,
        ticker: &str,
        categories: &[Category],
        opening: i64,
        seconds: u32,
        stop: &AtomicBool,
    ) -> Result<Self, GenerateError> {
        let mut files = Vec::new();
        for &category in categories {
            let path = path(options, ticker, category);
            let file = UnfinishedFile::create(&path).map_err(|error| GenerateError::Write(path, error))?;
            files.push((category, file));
        }
        let mut series = PricePath::new(options.seed, options.date, ticker);
        let has_options = categories.iter().any(|(package, _)| *package != Package::Orderflow);
        let mut book = has_options
            .then(|| OptionBook::new(options.seed, options.date, ticker, &series.grid(), options.strikes as usize));
        let (mut spots, mut line) = (Vec::new(), JsonLine::default());
        for (second, timestamp) in (0..seconds).zip(opening..) {
            if stop.load(Ordering::Relaxed) {
                return Err(GenerateError::Interrupted);
            }
            let cents = series.step(second);
            spots.push(cents[0]);
            if let Some(book) = &mut book {
                book.step(cents[0]);
            }
            let moment = MarketMoment { timestamp, ticker, cents: &cents };
            for (category, file) in &mut files {
                let line = match &book {
                    Some(book) if category.0 != Package::Orderflow => book.write(*category, &moment, &mut line),
                    _ => orderflow(&moment, &mut line),
                };
                file.write(line).map_err(|error| failed(file, error))?;
            }
        }
        for (_, file) in &mut files {
            file.end(false).map_err(|error| failed(file, error))?;
        }
        let records = spots.len() as u64 * files.len() as u64;
        Ok(Self { spots, records, files: files.into_iter().map(|(_, file)| file).collect() })
    }

    /// Puts its files into their places; how many lines and bytes they have.
    pub fn publish(self, existing: Existing) -> Result<(u64, u64), GenerateError> {
        let mut bytes = 0;
        for file in self.files {
            let place = file.place().to_owned();
            bytes += file.publish(existing).map_err(|error| GenerateError::of_publishing(place, error))?;
        }
        Ok((self.records, bytes))
    }
}

fn failed(file: &UnfinishedFile, error: std::io::Error) -> GenerateError {
    GenerateError::Write(file.place().to_owned(), error)
}

fn orderflow<'l>(moment: &MarketMoment<'_>, line: &'l mut JsonLine) -> &'l [u8] {
    line.begin(moment.timestamp, moment.ticker);
    for (key, &cents) in KEYS.iter().zip(moment.cents) {
        line.key(key).hundredths(cents);
    }
    line.end()
}
