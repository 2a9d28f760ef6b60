//! Wires: how a publication is said in a protocol's bytes.
//!
//! A wire does no IO and knows no hub: it turns records into payloads, payloads into finished
//! frames, and bytes from a client into requests. All of it can be tested without a socket.
//!
//! - [`payload`]: a JSONL record → the protocol-free payload (protobuf in zstd).
//! - [`webpubsub`]: a payload → Azure Web PubSub messages, JSON or protobuf, plain or reliable.
//! - [`streams`]: records of the trading streams and topics → JSON messages for `/ws`.
//! - [`gexbot`]: what the vendor calls its hubs and groups.
//! - [`websocket`]: messages → RFC 6455 frames, and a client's frames → messages.

pub mod gexbot;
pub mod payload;
pub mod streams;
pub mod webpubsub;
pub mod websocket;

/// What a connection speaks: chosen once at the upgrade, a value from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// Azure Web PubSub, one of its subprotocols.
    WebPubSub(webpubsub::Wire),
    /// The JSON streams.
    Streams,
}

impl Wire {
    /// Whether sessions outlive their sockets.
    pub const fn is_reliable(self) -> bool {
        matches!(self, Self::WebPubSub(webpubsub::Wire { reliable: true, .. }))
    }

    /// The number of the form whose frames it sends, in its hub.
    pub const fn form(self) -> usize {
        match self {
            Self::WebPubSub(wire) => wire.plain_form().index(),
            // A message has one form only.
            Self::Streams => 0,
        }
    }

    /// The close reason of a connection that is too far behind; the code is 1008.
    pub const fn slow_reason(self) -> &'static str {
        match self {
            Self::WebPubSub(_) => "slow consumer",
            Self::Streams => "policy violation: slow consumer",
        }
    }
}

/// Messages generated from `proto/` by `build.rs`.
#[expect(missing_docs, reason = "generated code; the .proto files are its documentation")]
pub mod proto {
    /// `proto/orderflow.proto`
    pub mod orderflow {
        include!(concat!(env!("OUT_DIR"), "/orderflow_proto.rs"));
    }
    /// `proto/gex_profile.proto`
    pub mod gex_profile {
        include!(concat!(env!("OUT_DIR"), "/gex_profile.rs"));
    }
    /// `proto/option_profile.proto`
    pub mod option_profile {
        include!(concat!(env!("OUT_DIR"), "/option_profile.rs"));
    }
    /// `proto/spot_price.proto`
    pub mod spot_price {
        include!(concat!(env!("OUT_DIR"), "/spot_price.rs"));
    }
    /// `proto/cache.proto`
    pub mod cache {
        include!(concat!(env!("OUT_DIR"), "/flowcast.cache.rs"));
    }
    /// `proto/webpubsub.proto`
    pub mod webpubsub {
        include!(concat!(env!("OUT_DIR"), "/webpubsub.rs"));
    }
}
