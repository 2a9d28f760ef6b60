//! Messages generated from `proto/` by `build.rs`.

/// `proto/orderflow.proto`
pub mod orderflow {
    include!(concat!(env!("OUT_DIR"), "/orderflow_proto.rs"));
}
/// `proto/cache.proto`
pub mod cache {
    include!(concat!(env!("OUT_DIR"), "/flowcast.cache.rs"));
}
/// `proto/webpubsub.proto`
pub mod webpubsub {
    include!(concat!(env!("OUT_DIR"), "/webpubsub.rs"));
}
