//! Methods that treat an input tensor as a point: mergekit's spherical, geometric and selective ones.

use serde::{Deserialize, Serialize};

use crate::plan::{Custom, Statistic};

/// Which vectors of a tensor are interpolated on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Along {
    /// The whole tensor is one vector.
    Tensor,
    /// A vector runs along the last dimension.
    Last,
    /// A vector runs along the first dimension.
    First,
}

/// The arithmetic of a [`crate::plan::Merge::Group`]. Fields carry mergekit's names and meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum GroupMethod {
    /// Spherical interpolation from the base (`t` = 0) to the input (`t` = 1).
    Slerp {
        /// Where between the two.
        t: f64,
    },
    /// Spherical interpolation between two inputs, or between their deltas.
    Nuslerp {
        /// Where between the two.
        t: f64,
        /// Which vectors have an angle of their own.
        along: Along,
    },
    /// Weighted barycentre on the sphere, by one step in a tangent space.
    Multislerp {
        /// One for each input.
        weights: Vec<f64>,
        /// Divide the weights by their sum.
        normalize: bool,
        /// Added to norms before dividing by them.
        eps: f64,
    },
    /// Average, drawn to the base by the angle between the inputs' deltas.
    ModelStock {
        /// One angle for each vector along the last dimension.
        filter_wise: bool,
    },
    /// Select by variance, calculate weights from energies, erase minority signs.
    Sce {
        /// Share of the elements of non-zero variance that take part.
        density: f64,
    },
    /// Fréchet mean on the sphere.
    Karcher {
        /// Most iterations.
        max_iter: u32,
        /// Norms and angles below this count as zero.
        tol: f64,
    },
    /// Take the input where it is within `t` of the base, interpolate elsewhere.
    Nearswap {
        /// Distance of full weight.
        t: f64,
    },
    /// Take the elements of outstanding importance from the input.
    ArceeFusion {},
    /// Average the changes that inputs share, keep those that are one input's own.
    Ram {
        /// Changes up to this magnitude count as none.
        epsilon: f64,
    },
    /// [`GroupMethod::Ram`], with an input's own changes scaled up.
    RamplusTl {
        /// Slope of the scale.
        r: f64,
        /// Limit of the ratio of shared to own changes.
        alpha: f64,
        /// Changes up to this magnitude count as none.
        epsilon: f64,
    },
    /// The input, scaled.
    Passthrough {
        /// The factor; null for none.
        scale: Option<f64>,
    },
    /// A function of the caller's.
    Custom(Custom),
}

impl GroupMethod {
    /// Say why the method cannot run with so many inputs besides the base.
    pub(super) fn refuse(&self, has_base: bool, inputs: usize) -> Option<String> {
        use GroupMethod as M;
        let (base, counts) = match self {
            M::Slerp { .. } | M::Nearswap { .. } | M::ArceeFusion {} => (Some(true), 1..=1),
            M::Nuslerp { .. } => (None, 2..=2),
            M::Multislerp { .. } => (None, 1..=usize::MAX),
            M::ModelStock { .. } => (Some(true), 2..=usize::MAX),
            M::Sce { .. } | M::Ram { .. } | M::RamplusTl { .. } => (Some(true), 0..=usize::MAX),
            M::Karcher { .. } => (Some(false), 1..=usize::MAX),
            M::Passthrough { .. } => (Some(false), 1..=1),
            M::Custom(_) => (None, 1..=usize::MAX),
        };
        if base.is_some_and(|needed| needed != has_base) {
            return Some(if has_base { "no base expected" } else { "a base expected" }.into());
        }
        if !counts.contains(&inputs) {
            return Some(format!("{inputs} inputs are too few or too many"));
        }
        match self {
            M::Multislerp { weights, .. } if weights.len() != inputs => {
                Some(format!("{} weights for {inputs} inputs", weights.len()))
            }
            M::Multislerp { eps, .. } if *eps < 0.0 => Some("eps is negative".into()),
            M::Ram { epsilon } | M::RamplusTl { epsilon, .. } if *epsilon < 0.0 => {
                Some("epsilon is negative".into())
            }
            M::Karcher { tol, .. } if *tol < 0.0 => Some("tol is negative".into()),
            M::Custom(custom)
                if custom.statistics.contains(&Statistic::Threshold)
                    && (custom.densities.len() != inputs
                        || custom.densities.iter().any(|d| !(0.0..=1.0).contains(d))) =>
            {
                Some(format!("expected {inputs} densities from 0 to 1"))
            }
            M::Sce { density } if !(0.0..=1.0).contains(density) => {
                Some("density out of range".into())
            }
            _ => None,
        }
    }
}
