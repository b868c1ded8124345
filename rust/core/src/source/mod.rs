//! Where input comes from: blocks of a base or of an expert, stored or computed. Uses `checkpoint`,
//! `plan`, the fingerprints of `statistics`, and what is below them.

mod behind;
mod contract;
mod lora;
mod made;
mod open_models;
mod rows;
mod stored;
mod tensor;

pub use behind::Behind;
pub use contract::{DeltaRun, Source};
pub use open_models::{Models, RawTensor};
pub use stored::StoredTensor;
pub use tensor::Tensor;
