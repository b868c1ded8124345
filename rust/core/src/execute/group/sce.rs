//! `sce`: select elements by their variance over the inputs, calculate weights from the energies of
//! what is left, erase what goes against the majority's sign.
//!
//! ```text
//! dᵢ  = input − base, zero but for the int(density · n₊) elements of largest variance
//! wᵢ  = mean of dᵢ², divided by the sum of all
//! out = base + Σ wᵢdᵢ / Σ wᵢ                       over the inputs whose sign is that of Σ dᵢ
//! ```
//! n₊ counts the elements of non-zero variance. Equal variances at the threshold: the first by index.

use multiversion::multiversion;

use crate::error::Result;
use crate::execute::group::lanes::{add_rounded_squares, scalar};
use crate::execute::group::method::Method;
use crate::execute::group::order::order_statistics;
use crate::execute::group::sweep::{Buffers, Inputs, Lanes, Sweep};
use crate::kernels::elementwise::{add, SUM_LANES};
use crate::number::{Float, Precision};
use crate::work::{Segment, BLOCK};

/// Sums of weights below this count as none.
const SMALLEST: f32 = 1e-6;

pub(super) struct Sce {
    pub density: f64,
}

pub(super) struct State {
    selection: Selection,
    weights: Vec<f32>,
}

enum Selection {
    All,
    Nothing,
    /// The elements above a variance, and in each segment so many of those that equal it.
    Above(f32, Vec<u64>),
}

impl Selection {
    fn ties(&self, segment: &Segment) -> u64 {
        match self {
            Self::Above(_, ties) => ties[segment.number],
            _ => 0,
        }
    }

    /// Zero what is not selected.
    fn apply<P: Precision>(&self, buffers: &mut Buffers) {
        match self {
            Self::All => {}
            Self::Nothing => buffers.inputs.iter_mut().for_each(|input| input.fill(0.0)),
            Self::Above(threshold, _) => {
                variance::<P>(buffers);
                let Buffers { scratch: [variance, ..], ties, inputs, .. } = buffers;
                for value in variance.iter_mut() {
                    let equal = *value == *threshold && *ties > 0;
                    *ties -= u64::from(equal);
                    *value = if *value > *threshold || equal { 1.0 } else { 0.0 };
                }
                inputs.iter_mut().for_each(|input| mask(input, variance));
            }
        }
    }
}

impl Sce {
    fn selects(&self) -> bool {
        self.density > 0.0 && self.density < 1.0
    }

    fn selection<P: Precision>(&self, sweep: &Sweep) -> Result<Selection> {
        if !self.selects() {
            return Ok(if self.density > 0.0 { Selection::All } else { Selection::Nothing });
        }
        let has_low_bits = P::DTYPE != Float::Bf16;
        let mut n_kept = 0;
        let quantity = |_: usize, buffers: &mut Buffers| {
            buffers.subtract_base::<P>();
            variance::<P>(buffers);
        };
        let found = order_statistics(sweep, has_low_bits, quantity, |nonzero| {
            // mergekit multiplies in float32.
            n_kept = (nonzero as f32 * self.density as f32) as u64;
            n_kept = n_kept.min(nonzero);
            let rank = (sweep.inputs.len() as u64).saturating_sub(n_kept);
            if n_kept == 0 {
                vec![]
            } else {
                vec![rank]
            }
        })?;
        let Some(found) = found.into_iter().next() else {
            sweep.skip(u64::from(has_low_bits));
            return Ok(Selection::Nothing);
        };
        let above = sweep.inputs.len() as u64 - found.below - found.equal.iter().sum::<u64>();
        let mut left = n_kept - above;
        let take = |have: u64| {
            let taken = have.min(left);
            left -= taken;
            taken
        };
        Ok(Selection::Above(found.value, found.equal.into_iter().map(take).collect()))
    }

    /// Sums of squares of every input's selected elements.
    fn energies<P: Precision>(sweep: &Sweep, selection: &Selection) -> Result<Vec<f64>> {
        let count = sweep.inputs.tensors.len();
        let blocks = sweep.each_segment(|segment| {
            let mut buffers = Buffers { ties: selection.ties(segment), ..Buffers::default() };
            let empty = vec![[0.0; SUM_LANES]; count];
            let mut blocks: Vec<Vec<Lanes>> = vec![empty; segment.range.len().div_ceil(BLOCK)];
            sweep.walk(segment, &mut buffers, |start, buffers| {
                buffers.subtract_base::<P>();
                selection.apply::<P>(buffers);
                let block = &mut blocks[(start - segment.range.start) / BLOCK];
                for (input, sums) in buffers.inputs.iter().zip(block.chunks_mut(1)) {
                    add_rounded_squares::<P>(input, sums);
                }
            })?;
            Ok(blocks)
        })?;
        let sum =
            |i: usize| blocks.iter().flatten().map(|block| block[i].iter().sum::<f64>()).sum();
        Ok((0..count).map(sum).collect())
    }
}

