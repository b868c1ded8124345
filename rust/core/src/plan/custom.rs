//! Merges by a function that whoever runs the plan brings: what the plan says of it, and what it is.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::{GroupMethod, Merge, Plan};

/// A number of a whole tensor: of an input's delta, or of the input where there is no base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Sum of the magnitudes.
    L1,
    /// Root of the sum of squares.
    L2,
    /// The largest magnitude.
    Largest,
    /// The least of the `int(density · elements)` largest magnitudes; infinity where that is none.
    Threshold,
}

/// A function of the caller's, with its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custom {
    /// What it is called.
    pub method: String,
    /// Of the file that it comes from, in hexadecimal: other code makes another plan.
    pub sha256: String,
    /// Whether it is given whole rows along the last dimension, and not any run of elements.
    pub by_rows: bool,
    /// Whether it has a state of each input.
    pub has_states: bool,
    /// What it is told of each input's tensor.
    pub statistics: Vec<Statistic>,
    /// For [`Statistic::Threshold`], one for each input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub densities: Vec<f64>,
    /// Its options, as it reads them.
    pub options: serde_json::Value,
    /// The function; no part of the text.
    #[serde(skip)]
    pub function: Function,
}

/// A place for the function.
#[derive(Debug, Clone, Default)]
pub struct Function(pub Option<Arc<dyn CustomMethod>>);

/// Plans are compared as texts are.
impl PartialEq for Function {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A state of an input, as the function makes it.
pub type State = Arc<dyn Any + Send + Sync>;

/// A run of a tensor's elements, always the same ones: whole blocks of 65,536 elements, or as many
/// whole rows as have room in that, one at least.
#[derive(Debug)]
pub struct Call<'a> {
    /// The output tensor.
    pub tensor: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// The run's first element.
    pub start: usize,
    /// Elements of a row; `None` where the run is none of rows.
    pub columns: Option<usize>,
    /// The options, as JSON.
    pub options: &'a str,
    /// The base there, in float32.
    pub base: Option<&'a [f32]>,
    /// The inputs there.
    pub inputs: &'a [Vec<f32>],
}

/// A merge method of the caller's. It may be called from several threads at a time.
pub trait CustomMethod: Debug + Send + Sync {
    /// The state of one input's run, alone: `call.inputs` has one.
    ///
    /// # Errors
    /// What went wrong, for people.
    fn state(&self, call: &Call) -> std::result::Result<State, String>;

    /// The state of two runs, one behind the other.
    ///
    /// # Errors
    /// What went wrong, for people.
    fn join(&self, first: &State, second: &State) -> std::result::Result<State, String>;

    /// The results of a run.
    ///
    /// # Arguments
    /// * `statistics` of each input, in the plan's order.
    /// * `states` of each input's whole tensor, where there are some.
    ///
    /// # Errors
    /// What went wrong, for people.
    fn merge(
        &self,
        call: &Call,
        statistics: &[Vec<f64>],
        states: &[State],
        out: &mut [f32],
    ) -> std::result::Result<(), String>;
}

impl Plan {
    /// Give the plan's custom methods their functions.
    ///
    /// # Errors
    /// Whatever `find` gives for a name and a hash.
    pub fn give_functions<E>(
        &mut self,
        mut find: impl FnMut(&str, &str) -> std::result::Result<Arc<dyn CustomMethod>, E>,
    ) -> std::result::Result<(), E> {
        let mut last: Option<(String, String, Arc<dyn CustomMethod>)> = None;
        for job in &mut self.jobs {
            let Merge::Group { method: GroupMethod::Custom(custom), .. } = &mut job.merge else {
                continue;
            };
            let known = last.take().filter(|(name, hash, _)| {
                (name.as_str(), hash.as_str()) == (custom.method.as_str(), custom.sha256.as_str())
            });
            let (name, hash, function) = match known {
                Some(known) => known,
                None => {
                    let function = find(&custom.method, &custom.sha256)?;
                    (custom.method.clone(), custom.sha256.clone(), function)
                }
            };
            custom.function = Function(Some(function.clone()));
            last = Some((name, hash, function));
        }
        Ok(())
    }
}

impl Custom {
    /// # Errors
    /// [`Error::Plan`] where the plan was given no function.
    pub(crate) fn function(&self) -> Result<Arc<dyn CustomMethod>> {
        self.function.0.clone().ok_or_else(|| Error::Plan {
            reason: format!("method `{}` was given no function", self.method),
        })
    }
}
