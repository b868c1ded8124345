//! A checkpoint that lies in the caller's memory, such as tensors that another library has loaded.

use safetensors::Dtype;

use crate::checkpoint::opening::Opening;
use crate::checkpoint::{Checkpoint, Kind, Reader};
use crate::error::{Error, Result};

/// A tensor in memory: its elements in row-major order, as a file would hold them. Nobody may write
/// to them while a merge reads them.
#[derive(Debug, Clone)]
pub struct MemoryTensor {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sides, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: &'static [u8],
}

impl Checkpoint {
    /// A checkpoint of these tensors. `name` stands for its path in messages.
    ///
    /// # Errors
    /// [`Error::Plan`]: a tensor has another length than its shape says; [`Error::HeaderJson`]: two have
    /// one name.
    pub fn over(name: &str, tensors: Vec<MemoryTensor>) -> Result<Self> {
        let mut made = Opening::default();
        for MemoryTensor { name: tensor, dtype, shape, bytes } in tensors {
            let bits = shape.iter().try_fold(dtype.bitsize(), |n, &side| n.checked_mul(side));
            if bits != bytes.len().checked_mul(8) {
                let found = bytes.len();
                let reason = format!("tensor `{tensor}`: {found} bytes do not hold {shape:?}");
                return Err(Error::Plan { reason });
            }
            let (shard, bytes) = (made.shards.len(), Reader::over(name, bytes));
            made.tensors.push(&tensor, Kind { dtype, shape, shard, bytes: bytes.len() }, 0);
            made.shards.push(bytes);
        }
        made.done(name.as_ref(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, bytes: &'static [u8]) -> MemoryTensor {
        MemoryTensor { name: name.into(), dtype: Dtype::BF16, shape: vec![2], bytes }
    }

    #[test]
    fn tensors_are_found_by_name_and_must_have_the_length_of_their_shape() {
        let made = Checkpoint::over("m", vec![tensor("a", &[0; 4]), tensor("b", &[1; 4])]).unwrap();
        assert_eq!(made.tensor("b").unwrap().shard, 1);
        assert!(matches!(made.tensor("c").unwrap_err(), Error::MissingTensor { .. }));
        for wrong in [
            vec![tensor("a", &[0; 3])],
            vec![MemoryTensor { shape: vec![usize::MAX, 2], ..tensor("a", &[0; 4]) }],
        ] {
            assert!(matches!(Checkpoint::over("m", wrong).unwrap_err(), Error::Plan { .. }));
        }
        let twins = vec![tensor("a", &[0; 4]), tensor("a", &[0; 4])];
        assert!(matches!(Checkpoint::over("m", twins).unwrap_err(), Error::HeaderJson { .. }));
    }
}
