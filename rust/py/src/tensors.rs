//! One tensor's merge from the caller's memory into the caller's memory.

use mergeplan_core::checkpoint::{Checkpoint, MemoryTensor};
use mergeplan_core::execute::{Options, Prepared, Target};
use mergeplan_core::lent;
use mergeplan_core::output::MemorySink;
use mergeplan_core::plan::Plan;
use mergeplan_core::work::{Control, DEFAULT_CHUNK};
use mergeplan_core::{Error, Result};
use pyo3::prelude::*;
use safetensors::Dtype;

use crate::custom;
use crate::errors::raise;
use crate::memory::Memory;
use crate::merging::region_of;
use crate::run::watched;

/// Name, memory, dtype and shape.
type Input = (String, Memory, String, Vec<usize>);

#[pyfunction]
#[pyo3(signature = (plan_json, inputs, output, *, threads))]
pub(crate) fn merge_tensors(
    py: Python<'_>,
    plan_json: &str,
    inputs: Vec<Input>,
    output: (Memory, String),
    threads: usize,
) -> PyResult<()> {
    let mut plan = Plan::from_json(plan_json).map_err(|error| raise(py, error))?;
    plan.give_functions(|name, sha256| custom::find(py, name, sha256))?;
    watched(py, None, |control| run(plan.clone(), &inputs, &output, threads, control))
}

fn run(
    plan: Plan,
    inputs: &[Input],
    output: &(Memory, String),
    threads: usize,
    control: &Control,
) -> Result<()> {
    let tensors = inputs.iter().map(tensor_of).collect::<Result<_>>()?;
    let prepared = Prepared::over(plan, vec![Checkpoint::over("memory", tensors)?])?;
    let jobs = &prepared.plans()[0].jobs;
    let [job] = &jobs[..] else {
        return Err(Error::Plan { reason: format!("expected one job, found {}", jobs.len()) });
    };
    let read: Vec<_> = inputs.iter().map(|(name, memory, ..)| memory.lent(name)).collect();
    lent::check_apart(&[output.0.lent(&job.tensor)], &read)?;
    let sink = MemorySink::new(0, jobs, vec![region_of(job, output)?])?;
    // The tensors themselves take many times this, so that a limit of its own would serve nobody.
    let memory_bytes = prepared.forecast(threads)?.most_memory_bytes;
    let options = Options::new(threads, DEFAULT_CHUNK, memory_bytes)?;
    let target = Target { plan: 0, jobs: 0..1, sink: &sink };
    prepared.run(&[target], options, control).map(drop)
}

fn tensor_of((name, memory, dtype, shape): &Input) -> Result<MemoryTensor> {
    let dtype: Dtype = serde_json::from_value(dtype.as_str().into()).map_err(|_| Error::Plan {
        reason: format!("tensor `{name}`: its dtype is not one of safetensors'"),
    })?;
    // SAFETY: `merge_tensors` obliges its caller to let nobody write to it while the call lasts, and
    // the output is apart from it; nothing that holds the slice leaves the call.
    let bytes = unsafe { memory.bytes() };
    Ok(MemoryTensor { name: name.clone(), dtype, shape: shape.clone(), bytes })
}
