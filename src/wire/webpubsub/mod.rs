//! Azure Web PubSub: the four subprotocols the real SDKs speak.
//!
//! Messages, acks and error names: `docs/protocols/webpubsub.md`.
//!
//! # References
//! - <https://learn.microsoft.com/azure/azure-web-pubsub/reference-json-webpubsub-subprotocol>
//! - <https://learn.microsoft.com/azure/azure-web-pubsub/reference-protobuf-webpubsub-subprotocol>
//!
//! - [`forms`]: syntaxes, subprotocols and the forms of a data frame.
//! - [`control`]: requests of clients and control messages of the service.
//! - [`pubsub_wire`]: one subprotocol, reading and writing.
//! - [`received`]: the client's side.

pub mod control;
pub mod forms;
mod json;
mod protobuf;
pub mod pubsub_wire;
pub mod received;
mod reliable;

pub use control::{AckResult, Downstream, ErrorName, Malformed, Upstream};
pub use forms::{PlainForm, SUBPROTOCOLS, Syntax};
pub use pubsub_wire::{
    MAX_GROUP_NAME, ORDERFLOW_TYPE_URL, PubSubWire, append_data, append_json_data, payload_of, payload_of_json,
};
