//! Compiles the repository's `proto/` with `protox`, so that no `protoc` is needed on the machine.
//!
//! The `.proto` files are all the swarm shares with the server; the decoder built on them is its own.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let names = ["gex_profile", "option_profile", "orderflow", "spot_price", "webpubsub"];
    let files = names.map(|name| format!("../proto/{name}.proto"));
    let descriptors = protox::compile(files, ["../proto"])?;
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
