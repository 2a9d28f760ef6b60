//! The data routes: one record of a series, or an excerpt of it.

use std::sync::Arc;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http::Method;
use http::header::CONTENT_TYPE;

use super::blocking;
use super::caller::Caller;
use super::cursors::{CursorName, KnownSlots, Step};
use super::excerpts::Excerpt;
use super::rest_options::RestCursor;
use super::rest_refusal::{RestRefusal, names, shown};
use super::series::RecordedDay;
use super::vocabulary;
use crate::server::http::app::App;
use crate::server::http::auth::KeyDigest;
use crate::wire::gexbot::{Package, PayloadKind, Series};

/// Bad lines that one request skips at most, looking for a record.
const MAX_SKIPPED: usize = 4096;

/// Bytes of the file that one request reads and parses at most, looking for a record: some 10 ms of a processor. A
/// record that is found with less is answered, whatever its length.
const MAX_READ: u64 = 8 << 20;

/// What the vendor's data routes call their JSON.
const JSON: &str = "application/json; charset=utf-8";

/// `GET /{ticker}/{package}/{category}`
pub fn record(package: Package) -> MethodRouter<Arc<App>> {
    route(package, Excerpt::Record)
}

/// `GET /{ticker}/{package}/{category}/majors`
pub fn majors(package: Package) -> MethodRouter<Arc<App>> {
    route(package, Excerpt::Majors)
}

/// `GET /{ticker}/{package}/{category}/maxchange`
pub fn max_change(package: Package) -> MethodRouter<Arc<App>> {
    route(package, Excerpt::MaxChange)
}

fn route(package: Package, excerpt: Excerpt) -> MethodRouter<Arc<App>> {
    get(async move |method: Method, caller: Caller, path: Result<Path<(String, String)>, PathRejection>| {
        let (ticker, category) = names(path)?;
        answer(caller, &method, WantedRecord::new(package, excerpt, &ticker, &category)?).await
    })
}

/// What a path names.
struct WantedRecord {
    ticker: String,
    package: Package,
    /// As files call it.
    category: String,
    excerpt: Excerpt,
}

impl WantedRecord {
    fn new(package: Package, excerpt: Excerpt, ticker: &str, category: &str) -> Result<Self, RestRefusal> {
        let category = vocabulary::category(package, category)?;
        let kind = Series::records(package, &category).map(|series| series.kind());
        if excerpt != Excerpt::Record && kind != Some(PayloadKind::Gex) {
            return Err(RestRefusal::NoExcerpt { category, excerpt: excerpt.name() });
        }
        Ok(Self { ticker: ticker.to_owned(), package, category, excerpt })
    }

    /// Its place in the day.
    fn find(&self, day: &dyn RecordedDay) -> Result<usize, RestRefusal> {
        let found = day.series().iter().position(|series| {
            series.ticker == self.ticker && series.package == self.package && series.category == self.category
        });
        found.ok_or_else(|| {
            let (ticker, package) = (shown(&self.ticker), self.package.name());
            RestRefusal::NoData { name: format!("{ticker}/{package}/{}", self.category) }
        })
    }
}

async fn answer(caller: Caller, method: &Method, wanted: WantedRecord) -> Result<Response, RestRefusal> {
    let series = wanted.find(&*caller.day)?;
    // HEAD does not use up a record.
    let stays = *method == Method::HEAD;
    let body = blocking(move || {
        let Caller { app, day, key } = caller;
        let reading = Reading { day: &*day, series, excerpt: wanted.excerpt };
        match app.rest.cursor {
            RestCursor::Clock => reading.published_last(),
            RestCursor::Key => {
                let name = CursorName { key: KeyDigest::of(&key), series, excerpt: wanted.excerpt };
                let span = reading.span();
                if stays {
                    let position = app.rest.cursors.position(&name);
                    let wrapped = 0..if span.wraps { position.min(span.slots) } else { 0 };
                    let mut slots = (position..span.slots).chain(wrapped);
                    reading.first_good(|| slots.next().map_or(span.end(), Step::Slot))
                } else {
                    reading.first_good(|| app.rest.cursors.advance(&name, span))
                }
            }
        }
    });
    Ok(([(CONTENT_TYPE, JSON)], body.await?).into_response())
}

/// One series, and what is wanted of its records.
struct Reading<'a> {
    day: &'a dyn RecordedDay,
    series: usize,
    excerpt: Excerpt,
}

impl Reading<'_> {
    fn span(&self) -> KnownSlots {
        let (slots, is_complete) = self.day.slots(self.series);
        KnownSlots { slots, is_complete, wraps: self.day.wraps() }
    }

    /// The record at the clock. Before the first tick, and if all before the clock is bad, the first one after it.
    fn published_last(&self) -> Result<Vec<u8>, RestRefusal> {
        let (span, position) = (self.span(), self.day.position(self.series));
        let next = position.map_or(0, |position| position + 1);
        let mut slots = (0..next).rev().chain(next..span.slots);
        self.first_good(|| slots.next().map_or(span.end(), Step::Slot))
    }

    /// The first record on the way that `step` goes.
    fn first_good(&self, mut step: impl FnMut() -> Step) -> Result<Vec<u8>, RestRefusal> {
        let mut reader = self.day.reader(self.series);
        let mut skipped = 0;
        while skipped < MAX_SKIPPED && reader.cost() <= MAX_READ {
            let slot = match step() {
                Step::Slot(slot) => slot,
                Step::End => return Err(RestRefusal::Exhausted),
                Step::NotIndexed => return Err(RestRefusal::NotIndexed { name: self.name() }),
            };
            let line = reader.line(slot);
            let line = line.map_err(|source| RestRefusal::Unreadable { name: self.name(), source })?;
            if let Some(body) = line.and_then(|line| self.excerpt.of(line)) {
                return Ok(body);
            }
            skipped += 1;
        }
        Err(RestRefusal::NoRecord { name: self.name(), lines: skipped })
    }

    fn name(&self) -> String {
        self.day.series()[self.series].name()
    }
}
