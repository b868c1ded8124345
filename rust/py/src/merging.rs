//! Merges that are ready to run: one, or a family.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use mergeplan_core::checkpoint::Identity;
use mergeplan_core::execute::{Options, Prepared, Target};
use mergeplan_core::lent::{self, Lent};
use mergeplan_core::output::{
    syncing_early, FileSink, Handles, Layout, MemorySink, Place, ProductSink, Region, Sink, Vector,
};
use mergeplan_core::plan::{Job, Merge, Plan};
use mergeplan_core::work::{Control, DEFAULT_CHUNK};
use mergeplan_core::{Error, Result};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyDict, PyList};
use safetensors::Dtype;

use crate::checkpoints::Headers;
use crate::custom;
use crate::errors::raise;
use crate::memory::Memory;
use crate::run::watched;

type FileRow = (String, u64, Vec<String>);
/// Path, bytes, mtime and ctime in nanoseconds, inode and device.
type IdentityRow = (PathBuf, u64, u64, u64, u64, u64);
/// Tensor, file, first byte and length.
type GivenRow = (String, String, u64, u64);
/// Number of the plan, folder, journal, and whether to go on with what is there.
pub(crate) type Output = (usize, PathBuf, PathBuf, bool);
/// Number of the plan, its first job, and the memory for each tensor from there on, with its dtype.
type Regions = (usize, usize, Vec<(Memory, String)>);
/// Number of the plan, its first job, and for each tensor from there on some vectors, with their dtypes.
type Vectors = (usize, usize, Vec<Vec<(Memory, String)>>);

/// Plans with their inputs open, and the layout of each one's files.
pub(crate) struct Family {
    pub prepared: Prepared,
    layouts: Vec<Arc<Layout>>,
}

impl Family {
    /// Each text is dropped before the next one is asked for: together they are as large as the plans.
    fn open<'py>(
        py: Python<'py>,
        texts: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
        headers: &[Bound<'py, Headers>],
    ) -> PyResult<Arc<Self>> {
        let plan = |text: PyResult<Bound<'py, PyAny>>| -> PyResult<Plan> {
            let text: PyBackedStr = text?.extract()?;
            let mut plan =
                py.detach(|| Plan::from_json(&text)).map_err(|error| raise(py, error))?;
            plan.give_functions(|name, sha256| custom::find(py, name, sha256))?;
            Ok(plan)
        };
        let plans = texts.map(plan).collect::<PyResult<_>>()?;
        let read = Headers::by_place(headers);
        let open = || {
            let prepared = Prepared::family(plans, &read)?;
            let layouts = prepared.plans().iter().map(|plan| Layout::new(plan).map(Arc::new));
            let layouts = layouts.collect::<Result<_>>()?;
            Ok(Arc::new(Self { prepared, layouts }))
        };
        py.detach(open).map_err(|error| raise(py, error))
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

    /// The files of one output, among those that are open.
    pub(crate) fn sink(
        &self,
        (plan, folder, journal, resume): &Output,
        handles: &Arc<Handles>,
    ) -> Result<FileSink> {
        let open = if *resume { FileSink::resume_among } else { FileSink::create_among };
        open(handles, folder, &self.layouts[*plan], journal)
    }

