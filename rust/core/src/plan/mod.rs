//! The plan: what Python decided, as versioned JSON. With the inputs and
//! the [`Sink`](crate::output::Sink) it is all that crosses between the two languages.

mod custom;
mod document;
mod group_method;
mod job;
mod models;
mod path_text;

pub use custom::{Call, Custom, CustomMethod, Function, State, Statistic};
pub(crate) use document::is_plain;
pub(crate) use document::MAX_AXES;
pub use document::{Plan, VERSION};
pub use group_method::{Along, GroupMethod};
pub use job::{Input, Job, Merge, Part, Sparsify};
pub(crate) use models::in_order;
pub use models::{
    Cast, Concat, Derivation, Derived, Files, Listed, ListedTensor, Lora, Model, Rows, Scaled,
    Scales, TensorRef, MEAN, ZERO,
};
