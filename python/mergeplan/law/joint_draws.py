"""What the data leave open of the law over sizes, where each size is off as a whole.

A size has its own recipe: learning rate, steps, data. Its losses are y = law + u + d + e, where u,
the effect of the size, is shared by all of its rows, Gaussian with standard deviation σ times the
mean of its losses; d is each mean's lack of fit and e its sampling error (see `posterior`). Given
the shape of the law, τ and σ, the linear coefficients and all effects are Gaussian and are
integrated out. A size counts by the weighted mean of its rows, whose variance is σ²ℓ² + 1/Σw, and
by what its rows tell about the tail among themselves. Where its sampling errors are correlated
across k, its rows are turned first by the eigenvectors of their covariance, after which they are
independent for every τ; what a size adds to each of them is then no longer 1.

As few sizes as are measured say little of σ: its prior is half-Cauchy, and `SIZE_EFFECT`, its
median, comes from published fits. The floors of seven base sizes from 0.5B to 72B leave R² = 0.983
to 0.990 to L* + B·N^-β (five domains, average, Table 12 of arXiv 2509.24244). With four degrees of
freedom that is a residual of 3.1 % of the mean floor, and nine tenths of the prior lie below it.
The macro means that the paper prints for 0.5B and 32B are 0.7 and 0.4 % off those of Table 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mergeplan.law.posterior import (
    DRAWS,
    LACK_OF_FIT_SCALE,
    MAX_OFFSET,
    Axis,
    Observations,
    half_cauchy,
    mesh_of,
    narrow,
    spread_out,
)
from mergeplan.law.truncated import gaussian_above

Array = NDArray[np.float64]

MIN_BETA = 0.01
MAX_BETA = 3.0
MAX_GAMMA = 2.0
# Median of the prior of a size's effect, a standard deviation as a share of its losses.
SIZE_EFFECT = 0.005
# Prior of β: log-normal. The 27 exponents of Tables 3 to 5 lie between 0.27 and 0.54.
_BETA, _BETA_FACTOR = 0.4, 2.0
# Between which σ is sought, and τ relative to the drop: never nothing.
_SIGMA_RANGE = (5e-4, 0.5)
_TAU_RANGE = (1e-5, 1.0)
_SIGMA_NODES = 15
_TAU_NODES = 13
# Draws that are weighed against one another, for each that is kept.
_SPARE = 4


@dataclass(frozen=True)
class Rows:
    """Every mean of one method, at all sizes.

    Attributes:
        n: Sizes in billions, ascending, shape (n_sizes,).
        size: Which of them each row has, shape (n_rows,), as the others.
        covariance: Of the sampling errors, in nats², shape (n_rows, n_rows), 0 between sizes;
            `None` where it is not known.
    """

    n: Array
    size: NDArray[np.intp]
    k: Array
    loss: Array
    covariance: Array | None

    @property
    def of_size(self) -> Array:
        """1 where a row is of a size, shape (n_rows, n_sizes)."""
        return np.asarray(self.size[:, None] == np.arange(len(self.n)), np.float64)

    @property
    def level(self) -> Array:
        """The mean loss of each size, in nats, shape (n_sizes,)."""
        return np.asarray(self.loss @ self.of_size / self.of_size.sum(0))


@dataclass(frozen=True)
class JointDraws:
    """Draws from the posterior.

    Attributes:
        coefficients: By name, with `tau` in nats and `sigma` as a share, shape (draws,) each.
        effects: Of the measured sizes, in nats, shape (draws, n_sizes).
        noise, size_noise: Standard normal, for what is new at a prediction, shape (draws,).
    """

    coefficients: dict[str, Array]
    effects: Array
    noise: Array
    size_noise: Array


def draw_joint(rows: Rows, *, free_gamma: bool, scale: float, seed: int) -> JointDraws:
    """Draw from the posterior.

    Args:
        free_gamma: Whether the tail may change with N.
        scale: Median of the prior of σ.

    Returns:
        Coefficients, τ, σ and the effects of the measured sizes, draw by draw.
    """
    unknown = rows.covariance is None
    rotation, known = _independent(rows)
    falling = rows.k.mean() / rows.k if unknown else np.ones_like(rows.k)
    data = Observations.of(rows.loss, known, falling)
    data = replace(data, loss=rotation @ data.loss)
    low = np.array([-data.level / data.drop, 0.0, 0.0])  # L*, and drops by size and by k
    axes = _shape_axes(free_gamma)
    tau = half_cauchy(_TAU_RANGE, LACK_OF_FIT_SCALE, _TAU_NODES)
    sigma = half_cauchy(_SIGMA_RANGE, scale, _SIGMA_NODES)
    nodes, grid, mass = narrow([*axes, tau, sigma], lambda n: _Grid(rows, rotation, data, low, n))
    rng = np.random.default_rng(seed)
    picked = rng.choice(mass.size, size=_SPARE * DRAWS, p=mass.reshape(-1))
    centre, precision, log_inside = grid.at(picked)
    linear, log_weight = gaussian_above(centre, precision, low, rng)
    # The grid knew roughly how likely the bounds are met, the draws' weights say it exactly.
    log_weight -= log_inside
    weight = np.exp(log_weight - log_weight.max())
    kept = rng.choice(len(picked), size=DRAWS, p=weight / weight.sum())
    *shape, tau_node, sigma_node = np.unravel_index(picked[kept], mass.shape)
    at_nodes = np.stack([points[node] for points, node in zip(nodes, shape, strict=False)])
    within = np.stack(spread_out(axes, nodes, at_nodes, rng))
    found = _coefficients(rows, data, linear[kept], at_nodes, within)
    found["tau"] = np.exp(nodes[-2])[tau_node] * data.drop
    (log_sigma,) = spread_out([sigma], nodes[-1:], nodes[-1][None, sigma_node], rng)
    found["sigma"] = np.exp(log_sigma)
    effects = _effects(rows, rotation, known, falling, found, rng)
    return JointDraws(found, effects, *rng.standard_normal((2, DRAWS)))


def _independent(rows: Rows) -> tuple[Array, Array]:
    """A rotation of each size's rows after which their sampling errors are independent.

    Returns:
        Shape (n_rows, n_rows), and the errors' variances in nats², (n_rows,).
    """
    if rows.covariance is None:
        return np.eye(len(rows.loss)), np.zeros_like(rows.loss)
    rotation, variance = np.zeros_like(rows.covariance), np.zeros_like(rows.loss)
    # Size by size: of all at once equal variances would mix the rows of several.
    for size in range(len(rows.n)):
        (at,) = np.nonzero(rows.size == size)
        variance[at], axes = np.linalg.eigh(rows.covariance[np.ix_(at, at)])
        rotation[np.ix_(at, at)] = axes.T
    return rotation, np.maximum(variance, 0.0)


def _shape_axes(free_gamma: bool) -> list[Axis]:
    """β and b as logarithms, and γ where it is free, which leaves fewer nodes to the others."""
    low, high = map(float, np.log((MIN_BETA, MAX_BETA)))
    last = float(np.log1p(MAX_OFFSET))
    nodes = (21, 9) if free_gamma else (41, 13)
    beta = Axis(
        low, high, nodes[0], lambda u: -(((u - np.log(_BETA)) / np.log(_BETA_FACTOR)) ** 2) / 2
    )
    offset = Axis(0.0, last, nodes[1], lambda u: -u)
    gamma = Axis(0.0, MAX_GAMMA, 7, lambda g: np.zeros_like(g))
    return [beta, offset, gamma] if free_gamma else [beta, offset]


class _Scales:
    """What the drops by size and by k stand for: β, γ and b, each of shape (G,), to units."""

    def __init__(self, rows: Rows, shape: Sequence[Array] | Array) -> None:
        self.beta, self.offset = np.exp(shape[0]), np.expm1(shape[1])
        self.gamma = shape[2] if len(shape) > 2 else np.zeros_like(self.beta)
        low_n, high_n, last = rows.n[0], rows.n[-1], rows.k.max()
        self.least_by_size = high_n**-self.beta
        self.least_by_k = high_n**-self.gamma / (last + self.offset)
        # B and A0 for a drop of one.
        self.b_size = 1 / (low_n**-self.beta - self.least_by_size)
        self.a_0 = 1 / (high_n**-self.gamma / (1 + self.offset) - self.least_by_k)


class _Grid:
    """Likelihood at every node. G nodes of the shape, T values of τ, S of σ, J sizes, n rows.

    The columns of L* and of the drop by size are constant within a size; only the tail's is not.

    Args:
        rotation, data: After which errors are independent, shape (n, n), and the rows turned by it.
        low: Bounds of the linear coefficients.
        nodes: Of the axes.
    """

    def __init__(
        self, rows: Rows, rotation: Array, data: Observations, low: Array, nodes: list[Array]
    ) -> None:
        scales = _Scales(rows, mesh_of(nodes[:-2]))
        of_size = rotation @ rows.of_size  # (n, J)
        own = of_size.sum(1)  # (n,), what its size adds to each row
        by_size = rows.n ** -scales.beta[:, None] * scales.b_size[:, None]  # (G, J)
        power = rows.n[rows.size] ** -scales.gamma[:, None]
        tail = power / (rows.k + scales.offset[:, None]) * scales.a_0[:, None]
        tail = tail @ rotation.T  # (G, n)
        weight = 1 / (data.variance + np.exp(2 * nodes[-2])[:, None] * data.misfit)  # (T, n)
        total = weight @ of_size**2  # (T, J)
        mean = (weight * data.loss) @ of_size / total  # (T, J)
        mean_tail = np.einsum("gn,tn,nj->gtj", tail, weight, of_size, optimize=True) / total
        rest = data.loss - own * mean[:, rows.size]  # (T, n)
        rest_tail = tail[:, None] - own * mean_tail[:, :, rows.size]  # (G, T, n)
        level = rows.level / data.drop
        variance = np.exp(2 * nodes[-1])[:, None] * level**2 + 1 / total[:, None]  # (T, S, J)
        between = 1 / variance
        one = np.ones((1, len(rows.n)))

        def sum_over(left: Array, right: Array) -> Array:
            return np.asarray(np.einsum("tsj,gtj->gts", between, left * right, optimize=True))

        own_tail = np.einsum("gtn,tn->gt", rest_tail**2, weight)[..., None]
        cross = np.einsum("gtn,tn->gt", rest_tail, weight * rest)[..., None]
        mine = (weight * rest**2).sum(1)[:, None]  # (T, 1)
        first, second, third = one[:, None], by_size[:, None], mean_tail  # (1 or G, 1 or T, J)
        pairs = [(first, first), (first, second), (first, third), (second, second), (second, third)]
        normal = [*(sum_over(*pair) for pair in pairs), sum_over(third, third) + own_tail]
        right = [sum_over(column, mean) for column in (first, second, third)]
        right[2] = right[2] + cross
        self.normal = [np.broadcast_to(entry, normal[5].shape) for entry in normal]
        inverse, determinant = _invert(self.normal)
        self.centre = [row[0] * right[0] + row[1] * right[1] + row[2] * right[2] for row in inverse]
        explained = np.sum([c * r for c, r in zip(self.centre, right, strict=True)], axis=0)
        squares = mine + sum_over(mean, mean[None]) - explained
        log_variance = np.log(total[:, None] / between).sum(-1) - np.log(weight).sum(-1)[:, None]
        # About how likely each bound is met alone: far below a bound the mass falls like this.
        outside = [
            np.maximum(bound - c, 0.0) ** 2 / inverse[i][i]
            for i, (bound, c) in enumerate(zip(low, self.centre, strict=True))
        ]
        self.log_inside = np.asarray(-np.sum(outside, axis=0) / 2)
        likelihood = -(log_variance + np.log(determinant) + squares) / 2
        self.log_likelihood = likelihood + self.log_inside

    def at(self, picked: NDArray[np.intp]) -> tuple[Array, Array, Array]:
        """Centre (draws, 3), precision (draws, 3, 3), and how likely each bound is met alone."""
        a, b, c, d, e, f = (entry.reshape(-1)[picked] for entry in self.normal)
        precision = np.stack([a, b, c, b, d, e, c, e, f], axis=-1).reshape(-1, 3, 3)
        centre = np.stack([one.reshape(-1)[picked] for one in self.centre], axis=-1)
        return centre, precision, self.log_inside.reshape(-1)[picked]


def _invert(entries: Sequence[Array]) -> tuple[list[list[Array]], Array]:
    """Inverse and determinant of symmetric 3 by 3 matrices, given row by row from the diagonal."""
    a, b, c, d, e, f = entries
    aa, ab, ac = d * f - e * e, c * e - b * f, b * e - c * d
    bb, bc, cc = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * aa + b * ab + c * ac
    rows = [[aa, ab, ac], [ab, bb, bc], [ac, bc, cc]]
    return [[entry / determinant for entry in row] for row in rows], determinant


def _coefficients(
    rows: Rows, data: Observations, linear: Array, nodes: Array, within: Array
) -> dict[str, Array]:
    """In natural units, from drops at nodes of the shape, for places within the nodes' cells.

    What stays as it was drawn is the loss at the largest k and N, and the drops to it.
    """
    level, by_size, by_k = linear.T * data.drop
    before = _Scales(rows, nodes)
    lowest = data.level + level
    lowest = lowest + by_size * before.b_size * before.least_by_size
    lowest = lowest + by_k * before.a_0 * before.least_by_k

    def natural(shape: Array) -> dict[str, Array]:
        at = _Scales(rows, shape)
        b_size, a_0 = by_size * at.b_size, by_k * at.a_0
        l_star = lowest - b_size * at.least_by_size - a_0 * at.least_by_k
        found = {"l_star": l_star, "b_size": b_size, "beta": at.beta, "a_0": a_0}
        return {**found, "gamma": at.gamma, "offset": at.offset}

    possible = natural(within)["l_star"] >= 0
    found = natural(np.where(possible, within, nodes))
    return {**found, "l_star": np.maximum(found["l_star"], 0.0)}


def _effects(
    rows: Rows,
    rotation: Array,
    variance: Array,
    misfit: Array,
    d: dict[str, Array],
    rng: np.random.Generator,
) -> Array:
    """Each measured size's effect given the law, in nats, shape (draws, J)."""
    of_size = rotation @ rows.of_size
    weight = 1 / (variance + d["tau"][:, None] ** 2 * misfit)  # (draws, n)
    n = rows.n[rows.size]
    by_size = d["b_size"][:, None] * n ** -d["beta"][:, None]
    tail = d["a_0"][:, None] * n ** -d["gamma"][:, None] / (rows.k + d["offset"][:, None])
    rest = (rows.loss - d["l_star"][:, None] - by_size - tail) @ rotation.T
    precision = weight @ of_size**2 + 1 / (d["sigma"][:, None] * rows.level) ** 2  # (draws, J)
    noise = rng.standard_normal(precision.shape)
    return np.asarray((weight * rest) @ of_size / precision + noise / np.sqrt(precision))
