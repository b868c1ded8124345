//! What a method must know of one expert's whole tensor before it can apply: small states that
//! merge in any order and do not depend on which other experts take part, so that a sweep over many
//! subsets computes them once.

pub mod content;
pub mod magnitude;
pub mod norm;

use crate::error::Result;
use crate::kernels::drop::{keep_below, limit};
use crate::kernels::trim::trim;
use crate::philox::Stream;
use crate::segments::Segment;

pub use magnitude::Threshold;

/// Which elements of one expert's delta take part.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// All of them.
    All,
    /// None of them.
    Nothing,
    /// The largest magnitudes.
    Magnitude(Threshold),
    /// Each with a probability.
    Random {
        /// Where the words come from.
        stream: Stream,
        /// The probability, as a [`limit`] on words.
        limit: u64,
    },
}

impl Selection {
    /// Keep elements of `stream` with `probability`.
    pub fn random(stream: Stream, probability: f32) -> Self {
        Self::Random { stream, limit: limit(probability) }
    }

    /// A cursor at the start of `segment`.
    pub fn cursor(&self, segment: &Segment) -> Cursor {
        match self {
            Self::Magnitude(threshold) => Cursor { ties: threshold.ties[segment.number] },
            _ => Cursor { ties: 0 },
        }
    }

    /// Zero the elements of `deltas` that are not selected. `start` is the index of the first; calls
    /// with one cursor walk a segment from its start to its end.
    pub fn apply(
        &self,
        cursor: &mut Cursor,
        start: usize,
        deltas: &mut [f32],
        words: &mut Vec<u32>,
    ) {
        match self {
            Self::All => {}
            Self::Nothing => deltas.fill(0.0),
            Self::Magnitude(threshold) => trim(deltas, threshold.bits, &mut cursor.ties),
            Self::Random { stream, limit } => {
                words.resize(deltas.len(), 0);
                stream.fill(start as u64, words);
                keep_below(deltas, words, *limit);
            }
        }
    }
}

/// How many elements equal to the threshold may still be kept in a segment.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    ties: u64,
}

/// Everything that applying one expert needs: its selection, and the factor that restores the norm.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertState {
    /// Which elements are kept.
    pub selection: Selection,
    /// Factor on them; 1 where nothing is rescaled.
    pub scale: f32,
}

/// Reads a run of one expert's delta, chunk after chunk: `visit(start, chunk)`.
pub trait DeltaWalk: Sync {
    /// Walk one segment.
    ///
    /// # Errors
    /// Whatever reading the inputs or `visit` gives.
    fn walk(
        &self,
        segment: &Segment,
        visit: &mut dyn FnMut(usize, &mut [f32]) -> Result<()>,
    ) -> Result<()>;
}
