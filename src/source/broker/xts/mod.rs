//! Symphony XTS.
pub mod events;
pub mod fields;
pub mod partial;
pub mod socketio;
pub mod time;
