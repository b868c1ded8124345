//! Memory of the caller's: one-dimensional arrays of bytes, as numpy describes them.
//!
//! The buffer protocol would do as well; the stable interface of Python 3.10 lacks it.

use std::ops::Range;

use mergeplan_core::lent::Lent;
use mergeplan_core::{Error, Result};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// An array that is kept as long as this is.
pub(crate) struct Memory {
    _owner: Py<PyAny>,
    address: usize,
    n_bytes: usize,
    read_only: bool,
}

impl<'py> FromPyObject<'_, 'py> for Memory {
    type Error = PyErr;

    fn extract(array: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let interface = array.getattr("__array_interface__")?.cast_into::<PyDict>()?;
        let field = |name| {
            let found = interface.get_item(name)?;
            found.ok_or_else(|| PyTypeError::new_err(format!("the array has no `{name}`")))
        };
        let (address, read_only) = field("data")?.extract::<(usize, bool)>()?;
        let is_flat = interface.get_item("strides")?.is_none_or(|strides| strides.is_none());
        if field("typestr")?.extract::<String>()? != "|u1" || !is_flat {
            return Err(PyTypeError::new_err("expected an array of bytes, one behind the other"));
        }
        let (n_bytes,) = field("shape")?.extract::<(usize,)>()?;
        let _owner = array.to_owned().unbind();
        Ok(Self { _owner, address, n_bytes, read_only })
    }
}

impl Memory {
    pub(crate) fn len(&self) -> usize {
        self.n_bytes
    }

    /// As an output's or an input's, to be checked against others.
    pub(crate) fn lent<'a>(&self, tensor: &'a str) -> Lent<'a> {
        let place: Range<usize> = self.address..self.address.saturating_add(self.n_bytes);
        Lent { tensor, place }
    }

    /// The bytes, to be read.
    ///
    /// # Safety
    /// Nobody may write to them or free them while the result lives.
    pub(crate) unsafe fn bytes(&self) -> &'static [u8] {
        if self.n_bytes == 0 {
            return &[];
        }
        // SAFETY: numpy's array begins at the address, is not null and has so many bytes, which need
        // no alignment; the caller keeps it and lets nobody write.
        unsafe { std::slice::from_raw_parts(self.address as *const u8, self.n_bytes) }
    }

    /// The bytes, to be written.
    ///
    /// # Errors
    /// [`Error::Lent`] where the array is read-only.
    ///
    /// # Safety
    /// Nobody else may have a reference to any of them, nor free them, while the result lives.
    pub(crate) unsafe fn bytes_mut<'a>(&self, tensor: &str) -> Result<&'a mut [u8]> {
        if self.read_only {
            return Err(Error::Lent { tensor: tensor.into(), reason: "is read-only".into() });
        }
        if self.n_bytes == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as for `bytes`; the caller has the only reference.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.address as *mut u8, self.n_bytes) })
    }
}
