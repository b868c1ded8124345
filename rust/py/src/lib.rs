//! Module `mergeplan._native`: converts between Python and mergeplan-core, and nothing else.

mod checks;
mod errors;
mod run;

use std::path::{Path, PathBuf};
use std::time::Instant;

use mergeplan_core::checkpoint::{Checkpoint, Identity};
use mergeplan_core::exchange::exchange as swap;
use mergeplan_core::execute::{Options, Prepared, DEFAULT_CHUNK};
use mergeplan_core::layout::Layout;
use mergeplan_core::philox::{self, Stream};
use mergeplan_core::plan::Plan;
use mergeplan_core::sink::{FileSink, Sink};
use mergeplan_core::statistics::content;
use mergeplan_core::statistics::fingerprint::of_bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::raise;

type TensorRow = (String, String, Vec<usize>, String, u64);
type FileRow = (String, u64, Vec<String>);

#[pyfunction]
fn read_checkpoint(py: Python<'_>, path: PathBuf) -> PyResult<Vec<TensorRow>> {
    let checkpoint = py.detach(|| Checkpoint::open(&path)).map_err(|error| raise(py, error))?;
    let row = |(name, entry): (&String, &mergeplan_core::checkpoint::TensorEntry)| {
        let file = checkpoint.shards()[entry.shard].path().file_name().unwrap_or_default();
        let file = Path::new(file).display().to_string();
        (name.clone(), entry.dtype.to_string(), entry.shape.clone(), file, entry.bytes)
    };
    Ok(checkpoint.tensors().iter().map(row).collect())
}

#[pyclass(frozen)]
struct PreparedMerge {
    prepared: Prepared,
    layout: Layout,
}

#[pymethods]
impl PreparedMerge {
    #[new]
    fn new(py: Python<'_>, plan_json: &str) -> PyResult<Self> {
        let prepare = || {
            let prepared = Prepared::new(Plan::from_json(plan_json)?)?;
            let layout = Layout::new(prepared.plan())?;
            Ok(Self { prepared, layout })
        };
        py.detach(prepare).map_err(|error| raise(py, error))
    }

    #[getter]
    fn files(&self) -> Vec<FileRow> {
        let name = |&job: &usize| self.prepared.plan().jobs[job].tensor.clone();
        let row = |file: &mergeplan_core::layout::FileLayout| {
            (file.name.clone(), file.bytes, file.jobs.iter().map(name).collect())
        };
        self.layout.files.iter().map(row).collect()
    }

    #[getter]
    fn tensor_bytes(&self) -> u64 {
        self.prepared.plan().jobs.iter().map(mergeplan_core::plan::Job::out_bytes).sum()
    }

    #[getter]
    fn identities(&self) -> Vec<Vec<(PathBuf, u64, u64)>> {
        let row = |i: &Identity| (i.path.clone(), i.bytes, i.mtime_ns);
        let rows = |files: Vec<&Identity>| files.into_iter().map(row).collect();
        self.prepared.identities().into_iter().map(rows).collect()
    }

    fn forecast<'py>(&self, py: Python<'py>, threads: usize) -> PyResult<Bound<'py, PyDict>> {
        let found = self.prepared.forecast(threads).map_err(|error| raise(py, error))?;
        let result = PyDict::new(py);
        result.set_item("work_bytes", found.work_bytes)?;
        result.set_item("input_bytes", found.input_bytes)?;
        result.set_item("least_memory_bytes", found.least_memory_bytes)?;
        result.set_item("most_memory_bytes", found.most_memory_bytes)?;
        Ok(result)
    }

    #[pyo3(signature = (out_dir, *, journal, threads, memory_bytes, resume = false,
                        chunk = DEFAULT_CHUNK, progress = None))]
    #[allow(clippy::too_many_arguments)] // they are keywords, and each is its own
    fn run<'py>(
        &self,
        py: Python<'py>,
        out_dir: PathBuf,
        journal: PathBuf,
        threads: usize,
        memory_bytes: u64,
        resume: bool,
        chunk: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let options = Options::new(threads, chunk, memory_bytes).map_err(|e| raise(py, e))?;
        let result = PyDict::new(py);
        let (hashes, facts) = run::watched(py, progress.as_ref(), |control| {
            let open = if resume { FileSink::resume } else { FileSink::create };
            let sink = open(&out_dir, &self.layout, &journal)?;
            let hashes = self.prepared.run(&sink, options, control)?;
            let begun = Instant::now();
            sink.finish()?;
            let sync_seconds = begun.elapsed().as_secs_f64();
            Ok((hashes, (control.read_bytes(), sink.resumed_blocks(), sync_seconds)))
        })?;
        result.set_item("read_bytes", facts.0)?;
        result.set_item("resumed_blocks", facts.1)?;
        result.set_item("sync_seconds", facts.2)?;
        let by_name = PyDict::new(py);
        for (job, hash) in self.prepared.plan().jobs.iter().zip(hashes) {
            by_name.set_item(&job.tensor, format!("{hash:016x}"))?;
        }
        result.set_item("hashes", by_name)?;
        Ok(result)
    }
}

#[pyfunction]
fn fault(point: &str) -> PyResult<()> {
    Ok(mergeplan_core::fault::hit(point)?)
}

#[pyfunction]
fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox::philox4x32_10(counter, key)
}

#[pyfunction]
fn stream_id(tensor: &str, fingerprint: u64) -> u64 {
    Stream::new(0, tensor, fingerprint).id()
}

#[pyfunction]
fn fingerprint(data: &Bound<'_, PyBytes>) -> u64 {
    of_bytes(data.as_bytes())
}

#[pyfunction]
fn content_hash(data: &Bound<'_, PyBytes>, element_bytes: usize) -> u64 {
    content::hash(data.as_bytes(), element_bytes)
}

#[pyfunction]
fn exchange(py: Python<'_>, a: PathBuf, b: PathBuf) -> PyResult<()> {
    swap(&a, &b).map_err(|error| raise(py, error))
}

#[pyfunction]
fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("debug", cfg!(debug_assertions))?;
    info.set_item("target", std::env::consts::ARCH)?;
    Ok(info)
}

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<PreparedMerge>()?;
    module.add_class::<checks::TensorDistance>()?;
    module.add_function(wrap_pyfunction!(checks::content_hashes, module)?)?;
    module.add_function(wrap_pyfunction!(checks::tensor_distances, module)?)?;
    module.add_function(wrap_pyfunction!(exchange, module)?)?;
    module.add_function(wrap_pyfunction!(fault, module)?)?;
    module.add_function(wrap_pyfunction!(read_checkpoint, module)?)?;
    module.add_function(wrap_pyfunction!(philox4x32_10, module)?)?;
    module.add_function(wrap_pyfunction!(stream_id, module)?)?;
    module.add_function(wrap_pyfunction!(fingerprint, module)?)?;
    module.add_function(wrap_pyfunction!(content_hash, module)?)?;
    module.add_function(wrap_pyfunction!(build_info, module)?)
}
