//! The client's half of the wires: what the swarm says, and what it makes of what it hears.
//!
//! Everything here works on bytes and does no IO. It is written from the protocol documents and the
//! `.proto` files, not from the server's code, so that both cannot agree on the same mistake.

pub mod dialect;
pub mod downstream;
pub mod form;
pub mod frame;
pub mod group;
pub mod payload;
pub mod streams;
pub mod upgrade;
pub mod upstream;

/// The messages of `proto/webpubsub.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub(crate) mod webpubsub {
    include!(concat!(env!("OUT_DIR"), "/webpubsub.rs"));
}

/// The messages of `proto/orderflow.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub(crate) mod orderflow {
    include!(concat!(env!("OUT_DIR"), "/orderflow_proto.rs"));
}

/// The messages of `proto/gex_profile.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub(crate) mod gex_profile {
    include!(concat!(env!("OUT_DIR"), "/gex_profile.rs"));
}

/// The messages of `proto/option_profile.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub(crate) mod option_profile {
    include!(concat!(env!("OUT_DIR"), "/option_profile.rs"));
}

/// The messages of `proto/spot_price.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub(crate) mod spot_price {
    include!(concat!(env!("OUT_DIR"), "/spot_price.rs"));
}
