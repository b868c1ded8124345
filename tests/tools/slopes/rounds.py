"""Rounds for the best subset on a pool whose merges were measured, with slopes of some or none."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mergeplan.calibration.curve_rounds import Stop
from mergeplan.calibration.subset_plan import SubsetPlan
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.evaluation.measured import WITH_SLOPES
from mergeplan.measurements.rows import Measurement, Measurements
from mergeplan.pool.pool import load_pool
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.rows import Rows

# Of the few likeliest, for what another measurement is expected to gain.
_LIKELY, _DRAWS = 60, 400
# What later rounds measure: whether a subset has slopes, of its gain by a value and with slopes.
LATER: dict[str, Callable[[float, float], bool]] = {
    "values": lambda _, __: False,
    "slopes": lambda _, __: True,
    "gain": lambda value, sloped: sloped / WITH_SLOPES > value,
}


class Pool:
    """Some experts of a measured pool.

    Args:
        pool: Its file.
        merges: Losses of all subsets of those experts.
        slopes_of: Slopes at a weighting, shape (n_domains, n_all_experts).
        experts: Which; none for all.
    """

    def __init__(self, pool, merges, slopes_of, experts=()):
        self.names = sorted(experts or merges.experts)
        self.at = [merges.experts.index(name) for name in self.names]
        self.every, self._slopes_of = merges.experts, slopes_of
        given = load_pool(pool)
        folders = {name: given.sizes[0].experts[name] for name in self.names}
        size = replace(given.sizes[0], experts=folders)
        self.pool = replace(given, sizes=(size,), methods={"average": {}})
        self.losses = {}
        for weights, losses in merges.losses.items():
            members = frozenset(np.flatnonzero(weights).tolist())
            alike = np.allclose(weights, self.weights_of(members))
            if alike and members <= set(self.at):
                subset = tuple(sorted(merges.experts[one] for one in members))
                self.losses[subset] = float(losses.mean())
        self.subsets = [subset for subset in self.losses if subset]
        self.weights = np.array([[name in s for name in self.names] for s in self.subsets]) * 1.0
        self.weights /= self.weights.sum(1, keepdims=True)
        self.truth = np.array([self.losses[subset] for subset in self.subsets])

    def weights_of(self, members):
        return [(one in members) / max(len(members), 1) for one in range(len(self.every))]

    def slopes(self, subset):
        members = {self.every.index(name) for name in subset}
        return self._slopes_of(tuple(self.weights_of(members))).mean(0)[self.at]

    def row(self, merge, sloped):
        found = zip(self.names, self.slopes(merge.subset).tolist(), strict=True) if sloped else ()
        return Measurement(
            row=0,
            k=merge.k,
            loss_nats=self.losses[merge.subset],
            method=merge.method,
            n_params=merge.n_params,
            subset=merge.subset,
            slopes=tuple(found),
        )

    def law(self, rows):
        weights = [[(name in r.subset) / max(r.k, 1) for name in self.names] for r in rows]
        slopes = [[dict(r.slopes).get(name, np.nan) for name in self.names] for r in rows]
        there = np.array(slopes) if np.isfinite(slopes).any() else None
        values = np.array([r.loss_nats for r in rows])
        return fit_subset_law(np.array(weights), values, tuple(self.names), slopes=there)


def in_rounds(pool, gradients, later, seed):
    """Forward passes, merges, left-out error and regret where the rounds end."""
    plan, rows = SubsetPlan(pool.pool, gradients=gradients, seed=seed), []
    first = True
    while not isinstance(step := next_subset_round(Measurements(tuple(rows), ""), plan), Stop):
        sloped = set(step.merges) if gradients else set(step.sloped)
        if not first and gradients is None:
            sloped = _worth_it(pool, rows, [merge.subset for merge in step.merges], LATER[later])
            sloped = {merge for merge in step.merges if merge.subset in sloped}
        rows += [pool.row(merge, merge in sloped) for merge in step.merges]
        first = False
    measured = {row.subset for row in rows}
    rest = np.array([subset not in measured for subset in pool.subsets])
    found = pool.law(rows).predict(pool.weights)
    error = np.sqrt(np.mean((found - pool.truth)[rest] ** 2)) if rest.any() else 0.0
    named = pool.losses[tuple(step.reason.split(" has ")[0].split("+"))]
    passes = sum(WITH_SLOPES if row.slopes else 1 for row in rows)
    return passes, len(rows), error, named - pool.truth.min()


def _worth_it(pool, rows, subsets, rule):
    """Which subsets are worth slopes: by how much the expected best falls once one is known."""
    law = pool.law(rows)
    known = {row.subset: row.loss_nats for row in rows}
    costs = law.predict(pool.weights)
    costs = np.array([known.get(s, c) for s, c in zip(pool.subsets, costs, strict=True)])
    asked = [pool.subsets.index(subset) for subset in subsets]
    some = np.array(sorted({*np.argsort(costs)[:_LIKELY].tolist(), *asked}))
    fixed = np.array([pool.subsets[one] in known for one in some])
    normal = np.random.default_rng(0).standard_normal((len(pool.names) + 1, _DRAWS))
    found = set()
    for one, subset in zip(asked, subsets, strict=True):
        place = int(np.flatnonzero(some == one)[0])
        joint = joint_of(law, pool.weights[some], place)
        joint[: len(some)][fixed] = 0.0
        n = len(some)
        seen = ([place], [place, *range(n, len(joint))])
        if rule(*(gain_of(joint, n, costs[some], which, normal) for which in seen)):
            found.add(subset)
    return found


def gain_of(joint, n, costs, seen, normal):
    """The fall of the expected least of n costs once some rows of their joint covariance are known:
    the knowledge gradient of Frazier, Powell and Dayanik (2009)."""
    among = joint[np.ix_(seen, seen)]
    size, turn = np.linalg.eigh(among)
    kept = size > 1e-12 * size.max()
    moves = joint[:n][:, seen] @ turn[:, kept] / np.sqrt(size[kept])  # (n, rows)
    return costs.min() - (costs[:, None] + moves @ normal[: kept.sum()]).min(0).mean()


def joint_of(law, weights, place):
    """Covariance of weightings' values and, after them, of the slopes at one of them."""
    rows = Rows(weights, np.array([place]))
    shares = law.errors.shares(rows)
    series = np.add(*law.prior.split(law.prior.powers(rows, rows)))
    misfit = law.prior.covariance(rows) - series
    return law.scale**2 * (law.errors.between(rows, shares, rows, shares) + misfit)
