//! Which elements of one expert's delta take part in a merge.

use crate::kernels::drop::Mask;
use crate::kernels::trim::{trim, trim_top};
use crate::number::philox::Stream;
use crate::statistics::magnitude::Threshold;
use crate::statistics::ranks::RankLimits;
use crate::work::Segment;

/// Which elements are kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Selection {
    /// All of them.
    All,
    /// None of them.
    Nothing,
    /// The largest magnitudes, but for the very largest.
    Magnitude {
        /// Keeps those that are large enough.
        least: Threshold,
        /// Keeps those that are too large.
        top: Option<Threshold>,
    },
    /// Each with a probability.
    Random {
        /// Where the words come from.
        stream: Stream,
        /// The probabilities.
        chance: Chance,
    },
}

/// Probabilities of keeping elements, as limits on 32-bit words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Chance {
    /// The same for all.
    Same(u64),
    /// By the rank of the magnitude in its row.
    Ranked(RankLimits),
}

impl Selection {
    /// What walks over `segment`; a mask is at hand where the selection is random.
    pub(crate) fn cursor<'a>(&'a self, segment: &Segment, mask: Option<&'a Mask>) -> Cursor<'a> {
        match (self, mask) {
            (_, Some(mask)) => Cursor::Mask { mask, start: segment.range.start },
            (Self::Magnitude { least, top }, None) => Cursor::Magnitude {
                least: (least.bits, least.ties[segment.number]),
                top: top.as_ref().map(|top| (top.bits, top.ties[segment.number])),
            },
            (Self::All, None) => Cursor::All,
            (Self::Nothing | Self::Random { .. }, None) => Cursor::Nothing,
        }
    }
}

/// Applies a selection to a segment, chunk after chunk from its start to its end.
#[derive(Debug)]
pub(crate) enum Cursor<'a> {
    /// Keeps everything.
    All,
    /// Keeps nothing.
    Nothing,
    /// Magnitude bits and ties left, of the least that is kept and of the least that is too large.
    Magnitude {
        /// Those large enough.
        least: (u32, u64),
        /// Those too large.
        top: Option<(u32, u64)>,
    },
    /// A mask over the segment.
    Mask {
        /// The bits.
        mask: &'a Mask,
        /// The segment's first element.
        start: usize,
    },
}

impl Cursor<'_> {
    /// Zero the elements of `deltas` that are not kept; the first of them is element `start`.
    pub(crate) fn apply(&mut self, start: usize, deltas: &mut [f32]) {
        match self {
            Self::All => {}
            Self::Nothing => deltas.fill(0.0),
            Self::Magnitude { least, top } => {
                trim(deltas, least.0, &mut least.1);
                if let Some((bits, ties)) = top {
                    trim_top(deltas, *bits, ties);
                }
            }
            Self::Mask { mask, start: first } => mask.apply(start - *first, deltas),
        }
    }
}
