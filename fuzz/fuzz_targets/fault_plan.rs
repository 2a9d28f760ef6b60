//! Is a plan of faults, as TOML or as JSON, ever a panic?
//!
//! What is accepted shows itself as a plan that is accepted again, and runs: a thousand ticks of its schedule and a
//! draw of each fault. What is refused is answered with a short text whatever came.
#![no_main]

use std::sync::Arc;

use flowcast::faults::draw::ClientIdentity;
use flowcast::faults::fault_plan::FaultPlan;
use flowcast::faults::plan_reader::{MAX_PLAN, PlanSyntax};
use flowcast::faults::schedule::Schedule;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    for syntax in [PlanSyntax::Toml, PlanSyntax::Json] {
        match FaultPlan::read(bytes, syntax) {
            Ok(plan) => check(plan),
            Err(error) => assert!(error.to_string().chars().count() <= 1000, "{error}"),
        }
    }
});

fn check(plan: FaultPlan) {
    let shown = json!({ "seed": plan.seed, "fault": plan.faults_json(true) }).to_string();
    // What came in TOML may be longer in JSON.
    let again = FaultPlan::read(shown.as_bytes(), PlanSyntax::Json);
    assert!(again.is_ok() || shown.len() > MAX_PLAN, "{shown}");
    if let Ok(again) = again {
        assert_eq!((again.seed, again.faults.len()), (plan.seed, plan.faults.len()));
    }
    let (plan, client) = (Arc::new(plan), ClientIdentity::new("key", "orderflow"));
    let mut schedule = Schedule::new(Arc::clone(&plan));
    for tick in 0..1000 {
        for found in schedule.in_force() {
            assert!(found.fired <= schedule.now().tick);
            plan.draws(found.fault, found.fired, client);
            plan.faults[found.fault].who.may_be("key", "orderflow", None);
        }
        schedule.tick(tick * 1_000_000_000);
    }
}
