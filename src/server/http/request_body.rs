//! Bodies of requests: read within limits of length and time, and out of one budget.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};

use super::app::App;
use super::places::{HttpPlace, Wait};
use crate::engine::system_clock::monotonic_ms;
use crate::wire::byte_budget::HeldBytes;

/// Bytes taken for a body at first.
const FIRST: usize = 4096;

/// How long a client that was answered early may go on sending what nobody reads.
const DISCARDING: Duration = Duration::from_secs(1);

/// If nothing comes for so long, the client is probably waiting for its answer.
const QUIET: Duration = Duration::from_millis(250);

/// A body in memory. It counts in the budget as long as this lives.
pub struct ReadBody {
    bytes: Vec<u8>,
    _held: HeldBytes,
}

impl Deref for ReadBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The request says so, or so much has come.
    #[error("expected a body of at most {limit} bytes")]
    TooLarge { limit: usize },
    /// It never ends.
    #[error("expected the whole body within {seconds} seconds")]
    Slow { seconds: u64 },
    /// The bodies of all clients are more than `--request-bodies-bytes`.
    #[error("too many bodies are being read; try again")]
    NoRoom,
    /// The client has left, or broke HTTP.
    #[error("expected a whole body: {0}")]
    Broken(axum::Error),
}

impl BodyError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a body of at most `limit` bytes. To be called when it is known that the client may send one.
pub async fn read(app: &App, body: Body, limit: usize) -> Result<ReadBody, BodyError> {
    let seconds = app.options.http_timeout_seconds;
    let collected = tokio::time::timeout(Duration::from_secs(seconds), collect(app, body, limit)).await;
    collected.unwrap_or(Err(BodyError::Slow { seconds }))
}

/// Copies what comes into one piece: a body of one byte per chunk would otherwise keep a buffer for each.
async fn collect(app: &App, mut body: Body, limit: usize) -> Result<ReadBody, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge { limit });
    }
    let (mut bytes, mut held) = (Vec::new(), app.bounds.bodies.nothing());
    while let Some(frame) = body.frame().await {
        // The others are trailers.
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > limit {
            return Err(BodyError::TooLarge { limit });
        }
        if length > bytes.capacity() {
            let capacity = length.max(2 * bytes.capacity()).max(FIRST).min(limit);
            if !held.set(capacity) {
                // Somebody else's turn ends sooner for it, if there is anybody so slow.
                app.bounds.places.oust(|wait| wait == Wait::Body, DISCARDING);
                return Err(BodyError::NoRoom);
            }
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(ReadBody { bytes, _held: held })
}

/// The body of a request, as the handlers read it. It tells the connection's place when it waits for the client.
pub struct RequestBody {
    incoming: Arc<Mutex<Incoming>>,
    place: Arc<HttpPlace>,
    /// When it was first read, ms.
    began_ms: Option<u64>,
}

/// What a handler has left of a body.
pub struct UnreadBody(Arc<Mutex<Incoming>>);

impl RequestBody {
    /// A body, and the handle for what will be left of it.
    pub fn new(incoming: Incoming, place: Arc<HttpPlace>) -> (Self, UnreadBody) {
        let incoming = Arc::new(Mutex::new(incoming));
        (Self { incoming: Arc::clone(&incoming), place, began_ms: None }, UnreadBody(incoming))
    }
}

fn locked(incoming: &Mutex<Incoming>) -> MutexGuard<'_, Incoming> {
    incoming.lock().unwrap_or_else(PoisonError::into_inner)
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let began_ms = *self.began_ms.get_or_insert_with(monotonic_ms);
        let polled = Pin::new(&mut *locked(&self.incoming)).poll_frame(cx);
        match polled {
            // Since the beginning: one byte now and then is no progress.
            Poll::Pending => self.place.waits_since(Wait::Body, began_ms),
            Poll::Ready(_) => self.place.works(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        locked(&self.incoming).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        locked(&self.incoming).size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.place.works();
    }
}

impl UnreadBody {
    /// Reads on for a moment, and keeps nothing. A socket that is closed with unread bytes is reset, and a client that
    /// writes its body before it reads would never see the answer.
    pub async fn discard(self, limit: usize) {
        let frame = || std::future::poll_fn(|cx| Pin::new(&mut *locked(&self.0)).poll_frame(cx));
        let discarding = async {
            let mut left = limit;
            while !locked(&self.0).is_end_stream()
                && let Ok(Some(Ok(frame))) = tokio::time::timeout(QUIET, frame()).await
                && let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))
            {
                left = less;
            }
        };
        // Whether all was read or the time is over: the answer goes out now.
        let _ = tokio::time::timeout(DISCARDING, discarding).await;
    }
}
