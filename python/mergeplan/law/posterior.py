"""What the data leave open: draws from the posterior of a fit, on a grid, without a sampler.

A measured mean is y = law + d + e. The sampling error e has variance s²/n · (1 − n/C), nothing
where all C subsets of that size were measured. The lack of fit d has standard deviation τ, which is
estimated: means over every subset of a pool do not follow the law exactly either. law + d is the
mean of this pool, which `pool_means` draws.

Priors, stated so that few points do not give an interval made of nothing:

| coefficient | prior |
|---|---|
| loss at the largest k and N, drops to it | flat, where no coefficient is negative |
| offset b of a forecast | density in log(1 + b) ∝ exp(-abs(log(1 + b))) on b in [-0.5, 50] |
| offset b over sizes | density ∝ 1/(1 + b)² on [0, 50]: half of it below 1 |
| exponents β, γ | flat on [0.01, 3] and [0, 2] |
| lack of fit τ | half-Cauchy, scale 2 % of the measured drop, 1 % beside a rise |
| rise, where all experts are measured | half-normal; its scale half-Cauchy, 10 % of the drop |

So a forecast's b has a third of its mass below 0, evenly, and a third above 0.95. The paper's form
keeps b at 0 or more; the real pools' averages ask for -0.10 to -0.14.

The grid over (offset, exponents, τ) is narrowed until it resolves the mass; linear coefficients are
Gaussian given the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Draws of a posterior.
DRAWS = 2000
# Of intervals, where nothing else is asked for.
CONFIDENCE = 0.9
MAX_OFFSET = 50.0
# Of a forecast: 1/(k + b) stays far from its pole at k = 1.
LOWEST_OFFSET = -0.5
# An offset below this is 0.
NO_OFFSET = 1e-9
LACK_OF_FIT_SCALE = 0.02
# Scale of a rise, relative to the drop, and between which it is sought.
RISE_SCALE = 0.1
_RISE_RANGE = (3e-3, 1.0)
_RISE_NODES = 7
_NARROWINGS = 8
_TAU_NODES = 25
_NEGLIGIBLE = 1e-5
# Standard deviations, relative to the drop, between which τ is sought.
_TAU_RANGE = (1e-7, 1.0)


@dataclass(frozen=True)
class Axis:
    """One searched coefficient: bounds, nodes, and the logarithm of its prior density."""

    low: float
    high: float
    nodes: int
    log_prior: Callable[[Array], Array]


@dataclass(frozen=True)
class Observations:
    """Mean losses and what is known of their errors, in units of their drop above their lowest.

    Attributes:
        loss: Shape (n,), as the others.
        variance: Of the sampling error; 0 where there is none, or none is known.
        misfit: Relative variance of the lack of fit: 1, or falling with k where no spread is known
            and the paper's weights, proportional to k, stand in for it.
        level, drop: In nats.
    """

    loss: Array
    variance: Array
    misfit: Array
    level: float
    drop: float

    @classmethod
    def of(cls, loss: Array, variance: Array, misfit: Array) -> "Observations":
        """From losses in nats and variances in nats²."""
        drop = max(float(np.ptp(loss)), 1e-12 * float(np.abs(loss).max()))
        level = float(loss.min())
        return cls((loss - level) / drop, variance / drop**2, misfit, level, drop)


def offset_axis() -> Axis:
    """The offset b of a forecast, as log(1 + b), with its prior."""
    low, high = float(np.log1p(LOWEST_OFFSET)), float(np.log1p(MAX_OFFSET))
    return Axis(low, high, 41, lambda u: -np.abs(u))


def rise_axis() -> Axis:
    """The scale of a rise, as a logarithm: half-Cauchy, and the rise is half-normal given it."""
    low, high = map(float, np.log(_RISE_RANGE))
    # Density in the logarithm has a factor scale, that of the rise given it 1 / scale.
    return Axis(low, high, _RISE_NODES, lambda v: -np.log1p((np.exp(v) / RISE_SCALE) ** 2))


def draw_posterior(
    design: Callable[[list[Array]], Array],
    axes: list[Axis],
    data: Observations,
    draws: int,
    rng: np.random.Generator,
    lack_of_fit: float = LACK_OF_FIT_SCALE,
) -> tuple[list[Array], Array, Array]:
    """Draw from the posterior.

    Args:
        design: From the axes' values, each of shape (G,), to matrices of shape (G, n, p) whose
            coefficients are a level and differences in nats.
        lack_of_fit: Scale of the prior of τ, relative to the drop.

    Returns:
        The axes' values, each (draws,); the linear coefficients, (draws, p); τ in nats, (draws,).
    """
    boxes = [(axis.low, axis.high) for axis in axes]
    boxes.append((float(np.log(_TAU_RANGE[0])), float(np.log(_TAU_RANGE[1]))))
    for _ in range(_NARROWINGS):
        nodes = [np.linspace(*box, axis.nodes) for box, axis in zip(boxes, axes, strict=False)]
        log_tau = np.linspace(*boxes[-1], _TAU_NODES)
        mesh = [values.reshape(-1) for values in np.meshgrid(*nodes, indexing="ij")]
        grid = _Grid(design(mesh), data.loss, data.variance, data.misfit, log_tau)
        log_mass = grid.log_likelihood + _tau_prior(log_tau, lack_of_fit)
        for axis, values in zip(axes, mesh, strict=True):
            log_mass = log_mass + axis.log_prior(values)[:, None]
        mass = np.exp(log_mass - log_mass.max())  # (G, T)
        narrowed = []
        shaped = mass.reshape(*(len(values) for values in nodes), len(log_tau))
        for number, values in enumerate([*nodes, log_tau]):
            others = tuple(i for i in range(shaped.ndim) if i != number)
            narrowed.append(_support(values, shaped.sum(axis=others)))
        widths = [(n[1] - n[0]) / (b[1] - b[0]) for n, b in zip(narrowed, boxes, strict=True)]
        if min(widths) > 0.5:
            break
        boxes = narrowed
    picked = rng.choice(mass.size, size=draws, p=(mass / mass.sum()).reshape(-1))
    node, tau_node = np.unravel_index(picked, mass.shape)
    noise = rng.standard_normal((draws, grid.centre.shape[-1], 1))
    # The root of the precision, not of its inverse, which rounding may leave indefinite.
    root = np.linalg.cholesky(grid.precision[node, tau_node])
    linear = grid.centre[node, tau_node]
    linear += np.linalg.solve(np.swapaxes(root, -1, -2), noise)[..., 0]
    linear *= data.drop
    linear[:, 0] += data.level
    # A node stands for its cell: without this, intervals would end on nodes, half a cell short.
    spread_out = []
    for axis, values, points in zip(axes, mesh, nodes, strict=True):
        within = (points[1] - points[0]) * (rng.random(draws) - 0.5)
        spread_out.append(np.clip(values[node] + within, axis.low, axis.high))
    return spread_out, linear, np.exp(log_tau)[tau_node] * data.drop


class _Grid:
    """Likelihood at every node, linear coefficients integrated out. G nodes, T values of τ."""

    def __init__(
        self, design: Array, loss: Array, variance: Array, misfit: Array, log_tau: Array
    ) -> None:
        precision = 1 / (variance + np.exp(2 * log_tau)[:, None] * misfit)  # (T, n)
        normal = np.einsum("gnp,tn,gnq->gtpq", design, precision, design, optimize=True)
        p = design.shape[-1]
        normal += 1e-12 * np.trace(normal, axis1=-2, axis2=-1)[..., None, None] / p * np.eye(p)
        self.precision = normal  # (G, T, p, p)
        right = np.einsum("gnp,tn,n->gtp", design, precision, loss, optimize=True)
        self.centre = np.linalg.solve(normal, right[..., None])[..., 0]
        rest = loss - np.einsum("gnp,gtp->gtn", design, self.centre)  # (G, T, n)
        squares = np.einsum("gtn,tn->gt", rest**2, precision)
        _, log_determinant = np.linalg.slogdet(normal)
        self.log_likelihood = (np.log(precision).sum(-1) - log_determinant - squares) / 2


def _tau_prior(log_tau: Array, scale: float) -> Array:
    """Half-Cauchy in τ, as a density in log τ."""
    return np.asarray(log_tau - np.log1p((np.exp(log_tau) / scale) ** 2))


def _support(values: Array, mass: Array) -> tuple[float, float]:
    kept = np.flatnonzero(mass > _NEGLIGIBLE * mass.max())
    low, high = max(kept[0] - 1, 0), min(kept[-1] + 1, len(values) - 1)
    return float(values[low]), float(values[high])


def shortest(values: Array, confidence: float) -> tuple[float, float]:
    """The shortest interval that holds this share of the draws: it may end on a bound."""
    ordered = np.sort(values)
    inside = max(1, int(np.ceil(confidence * len(ordered))))
    widths = ordered[inside - 1 :] - ordered[: len(ordered) - inside + 1]
    first = int(np.argmin(widths))
    return float(ordered[first]), float(ordered[first + inside - 1])


def central(values: Array, confidence: float) -> tuple[float, float]:
    """The interval that leaves the same share of the draws on either side."""
    tail = (1 - confidence) / 2
    ordered = np.sort(values)
    last = len(ordered) - 1
    # Infinite draws (a target that is never reached) rule out interpolation.
    return float(ordered[int(np.floor(tail * last))]), float(
        ordered[int(np.ceil((1 - tail) * last))]
    )
