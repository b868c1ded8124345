//! The doorway for long calls: off the interpreter, and back every 100 ms for signals and progress.

use std::path::Path;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::{Duration, Instant};

use mergeplan_core::execute::{Control, Options, Prepared};
use mergeplan_core::layout::Layout;
use mergeplan_core::sink::{FileSink, Sink};

/// Where output goes: the folder of the files, and the journal; and whether both are there already.
pub struct Place<'a> {
    pub folder: &'a Path,
    pub journal: &'a Path,
    pub resume: bool,
}

/// What a run did.
pub struct Done {
    pub hashes: Vec<u64>,
    pub read_bytes: u64,
    pub resumed_blocks: usize,
    pub sync_seconds: f64,
}
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::raise;

const POLL: Duration = Duration::from_millis(100);

/// Merge into the files of `layout`. `progress(done_bytes)` is called now and then. An exception from a
/// signal handler or from `progress` cancels the merge and is raised.
pub fn to_files(
    py: Python<'_>,
    prepared: &Prepared,
    layout: &Layout,
    place: &Place,
    options: Options,
    progress: Option<&Py<PyAny>>,
) -> PyResult<Done> {
    let control = Control::default();
    let (sender, mut receiver) = channel();
    let work = || {
        let Place { folder, journal, resume } = *place;
        let open = if resume { FileSink::resume } else { FileSink::create };
        let sink = open(folder, layout, journal)?;
        let hashes = prepared.run(&sink, options, &control)?;
        let begun = Instant::now();
        sink.finish()?;
        Ok(Done {
            hashes,
            read_bytes: control.read_bytes(),
            resumed_blocks: sink.resumed_blocks(),
            sync_seconds: begun.elapsed().as_secs_f64(),
        })
    };
    std::thread::scope(|scope| {
        let work = &work;
        scope.spawn(move || {
            // A panic drops the sender, which the loop below reports.
            let _ = sender.send(work());
        });
        let mut stopped = None;
        loop {
            let waiting = &mut receiver;
            let finished = py.detach(move || {
                let wait = waiting.recv_timeout(POLL);
                wait.map_err(|error| error == RecvTimeoutError::Timeout)
            });
            match (finished, stopped.take()) {
                (Ok(_), Some(interrupt)) => return Err(interrupt),
                (Ok(result), None) => return result.map_err(|error| raise(py, error)),
                (Err(true), Some(interrupt)) => stopped = Some(interrupt),
                (Err(true), None) => {
                    let report = |callback: &Py<PyAny>| callback.call1(py, (control.done_bytes(),));
                    let told = py.check_signals().and_then(|()| progress.map(report).transpose());
                    stopped = told.err();
                    if stopped.is_some() {
                        control.cancel();
                    }
                }
                (Err(false), _) => return Err(PyRuntimeError::new_err("a worker panicked")),
            }
        }
    })
}