    /// Merge into files, and sync them; one result for each output.
    fn run<'py>(
        &self,
        py: Python<'py>,
        outputs: &[Output],
        options: Options,
        handles: &Arc<Handles>,
        progress: Option<&Py<PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let done =
            watched(py, progress, |control| self.run_to_files(outputs, options, handles, control))?;
        let dict = |((plan, ..), (hashes, facts)): (&Output, (Vec<u64>, Facts))| {
            let result = PyDict::new(py);
            result.set_item("read_bytes", facts.read_bytes)?;
            result.set_item("table_tensors", facts.tables.0)?;
            result.set_item("table_elements", facts.tables.1)?;
            result.set_item("resumed_blocks", facts.sink.resumed_blocks())?;
            result.set_item("sync_seconds", facts.sync_seconds)?;
            let by_name = PyDict::new(py);
            for (job, hash) in self.prepared.plans()[*plan].jobs.iter().zip(hashes) {
                if matches!(job.merge, Merge::Given {}) {
                    continue; // whoever writes it knows its hash
                }
                by_name.set_item(&job.tensor, format!("{hash:016x}"))?;
            }
            result.set_item("hashes", by_name)?;
            let jobs = &self.prepared.plans()[*plan].jobs;
            result.set_item("inputs", inputs_by_name(py, jobs, &facts.sink)?)?;
            Ok(result)
        };
        outputs.iter().zip(done).map(dict).collect()
    }

    fn run_to_files(
        &self,
        outputs: &[Output],
        options: Options,
        handles: &Arc<Handles>,
        control: &Control,
    ) -> Result<Vec<(Vec<u64>, Facts)>> {
        let sinks = outputs.iter().map(|output| self.sink(output, handles));
        let sinks = sinks.collect::<Result<Vec<_>>>()?;
        let target = |(output, sink): (&Output, _)| self.prepared.target(output.0, sink);
        let sinks_of = sinks.iter().map(|sink| sink as &dyn Sink);
        let targets: Vec<Target> = outputs.iter().zip(sinks_of).map(target).collect();
        // No other run follows.
        let options = Options { keeps: false, ..options };
        let hashes = syncing_early(&sinks, || self.prepared.run(&targets, options, control))?;
        let begun = Instant::now();
        sinks.iter().try_for_each(Sink::finish)?;
        let sync_seconds = begun.elapsed().as_secs_f64();
        let (read_bytes, tables) = (control.read_bytes(), control.tables());
        let facts = sinks.into_iter().map(|sink| Facts { read_bytes, tables, sync_seconds, sink });
        Ok(hashes.into_iter().zip(facts).collect())
    }

    /// Some consecutive jobs of a plan.
    fn jobs(&self, plan: usize, first: usize, count: usize) -> Result<&[Job]> {
        let plan = self.prepared.plans().get(plan);
        let jobs = plan.zip(first.checked_add(count)).and_then(|(p, end)| p.jobs.get(first..end));
        jobs.ok_or_else(|| Error::Plan { reason: "no such jobs".into() })
    }

    fn run_into(&self, memory: &[Regions], options: Options, control: &Control) -> Result<u64> {
        let jobs =
            memory.iter().map(|(plan, first, regions)| self.jobs(*plan, *first, regions.len()));
        let jobs = jobs.collect::<Result<Vec<_>>>()?;
        let pairs = || jobs.iter().zip(memory).map(|(jobs, (.., regions))| (*jobs, regions));
        let outputs: Vec<_> = pairs()
            .flat_map(|(jobs, regions)| jobs.iter().zip(regions))
            .map(|(job, (memory, _))| memory.lent(&job.tensor))
            .collect();
        lent::check_apart(&outputs, &[])?;
        let sink = |((_, first, _), (jobs, regions)): (&Regions, (&[Job], &Vec<_>))| {
            let regions = jobs.iter().zip(regions).map(|(job, region)| region_of(job, region));
            MemorySink::new(*first, jobs, regions.collect::<Result<_>>()?)
        };
        let sinks = memory.iter().zip(pairs()).map(sink).collect::<Result<Vec<_>>>()?;
        let target = |((plan, first, regions), sink): (&Regions, _)| Target {
            plan: *plan,
            jobs: *first..first + regions.len(),
            sink,
        };
        let targets: Vec<Target> =
            memory.iter().zip(sinks.iter().map(|sink| sink as &dyn Sink)).map(target).collect();
        self.prepared.run(&targets, options, control)?;
        Ok(control.read_bytes())
    }

    /// The products of merges' tensors with vectors: by target, job and vector.
    fn products(
        &self,
        given: &[Vectors],
        options: Options,
        control: &Control,
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        let sink = |(plan, first, vectors): &Vectors| {
            let jobs = self.jobs(*plan, *first, vectors.len())?;
            let of = |(job, vectors): (&Job, &Vec<_>)| {
                vectors.iter().map(|vector| vector_of(job, vector)).collect::<Result<_>>()
            };
            let vectors = jobs.iter().zip(vectors).map(of).collect::<Result<_>>()?;
            ProductSink::new(*first, jobs, vectors)
        };
        let sinks = given.iter().map(sink).collect::<Result<Vec<_>>>()?;
        let target = |((plan, first, vectors), sink): (&Vectors, _)| Target {
            plan: *plan,
            jobs: *first..first + vectors.len(),
            sink,
        };
        let targets: Vec<Target> =
            given.iter().zip(sinks.iter().map(|sink| sink as &dyn Sink)).map(target).collect();
        self.prepared.run(&targets, options, control)?;
        Ok(sinks.into_iter().map(ProductSink::products).collect())
    }
}

struct Facts {
    read_bytes: u64,
    tables: (u64, u64),
    sync_seconds: f64,
    sink: FileSink,
}

/// The hash of all that each job read, by its tensor.
pub(crate) fn inputs_by_name<'py>(
    py: Python<'py>,
    jobs: &[Job],
    sink: &FileSink,
) -> PyResult<Bound<'py, PyDict>> {
    by_name(py, jobs, sink.inputs())
}

