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
| exponent β | log-normal around 0.4 by a factor of 2, on [0.01, 3] |
| exponent γ | flat on [0, 2] |
| lack of fit τ | half-Cauchy, scale 2 % of the measured drop, 1 % beside a rise |
| effect σ of a base size | half-Cauchy, scale 0.5 % of the loss (`joint_draws`) |
| rise, where all experts are measured | half-normal; its scale half-Cauchy, 10 % of the drop |

So a forecast's b has a third of its mass below 0, evenly, and a third above 0.95. The paper's form
keeps b at 0 or more; the real pools' averages ask for -0.10 to -0.14.

The grid over (offset, exponents, τ) is narrowed until it resolves the mass; linear coefficients are
Gaussian given the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

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
        drop = max(float(np.ptp(loss)), 1e-12 * float(np.abs(loss).max())) or 1e-12
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
    tau = half_cauchy(_TAU_RANGE, lack_of_fit, _TAU_NODES)

    def grid_at(nodes: list[Array]) -> _Grid:
        mesh = mesh_of(nodes[:-1])
        return _Grid(design(mesh), data.loss, data.variance, data.misfit, nodes[-1])

    (*nodes, log_tau), grid, mass = narrow([*axes, tau], grid_at)
    mass = mass.reshape(-1, len(log_tau))  # (G, T)
    picked = rng.choice(mass.size, size=draws, p=mass.reshape(-1))
    node, tau_node = np.unravel_index(picked, mass.shape)
    noise = rng.standard_normal((draws, grid.centre.shape[-1], 1))
    # The root of the precision, not of its inverse, which rounding may leave indefinite.
    root = np.linalg.cholesky(grid.precision[node, tau_node])
    linear = grid.centre[node, tau_node]
    linear += np.linalg.solve(np.swapaxes(root, -1, -2), noise)[..., 0]
    linear *= data.drop
    linear[:, 0] += data.level
    values = spread_out(axes, nodes, np.stack(mesh_of(nodes))[:, node], rng)
    return values, linear, np.exp(log_tau)[tau_node] * data.drop


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


class Likelihood(Protocol):
    """What is known at every node of a grid.

    Attributes:
        log_likelihood: In the nodes' order, the last axis fastest.
    """

    log_likelihood: Array


AnyGrid = TypeVar("AnyGrid", bound=Likelihood)


def narrow(
    axes: list[Axis], grid_at: Callable[[list[Array]], AnyGrid]
) -> tuple[list[Array], AnyGrid, Array]:
    """The grid that resolves the mass.

    Args:
        grid_at: From the nodes of each axis to the likelihood at all of their combinations.

    Returns:
        The nodes of each axis, the likelihood there, and its share of the mass, with an axis for
        each.
    """
    boxes = [(axis.low, axis.high) for axis in axes]
    for _ in range(_NARROWINGS):
        nodes = [np.linspace(*box, axis.nodes) for box, axis in zip(boxes, axes, strict=True)]
        grid = grid_at(nodes)
        shaped = grid.log_likelihood.reshape([len(values) for values in nodes])
        for number, (axis, values) in enumerate(zip(axes, nodes, strict=True)):
            prior = axis.log_prior(values)
            shaped = shaped + prior.reshape([-1, *[1] * (shaped.ndim - number - 1)])
        mass = np.exp(shaped - shaped.max())
        narrowed = []
        for number, values in enumerate(nodes):
            others = tuple(i for i in range(mass.ndim) if i != number)
            narrowed.append(_support(values, mass.sum(axis=others)))
        widths = [(n[1] - n[0]) / (b[1] - b[0]) for n, b in zip(narrowed, boxes, strict=True)]
        if min(widths) > 0.5:
            break
        boxes = narrowed
    return nodes, grid, mass / mass.sum()


def mesh_of(nodes: list[Array]) -> list[Array]:
    """All combinations of the nodes, shape (G,) for each axis.

    Args:
        nodes: Of each axis.

    Returns:
        Values of each axis at all G combinations.
    """
    return [values.reshape(-1) for values in np.meshgrid(*nodes, indexing="ij")]


def half_cauchy(between: tuple[float, float], scale: float, nodes: int) -> Axis:
    """A standard deviation, as a logarithm: half-Cauchy, whose scale is its median.

    Args:
        between: Bounds of the deviation.
        scale: Of the prior.
        nodes: How many.

    Returns:
        The axis, with its prior's log density.
    """
    low, high = map(float, np.log(between))
    # Density in the logarithm has a factor of the deviation itself.
    return Axis(low, high, nodes, lambda v: v - np.log1p((np.exp(v) / scale) ** 2))


def spread_out(
    axes: list[Axis], nodes: list[Array], values: Array, rng: np.random.Generator
) -> list[Array]:
    """Values of each axis, each from the cell of its node: without this, intervals would end on
    nodes, half a cell short.

    Args:
        values: Nodes of the draws, shape (n_axes, draws).

    Returns:
        Shape (draws,) for each axis.
    """
    found = []
    for axis, points, own in zip(axes, nodes, values, strict=False):
        within = (points[1] - points[0]) * (rng.random(len(own)) - 0.5)
        found.append(np.clip(own + within, axis.low, axis.high))
    return found


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
