//! Compiles `proto/` with `protox`, so that the machine needs no `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let protos = ["orderflow", "gex_profile", "option_profile", "spot_price", "webpubsub"];
    let protos = protos.map(|name| format!("proto/{name}.proto"));
    let descriptors = protox::compile(protos, ["proto"])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
