//! The models of a run: open checkpoints, and what is derived from them.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::checkpoint::{Checkpoint, Identity, KnownHeaders, Reader};
use crate::error::{Error, Result};
use crate::number::Float;
use crate::plan::{
    in_order, Cast, Concat, Derivation, Derived, Job, Model, Rows, Scaled, Scales, TensorRef,
};
use crate::source::dequantised::{scales_of, DequantisedTensor};
use crate::source::lora::LoraTensor;
use crate::source::made::{CastTensor, ConcatTensor};
use crate::source::rows::RowsTensor;
use crate::source::wide::WideStored;
use crate::source::{Source, StoredTensor, Tensor, WideTensor};

/// Models that are open, by the hash of their JSON: that of a derived one may have a line for each of
/// a hundred thousand tensors.
pub(super) type Known = HashMap<u128, usize>;

const COPIED: &str = "a tensor that is computed cannot be copied";

/// The models of one run, by number.
#[derive(Debug, Default)]
pub(crate) struct Models(Vec<Opened>);

#[derive(Debug)]
enum Opened {
    Stored(Checkpoint),
    Derived(BTreeMap<String, Derivation>),
    Scaled(Scaled),
}

/// A tensor as bytes.
pub(crate) struct RawTensor<'a> {
    /// The file that holds it.
    pub reader: &'a Reader,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl Models {
    /// Checkpoints that are open already, numbered in their order.
    pub(crate) fn over(checkpoints: Vec<Checkpoint>) -> Self {
        Self(checkpoints.into_iter().map(Opened::Stored).collect())
    }

    /// Open one more model, whose references are numbers of those that are there; returns its number.
    ///
    /// # Errors
    /// Whatever [`Checkpoint::of`] and [`Checkpoint::reopen`] give.
    pub(crate) fn open(&mut self, model: Model, read: &KnownHeaders) -> Result<usize> {
        self.0.push(match model {
            Model::Derived(Derived { derived }) => Opened::Derived(derived),
            Model::Scaled(scaled) => Opened::Scaled(scaled),
            stored => {
                let known = if let Model::Folder(place) = &stored { read.get(place) } else { None };
                Opened::Stored(known.map_or_else(|| Checkpoint::of(&stored), Checkpoint::reopen)?)
            }
        });
        Ok(self.0.len() - 1)
    }

    /// Open the models of a plan, each once however often it is given, and number their references
    /// anew; returns their numbers here.
    ///
    /// # Errors
    /// As for [`Models::open`].
    pub(crate) fn open_all(
        &mut self,
        models: Vec<Model>,
        known: &mut Known,
        read: &KnownHeaders,
    ) -> Result<Vec<usize>> {
        // In an order in which numbers not yet known are never asked for.
        let mut own = vec![usize::MAX; models.len()];
        let order = in_order(&models).map_err(|reason| Error::Plan { reason })?;
        let mut models: Vec<_> = models.into_iter().map(Some).collect();
        for number in order {
            let Some(mut model) = models[number].take() else { continue };
            model.renumber(&own);
            // Once numbers are global, models are one where their JSON is.
            let text = serde_json::to_vec(&model);
            let text = text.map_err(|e| Error::Plan { reason: e.to_string() })?;
            own[number] = match known.entry(xxh3_128(&text)) {
                Entry::Occupied(there) => *there.get(),
                Entry::Vacant(place) => *place.insert(self.open(model, read)?),
            };
        }
        Ok(own)
    }

    /// The files of a model; a derived one has none of its own.
    pub(crate) fn files(&self, model: usize) -> &[Reader] {
        match &self.0[model] {
            Opened::Stored(checkpoint) => checkpoint.shards(),
            Opened::Derived(_) | Opened::Scaled(_) => &[],
        }
    }

    /// What a model's files were when they were opened.
    pub(crate) fn identities(&self, model: usize) -> Vec<&Identity> {
        self.files(model).iter().map(Reader::identity).collect()
    }

    /// A floating-point tensor of the expected shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Dtype`]; [`Error::Plan`] for a derivation
    /// whose parts do not fit.
    pub(crate) fn tensor<'a>(
        &'a self,
        model: usize,
        name: &'a str,
        shape: &[usize],
        allow_nonfinite: bool,
    ) -> Result<Tensor<'a>> {
        let derivation = match &self.0[model] {
            Opened::Stored(checkpoint) => {
                if let Some(wide) = wide_of(checkpoint, name, shape, allow_nonfinite)? {
                    if wide.is_real() {
                        let identity = checkpoint.tensor(name)?.number;
                        return Ok(Tensor::Made(Arc::new(wide), (model, identity)));
                    }
                }
                let tensor = StoredTensor::new(checkpoint, name, shape, allow_nonfinite)?;
                return Ok(Tensor::Stored(tensor));
            }
            Opened::Scaled(scaled) => {
                let Some((checkpoint, kind, scales)) = self.scales(scaled, name)? else {
                    return self.tensor(scaled.scaled, name, shape, allow_nonfinite);
                };
                let scales = self.tensor(scaled.scaled, scales, &kind.scales, allow_nonfinite)?;
                let scales = (scales, kind.scales.iter().product());
                let block = &kind.block;
                let dtype = scaled.dtype;
                let made = DequantisedTensor::new(
                    name,
                    dtype,
                    block,
                    checkpoint,
                    shape,
                    scales,
                    allow_nonfinite,
                )?;
                return Ok(Tensor::Made(Arc::new(made), (model, checkpoint.tensor(name)?.number)));
            }
            Opened::Derived(derived) => find(derived, name)?,
        };
        let part = |at: &'a TensorRef, shape: &[usize]| {
            self.tensor(at.model, &at.tensor, shape, allow_nonfinite)
        };
        let made: Arc<dyn Source + 'a> = match derivation {
            Derivation::Same(at) => return part(at, shape),
            Derivation::Cast(Cast { model, tensor, dtype }) => {
                let tensor = self.tensor(*model, tensor, shape, allow_nonfinite)?;
                Arc::new(CastTensor { tensor, dtype: *dtype })
            }
            Derivation::Lora(lora) => {
                let tensor = self.tensor(lora.model, &lora.tensor, shape, allow_nonfinite)?;
                let [rows, columns] = *shape else {
                    return Err(misfit(name, "a low-rank update needs two axes"));
                };
                let rank = *self.shape(lora.a.model, &lora.a.tensor)?.first().unwrap_or(&0);
                let sides = if lora.transposed { [columns, rows] } else { [rows, columns] };
                let a = part(&lora.a, &[rank, sides[1]])?;
                let b = part(&lora.b, &[sides[0], rank])?;
                Arc::new(LoraTensor::new(lora, tensor, a, b, [rows, columns], rank))
            }
            Derivation::Concat(Concat { model, tensors, shape: whole }) => {
                expect_shape(name, shape, whole)?;
                let bind = |name: &'a String| {
                    self.tensor(*model, name, &self.shape(*model, name)?, allow_nonfinite)
                };
                let parts = tensors.iter().map(bind).collect::<Result<Vec<_>>>()?;
                let lengths = self.lengths(derivation)?;
                if lengths.iter().sum::<usize>() != shape.iter().product::<usize>() {
                    return Err(misfit(name, "its parts are not as long as the whole"));
                }
                let dtype = same_dtype(&parts).ok_or_else(|| {
                    misfit(name, "tensors of several dtypes cannot lie one behind the other")
                })?;
                Arc::new(ConcatTensor::new(parts, &lengths, dtype))
            }
            Derivation::Rows(rows) => {
                let (Some(&count), width) = (shape.first(), shape.iter().skip(1).product()) else {
                    return Err(misfit(name, "a scalar has no rows"));
                };
                let mut tensors = Vec::with_capacity(rows.tensors.len());
                let mut counts = Vec::with_capacity(rows.tensors.len());
                for at in &rows.tensors {
                    let own = self.shape(at.model, &at.tensor)?;
                    let mut like = shape.to_vec();
                    like[0] = *own.first().unwrap_or(&0);
                    tensors.push(part(at, &like)?);
                    counts.push(like[0]);
                }
                check_rows(name, rows, count, &counts)?;
                let dtype = same_dtype(&tensors).unwrap_or(Float::F32);
                Arc::new(RowsTensor::new(rows, tensors, &counts, width, dtype))
            }
        };
        Ok(Tensor::Made(made, (model, std::ptr::from_ref(derivation) as usize)))
    }

    /// A tensor whose numbers are read as float64.
    ///
    /// # Errors
    /// As for [`Models::tensor`].
    pub(crate) fn wide<'a>(
        &'a self,
        model: usize,
        name: &'a str,
        shape: &[usize],
        allow_nonfinite: bool,
    ) -> Result<WideTensor<'a>> {
        match &self.0[model] {
            Opened::Stored(checkpoint) => {
                if let Some(wide) = wide_of(checkpoint, name, shape, allow_nonfinite)? {
                    return Ok(WideTensor::Stored(wide));
                }
            }
            Opened::Derived(derived) => {
                if let Derivation::Same(at) = find(derived, name)? {
                    return self.wide(at.model, &at.tensor, shape, allow_nonfinite);
                }
            }
            Opened::Scaled(scaled) => {
                if self.scales(scaled, name)?.is_none() {
                    return self.wide(scaled.scaled, name, shape, allow_nonfinite);
                }
            }
        }
        Ok(WideTensor::Narrow(self.tensor(model, name, shape, allow_nonfinite)?))
    }

    /// The bytes of a tensor of any dtype, by model and name.
    ///
    /// # Errors
    /// As for [`Models::raw`].
    pub(crate) fn raw_of(&self, model: usize, name: &str, job: &Job) -> Result<RawTensor<'_>> {
        self.raw(&TensorRef { model, tensor: name.to_owned() }, job)
    }

    /// The bytes of a tensor of any dtype, to be copied.
    ///
    /// # Errors
    /// As for [`Models::tensor`]; [`Error::Plan`] for a tensor that is computed.
    pub(crate) fn raw(&self, at: &TensorRef, job: &Job) -> Result<RawTensor<'_>> {
        let checkpoint = match &self.0[at.model] {
            Opened::Stored(checkpoint) => checkpoint,
            Opened::Derived(derived) => match find(derived, &at.tensor)? {
                Derivation::Same(at) => return self.raw(at, job),
                _ => return Err(misfit(&at.tensor, COPIED)),
            },
            Opened::Scaled(scaled) => {
                if self.scales(scaled, &at.tensor)?.is_some() {
                    return Err(misfit(&at.tensor, COPIED));
                }
                return self.raw_of(scaled.scaled, &at.tensor, job);
            }
        };
        let entry = checkpoint.tensor(&at.tensor)?;
        let reader = &checkpoint.shards()[entry.shard];
        if entry.shape != job.shape {
            return Err(Error::Shape {
                path: reader.path().into(),
                tensor: at.tensor.clone(),
                expected: job.shape.clone(),
                found: entry.shape.to_vec(),
            });
        }
        if entry.dtype != job.out_dtype {
            return Err(Error::Dtype {
                path: reader.path().into(),
                tensor: at.tensor.clone(),
                expected: "the dtype that the other inputs have",
                found: entry.dtype.to_string(),
            });
        }
        Ok(RawTensor { reader, offset: entry.offset, bytes: entry.bytes })
    }

    /// Whether a tensor's bytes lie in a file.
    pub(crate) fn is_stored(&self, model: usize, name: &str) -> bool {
        match &self.0[model] {
            Opened::Stored(_) => true,
            Opened::Derived(derived) => match derived.get(name) {
                Some(Derivation::Same(at)) => self.is_stored(at.model, &at.tensor),
                _ => false,
            },
            Opened::Scaled(scaled) => {
                matches!(self.scales(scaled, name), Ok(None)) && self.is_stored(scaled.scaled, name)
            }
        }
    }

    /// Where a tensor lies, or the first one that it is computed from: model, file, offset.
    ///
    /// # Errors
    /// [`Error::MissingTensor`]
    pub(crate) fn position(&self, model: usize, name: &str) -> Result<(usize, usize, u64)> {
        match &self.0[model] {
            Opened::Stored(checkpoint) => {
                let entry = checkpoint.tensor(name)?;
                Ok((model, entry.shard, entry.offset))
            }
            Opened::Derived(derived) => {
                let found = find(derived, name)?.references();
                let (model, name) = found[0];
                self.position(model, name)
            }
            Opened::Scaled(scaled) => self.position(scaled.scaled, name),
        }
    }

    /// Sides of a tensor.
    ///
    /// # Errors
    /// [`Error::MissingTensor`]
    pub(crate) fn shape(&self, model: usize, name: &str) -> Result<Vec<usize>> {
        match &self.0[model] {
            Opened::Stored(checkpoint) => Ok(checkpoint.tensor(name)?.shape.to_vec()),
            Opened::Derived(derived) => match find(derived, name)? {
                Derivation::Concat(Concat { shape, .. }) => Ok(shape.clone()),
                Derivation::Rows(rows) => {
                    let first = &rows.tensors[0];
                    let mut shape = self.shape(first.model, &first.tensor)?;
                    if let Some(side) = shape.first_mut() {
                        *side = rows.from.len() + rows.padding;
                    }
                    Ok(shape)
                }
                other => {
                    let (model, name) = other.references()[0];
                    self.shape(model, name)
                }
            },
            Opened::Scaled(scaled) => self.shape(scaled.scaled, name),
        }
    }

    /// The stored model below one whose tensors have scales, and the scales of a tensor, if it has some.
    fn scales<'a>(
        &'a self,
        scaled: &'a Scaled,
        name: &str,
    ) -> Result<Option<(&'a Checkpoint, &'a Scales, &'a str)>> {
        let Opened::Stored(checkpoint) = &self.0[scaled.scaled] else {
            return Err(misfit(name, "what is computed has no scales"));
        };
        let found = scales_of(scaled, checkpoint, name)?;
        Ok(found.map(|(kind, scales)| (checkpoint, kind, scales)))
    }

    fn lengths(&self, derivation: &Derivation) -> Result<Vec<usize>> {
        let length = |(model, name): (usize, &str)| Ok(self.shape(model, name)?.iter().product());
        derivation.references().into_iter().map(length).collect()
    }
}

