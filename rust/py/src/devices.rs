//! Inputs and outputs of merges whose arithmetic runs in Python, on a GPU.

use std::sync::Arc;
use std::time::Instant;

use mergeplan_core::execute::{run_some, DeviceInputs, DeviceOutputs, JobInput, Options, Writers};
use mergeplan_core::output::{FileSink, Handles, Sink};
use mergeplan_core::work::DEFAULT_CHUNK;
use mergeplan_core::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::raise;
use crate::memory::Memory;
use crate::merging::{inputs_by_name, Family, Output, PreparedFamily};
use crate::run::watched;

/// Two words that tell an input from all others, and its dtype.
type InputRow = (usize, u64, &'static str);

#[pyclass(frozen)]
pub(crate) struct InputReader {
    family: Arc<Family>,
    inputs: DeviceInputs,
}

#[pymethods]
impl InputReader {
    #[new]
    fn new(py: Python<'_>, family: &PreparedFamily, threads: usize) -> PyResult<Self> {
        let inputs = DeviceInputs::new(threads).map_err(|error| raise(py, error))?;
        Ok(Self { family: family.family.clone(), inputs })
    }

    #[getter]
    fn read_bytes(&self) -> u64 {
        self.inputs.read_bytes()
    }

    fn inputs(&self, py: Python<'_>, merge: usize, job: usize) -> PyResult<Vec<InputRow>> {
        let found = self.family.prepared.inputs(merge, job).map_err(|error| raise(py, error))?;
        let row = |input: &JobInput| {
            let (place, offset) = input.identity();
            (place, offset, input.dtype().name())
        };
        Ok(found.iter().map(row).collect())
    }

    fn stream_id(&self, py: Python<'_>, merge: usize, job: usize, input: usize) -> PyResult<u64> {
        let found = py.detach(|| self.family.prepared.stream(merge, job, input));
        Ok(found.map_err(|error| raise(py, error))?.id())
    }

    fn read(
        &self,
        py: Python<'_>,
        merge: usize,
        job: usize,
        input: usize,
        start: usize,
        into: Memory,
    ) -> PyResult<()> {
        let read = || -> Result<()> {
            let inputs = self.family.prepared.inputs(merge, job)?;
            let input = inputs.get(input).filter(|input| input.has(start, into.len()));
            let input = input.ok_or_else(|| wrong("no such elements"))?;
            // SAFETY: `InputReader.read` obliges its caller to leave this memory alone while the
            // call lasts.
            let out = unsafe { into.bytes_mut("of a device") }?;
            self.inputs.read(&self.family.prepared, input, start, out)
        };
        py.detach(read).map_err(|error| raise(py, error))
    }

    fn release(&self, py: Python<'_>, merge: usize, job: usize) -> PyResult<()> {
        let release = || -> Result<()> {
            self.family.prepared.inputs(merge, job)?.iter().for_each(JobInput::release);
            Ok(())
        };
        py.detach(release).map_err(|error| raise(py, error))
    }
}

#[pyclass(frozen)]
pub(crate) struct OutputFiles {
    family: Arc<Family>,
    outputs: Vec<Arc<DeviceOutputs<FileSink>>>,
    writers: Writers,
}

impl OutputFiles {
    fn output(&self, number: usize) -> Result<&DeviceOutputs<FileSink>> {
        Ok(self.outputs.get(number).ok_or_else(|| wrong("no such output"))?)
    }
}

#[pymethods]
impl OutputFiles {
    #[new]
    #[pyo3(signature = (family, outputs, threads, open_files = usize::MAX))]
    fn new(
        py: Python<'_>,
        family: &PreparedFamily,
        outputs: Vec<Output>,
        threads: usize,
        open_files: usize,
    ) -> PyResult<Self> {
        let writers = Writers::new(threads).map_err(|error| raise(py, error))?;
        let family = family.family.clone();
        let open = || {
            let handles = Arc::new(Handles::new(open_files));
            let open = |output: &Output| {
                let sink = family.sink(output, &handles)?;
                Ok(Arc::new(DeviceOutputs::new(&family.prepared, output.0, sink)?))
            };
            outputs.iter().map(open).collect::<Result<_>>()
        };
        let outputs = py.detach(open).map_err(|error| raise(py, error))?;
        Ok(Self { family, outputs, writers })
    }

    fn is_written(&self, py: Python<'_>, output: usize, job: usize) -> PyResult<bool> {
        Ok(self.output(output).map_err(|error| raise(py, error))?.is_written(job))
    }

    fn write(
        &self,
        py: Python<'_>,
        output: usize,
        job: usize,
        start: usize,
        from_: Memory,
    ) -> PyResult<()> {
        let write = || -> Result<()> {
            // SAFETY: `OutputFiles.write` obliges its caller to leave this memory alone while the call
            // lasts.
            let bytes = unsafe { from_.bytes() };
            self.output(output)?.write(&self.family.prepared, &self.writers, job, start, bytes)
        };
        py.detach(write).map_err(|error| raise(py, error))
    }

    #[pyo3(signature = (jobs, *, threads, memory_bytes, progress = None))]
    fn run(
        &self,
        py: Python<'_>,
        jobs: Vec<(usize, usize)>,
        threads: usize,
        memory_bytes: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<u64> {
        let options = Options::new(threads, DEFAULT_CHUNK, memory_bytes);
        let options = options.map_err(|error| raise(py, error))?;
        watched(py, progress.as_ref(), |control| {
            run_some(&self.family.prepared, &self.outputs, &jobs, options, control)?;
            Ok(control.read_bytes())
        })
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let finish = || -> Result<_> {
            let prepared = &self.family.prepared;
            prepared.check_unchanged(self.outputs.iter().map(|output| output.plan()))?;
            let hashes = self.outputs.iter().map(|output| output.hashes(prepared));
            let hashes = hashes.collect::<Result<Vec<_>>>()?;
            let begun = Instant::now();
            self.outputs.iter().try_for_each(|output| output.sink().finish())?;
            Ok((hashes, begun.elapsed().as_secs_f64()))
        };
        let (hashes, sync_seconds) = py.detach(finish).map_err(|error| raise(py, error))?;
        let dict = |(output, hashes): (&Arc<DeviceOutputs<FileSink>>, Vec<(usize, u64)>)| {
            let result = PyDict::new(py);
            result.set_item("resumed_blocks", output.sink().resumed_blocks())?;
            result.set_item("sync_seconds", sync_seconds)?;
            let by_name = PyDict::new(py);
            let jobs = &self.family.prepared.plans()[output.plan()].jobs;
            for (job, hash) in hashes {
                by_name.set_item(&jobs[job].tensor, format!("{hash:016x}"))?;
            }
            result.set_item("hashes", by_name)?;
            result.set_item("inputs", inputs_by_name(py, jobs, output.sink())?)?;
            Ok(result)
        };
        self.outputs.iter().zip(hashes).map(dict).collect()
    }
}

fn wrong(reason: &str) -> Error {
    Error::Plan { reason: reason.to_owned() }
}
