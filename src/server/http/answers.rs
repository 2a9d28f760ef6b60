//! Answers of HTTP: what waits in memory until clients take it comes out of one budget, and who takes nothing is
//! dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::response::Response;
use http::StatusCode;
use hyper::body::{Body as _, Bytes, Frame, SizeHint};

use super::app::{App, error};
use super::places::{HttpPlace, Wait};
use crate::wire::byte_budget::HeldBytes;

/// Answers up to this size are not counted: `--max-http-connections` bounds them.
const SMALL: u64 = 16 << 10;

/// Largest piece that is given to the socket at once. Taking one is progress, so it must not take a client long.
const PIECE: usize = 64 << 10;

/// A client that takes nothing of an answer for so long may lose its connection to one for which there is no room.
const SLOW: Duration = Duration::from_secs(1);

/// How often a dropped connection's room is waited for, and how long each time.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// Takes room for an answer, that of stalled clients if there is no other. `None`: there is none.
pub async fn room(app: &App, bytes: usize) -> Option<HeldBytes> {
    // An answer larger than the whole budget goes out alone.
    let bytes = bytes.min(app.options.answers_bytes);
    for _ in 0..TRIES {
        if let Some(held) = app.bounds.answers.take(bytes) {
            return Some(held);
        }
        if !app.bounds.places.oust(|wait| wait == Wait::Taking, SLOW) {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
    app.bounds.answers.take(bytes)
}

/// Bytes of an answer, with their room. The room is given back when the last of them is sent.
pub struct HeldPiece {
    bytes: Bytes,
    _held: Arc<HeldBytes>,
}

impl HeldPiece {
    /// The bytes, which now hold on to their room.
    pub fn of(bytes: Bytes, held: &Arc<HeldBytes>) -> Bytes {
        Bytes::from_owner(Self { bytes, _held: Arc::clone(held) })
    }
}

impl AsRef<[u8]> for HeldPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Counts an answer that is whole in memory; 503 if there is no room for it. One that is made piece by piece counts its
/// pieces itself.
pub async fn counted(app: &App, response: Response) -> Response {
    let Some(length) = response.body().size_hint().exact().filter(|&length| length > SMALL) else { return response };
    let Some(held) = room(app, usize::try_from(length).unwrap_or(usize::MAX)).await else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many answers wait for their clients; try again");
    };
    let (parts, body) = response.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => Response::from_parts(parts, Body::from(HeldPiece::of(bytes, &Arc::new(held)))),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written"),
    }
}

/// The body of an answer, in pieces. It tells the connection's place when it waits for the client.
pub struct AnswerBody {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    /// Bytes given to the socket.
    given: u64,
    place: Arc<HttpPlace>,
}

impl AnswerBody {
    /// The body of an answer on the connection with this place.
    pub fn new(body: Body, place: Arc<HttpPlace>) -> Self {
        Self { body, rest: Bytes::new(), given: 0, place }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        // The next one is asked for when the client has taken most of this.
        self.place.waits(Wait::Taking);
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        self.given += piece.len() as u64;
        Frame::data(piece)
    }
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        self.place.works();
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(data) => {
                    self.rest = data;
                    self.piece()
                }
                Err(trailers) => trailers,
            }))),
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

impl Drop for AnswerBody {
    /// Everything is handed to the socket: the next request may come. But of a large answer the last pieces may wait
    /// there, and hold the room of all.
    fn drop(&mut self) {
        self.place.waits(if self.given > SMALL { Wait::Taking } else { Wait::Head });
    }
}
