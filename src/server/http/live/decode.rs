//! `POST /live/decode`: a payload as a client of the JSON subprotocol received it, as the record that it is.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::live_refusal::LiveRefusal;
use super::on_live::{OnLive, read_json};
use crate::wire::payload::Profile;
use crate::wire::payload::record_line::record_of;
use crate::wire::proto::webpubsub::Any;

/// Bytes of a body.
const MAX_BODY: usize = 1 << 20;

/// Bytes of a record without compression; the longest real ones have some 64 KiB. As JSON a number takes thirty times
/// its byte, until the answer is written.
const MAX_RECORD: usize = 256 << 10;

/// How long a request waits for others that are being decoded.
const PATIENCE: Duration = Duration::from_secs(2);

/// The body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Received {
    payload: String,
    #[serde(default)]
    profile: Option<String>,
    /// Accepted, so that a client may send the message as it came.
    #[serde(default, rename = "group")]
    _group: Option<String>,
}

/// `POST /live/decode`
pub async fn decode(OnLive(app): OnLive, body: Body) -> Result<Response, LiveRefusal> {
    let expected = r#"{"payload":"BASE64"}"#;
    // Before its turn: a body that does not come holds up nobody.
    let received: Received = read_json(&app, body, MAX_BODY, expected).await?;
    let turn = tokio::time::timeout(PATIENCE, app.live.decoding.acquire()).await;
    let _turn = turn.ok().and_then(Result::ok).ok_or(LiveRefusal::Busy)?;
    // Decompressing a large record takes some milliseconds.
    let decoded = tokio::task::spawn_blocking(move || decoded(&received)).await;
    decoded.unwrap_or(Err(LiveRefusal::Failed)).map(|answer| Json(answer).into_response())
}

fn decoded(received: &Received) -> Result<Value, LiveRefusal> {
    let bad = |expected: String| LiveRefusal::Bad { expected };
    let profile = match &received.profile {
        None => Profile::V2026_04,
        Some(name) => Profile::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| bad("expected the profile 2025-11 or 2026-04".to_owned()))?,
    };
    let any = STANDARD.decode(&received.payload).map_err(|error| bad(format!("expected base64: {error}")))?;
    let length = any.len();
    let any = Any::decode(&*any).map_err(|error| bad(format!("expected a google.protobuf.Any: {error}")))?;
    let (record, plain) =
        record_of(&any.type_url, &any.value, profile, MAX_RECORD).map_err(|error| bad(error.to_string()))?;
    Ok(json!({
        "type": any.type_url,
        "record": record,
        "bytes": { "any": length, "payload": any.value.len(), "record": plain },
    }))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn asked(payload: String, profile: Option<&str>) -> Result<Value, String> {
        let received = Received { payload, profile: profile.map(str::to_owned), _group: None };
        decoded(&received).map_err(|refused| refused.to_string())
    }

    fn any(type_url: &str, value: Vec<u8>) -> String {
        STANDARD.encode(Any { type_url: type_url.to_owned(), value: value.into() }.encode_to_vec())
    }

    #[test]
    fn a_payload_is_shown_as_its_record() -> io::Result<()> {
        let message = include_bytes!("../../../../tests/fixtures/gexbot/spot.payload.bin");
        let payload = any("proto.spot", zstd::encode_all(message.as_slice(), 3)?);
        let answer = asked(payload, Some("2026-04")).unwrap();
        assert_eq!(answer["record"], json!({ "timestamp": 1_764_340_202, "ticker": "SPX", "spot": 6822.95 }));
        assert_eq!((&answer["type"], &answer["bytes"]["record"]), (&json!("proto.spot"), &json!(message.len())));
        Ok(())
    }

    #[test]
    fn what_is_no_record_is_refused_with_what_was_expected() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_RECORD + 1], 1).unwrap();
        // Some hundred bytes that would take gigabytes as JSON.
        let rows = |of: [u8; 2]| zstd::bulk::compress(&of.repeat(100_000), 3).unwrap();
        for (payload, words) in [
            (any("proto.gex", rows([0x5a, 0])), "expected at most 8192 strikes or contracts, got 100000"),
            (any("proto.greek", rows([0x52, 0])), "expected at most 8192 strikes or contracts, got 100000"),
            ("%".to_owned(), "expected base64"),
            (STANDARD.encode([0xff]), "expected a google.protobuf.Any"),
            (any("proto.gex", b"x".to_vec()), "expected a payload compressed with zstd"),
            (any("proto.gex", bomb), "of at most 262144 bytes"),
            (any("proto.volume", Vec::new()), "got proto.volume"),
        ] {
            let refused = asked(payload, None).unwrap_err();
            assert!(refused.contains(words), "{words}: {refused}");
        }
        assert!(asked(String::new(), Some("2027")).unwrap_err().contains("2025-11 or 2026-04"));
    }
}
