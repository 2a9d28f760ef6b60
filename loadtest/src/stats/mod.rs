//! What is counted and measured, and how it adds up over workers, seconds and processes.

pub mod epoch_copies;
pub mod histogram;
pub mod interval;
pub mod procfs;
pub mod ticks;
