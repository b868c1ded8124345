//! A tensor of 8-bit floats with a scale for each block: its values are computed when they are read.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::{Checkpoint, Reader};
use crate::error::{Error, Result};
use crate::kernels::elementwise::{first_nonfinite, round_all};
use crate::number::{Float, Float8};
use crate::plan::{Scaled, Scales};
use crate::source::{Source, Tensor};
use crate::statistics::content;

/// The scales of a tensor of a model that has some, and their name; `None` where it is as it is.
///
/// # Errors
/// [`Error::MissingTensor`]; [`Error::Plan`] for an 8-bit tensor whose scales the model does not tell.
pub(super) fn scales_of<'a>(
    scaled: &'a Scaled,
    checkpoint: &'a Checkpoint,
    tensor: &str,
) -> Result<Option<(&'a Scales, &'a str)>> {
    let entry = checkpoint.tensor(tensor)?;
    if Float8::of(entry.dtype).is_none() {
        return Ok(None);
    }
    let mut kinds = scaled.kinds.iter().filter(|kind| kind.shape == entry.shape);
    let found = kinds.find_map(|kind| {
        let name = format!("{tensor}{}", kind.ending);
        let scales = checkpoint.tensors().get(&name)?;
        (scales.shape == kind.scales).then_some((kind, scales.name))
    });
    match found {
        Some(found) => Ok(Some(found)),
        None => Err(Error::Plan { reason: format!("tensor `{tensor}`: no scales that fit it") }),
    }
}

/// See [`Scaled`].
#[derive(Debug)]
pub(super) struct DequantisedTensor<'a> {
    name: &'a str,
    dtype: Float,
    reader: &'a Reader,
    offset: u64,
    stored: Float8,
    scales: Tensor<'a>,
    n_scales: usize,
    /// All axes but the last, the innermost first: its side, and that of a block.
    axes: Vec<[usize; 2]>,
    /// The last axis: its side, and that of a block.
    columns: [usize; 2],
    allow_nonfinite: bool,
}