fn by_name<'py>(
    py: Python<'py>,
    jobs: &[Job],
    hashes: impl IntoIterator<Item = (usize, u64)>,
) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    for (job, hash) in hashes {
        if let Some(job) = jobs.get(job) {
            result.set_item(&job.tensor, format!("{hash:016x}"))?;
        }
    }
    Ok(result)
}

fn dtype_of(job: &Job, name: &str) -> Result<Dtype> {
    serde_json::from_value(name.into()).map_err(|_| Error::Plan {
        reason: format!("tensor `{}`: its dtype is not one of safetensors'", job.tensor),
    })
}

/// A vector of the caller's.
fn vector_of<'a>(job: &Job, (memory, dtype): &(Memory, String)) -> Result<Vector<'a>> {
    let dtype = dtype_of(job, dtype)?;
    // SAFETY: `PreparedFamily.products` obliges its caller to leave the memory alone while the call
    // lasts, and nothing here writes to memory of the caller's.
    Ok(Vector { bytes: unsafe { memory.bytes() }, dtype })
}

/// The caller's memory for a tensor, which `lent::check` has found to be no other's.
pub(crate) fn region_of<'a>(job: &Job, (memory, dtype): &(Memory, String)) -> Result<Region<'a>> {
    let dtype = dtype_of(job, dtype)?;
    // SAFETY: no other output or input of this call overlaps it, and `PreparedFamily.run_into` obliges
    // its caller to leave it alone while the call lasts.
    let bytes = unsafe { memory.bytes_mut(&job.tensor) }?;
    Ok(Region { bytes, dtype })
}

#[pyclass(frozen)]
pub(crate) struct PreparedMerge {
    family: Arc<Family>,
    number: usize,
}

impl PreparedMerge {
    fn plan(&self) -> &Plan {
        &self.family.prepared.plans()[self.number]
    }

    /// The jobs of some tensors.
    fn numbers(&self, tensors: &[String]) -> impl Iterator<Item = usize> + use<'_> {
        let wanted: HashSet<String> = tensors.iter().cloned().collect();
        let jobs = self.plan().jobs.iter().enumerate();
        jobs.filter(move |(_, job)| wanted.contains(&job.tensor)).map(|(number, _)| number)
    }
}

#[pymethods]
impl PreparedMerge {
    #[new]
    #[pyo3(signature = (plan_json, headers = vec![]))]
    fn new<'py>(
        py: Python<'py>,
        plan_json: Bound<'py, PyAny>,
        headers: Vec<Bound<'py, Headers>>,
    ) -> PyResult<Self> {
        Ok(Self { family: Family::open(py, std::iter::once(Ok(plan_json)), &headers)?, number: 0 })
    }

    #[getter]
    fn files(&self) -> Vec<FileRow> {
        let names = |&job: &usize| self.plan().jobs[job].stored().map(|(name, _)| name.to_owned());
        let row = |file: &mergeplan_core::output::FileLayout| {
            (file.name.clone(), file.bytes, file.jobs.iter().flat_map(names).collect())
        };
        self.family.layouts[self.number].files.iter().map(row).collect()
    }

    #[getter]
    fn tensor_bytes(&self) -> u64 {
        self.plan().jobs.iter().map(Job::out_bytes).sum()
    }

    #[getter]
    fn given(&self) -> Vec<GivenRow> {
        let layout = &self.family.layouts[self.number];
        let jobs = self.plan().jobs.iter().zip(&layout.places);
        let given = jobs.filter(|(job, _)| matches!(job.merge, Merge::Given {}));
        let row = |(job, place): (&Job, &Place)| {
            let file = layout.files[place.file].name.clone();
            (job.tensor.clone(), file, place.offset, job.out_bytes())
        };
        given.map(row).collect()
    }

    fn journal_is_whole(&self, journal: PathBuf) -> bool {
        let jobs = self.plan().jobs.iter().enumerate();
        let merged = jobs.filter(|(_, job)| !matches!(job.merge, Merge::Given {}));
        let layout = &self.family.layouts[self.number];
        FileSink::has_all(&journal, layout, merged.map(|(number, _)| number))
    }

    fn recorded_inputs<'py>(
        &self,
        py: Python<'py>,
        journal: PathBuf,
    ) -> PyResult<Bound<'py, PyDict>> {
        by_name(py, &self.plan().jobs, FileSink::inputs_read(&journal))
    }

    fn input_hashes<'py>(
        &self,
        py: Python<'py>,
        tensors: Vec<String>,
        threads: usize,
    ) -> PyResult<Bound<'py, PyDict>> {
        let jobs: Vec<usize> = self.numbers(&tensors).collect();
        let hashes = watched(py, None, |control| {
            self.family.prepared.input_hashes(self.number, &jobs, threads, control)
        })?;
        by_name(py, &self.plan().jobs, jobs.iter().copied().zip(hashes))
    }

    fn keep_in_journal(
        &self,
        py: Python<'_>,
        journal: PathBuf,
        tensors: Vec<String>,
    ) -> PyResult<()> {
        let jobs = self.numbers(&tensors).collect();
        FileSink::keep(&journal, &jobs).map_err(|error| raise(py, error))
    }

    #[getter]
    fn identities(&self) -> Vec<Vec<IdentityRow>> {
        let row = |i: &Identity| {
            (i.path.clone(), i.bytes, i.mtime_ns, i.ctime_ns, i.place[0], i.place[1])
        };
        let rows = |files: Vec<&Identity>| files.into_iter().map(row).collect();
        self.family.prepared.identities(self.number).into_iter().map(rows).collect()
    }

    fn forecast<'py>(&self, py: Python<'py>, threads: usize) -> PyResult<Bound<'py, PyDict>> {
        self.family.forecast(py, threads)
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
        let outputs = [(self.number, out_dir, journal, resume)];
        let handles = Arc::default();
        Ok(self.family.run(py, &outputs, options, &handles, progress.as_ref())?.remove(0))
    }
}

