//! Wires: a publication in the bytes of a protocol.
//!
//! A wire does no IO and knows no hub: it turns records into payloads, payloads into finished
//! frames, and bytes from a client into requests. All of it can be tested without a socket.
//!
//! - [`payload`]: a JSONL record → the protocol-free payload (protobuf in zstd).
//! - [`webpubsub`]: a payload → Azure Web PubSub messages, JSON or protobuf, plain or reliable.
//! - [`streams`]: records of the channels → JSON messages for `/ws`.
//! - [`gexbot`]: GexBot's names of hubs and groups; [`wanted_groups`]: what POST and PATCH negotiate ask for.
//! - [`websocket`]: messages → RFC 6455 frames, and a client's frames → messages.
//! - [`byte_budget`]: what clients together may make the server keep.

pub mod byte_budget;
pub mod gexbot;
pub mod payload;
#[expect(missing_docs, reason = "generated code; the .proto files are its documentation")]
pub mod proto;
pub mod streams;
pub mod wanted_groups;
pub mod webpubsub;
pub mod websocket;

/// The protocol of a connection, chosen at the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// One of Azure Web PubSub's subprotocols.
    WebPubSub(webpubsub::PubSubWire),
    /// One JSON object per text frame, on `/ws`.
    Streams,
}

impl Wire {
    /// Whether a session can outlive its socket.
    pub const fn is_reliable(self) -> bool {
        matches!(self, Self::WebPubSub(webpubsub::PubSubWire { reliable: true, .. }))
    }

    /// The number, within its hub, of the form whose frames it sends.
    pub const fn form(self) -> usize {
        match self {
            Self::WebPubSub(wire) => wire.plain_form().index(),
            // A message of the streams has one form.
            Self::Streams => 0,
        }
    }
}
