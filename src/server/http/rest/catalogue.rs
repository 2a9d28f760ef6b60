//! Tickers, categories and expiries, in the vendor's form, of the data that is served.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use jiff::ToSpan;
use jiff::civil::Date;
use serde_json::{Value, json};

use super::caller::{Caller, OnDay};
use super::rest_refusal::{RestRefusal, names, shown};
use crate::server::http::app::App;
use crate::wire::gexbot::{CATEGORIES, Package};

/// Cash indexes the vendor carries; every other name without `_` is a stock or fund.
const INDEXES: [&str; 8] = ["SPX", "NDX", "RUT", "VIX", "DJX", "OEX", "XSP", "XND"];

/// Tickers that the vendor serves to Quant keys alone (`docs/protocols/gexbot.md`, "Tickers").
const QUANT_ONLY: &str = "SOXL LLY FUTU MARA PYPL F ETHA EXK HIMS PINS NKE IREN RIVN IEF MTCH SBSW RIOT ONDS CRM PFE TSLL TGT \
    NXE WMT BMNR CIFR TTD SMR XLF WULF DRAM BE NBIS OXY XLE GDX SMH JPM BAC WFC C GS MS SCHW AXP V MA CME CBOE NDAQ XSP";

/// Days that the vendor's list of expiries looks ahead.
const EXPIRY_DAYS: i64 = 90;

/// `GET /tickers`: the tickers with data by kind. A name with `_` is a future
/// (`docs/protocols/gexbot.md`, "Tickers").
pub async fn tickers(State(app): State<Arc<App>>) -> Response {
    if let Some(unavailable) = app.unavailable() {
        return unavailable;
    }
    let kinds = Kinds::of(with_data(&app));
    Json(json!({ "stocks": kinds.stocks, "indexes": kinds.indexes, "futures": kinds.futures })).into_response()
}

/// `GET /tickers/quant`: those among them that the vendor keeps for Quant keys. Here they need no other key.
pub async fn quant_tickers(State(app): State<Arc<App>>) -> Response {
    if let Some(unavailable) = app.unavailable() {
        return unavailable;
    }
    let is_quant_only = |ticker: &String| QUANT_ONLY.split_whitespace().any(|other| other == ticker);
    let kinds = Kinds::of(with_data(&app).into_iter().filter(is_quant_only));
    Json(json!({ "stocks": kinds.stocks, "indexes": kinds.indexes })).into_response()
}

/// Tickers of the hub's groups and of the recorded day, sorted.
fn with_data(app: &App) -> BTreeSet<String> {
    let mut tickers = BTreeSet::new();
    app.hub.for_each_group(|group| tickers.extend(group.symbol().map(ToString::to_string)));
    if let Some(served) = app.rest.day() {
        tickers.extend(served.day.series().iter().map(|series| series.ticker.clone()));
    }
    tickers
}

#[derive(Default)]
struct Kinds {
    stocks: Vec<String>,
    indexes: Vec<String>,
    futures: Vec<String>,
}

impl Kinds {
    fn of(tickers: impl IntoIterator<Item = String>) -> Self {
        let mut kinds = Self::default();
        for ticker in tickers {
            let kind = match &*ticker {
                ticker if ticker.contains('_') => &mut kinds.futures,
                ticker if INDEXES.contains(&ticker) => &mut kinds.indexes,
                _ => &mut kinds.stocks,
            };
            kind.push(ticker);
        }
        kinds
    }
}

/// `GET /{package}/categories`: those that any ticker of the day has, in the vendor's order.
pub async fn categories(
    OnDay { day, .. }: OnDay,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Vec<String>>, RestRefusal> {
    let name = names(path)?;
    let package = Package::parse(&name).ok_or_else(|| RestRefusal::UnknownPackage { name: shown(&name) })?;
    let there: BTreeSet<&str> =
        day.series().iter().filter(|series| series.package == package).map(|series| &*series.category).collect();
    let listed =
        CATEGORIES.iter().filter(|(of, _)| *of == package).flat_map(|(_, categories)| categories.iter().copied());
    let (mut known, mut of_expiries): (Vec<&str>, Vec<&str>) = (listed.collect(), Vec::new());
    known.retain(|category| there.contains(category));
    of_expiries.extend(there.iter().filter(|category| !known.contains(*category)));
    Ok(Json(known.into_iter().chain(of_expiries).map(str::to_owned).collect()))
}

/// `GET /options/{ticker}/expiries`: the expiries that have files of their own. No calendar is made up.
pub async fn expiries(caller: Caller, path: Result<Path<String>, PathRejection>) -> Result<Json<Value>, RestRefusal> {
    let (day, ticker) = (caller.day, names(path)?);
    let own: Vec<_> = day.series().iter().filter(|series| series.ticker == ticker).collect();
    if own.is_empty() {
        return Err(RestRefusal::NoData { name: shown(&ticker) });
    }
    let expiries: BTreeSet<Date> = own.iter().filter_map(|series| expiry(&series.category)).collect();
    let start = day.date();
    let end = start.checked_add(EXPIRY_DAYS.days()).unwrap_or(Date::MAX);
    let within: Vec<String> =
        expiries.into_iter().filter(|expiry| (start..=end).contains(expiry)).map(|date| date.to_string()).collect();
    let answer = json!({
        "ticker": ticker,
        "start_date": start.to_string(),
        "end_date": end.to_string(),
        "expiries": within,
    });
    Ok(Json(answer))
}

/// The expiry in a category's name: `gex_20251219`, `20251219`.
fn expiry(category: &str) -> Option<Date> {
    let digits = category.rsplit('_').next().filter(|digits| digits.len() == 8)?;
    let number: u32 = digits.parse().ok()?;
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_real_day_at_the_end_of_a_category() {
        let expected = "2025-12-19".parse::<Date>().ok();
        for category in ["gex_20251219", "20251219", "vanna_20251219"] {
            assert_eq!(expiry(category), expected, "{category}");
        }
        for category in ["gex_full", "gex_20251319", "orderflow", "gex_99999999", ""] {
            assert_eq!(expiry(category), None, "{category}");
        }
    }
}
