//! The doorway for long calls: off the interpreter, and back every 100 ms for signals and progress.

use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

use mergeplan_core::work::Control;
use mergeplan_core::{Error, Result};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::raise;

const POLL: Duration = Duration::from_millis(100);

/// Run `work` on a thread of its own. `progress(done_bytes)` is called now and then.
/// An exception from a signal handler or from `progress` cancels the work and is raised.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    work: impl Fn(&Control) -> Result<T> + Sync,
) -> PyResult<T> {
    let control = Control::default();
    let (sender, mut receiver) = channel();
    std::thread::scope(|scope| {
        let (work, control) = (&work, &control);
        let working = move || {
            // A panic drops the sender, which the loop below reports.
            let _ = sender.send(work(control));
        };
        std::thread::Builder::new()
            .spawn_scoped(scope, working)
            .map_err(|error| raise(py, Error::Threads { threads: 1, reason: error.to_string() }))?;
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
