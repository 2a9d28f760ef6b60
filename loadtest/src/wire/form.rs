//! How a client wants its frames: the protocol it speaks, and the profile of its payloads.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The protocol a client speaks after the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
pub enum Protocol {
    /// `json.webpubsub.azure.v1`
    #[value(name = "json")]
    #[serde(rename = "json")]
    Json,
    /// `json.reliable.webpubsub.azure.v1`
    #[value(name = "json.reliable")]
    #[serde(rename = "json.reliable")]
    JsonReliable,
    /// `protobuf.webpubsub.azure.v1`
    #[value(name = "protobuf")]
    #[serde(rename = "protobuf")]
    Protobuf,
    /// `protobuf.reliable.webpubsub.azure.v1`
    #[value(name = "protobuf.reliable")]
    #[serde(rename = "protobuf.reliable")]
    ProtobufReliable,
    /// The JSON stream protocol on `/ws`; no subprotocol is asked for.
    #[value(name = "streams")]
    #[serde(rename = "streams")]
    Streams,
}

impl Protocol {
    /// What goes into `Sec-WebSocket-Protocol`, if anything does.
    pub fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Json => Some("json.webpubsub.azure.v1"),
            Self::JsonReliable => Some("json.reliable.webpubsub.azure.v1"),
            Self::Protobuf => Some("protobuf.webpubsub.azure.v1"),
            Self::ProtobufReliable => Some("protobuf.reliable.webpubsub.azure.v1"),
            Self::Streams => None,
        }
    }

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonReliable => "json.reliable",
            Self::Protobuf => "protobuf",
            Self::ProtobufReliable => "protobuf.reliable",
            Self::Streams => "streams",
        }
    }

    /// Whether data frames carry a `sequenceId` and sessions can be recovered.
    pub fn is_reliable(self) -> bool {
        matches!(self, Self::JsonReliable | Self::ProtobufReliable)
    }

    /// Whether messages are protobuf in binary frames rather than JSON in text frames.
    pub fn is_protobuf(self) -> bool {
        matches!(self, Self::Protobuf | Self::ProtobufReliable)
    }
}

/// The generation of the API, which decides where a client negotiates and how its payloads are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
pub enum Profile {
    /// `/negotiate` and `/ws/{hub}`: the payloads of November 2025.
    #[value(name = "v1")]
    #[serde(rename = "2025-11")]
    V1,
    /// `/v2/negotiate` and `/client/hubs/{hub}`: the payloads of April 2026.
    #[value(name = "v2")]
    #[serde(rename = "2026-04")]
    V2,
}

impl Profile {
    /// Both, in the order in which [`Profile::index`] counts them.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// The profile's key under `payloads` in the tick ledger.
    pub fn ledger_key(self) -> &'static str {
        match self {
            Self::V1 => "2025-11",
            Self::V2 => "2026-04",
        }
    }

    /// Where a client of this generation negotiates.
    pub fn negotiate_path(self) -> &'static str {
        match self {
            Self::V1 => "/negotiate",
            Self::V2 => "/v2/negotiate",
        }
    }

    /// The generation a socket path belongs to: `/ws/*` is the old one, everything else the new one.
    pub fn of_socket_path(path: &str) -> Self {
        if path.starts_with("/ws/") { Self::V1 } else { Self::V2 }
    }

    /// Position in [`Profile::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_path_tells_the_generation() {
        assert_eq!(Profile::of_socket_path("/ws/orderflow?access_token=x"), Profile::V1);
        assert_eq!(Profile::of_socket_path("/client/hubs/orderflow"), Profile::V2);
    }

    #[test]
    fn indexes_follow_the_order_of_all() {
        for (position, profile) in Profile::ALL.into_iter().enumerate() {
            assert_eq!(profile.index(), position);
        }
    }
}
