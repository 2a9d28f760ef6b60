//! Messages generated from `proto/` by `build.rs`.

/// `proto/orderflow.proto`: the record in a payload.
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
/// `proto/webpubsub.proto`: the messages of the protobuf subprotocols.
pub mod webpubsub {
    include!(concat!(env!("OUT_DIR"), "/webpubsub.rs"));
}