/// A stored tensor of the expected shape, if its dtype is a wide one.
fn wide_of<'a>(
    checkpoint: &'a Checkpoint,
    name: &str,
    shape: &[usize],
    allow_nonfinite: bool,
) -> Result<Option<WideStored<'a>>> {
    let entry = checkpoint.tensor(name)?;
    let reader = &checkpoint.shards()[entry.shard];
    let wide = WideStored::of(entry, reader, allow_nonfinite);
    if wide.is_some() && entry.shape != shape {
        return Err(Error::Shape {
            path: reader.path().into(),
            tensor: name.into(),
            expected: shape.to_vec(),
            found: entry.shape.to_vec(),
        });
    }
    Ok(wide)
}

fn find<'a>(derived: &'a BTreeMap<String, Derivation>, name: &str) -> Result<&'a Derivation> {
    derived.get(name).ok_or_else(|| Error::MissingTensor {
        path: PathBuf::from("a derived model"),
        tensor: name.into(),
    })
}

fn misfit(name: &str, reason: &str) -> Error {
    Error::Plan { reason: format!("derived tensor `{name}`: {reason}") }
}

fn expect_shape(name: &str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape {
        path: Path::new("a derived model").into(),
        tensor: name.into(),
        expected: expected.to_vec(),
        found: found.to_vec(),
    })
}

fn same_dtype(tensors: &[Tensor]) -> Option<Float> {
    let first = tensors.first()?.dtype();
    tensors.iter().all(|tensor| tensor.dtype() == first).then_some(first)
}

fn check_rows(name: &str, rows: &Rows, count: usize, counts: &[usize]) -> Result<()> {
    if rows.from.len() + rows.padding != count {
        return Err(misfit(name, "it has another number of rows than it lists"));
    }
    let there = |t: usize, row: usize| row < counts[t];
    let stored = rows.from.iter().zip(&rows.rows);
    let mut stored = stored.filter_map(|(&from, &row)| Some((usize::try_from(from).ok()?, row)));
    let mut means = rows.means.iter().flatten();
    if !stored.all(|(t, row)| there(t, row)) || !means.all(|&(t, row)| there(t, row)) {
        return Err(misfit(name, "a row that its tensor does not have"));
    }
    Ok(())
}
