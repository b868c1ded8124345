//! What is known of an expert's tensor, kept between the runs of a family: thresholds, streams and
//! norms depend on no other expert, so that a sweep over subsets finds each of them once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::number::Float;
use crate::plan::Sparsify;
use crate::statistics::selection::Selection;

/// Selections and scales by what they depend on.
#[derive(Debug, Default)]
pub(crate) struct Known {
    entries: Mutex<HashMap<Key, (Selection, f32)>>,
}

/// What a selection and its scale depend on. The options are compared by their bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub name: String,
    pub tensors: [(usize, u64); 2],
    pub dtype: Float,
    pub sparsify: Sparsify,
    pub rescale: bool,
    pub options: [u64; 3],
    pub seed: u64,
}

impl Known {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Selection, f32)>> {
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
