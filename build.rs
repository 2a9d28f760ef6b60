//! Compiles `proto/` with `protox`, so that the machine needs no `protoc`, and hashes everything that shapes
//! a frame: cached frames of a build with another hash are not used.

use std::error::Error;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Everything a frame's bytes depend on, and the cached file's own layout.
const SHAPES_FRAMES: [&str; 8] = [
    "Cargo.lock",
    "proto",
    "src/source/recorded/arena.rs",
    "src/source/recorded/cache",
    "src/source/recorded/lines.rs",
    "src/source/recorded/load.rs",
    "src/source/recorded/mapping.rs",
    "src/wire",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let protos = ["orderflow", "gex_profile", "option_profile", "spot_price", "webpubsub", "cache"];
    let protos = protos.map(|name| format!("proto/{name}.proto"));
    let descriptors = protox::compile(protos, ["proto"])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;

    let mut hasher = DefaultHasher::new();
    for path in SHAPES_FRAMES {
        println!("cargo:rerun-if-changed={path}");
        hash(Path::new(path), &mut hasher)?;
    }
    println!("cargo:rustc-env=FLOWCAST_FRAMES={:016x}", hasher.finish());
    Ok(())
}

/// Hashes files by name and content, folders by what is in them. A missing file adds nothing but its name.
fn hash(path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| hash(entry, hasher));
    }
    hasher.write(path.file_name().unwrap_or(OsStr::new("")).as_encoded_bytes());
    match fs::read(path) {
        Ok(content) => hasher.write(&content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
