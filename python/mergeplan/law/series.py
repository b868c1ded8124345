"""From rows to curves: means by k, their spread over subsets, and what each expert does."""

import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import comb
from statistics import fmean, variance
from typing import Annotated

import numpy as np
from annotated_types import Ge, MinLen, Predicate

from mergeplan.config.labels import elects, in_words
from mergeplan.display.text import format_count, listed
from mergeplan.errors import InputError, nearest
from mergeplan.law.averaged import Averaged, averaged_of
from mergeplan.law.correction import Merge, correction_of
from mergeplan.law.merges import by_merge
from mergeplan.law.one_pool import names_at
from mergeplan.law.scale import Scale, scale_of
from mergeplan.measurements.metrics import item_error, own_error
from mergeplan.measurements.one_pool import refuse_two_pools
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from mergeplan.system.ranges import (
    LARGEST_POOL,
    Count,
    Experts,
    Magnitude,
    Number,
    Params,
    check_number,
    is_json_object,
)

# What stands for the size of a pool that nothing tells.
_LARGEST_K = "the largest k"


@dataclass(frozen=True)
class Point:
    """Mean loss in nats, or mean of the metric, over the measured subsets of one size.

    Attributes:
        loss: On the scale of the table. Corrected for which experts are in them, where some subsets
            of k were measured and not all, and the law of single subsets helps (see `correction`).
        n_subsets: How many were measured, of `n_possible`; a merge measured twice counts once.
        spread: Standard deviation over subsets, where two or more were measured.
        best_subset, best_loss: The best of them, where the file names subsets.
        values: Of the single subsets, where the file gives them and no mean alone.
    """

    k: Experts
    loss: Number
    n_subsets: Annotated[int, Ge(1)]
    n_possible: Annotated[int, Ge(1)]
    spread: Magnitude | None = None
    best_subset: tuple[str, ...] = ()
    best_loss: Number | None = None
    values: tuple[Number, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every subset was measured, so that the mean has no sampling error."""
        return self.n_subsets >= self.n_possible

    @property
    def share_left(self) -> float:
        """Share of all subsets that were not measured."""
        return 1 - self.n_subsets / self.n_possible


@dataclass(frozen=True)
class ExpertEffect:
    """What adding an expert to a merge does on average: value with it less value without it.

    Attributes:
        standard_error: Over the pairs of measured merges that differ by this expert alone.
    """

    expert: str
    effect: Number
    standard_error: Magnitude
    n_pairs: Count


@dataclass(frozen=True)
class Series:
    """The curve of one method at one base size on one domain; `points` has one entry for each k.

    Attributes:
        scale: What its values are of; losses by default.
        covariance: Of the errors of corrected means, in nats², shape (n_k, n_k); empty where means
            are those of the measured subsets.
        averaged: What the law of single subsets says of every k, where some k are measured whole.
        loss_se: Standard error of every loss from the evaluation text, shared by all rows; of a
            metric from its items; 0 where it is not known.
        own_se: What of a metric's error is each merge's own; all of it, where no item has scores.
        effects: Worst expert first; empty where subsets are not named or not nested.
    """

    method: str
    options: Annotated[str, Predicate(is_json_object)]
    n_params: Params | None
    domain: str
    pool_size: Experts
    points: Annotated[tuple[Point, ...], MinLen(2)]
    base_loss: Number | None = None
    best_single: tuple[str, Number] | None = None
    worst_single: tuple[str, Number] | None = None
    covariance: tuple[tuple[Number, ...], ...] = ()
    averaged: Averaged | None = None
    loss_se: Magnitude = 0.0
    own_se: Magnitude = 0.0
    effects: tuple[ExpertEffect, ...] = ()
    warnings: tuple[str, ...] = ()
    scale: Scale = field(default_factory=Scale)

    @property
    def measured(self) -> str:
        """What its values are of, as `select` names it; empty where the table does not say."""
        return ":".join(part for part in (self.scale.metric, self.domain) if part)

    def names(self) -> dict[str, str | float | None]:
        """What tells it apart from others, as columns of a table."""
        names = {name: getattr(self, name) for name in ("method", "options", "n_params")}
        return {**names, "domain": self.measured}

    @property
    def n_billion(self) -> float | None:
        return None if self.n_params is None else self.n_params / 1e9


def series_of(
    data: Measurements, *, domain: str | None, method: str | None, pool_size: int | None
) -> list[Series]:
    """The curves in a file, one for each method, options and base size.

    Args:
        domain: Which domain; by default the macro mean, or the only domain there is.
        method: Only the rows with this label.
        pool_size: Overrides what the file says.

    Raises:
        InputError: No row is left, the domain is not there, or k exceeds the pool.
    """
    if pool_size is not None:
        check_number(pool_size, "pool_size", 1, LARGEST_POOL, whole=True)
    groups: dict[tuple[str, str, float | None], list[Measurement]] = defaultdict(list)
    bases: dict[float | None, list[Measurement]] = defaultdict(list)
    for row in data.rows:
        if row.k == 0:
            # The base is the same whatever the method that it stands beside.
            bases[row.n_params].append(row)
        elif method is None or row.method == method:
            groups[row.method, row.options, row.n_params].append(row)
    if not groups:
        known = sorted({row.method for row in data.rows})
        hint = nearest(method or "", known) or f"methods: {', '.join(known)}"
        if method is None:
            raise InputError("only the base was measured", "measure single experts and merges")
        raise InputError(f"no rows of method `{method}`", hint)
    names, scale = names_at(data.rows), scale_of(data.rows)
    return [
        _series(rows, _bases_beside(rows, bases[key[2]]), names[key[2]], domain, pool_size, scale)
        for key, rows in groups.items()
    ]


def _bases_beside(rows: list[Measurement], bases: list[Measurement]) -> list[Measurement]:
    """The base's rows under the same method and options, or else all of that size."""
    same = [b for b in bases if (b.method, b.options) == (rows[0].method, rows[0].options)]
    return same or bases


def _series(
    rows: list[Measurement],
    bases: list[Measurement],
    names: set[str],
    domain: str | None,
    given_size: int | None,
    scale: Scale,
) -> Series:
    first = rows[0]
    refuse_two_pools(rows, first.n_params)
    size, guess = _pool_size(rows, names, given_size)
    warnings = []
    if guess == _LARGEST_K:
        warnings.append(f"pool size taken to be {guess}, {size}; say `--pool-size` if not")
    stands_for = f" (a guess, from {guess})" if guess else ""
    rows = [*rows, *bases]
    name, losses, gaps = by_merge(rows, domain)
    for row in rows:
        if row.k > size:
            raise InputError(
                f"row {row.row}, column `k`: k = {row.k} is measured, but the pool size is"
                f" {size}{stands_for}",
                "give the number of experts as `--pool-size`",
            )
    singles = [(subset[0], fmean(v)) for (k, subset), v in losses.items() if k == 1 and subset]
    base = [loss for (k, _), values in losses.items() if k == 0 for loss in values]
    means = {merge: fmean(values) for merge, values in losses.items()}
    _check_counts(losses, size, stands_for)
    turned = {merge: scale.turned(mean) for merge, mean in means.items()}
    linear = not elects(first.method, json.loads(first.options))
    points, covariance = _points(losses, turned if linear else {}, size, scale)

    def badness(item: tuple[str, float]) -> float:
        return scale.turned(item[1])

    return Series(
        method=first.method,
        options=first.options,
        n_params=first.n_params,
        domain=name,
        pool_size=size,
        points=points,
        covariance=covariance,
        averaged=_on_scale(averaged_of(turned, size), scale),
        base_loss=fmean(base) if base else None,
        best_single=min(singles, key=badness) if singles else None,
        worst_single=max(singles, key=badness) if singles else None,
        loss_se=_error(rows, name, _known_error),
        own_se=_error(rows, name, own_error),
        effects=tuple(_effects(losses, scale)),
        warnings=(*warnings, *gaps),
        scale=scale,
    )


def _on_scale(averaged: Averaged | None, scale: Scale) -> Averaged | None:
    if averaged is None:
        return None
    return replace(averaged, losses=tuple(scale.own(loss) for loss in averaged.losses))


def _error(rows: list[Measurement], domain: str, error_of: Callable[[Measurement], float]) -> float:
    """Standard error from texts or items; of a macro mean that was formed, from its domains'."""
    by_domain: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if not math.isnan(error := error_of(row)):
            by_domain[row.domain].append(error)
    if domain in by_domain:
        return fmean(by_domain[domain])
    if domain != MACRO or not by_domain:
        return 0.0
    squares: float = sum(fmean(errors) ** 2 for errors in by_domain.values())
    return math.sqrt(squares) / len(by_domain)


def _known_error(row: Measurement) -> float:
    if row.metric:
        return item_error(row)
    return math.nan if row.loss_se is None else row.loss_se


def _pool_size(rows: list[Measurement], names: set[str], given: int | None) -> tuple[int, str]:
    """The number of experts, and from what it is guessed; empty where it is stated."""
    if given is not None:
        return given, ""
    stated = {row.pool_size for row in rows if row.pool_size is not None}
    if len(stated) > 1:
        raise InputError(f"column `pool_size` has several values: {listed(sorted(stated))}")
    if stated:
        return stated.pop(), ""
    if names:
        return len(names), "the experts' names"
    return max(row.k for row in rows), _LARGEST_K


def _check_counts(losses: dict[Merge, list[float]], pool_size: int, stands_for: str) -> None:
    """Raise where a k has more rows without names than the pool has subsets of that size."""
    for k in sorted({k for k, subset in losses if k > 0 and not subset}):
        count = len(losses[k, ()]) + sum(size == k and bool(subset) for size, subset in losses)
        if count > comb(pool_size, k):
            raise InputError(
                f"k = {k} has {count} rows, and a pool of {pool_size}{stands_for} only"
                f" {comb(pool_size, k)} subsets of that size",
                "name the subsets, or give the number of experts as `--pool-size`",
            )


def _points(
    losses: dict[Merge, list[float]], turned: dict[Merge, float], pool_size: int, scale: Scale
) -> tuple[tuple[Point, ...], tuple[tuple[float, ...], ...]]:
    """The means by k, and the covariance of their errors where they are corrected.

    Args:
        turned: What corrects them; nothing where the method elects. There deltas do not shrink by
            1/k: of TIES on two byte pools, all and 3 or 8 subsets of k = 2 and 4, the interval
            scores sum to 113 % of the drop with corrected means and to 93 with plain ones.
    """
    points = [_point(losses, k, pool_size, scale) for k in sorted({k for k, _ in losses if k > 0})]
    whole = {point.k for point in points if point.complete}
    # Rows without names are one merge there, however many: that all are there, points tell.
    found = correction_of(
        {m: loss for m, loss in turned.items() if m[1] or m[0] not in whole}, pool_size
    )
    if found is None:
        return tuple(points), ()
    # All others were measured whole.
    at = np.flatnonzero(np.isin([point.k for point in points], found.ks))
    covariance = np.zeros((len(points), len(points)))
    covariance[np.ix_(at, at)] = found.covariance
    for place, mean in zip(at, found.values, strict=True):
        if points[place].complete:
            covariance[place], covariance[:, place] = 0.0, 0.0
        else:
            points[place] = replace(points[place], loss=float(scale.own(mean)))
    return tuple(points), tuple(map(tuple, covariance.tolist()))


def _point(losses: dict[Merge, list[float]], k: int, pool_size: int, scale: Scale) -> Point:
    named = {s: fmean(v) for (size, s), v in losses.items() if size == k and s}
    unnamed = losses.get((k, ()), [])
    values = [*named.values(), *unnamed]
    best, best_loss = min(
        named.items(), key=lambda item: (scale.turned(item[1]), item[0]), default=((), None)
    )
    return Point(
        k=k,
        loss=fmean(values),
        n_subsets=len(values),
        n_possible=comb(pool_size, k),
        spread=variance(values) ** 0.5 if len(values) > 1 else None,
        best_subset=best,
        best_loss=best_loss,
        values=tuple(sorted(values)) if best or len(values) > 1 else (),
    )


def _effects(losses: dict[Merge, list[float]], scale: Scale) -> list[ExpertEffect]:
    """Each expert's average effect over pairs of measured merges, one with it and one without.

    Pairs in which it is the only expert are left out: they compare it with the base.
    """
    merges = {subset: fmean(values) for (_, subset), values in losses.items() if subset}
    changes: dict[str, list[float]] = defaultdict(list)
    for subset, loss in merges.items():
        if len(subset) < 2:
            continue
        for expert in subset:
            without = merges.get(tuple(name for name in subset if name != expert))
            if without is not None:
                changes[expert].append(loss - without)
    effects = [
        ExpertEffect(expert, fmean(values), (variance(values) / len(values)) ** 0.5, len(values))
        for expert, values in changes.items()
        if len(values) > 1
    ]
    return sorted(effects, key=lambda effect: (-scale.sign * effect.effect, effect.expert))


def name_of(series: Series) -> str:
    """A series: method, options that differ from the defaults, and base size."""
    size = "" if series.n_params is None else f" at {format_count(series.n_params)}"
    return in_words(series.method, series.options) + size
