//! Draws inputs in batches, each from a seed of its own, and holds every call to its bounds.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes live at once that any input may cost, and for each of its own bytes.
const MEMORY_FREE: usize = 1 << 20;
const MEMORY_PER_BYTE: usize = 64;
const LONGEST: Duration = Duration::from_secs(2);
const BATCH: u64 = 10_000;

/// Memory is counted for the whole process, so tests take turns.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn full() -> bool {
    std::env::var_os("MERGEPLAN_FULL").is_some()
}

/// Inputs in all: `MERGEPLAN_FUZZ_INPUTS`, or 10 million with `MERGEPLAN_FULL`, or 30,000.
fn inputs() -> u64 {
    number("MERGEPLAN_FUZZ_INPUTS").unwrap_or(if full() { 10_000_000 } else { 30_000 })
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// What a call on `input_bytes` cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub peak_bytes: usize,
    pub time: Duration,
}

pub fn measured<T>(call: impl FnOnce() -> T) -> (T, Cost) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let start = Instant::now();
    let result = call();
    let time = start.elapsed();
    (result, Cost { peak_bytes: MEMORY.peak_usage().saturating_sub(before), time })
}

/// Run `call`, which reads `input_bytes` from outside, and panic where it takes too much.
pub fn bounded<T>(input_bytes: usize, call: impl FnOnce() -> T) -> T {
    let (result, cost) = measured(call);
    let bound = MEMORY_FREE + MEMORY_PER_BYTE * input_bytes;
    assert!(cost.peak_bytes <= bound, "{cost:?} for an input of {input_bytes} bytes");
    assert!(cost.time <= LONGEST, "{cost:?} for an input of {input_bytes} bytes");
    result
}

/// Draw `share` of all inputs and check each. `check` says whether the input was accepted.
pub fn fuzz<S: Strategy>(
    name: &str,
    share: f64,
    inputs_of: &S,
    check: impl Fn(&S::Value) -> bool,
    dump: impl Fn(&S::Value) -> Vec<u8>,
) where
    S::Value: Debug,
{
    let _turn = turn();
    let seed = number("MERGEPLAN_FUZZ_SEED").unwrap_or(0);
    let total = (inputs() as f64 * share).ceil() as u64;
    let accepted = std::cell::Cell::new(0_u64);
    let start = Instant::now();
    for batch in 0..total.div_ceil(BATCH) {
        let cases = BATCH.min(total - batch * BATCH);
        let seed = seed + batch;
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config { cases: cases as u32, failure_persistence: None, ..Config::default() };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let result = TestRunner::new_with_rng(config, rng).run(inputs_of, |input| {
            accepted.set(accepted.get() + u64::from(check(&input)));
            Ok(())
        });
        if let Err(error) = result {
            if let proptest::test_runner::TestError::Fail(reason, input) = &error {
                let hex: String = dump(input).iter().map(|b| format!("{b:02x}")).collect();
                panic!("{name}: seed {seed}: {reason}\n{input:#?}\nthe mutant in hex: {hex}");
            }
            panic!("{name}: seed {seed}: {error}");
        }
    }
    println!(
        "{name}: {total} inputs from seed {seed}, {} accepted, {:.1} s",
        accepted.get(),
        start.elapsed().as_secs_f64()
    );
}
