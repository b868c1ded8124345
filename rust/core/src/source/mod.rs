//! Where input comes from: blocks of a base or of an expert, stored or computed. Uses `checkpoint`,
//! `plan`, the fingerprints of `statistics`, and what is below them.

mod any;
mod behind;
mod contract;
mod dequantised;
mod held;
mod lora;
mod made;
mod open_models;
mod rows;
mod stored;
mod tensor;
mod wide;
mod window;

pub(crate) use any::AnyTensor;
pub(crate) use behind::Behind;
pub(crate) use contract::{DeltaRun, Source};
pub(crate) use held::Held;
pub(crate) use open_models::{Models, RawTensor};
pub(crate) use stored::StoredTensor;
pub(crate) use tensor::Tensor;
pub(crate) use wide::WideTensor;
pub(crate) use window::Windows;
