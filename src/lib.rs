//! flowcast
pub mod engine;
pub mod source;
pub mod wire;