impl<'a> DequantisedTensor<'a> {
    /// `scales` come with the number of their elements.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Dtype`]; [`Error::Plan`] where there is not
    /// one scale for each block.
    pub(super) fn new(
        tensor: &'a str,
        dtype: Float,
        block: &[usize],
        checkpoint: &'a Checkpoint,
        shape: &[usize],
        scales: (Tensor<'a>, usize),
        allow_nonfinite: bool,
    ) -> Result<Self> {
        let entry = checkpoint.tensor(tensor)?;
        let reader = &checkpoint.shards()[entry.shard];
        let path = reader.path();
        let (scales, n_scales) = scales;
        if entry.shape != shape {
            let (expected, found) = (shape.to_vec(), entry.shape.to_vec());
            return Err(Error::Shape { path: path.into(), tensor: tensor.into(), expected, found });
        }
        let stored = Float8::of(entry.dtype).ok_or_else(|| Error::Dtype {
            path: path.into(),
            tensor: tensor.into(),
            expected: "F8_E4M3 or F8_E5M2",
            found: entry.dtype.to_string(),
        })?;
        let mut axes: Vec<[usize; 2]> =
            shape.iter().zip(block).rev().map(|(&side, &block)| [side, block]).collect();
        let blocks = axes.iter().map(|[side, block]| side.div_ceil(*block).max(1));
        let blocks = blocks.fold(1_usize, usize::saturating_mul);
        if shape.len() != block.len() || blocks != n_scales {
            let reason = format!("tensor `{tensor}`: {n_scales} scales for {blocks} blocks");
            return Err(Error::Plan { reason });
        }
        // A scalar is a row of one.
        let columns = if axes.is_empty() { [1, 1] } else { axes.remove(0) };
        Ok(Self {
            name: tensor,
            dtype,
            reader,
            offset: entry.offset,
            stored,
            scales,
            n_scales,
            axes,
            columns,
            allow_nonfinite,
        })
    }

    /// The first scale of a row.
    fn first_scale(&self, mut row: usize) -> usize {
        let [side, block] = self.columns;
        let mut stride = side.div_ceil(block);
        let mut first = 0;
        for [side, block] in &self.axes {
            first += row % side / block * stride;
            stride *= side.div_ceil(*block);
            row /= side;
        }
        first
    }

    /// Times the scales, which are read once for the rows that share them.
    fn scale(&self, start: usize, out: &mut [f32], scratch: &mut Vec<u8>) -> Result<()> {
        let [side, block] = self.columns;
        let mut scales = vec![0.0; side.div_ceil(block)];
        let mut held = None;
        let mut done = 0;
        while done < out.len() {
            let (row, from) = ((start + done) / side, (start + done) % side);
            let first = self.first_scale(row);
            if held != Some(first) {
                self.scales.read(Float::F32, first, &mut scales, scratch)?;
                held = Some(first);
            }
            let length = (side - from).min(out.len() - done);
            scale_row(&mut out[done..done + length], &scales, from, block);
            done += length;
        }
        Ok(())
    }

    /// The first of some values that is not finite, as an error.
    fn nonfinite(&self, working: Float, start: usize, out: &[f32]) -> Result<()> {
        match first_nonfinite(out) {
            Some(index) if !self.allow_nonfinite => Err(Error::NonFinite {
                path: self.reader.path().into(),
                tensor: self.name.into(),
                index: (start + index) as u64,
                value: out[index],
                dtype: working.name(),
            }),
            _ => Ok(()),
        }
    }

    fn byte_range(&self, elements: Range<usize>) -> Range<u64> {
        self.offset + elements.start as u64..self.offset + elements.end as u64
    }
}

/// Scale some elements of a row, from a place on.
fn scale_row(mut out: &mut [f32], scales: &[f32], from: usize, block: usize) {
    let mut left = block - from % block;
    for scale in &scales[from / block..] {
        let (some, rest) = out.split_at_mut(left.min(out.len()));
        some.iter_mut().for_each(|value| *value *= scale);
        (out, left) = (rest, block);
        if out.is_empty() {
            break;
        }
    }
}

impl Source for DequantisedTensor<'_> {
    fn dtype(&self) -> Float {
        self.dtype
    }

    fn read(
        &self,
        working: Float,
        start: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let bytes = self.reader.read(self.offset + start as u64, out.len(), scratch)?;
        self.stored.widen(bytes, out);
        self.scale(start, out, scratch)?;
        round_all(self.dtype, out);
        if working != self.dtype {
            round_all(working, out);
        }
        self.nonfinite(working, start, out)
    }

    fn hash(&self, elements: Range<usize>, scratch: &mut Vec<u8>) -> Result<u64> {
        let first = elements.start == 0;
        let Range { start, end } = self.byte_range(elements);
        let mut hashes = vec![xxh3_64(self.reader.read(start, (end - start) as usize, scratch)?)];
        if first {
            hashes.push(self.scales.hash(0..self.n_scales, scratch)?);
        }
        Ok(content::combine(&hashes))
    }

    fn scratch_bytes(&self, chunk: usize) -> usize {
        let [side, block] = self.columns;
        chunk + 8 * side.div_ceil(block)
    }

    fn will_need(&self, elements: Range<usize>) {
        self.reader.will_need(self.byte_range(elements));
    }

