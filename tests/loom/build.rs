fn main() {
    println!("cargo::rustc-cfg=flowcast_loom");
    println!("cargo::rerun-if-changed=build.rs");
}
