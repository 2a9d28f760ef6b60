//! The recorded files, as they are.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use futures_util::stream::{self, Stream};
use http::Method;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use jiff::civil::Date;
use serde_json::{Value, json};

use super::blocking;
use super::caller::Caller;
use super::path_names;
use super::rest_refusal::{RestRefusal, names};
use super::vocabulary;
use crate::server::http::app::App;
use crate::wire::gexbot::{ORDERFLOW_HUB, Package};

/// What a download holds in memory.
const CHUNK: usize = 256 << 10;

/// `GET /download/{date}/{ticker}/links`: the paths of a ticker's downloads, by package.
pub async fn links(
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, RestRefusal> {
    let (date, ticker) = names(path)?;
    let date = path_names::date(&date)?;
    path_names::ticker(&ticker)?;
    let only = ticker.clone();
    let files = blocking(move || Ok(caller.day.files(date, Some(&only)))).await?;
    let links = |package: Package| {
        let own = files.iter().filter(|file| file.package == package);
        own.map(|file| link(date, &ticker, package, &file.category)).collect::<Vec<_>>()
    };
    Ok(Json(json!({
        "date": date.to_string(),
        "ticker": ticker,
        "links": {
            "classic": links(Package::Classic),
            "state": links(Package::State),
            "orderflow": links(Package::Orderflow),
        },
        "summary": { "total_links": files.len() },
    })))
}

fn link(date: Date, ticker: &str, package: Package, category: &str) -> String {
    let folder = format!("/download/{date}/{ticker}/{}", package.name());
    if category == ORDERFLOW_HUB { folder } else { format!("{folder}/{category}") }
}

/// `GET /download/{date}/{ticker}/{package}/{category}`
pub fn file(package: Package) -> MethodRouter<Arc<App>> {
    get(async move |method: Method, caller: Caller, path: Result<Path<(String, String, String)>, PathRejection>| {
        let (date, ticker, category) = names(path)?;
        download(caller, &method, &date, &ticker, package, &category).await
    })
}

/// `GET /download/{date}/{ticker}/orderflow`
pub fn orderflow() -> MethodRouter<Arc<App>> {
    get(async move |method: Method, caller: Caller, path: Result<Path<(String, String)>, PathRejection>| {
        let (date, ticker) = names(path)?;
        download(caller, &method, &date, &ticker, Package::Orderflow, ORDERFLOW_HUB).await
    })
}

async fn download(
    caller: Caller,
    method: &Method,
    date: &str,
    ticker: &str,
    package: Package,
    category: &str,
) -> Result<Response, RestRefusal> {
    let (date, ticker) = (path_names::date(date)?, path_names::ticker(ticker)?);
    let category = vocabulary::category(package, category)?;
    let name = format!("{date}/{ticker}/{}/{category}", package.name());
    let (day, only, wanted) = (caller.day, ticker.to_owned(), category.clone());
    let (file, bytes) = blocking(move || {
        let mut files = day.files(date, Some(&only)).into_iter();
        match files.find(|file| file.package == package && file.category == wanted) {
            Some(file) => open(&file.path, name),
            None => Err(RestRefusal::NoFile { name }),
        }
    })
    .await?;
    let file_name = match (package, &*category) {
        (Package::Orderflow, ORDERFLOW_HUB) => format!("{date}_{ticker}_orderflow.jsonl"),
        _ => format!("{date}_{ticker}_{}_{category}.jsonl", package.name()),
    };
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{file_name}\"")),
        (CONTENT_LENGTH, bytes.to_string()),
    ];
    let body = if *method == Method::HEAD { Body::empty() } else { Body::from_stream(chunks(file, bytes)) };
    Ok((headers, body).into_response())
}

/// Opens a regular file; its length at this moment.
fn open(path: &FilePath, name: String) -> Result<(File, u64), RestRefusal> {
    // Before it is opened: opening a pipe would wait for its writer.
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if !is_file {
        return Err(RestRefusal::NoFile { name });
    }
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
    opened.map_err(|source| RestRefusal::Unreadable { name, source })
}

/// The first `bytes` bytes of a file, a piece at a time: the next is read when the client has taken the one before. If
/// the file has become shorter, the body ends with an error, so the client sees that the download is incomplete.
fn chunks(file: File, bytes: u64) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, bytes), async |(file, left)| {
        if left == 0 {
            return Ok(None);
        }
        let read = move || {
            let mut file = file;
            let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
            let length = file.read(&mut chunk)?;
            chunk.truncate(length);
            io::Result::Ok((file, chunk))
        };
        let (file, chunk) = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        if chunk.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
        }
        let left = left - chunk.len() as u64;
        Ok(Some((Bytes::from(chunk), (file, left))))
    })
}
