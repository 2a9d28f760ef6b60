//! Faults on demand over HTTP: the plan as a resource, and what it does to requests (`docs/faults.md`).
//!
//! - [`plan_resource`]: `GET`, `PUT` and `DELETE /faults`.
//! - [`request_faults`]: upgrades, recoveries and negotiates that are refused, or slow.

pub mod fault_options;
pub mod plan_resource;
pub mod request_faults;