#[pyclass(frozen)]
pub(crate) struct PreparedFamily {
    pub family: Arc<Family>,
}

#[pymethods]
impl PreparedFamily {
    #[new]
    #[pyo3(signature = (plans_json, headers = vec![]))]
    fn new<'py>(
        py: Python<'py>,
        plans_json: &Bound<'py, PyAny>,
        headers: Vec<Bound<'py, Headers>>,
    ) -> PyResult<Self> {
        Ok(Self { family: Family::open(py, plans_json.try_iter()?, &headers)? })
    }

    #[getter]
    fn merges(&self) -> Vec<PreparedMerge> {
        let one = |number| PreparedMerge { family: self.family.clone(), number };
        (0..self.family.layouts.len()).map(one).collect()
    }

    fn forecast<'py>(&self, py: Python<'py>, threads: usize) -> PyResult<Bound<'py, PyDict>> {
        self.family.forecast(py, threads)
    }

    #[pyo3(signature = (outputs, *, threads, memory_bytes, open_files = usize::MAX, progress = None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        outputs: Vec<Output>,
        threads: usize,
        memory_bytes: u64,
        open_files: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let options = Options::new(threads, DEFAULT_CHUNK, memory_bytes);
        let options = options.map_err(|error| raise(py, error))?;
        let handles = Arc::new(Handles::new(open_files));
        PyList::new(py, self.family.run(py, &outputs, options, &handles, progress.as_ref())?)
    }

    fn check_writable(&self, py: Python<'_>, places: Vec<(String, usize, usize)>) -> PyResult<()> {
        let prepared = &self.family.prepared;
        let plans = 0..prepared.plans().len();
        let files = plans.flat_map(|plan| prepared.identities(plan).into_iter().flatten());
        let files: BTreeSet<PathBuf> = files.map(|file| file.path.clone()).collect();
        let lent = places.iter().map(|(tensor, address, n_bytes)| Lent {
            tensor,
            place: *address..address.saturating_add(*n_bytes),
        });
        let lent: Vec<Lent> = lent.collect();
        lent::check_writable(&lent, &files).map_err(|error| raise(py, error))
    }

    #[pyo3(signature = (memory, *, threads, memory_bytes, progress = None))]
    fn run_into(
        &self,
        py: Python<'_>,
        memory: Vec<Regions>,
        threads: usize,
        memory_bytes: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<u64> {
        let options = Options::new(threads, DEFAULT_CHUNK, memory_bytes);
        let options = options.map_err(|error| raise(py, error))?;
        watched(py, progress.as_ref(), |control| self.family.run_into(&memory, options, control))
    }

    #[pyo3(signature = (vectors, *, threads, memory_bytes, progress = None))]
    fn products(
        &self,
        py: Python<'_>,
        vectors: Vec<Vectors>,
        threads: usize,
        memory_bytes: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Vec<Vec<f64>>>> {
        let options = Options::new(threads, DEFAULT_CHUNK, memory_bytes);
        let options = options.map_err(|error| raise(py, error))?;
        watched(py, progress.as_ref(), |control| self.family.products(&vectors, options, control))
    }
}
