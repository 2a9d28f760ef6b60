//! Reading the body of a request, within limits of length and time.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use http::StatusCode;
use http_body_util::LengthLimitError;

/// The whole body. Otherwise the status of the refusal, and what was expected.
pub async fn read(body: Body, limit: usize, patience: Duration) -> Result<Bytes, (StatusCode, String)> {
    match tokio::time::timeout(patience, to_bytes(body, limit)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error))
            if std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>) =>
        {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("expected a body of at most {limit} bytes")))
        }
        // The client has left; nobody reads the answer.
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "expected the whole body".to_owned())),
        Err(_elapsed) => {
            let words = format!("expected the whole body within {} seconds", patience.as_secs());
            Err((StatusCode::REQUEST_TIMEOUT, words))
        }
    }
}
