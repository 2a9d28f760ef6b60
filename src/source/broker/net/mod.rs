//! What both brokers need of the network: [`socket`] (with its [`opening_handshake`]) and [`http_client`] open a
//! connection, [`tls`] with their certificates, [`recovery`] keeps it ([`backoff`], [`rate`]).

pub mod backoff;
pub mod http_client;
mod opening_handshake;
pub mod rate;
pub mod recovery;
pub mod socket;
pub mod tls;
