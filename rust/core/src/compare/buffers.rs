//! Whether the inputs of a plan's copies hold the same bytes.

use crate::error::Result;
use crate::plan::{Merge, Plan};
use crate::source::Models;
use crate::work::{pieces, Control};

/// Bytes that are compared at a time.
const PIECE: usize = 1 << 20;

/// For each job that copies, and whose inputs differ: its number, and that of the first input that is
/// not as the first of all.
///
/// # Errors
/// Whatever opening the models and finding the tensors gives; [`crate::Error::Io`],
/// [`crate::Error::Cancelled`].
pub fn differing_copies(mut plan: Plan, control: &Control) -> Result<Vec<(usize, usize)>> {
    let mut models = Models::default();
    let own = models.open_all(
        std::mem::take(&mut plan.models),
        &mut Default::default(),
        &Default::default(),
    )?;
    let mut found = Vec::new();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (number, job) in plan.jobs.iter_mut().enumerate() {
        job.merge.renumber(&own);
        let Merge::Copy { inputs } = &job.merge else { continue };
        let raw = inputs.iter().map(|at| models.raw(at, job)).collect::<Result<Vec<_>>>()?;
        let Some((first, others)) = raw.split_first() else { continue };
        'inputs: for (place, other) in others.iter().enumerate() {
            for piece in pieces(0..first.bytes as usize, PIECE) {
                control.check()?;
                let [x, y] = [first, other].map(|input| input.offset + piece.start as u64);
                let ours = first.reader.read(x, piece.len(), &mut a)?;
                if other.reader.read(y, piece.len(), &mut b)? != ours {
                    found.push((number, place + 1));
                    break 'inputs;
                }
            }
        }
    }
    Ok(found)
}
