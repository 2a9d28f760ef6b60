//! Zerodha's Kite ticker.
//!
//! - [`packet`]: its binary messages.
pub mod packet;
