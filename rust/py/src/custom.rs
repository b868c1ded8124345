//! Merge methods that are written in Python.

use std::sync::Arc;

use mergeplan_core::plan::{Call, CustomMethod, State};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

/// The method of this name, from a file with this hash, as `mergeplan.custom.calls` has it.
pub(crate) fn find(py: Python<'_>, name: &str, sha256: &str) -> PyResult<Arc<dyn CustomMethod>> {
    let found = py.import("mergeplan.custom.calls")?.call_method1("find", (name, sha256))?;
    Ok(Arc::new(PythonMethod(found.unbind())))
}

#[derive(Debug)]
struct PythonMethod(Py<PyAny>);

impl PythonMethod {
    fn state_of<'py>(&self, result: PyResult<Bound<'py, PyAny>>) -> Result<State, String> {
        result.map(|state| Arc::new(state.unbind()) as State).map_err(said)
    }
}

impl CustomMethod for PythonMethod {
    fn state(&self, call: &Call) -> Result<State, String> {
        Python::attach(|py| {
            let given = as_python(py, call).map_err(said)?;
            self.state_of(self.0.bind(py).call_method1("state", (given,)))
        })
    }

    fn join(&self, first: &State, second: &State) -> Result<State, String> {
        Python::attach(|py| {
            let both = (of(py, first)?, of(py, second)?);
            self.state_of(self.0.bind(py).call_method1("join", both))
        })
    }

    fn merge(
        &self,
        call: &Call,
        statistics: &[Vec<f64>],
        states: &[State],
        out: &mut [f32],
    ) -> Result<(), String> {
        Python::attach(|py| {
            let states = states.iter().map(|state| of(py, state)).collect::<Result<Vec<_>, _>>()?;
            let merged = || -> PyResult<Bound<'_, PyAny>> {
                let given = as_python(py, call)?;
                self.0.bind(py).call_method1("merge", (given, statistics.to_vec(), states))
            };
            let merged = merged().map_err(said)?;
            let bytes = merged.cast::<PyBytes>().map_err(|error| said(error.into()))?.as_bytes();
            if bytes.len() != 4 * out.len() {
                let (expected, found) = (4 * out.len(), bytes.len());
                return Err(said(PyTypeError::new_err(format!(
                    "expected {expected} bytes, found {found}"
                ))));
            }
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
            Ok(())
        })
    }
}

/// What Python gets of a call: bytes of its own, which it may keep.
fn as_python<'py>(py: Python<'py>, call: &Call) -> PyResult<Bound<'py, PyTuple>> {
    let bytes = |values: &[f32]| {
        PyBytes::new_with(py, 4 * values.len(), |out| {
            for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *out = value.to_le_bytes();
            }
            Ok(())
        })
    };
    let inputs = call.inputs.iter().map(|input| bytes(input)).collect::<PyResult<Vec<_>>>()?;
    (
        call.tensor,
        PyTuple::new(py, call.shape)?,
        call.start,
        call.columns,
        call.options,
        call.base.map(bytes).transpose()?,
        PyList::new(py, inputs)?,
    )
        .into_pyobject(py)
}

fn of<'py>(py: Python<'py>, state: &State) -> Result<Bound<'py, PyAny>, String> {
    let state = state.downcast_ref::<Py<PyAny>>().ok_or("a state that is none of Python's")?;
    Ok(state.bind(py).clone())
}

/// `mergeplan.custom` has put into words what the method raised.
fn said(error: PyErr) -> String {
    Python::attach(|py| error.value(py).to_string())
}
