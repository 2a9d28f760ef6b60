//! REST: the recorded day over plain HTTP, as the vendor and its imitations serve it.
//!
//! Paths and answers: `docs/rest.md`; where they come from: `docs/protocols/gexbot.md`, "REST data" and
//! "The fakers". A request takes this way: [`caller`] (is there a day, is there a key) → [`vocabulary`] (which
//! category is meant) → [`records`], [`catalogue`], [`faker_control`], [`downloads`] or [`position_stream`].
//! [`faker_clock`] steers the replay.
//!
//! Files are read on blocking threads: [`blocking`].

mod caller;
pub mod catalogue;
mod cursors;
pub mod downloads;
mod excerpts;
pub mod faker_clock;
pub mod faker_control;
pub mod openapi;
mod path_names;
pub mod position_stream;
mod positions;
pub mod records;
pub mod rest_options;
pub mod rest_refusal;
pub mod rest_state;
pub mod series;
mod vocabulary;

use self::rest_refusal::RestRefusal;

/// Runs what may wait for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestRefusal> + Send + 'static,
) -> Result<T, RestRefusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(RestRefusal::Failed))
}
