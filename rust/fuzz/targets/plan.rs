//! A plan, its adapters, scales and rows among it, and the layout that follows from it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mergeplan_core::output::Layout;
use mergeplan_core::plan::Plan;

fuzz_target!(|json: &str| {
    if let Ok(plan) = Plan::from_json(json) {
        let _ = Layout::new(&plan);
    }
});