fn weights<P: Precision>(energies: &[f64], len: usize) -> Vec<f32> {
    let mean = |energy: &f64| P::round(*energy as f32 / len as f32);
    let means: Vec<f32> = energies.iter().map(mean).collect();
    let sum = scalar::<P>(means.iter().map(|mean| f64::from(*mean)).sum());
    if sum.abs() < SMALLEST {
        return vec![P::round(1.0 / means.len() as f32); means.len()];
    }
    means.iter().map(|mean| P::round(mean / sum)).collect()
}

impl<P: Precision> Method<P> for Sce {
    type State = State;

    fn sweeps(&self, _inputs: &Inputs) -> u64 {
        let selection = if self.selects() { 1 + u64::from(P::DTYPE != Float::Bf16) } else { 0 };
        selection + 1
    }

    fn statistics(&self, sweep: &Sweep) -> Result<State> {
        let selection = self.selection::<P>(sweep)?;
        let energies = Self::energies::<P>(sweep, &selection)?;
        Ok(State { selection, weights: weights::<P>(&energies, sweep.inputs.len()) })
    }

    fn ties(&self, state: &State, segment: &Segment) -> u64 {
        state.selection.ties(segment)
    }

    fn apply(&self, state: &State, _start: usize, buffers: &mut Buffers, out: &mut [f32]) {
        buffers.subtract_base::<P>();
        state.selection.apply::<P>(buffers);
        let Buffers { base, inputs, scratch: [vote, divisor, _], .. } = buffers;
        for sums in [&mut *vote, &mut *divisor] {
            sums.clear();
            sums.resize(out.len(), 0.0);
        }
        for input in inputs.iter() {
            add(vote, input);
        }
        out.fill(0.0);
        for (input, weight) in inputs.iter().zip(&state.weights) {
            add_agreeing::<P>(out, divisor, vote, input, *weight);
        }
        finish::<P>(out, divisor, base);
    }
}

/// The inputs' variance at every element, into the first scratch, by Welford's recurrence.
fn variance<P: Precision>(buffers: &mut Buffers) {
    let Buffers { inputs, scratch: [variance, ..], wide: [mean, square], .. } = buffers;
    let n = inputs[0].len();
    for values in [&mut *mean, &mut *square] {
        values.clear();
        values.resize(n, 0.0);
    }
    for (number, input) in inputs.iter().enumerate() {
        welford(mean, square, input, (number + 1) as f64);
    }
    let count = inputs.len() as f64;
    variance.clear();
    variance.extend(square.iter().map(|square| scalar::<P>(square / count)));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn welford(mean: &mut [f64], square: &mut [f64], values: &[f32], count: f64) {
    for ((mean, square), value) in mean.iter_mut().zip(square).zip(values) {
        let value = f64::from(*value);
        let before = value - *mean;
        *mean += before / count;
        *square += before * (value - *mean);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn mask(values: &mut [f32], mask: &[f32]) {
    for (value, mask) in values.iter_mut().zip(mask) {
        *value = if *mask == 0.0 { 0.0 } else { *value };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn add_agreeing<P: Precision>(
    sums: &mut [f32],
    divisor: &mut [f32],
    vote: &[f32],
    deltas: &[f32],
    weight: f32,
) {
    for (((sum, divisor), vote), delta) in sums.iter_mut().zip(divisor).zip(vote).zip(deltas) {
        let plus = P::round(*vote) >= 0.0;
        let agrees = if plus { *delta > 0.0 } else { *delta < 0.0 };
        *sum += if agrees { P::round(*delta * weight) } else { 0.0 };
        *divisor += if agrees { weight } else { 0.0 };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn finish<P: Precision>(sums: &mut [f32], divisor: &[f32], base: &[f32]) {
    let smallest = P::round(SMALLEST);
    for ((sum, divisor), base) in sums.iter_mut().zip(divisor).zip(base) {
        let divisor = P::round(*divisor).max(smallest);
        *sum = P::round(*base + P::round(P::round(*sum) / divisor));
    }
}
