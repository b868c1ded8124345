//! One match from the core's errors to the classes of `mergeplan.errors`.

use std::io::ErrorKind;

use mergeplan_core::Error;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

/// The Python exception for a core error, with its hint.
pub(crate) fn raise(py: Python<'_>, error: Error) -> PyErr {
    let class = match &error {
        Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => "MissingInputError",
        Error::Io { .. } | Error::Threads { .. } | Error::NoMemory { .. } => "SurroundingsError",
        Error::MissingTensor { .. }
        | Error::NoCheckpoint { .. }
        | Error::MissingShards { .. }
        | Error::LfsPointer { .. } => "MissingInputError",
        Error::Plan { .. } => "InternalError",
        Error::NonFinite { .. }
        | Error::Overflow { .. }
        | Error::BufferDiffers { .. }
        | Error::Custom { .. }
        | Error::InputChanged { .. } => "ContentError",
        Error::Cancelled => return PyKeyboardInterrupt::new_err(()),
        _ => "InputError",
    };
    let made = py
        .import("mergeplan.errors")
        .and_then(|errors| errors.getattr(class))
        .and_then(|class| class.call1((error.to_string(), error.hint())));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}
