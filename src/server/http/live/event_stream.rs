//! `GET /live/events`: the snapshots as server-sent events.
//!
//! `snapshot` is the whole of it, `patch` what has changed since the event before (RFC 7396). A reader that is too slow
//! misses some, and gets a `snapshot` again.

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};

use super::live_refusal::LiveRefusal;
use super::on_live::OnLive;
use super::reader::LiveReader;

/// `GET /live/events`, at any stage of the server.
pub async fn events(OnLive(app): OnLive) -> Result<Response, LiveRefusal> {
    let reader = LiveReader::begin(&app).ok_or(LiveRefusal::TooManyReaders)?;
    Ok(Sse::new(stream_of(reader)).keep_alive(KeepAlive::default()).into_response())
}

fn stream_of(reader: LiveReader) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(reader, async |mut reader| {
        let (beat, follows) = reader.next().await?;
        let (name, data) = if follows { ("patch", &*beat.patch) } else { ("snapshot", beat.whole()) };
        Some((Ok(Event::default().event(name).id(beat.number.to_string()).data(data)), reader))
    })
}
