"""The next weights, by a model of the losses that is trusted nearby."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.tuning.aim import BROKEN, Aim

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """Losses near a point: each by its own slopes, all with one curvature.

    Attributes:
        weights: Where, shape (n_experts, n_groups).
        losses: Of each domain there.
        slopes: Of each domain, shape (n,).
        bend: Shape (n, n), and the penalty's, already multiplied.
        spread: The penalty's own curvature, with its strength.
    """

    aim: Aim
    weights: Array
    losses: dict[str, float]
    slopes: dict[str, Array]
    bend: Array
    spread: Array

    def value(self, step: Array) -> float:
        """What is minimised, with the penalty."""
        curved = 0.5 * float(step @ self.bend @ step)
        at = self.weights.ravel() + step
        penalty = 0.5 * float(at @ self.spread @ at)
        losses = {n: loss + float(self.slopes[n] @ step) for n, loss in self.losses.items()}
        return self.aim.value(losses) + curved + penalty

    def slope(self, step: Array) -> Array:
        """Of the same, along each weight; of the mean, where the worst domain counts."""
        own = sum(share * self.slopes[name] for name, share in self.aim.shares.items())
        at = self.weights.ravel() + step
        return np.asarray(own + self.bend @ step + self.spread @ at)

    def merit(self, step: Array) -> float:
        """With what bounds are broken by; see `Aim.merit`."""
        curved = 0.5 * float(step @ self.bend @ step)
        losses = {
            n: loss + float(self.slopes[n] @ step) + curved for n, loss in self.losses.items()
        }
        return self.value(step) + BROKEN * self.aim.excess(losses)


@dataclass(frozen=True)
class Region:
    """Where weights may lie.

    Attributes:
        low, high: Of every weight.
        total: What the experts' weights sum to in each group; `None` where any sum will do.
    """

    low: float
    high: float
    total: float | None = None

    def box(self, model: Model, radius: float) -> tuple[Array, Array]:
        """Least and largest steps."""
        at = model.weights.ravel()
        return (
            np.minimum(np.maximum(self.low - at, -radius), 0.0),
            np.maximum(np.minimum(self.high - at, radius), 0.0),
        )


def best_step(model: Model, region: Region, radius: float) -> Array:
    """The step of the least value within a box of `radius` and the region, shape (n,)."""
    low, high = region.box(model, radius)
    start = np.zeros(len(low))
    if region.total is None and not model.aim.worst and not model.aim.keep:
        from scipy.optimize import minimize

        found = minimize(
            model.value,
            start,
            jac=model.slope,
            method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)),
            options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-12, "gtol": 1e-9},
        )
        return np.asarray(np.clip(found.x, low, high))
    return _bounded(model, region, low, high)


def _bounded(model: Model, region: Region, low: Array, high: Array) -> Array:
    """The same where sums are fixed, bounds have to hold, or the worst domain counts.

    Behind the step stand further unknowns: the loss of the worst domain, above those of all, and by
    how much each bound is broken.
    """
    from scipy.optimize import minimize

    n, aim, at = len(low), model.aim, model.weights.ravel()
    more = 1 + len(aim.keep)
    costs = np.array([float(aim.worst), *[BROKEN] * len(aim.keep)])

    def below(name: str, place: int, limit: float) -> dict[str, Any]:
        """A domain's loss is at most a limit and the unknown at `place`."""

        def fun(x: Array) -> float:
            step = x[:n]
            curved = 0.5 * step @ model.bend @ step
            return float(
                limit + x[n + place] - model.losses[name] - model.slopes[name] @ step - curved
            )

        def jac(x: Array) -> Array:
            own = -(model.slopes[name] + model.bend @ x[:n])
            return np.append(own, np.eye(more)[place])

        return {"type": "ineq", "fun": fun, "jac": jac}

    conditions = [below(name, 0, 0.0) for name in (aim.shares if aim.worst else ())]
    conditions += [below(one.name, 1 + place, one.limit) for place, one in enumerate(aim.keep)]
    if region.total is not None:
        sums = np.tile(np.eye(model.weights.shape[1]), model.weights.shape[0])  # (n_groups, n)
        wide, rest = np.pad(sums, ((0, 0), (0, more))), region.total - sums @ at
        conditions.append({"type": "eq", "fun": lambda x: wide @ x - rest, "jac": lambda x: wide})

    def value(x: Array) -> float:
        whole = at + x[:n]
        own = 0.5 * float(whole @ model.spread @ whole) if aim.worst else model.value(x[:n])
        return own + float(costs @ x[n:])

    def slope(x: Array) -> Array:
        own = model.spread @ (at + x[:n]) if aim.worst else model.slope(x[:n])
        return np.append(own, costs)

    over = [max(model.losses[one.name] - one.limit, 0.0) for one in aim.keep]
    found = minimize(
        value,
        np.concatenate([np.zeros(n), [max(model.losses.values())], over]),
        jac=slope,
        method="SLSQP",
        bounds=[*zip(low, high, strict=True), (None, None), *[(0.0, None)] * len(over)],
        constraints=conditions,
        options={"maxiter": 300, "ftol": 1e-10},
    )
    step = np.asarray(np.clip(found.x[:n], low, high))
    return step if model.merit(step) <= model.merit(np.zeros(n)) else np.zeros(n)