    fn release(&self, elements: Range<usize>) {
        self.reader.release(self.byte_range(elements));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::MemoryTensor;
    use crate::source::Models;
    use safetensors::Dtype;

    /// A model of 8-bit tensors, some with scales that are told.
    #[test]
    fn scales_are_found_by_name_and_shape_or_refused() {
        let tensor = |name: &str, dtype, shape: &[usize], bytes: &'static [u8]| MemoryTensor {
            name: name.into(),
            dtype,
            shape: shape.into(),
            bytes,
        };
        let stored = Checkpoint::over(
            "m",
            vec![
                tensor("q", Dtype::F8_E4M3, &[2, 2], &[0x38; 4]),
                tensor("q_s", Dtype::F32, &[2, 1], &[0; 8]),
                tensor("alone", Dtype::F8_E4M3, &[2, 2], &[0x38; 4]),
                tensor("wide", Dtype::F8_E4M3, &[1, 2], &[0x38; 2]),
                tensor("wide_s", Dtype::F32, &[2], &[0; 8]),
                tensor("plain", Dtype::F32, &[2], &[0; 8]),
            ],
        );
        let stored = stored.unwrap();
        let kind = |shape: &[usize], scales: &[usize]| Scales {
            shape: shape.into(),
            ending: "_s".into(),
            scales: scales.into(),
            block: vec![1, 2],
        };
        let kinds = vec![kind(&[2, 2], &[1, 1]), kind(&[2, 2], &[2, 1]), kind(&[1, 2], &[1, 1])];
        let scaled = Scaled { scaled: 0, dtype: Float::Bf16, kinds };
        let (kind, name) = scales_of(&scaled, &stored, "q").unwrap().unwrap();
        assert_eq!((&kind.scales[..], name), (&[2, 1][..], "q_s"));
        assert!(scales_of(&scaled, &stored, "plain").unwrap().is_none());
        for unknown in ["alone", "wide"] {
            let error = scales_of(&scaled, &stored, unknown).unwrap_err();
            assert!(matches!(error, Error::Plan { .. }), "{error}");
        }
        let error = scales_of(&scaled, &stored, "absent").unwrap_err();
        assert!(matches!(error, Error::MissingTensor { .. }));
    }

    /// 7 × 5 in blocks of 3 × 2, and two such matrices: every scale is another power of two.
    #[test]
    fn any_range_is_read_with_the_scale_of_each_elements_block() {
        let (sides, block): ([usize; 3], [usize; 3]) = ([2, 7, 5], [1, 3, 2]);
        let grid: Vec<usize> = sides.iter().zip(block).map(|(s, b)| s.div_ceil(b)).collect();
        let n_scales = grid.iter().product::<usize>();
        let q: Vec<u8> = (0..70).map(|i| 0x30 + i).collect();
        let scales: Vec<u8> =
            (0..n_scales).flat_map(|i| 2.0_f32.powi(i as i32 - 9).to_le_bytes()).collect();
        let mut widened = [0.0; 70];
        Float8::E4m3.widen(&q, &mut widened);
        let expected: Vec<f32> = (0..70)
            .map(|i| {
                let at = [i / 35, i / 5 % 7, i % 5];
                let scale = (at[0] * grid[1] + at[1] / 3) * grid[2] + at[2] / 2;
                widened[i] * 2.0_f32.powi(scale as i32 - 9)
            })
            .collect();
        let tensor = |name: &str, dtype, shape: &[usize], bytes: Vec<u8>| MemoryTensor {
            name: name.into(),
            dtype,
            shape: shape.into(),
            bytes: bytes.leak(),
        };
        let stored = || {
            let q = tensor("q", Dtype::F8_E4M3, &sides, q.clone());
            Checkpoint::over("m", vec![q, tensor("s", Dtype::F32, &grid, scales.clone())]).unwrap()
        };
        let (models, checkpoint) = (Models::over(vec![stored()]), stored());
        let scales = models.tensor(0, "s", &grid, false).unwrap();
        let made = |n| {
            let scales = (scales.clone(), n);
            DequantisedTensor::new("q", Float::F32, &block, &checkpoint, &sides, scales, false)
        };
        assert!(matches!(made(n_scales + 1).unwrap_err(), Error::Plan { .. }));
        let made = made(n_scales).unwrap();
        for start in 0..70 {
            for end in start..=70 {
                let mut out = vec![0.0; end - start];
                made.read(Float::F32, start, &mut out, &mut Vec::new()).unwrap();
                assert_eq!(out, expected[start..end]);
            }
        }
    }
}
