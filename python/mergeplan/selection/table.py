"""From rows to what the form is fitted to: weights of the experts, and the values beside them."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mergeplan.config.labels import method_of
from mergeplan.display.text import listed
from mergeplan.errors import InputError, nearest
from mergeplan.measurements.gaps import gap_text
from mergeplan.measurements.metrics import item_error, own_error, several_metrics
from mergeplan.measurements.one_pool import refuse_two_pools
from mergeplan.measurements.rows import MACRO, Measurement, MergeKey, parse_shares, target_name
from mergeplan.selection.slopes import SlopesOfRows
from mergeplan.selection.target import Target, mean_of
from mergeplan.subset_law.law import SubsetLaw

Array = NDArray[np.float64]

# Their merges depend on the weighted sum of the deltas and on nothing else, so that any weights
# follow the form, and merges of another lambda are points of the same surface.
LINEAR = ("linear", "task_arithmetic")


# Of merges, and of shares of the domains: covariance of their values, shape (n, n).
JointNoise = Callable[[Sequence[MergeKey], Mapping[str, float]], Array]


@dataclass(frozen=True)
class Table:
    """All that was measured of one method, options and base size.

    Attributes:
        experts: Names, sorted; the order of every weight vector.
        weights: Shape (n_rows, n_experts); equal shares sum to 1, and the base's row is zero.
        targets: By name; `macro` where every domain is there.
        gram: Inner products of the experts' deltas, shape (n_experts, n_experts), if they are
            known; the form's prior is then in the experts' own geometry.
        merges: Which merges each row is the mean of.
        pool_size: Experts that there are, as the rows say.
        smaller: The same method at smaller sizes of the pool, see `sizes.link_sizes`.
        unlike: Why none of a smaller size is among them.
        plain: The same over its own experts, where it is over those that a smaller size names too.
        joint: The covariance of some merges' values by domain, of those that were scored on parts
            of the text; by default the rows' own errors, taken for independent.
        laws: Those that were fitted to it, by name, as larger sizes lean on them again.
    """

    method: str
    options: str
    n_params: float | None
    experts: tuple[str, ...]
    weights: Array
    targets: Mapping[str, Target]
    gram: Array | None = None
    merges: tuple[tuple[MergeKey, ...], ...] = ()
    pool_size: int | None = None
    smaller: tuple["Table", ...] = ()
    unlike: str = ""
    plain: "Table | None" = None
    joint: JointNoise | None = None
    laws: dict[str, SubsetLaw] = field(default_factory=dict, init=False, repr=False, compare=False)

    def noise_of(self, name: str) -> Array | None:
        """Known covariance of a target's values, shape (n_rows, n_rows); `None` for none."""
        target = self.target(name)
        if target.noise is not None:
            return np.diag(target.noise)
        if target.text_errors is None:
            return None
        if self.joint is None:
            return np.diag(target.text_errors**2)
        return self.joint([keys[0] for keys in self.merges], parse_shares(name))

    def places(self, weights: Array) -> list[int]:
        """Rows of measured weightings, shape (n, n_experts)."""
        rows = {tuple(row): place for place, row in enumerate(self.weights.round(9) + 0.0)}
        return [rows[tuple(row)] for row in weights.round(9) + 0.0]

    def value(self, name: str, weights: Mapping[str, float]) -> float | None:
        """What a merge was measured to give on the table's own items; `None` where it was not."""
        own = np.array([weights.get(expert, 0.0) for expert in self.experts])
        values = self.target(name).values[np.abs(self.weights - own).max(1) < 1e-9]
        return float(values[0]) if len(values) and np.isfinite(values[0]) else None

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Which rows were scored on the whole text, shape (n_rows,)."""
        whole = np.ones(len(self.weights), np.bool_)
        for one in self.targets.values():
            if one.text_errors is not None:
                whole &= one.text_errors == 0
        return whole

    @property
    def linear(self) -> bool:
        return _strength(self.method, self.options) is not None

    @property
    def shrinkages(self) -> tuple[float, ...]:
        """Powers of k to choose from: a linear method shrinks deltas by 1/k (`subset_law.form`), as
        do all that slopes are of."""
        return (1.0,) if self.linear or self.sloped.any() else (1.0, 0.75, 0.5)

    @property
    def sloped(self) -> NDArray[np.bool_]:
        """Which rows have slopes of some target, shape (n_rows,)."""
        known = [one.slopes for one in self.targets.values() if one.slopes is not None]
        every = [np.isfinite(one).all(1) for one in known]
        return np.any(every, axis=0) if every else np.zeros(len(self.weights), np.bool_)

    @property
    def weighted(self) -> bool:
        """Whether merges of unequal weights follow the form: by theory, or they were measured, or
        slopes by the weights were."""
        shares = self.weights[(self.weights > 0).sum(1) > 1]
        unequal = any(np.ptp(row[row > 0]) > 1e-6 for row in shares)
        return self.linear or unequal or bool(self.sloped.any())

    @property
    def largest_sum(self) -> float | None:
        """Largest sum of weights that may be chosen freely; `None` where it has to be 1.

        The sum is free where every expert was measured at a sum other than 1, or with slopes, which
        are of a free sum. Elsewhere nothing tells apart what changes with the sum.
        """
        sums = self.weights.sum(1)
        off = ((np.abs(sums - 1) > 1e-6) | self.sloped) & (sums > 0)
        covered = (self.weights[off] > 0).any(0).all() if off.any() else False
        return round(float(sums.max()), 9) if covered and self.weighted else None

    def target(self, name: str) -> Target:
        """One target, or a weighted mean of several.

        Args:
            name: A name, or `code=2,math`, whose weights are 1 where they are not given.

        Raises:
            InputError: No such target, or they cannot be averaged.
        """
        if name in self.targets:  # whatever characters it has
            return self.targets[name]
        shares = parse_shares(name)
        for part in shares:
            if part not in self.targets:
                known = list(self.targets)
                hint = nearest(part, known) or f"measured: {', '.join(known)}"
                raise InputError(f"no rows of domain or metric `{part}`", hint)
        chosen = [self.targets[part] for part in shares]
        if len({(bool(target.metric), target.higher) for target in chosen}) > 1:
            raise InputError(
                f"`{name}`: cannot average losses with metrics, or what is better low with what is"
                " better high"
            )
        if len(chosen) == 1:
            return chosen[0]
        return mean_of(name, chosen, list(shares.values()))

    def gaps(self, name: str) -> list[str]:
        """A word on merges that were not measured on all that a mean of losses is over."""
        target = self.target(name)
        left_out = np.isnan(target.values)  # (n_rows,)
        if target.metric or not left_out.any():
            return []
        losses = [n for n, one in self.targets.items() if not one.metric and n != MACRO]
        shares = parse_shares(name)
        parts = [one for part in shares for one in (losses if part == MACRO else [part])]
        counts = {part: int(np.isnan(self.targets[part].values[left_out]).sum()) for part in parts}
        missing = {part: count for part, count in counts.items() if count}
        return [gap_text(missing or {name: 0}, int(left_out.sum()), len(left_out), "--domains")]

    def default_target(self) -> str:
        """The macro mean, the only loss, or the only target there is.

        Raises:
            InputError: There are several, and none is their mean.
        """
        if MACRO in self.targets:
            return MACRO
        if len(self.targets) == 1:
            return next(iter(self.targets))
        macros = {target_name(target.metric, MACRO) for target in self.targets.values()}
        if len(macros) == 1 and macros <= self.targets.keys():
            return macros.pop()
        losses = [name for name, target in self.targets.items() if not target.metric]
        if len(losses) == 1:
            return losses[0]
        if losses:
            raise InputError(
                f"no merge was measured on all domains: {listed(losses)}", "name some: `--domains`"
            )
        raise several_metrics(one.metric for one in self.targets.values())


def tables_of(rows: Iterable[Measurement], method: str | None = None) -> list[Table]:
    """One table for each method, options and base size.

    Args:
        method: Only this label.

    Raises:
        InputError: No row is left, none names its experts, or they are of two pools.
    """
    groups: dict[tuple[str, str, float | None], list[Measurement]] = defaultdict(list)
    bases: dict[float | None, list[Measurement]] = defaultdict(list)
    for row in rows:
        if row.k == 0:
            bases[row.n_params].append(row)
        elif row.subset:
            groups[row.method, row.options, row.n_params].append(row)
    for key, some in groups.items():
        refuse_two_pools(some, key[2])
    wanted = [key for key in groups if method is None or key[0] == method]
    if not wanted and groups and method is not None:
        known = sorted({key[0] for key in groups})
        hint = nearest(method, known) or f"methods: {', '.join(known)}"
        raise InputError(f"no rows of method `{method}`", hint)
    if not wanted:
        raise InputError("no row names its experts", "`select` needs a column `subset`")
    # Whoever asks for the points of another group's surface by name gets them, with that group's.
    chosen = [key for key in wanted if _is_whole(key, groups)] or wanted
    return [_table(key, groups, bases[key[2]]) for key in chosen]


def _is_whole(
    key: tuple[str, str, float | None],
    groups: Mapping[tuple[str, str, float | None], list[Measurement]],
) -> bool:
    """False for merges at another lambda that complete a group of the same surface.

    Those are single experts beside merges of several, or, under one label, some of the other
    group's subsets.
    """
    if _strength(key[0], key[1]) is None:
        return True
    own = {row.subset for row in groups[key]}
    for other, rows in groups.items():
        if other == key or other[2] != key[2] or _strength(other[0], other[1]) is None:
            continue
        theirs = {row.subset for row in rows}
        if (own < theirs and other[0] == key[0]) or (_most(own) == 1 and _most(theirs) > 1):
            return False
    return True


def _most(subsets: set[tuple[str, ...]]) -> int:
    """The largest k among them."""
    return max(map(len, subsets))


def _table(
    key: tuple[str, str, float | None],
    groups: Mapping[tuple[str, str, float | None], list[Measurement]],
    bases: list[Measurement],
) -> Table:
    method, options, n_params = key
    strength = _strength(method, options)
    names = tuple(sorted({name for row in groups[key] for name in row.subset}))
    cells: dict[tuple[float, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    kinds: dict[str, tuple[str, bool]] = {}
    errors: dict[tuple[tuple[float, ...], str], list[float]] = defaultdict(list)
    owns: dict[tuple[tuple[float, ...], str], list[float]] = defaultdict(list)
    unpaired: set[str] = set()
    noise: dict[tuple[tuple[float, ...], str], list[float]] = defaultdict(list)
    slopes = SlopesOfRows(names, method, options, strength)
    merges: dict[tuple[float, ...], dict[MergeKey, None]] = defaultdict(dict)

    def add(row: Measurement, factor: float) -> None:
        point, name = _add(cells, kinds, row, names, factor)
        merges[point][row.merge_key] = None
        errors[point, name].append(item_error(row))
        owns[point, name].append(own_error(row))
        if row.own_se is None:
            unpaired.add(name)
        noise[point, name].append(row.text_se or 0.0)
        slopes.add(row, point, name, factor)

    for other, rows in groups.items():
        factor = 1.0
        if other != key:
            theirs = _strength(other[0], other[1])
            # Of a merge without any delta nothing follows for another factor.
            if not strength or theirs is None or other[2] != n_params:
                continue
            factor = theirs / strength
        for row in rows:
            if set(row.subset) <= set(names):
                add(row, factor)
    for row in bases:
        add(row, 1.0)
    # The base is the same whatever the method: with it the other rows' own domains are complete.
    domains = [name for name, (metric, _) in kinds.items() if not metric and name != MACRO]
    for point, cell in cells.items():
        if MACRO not in cell and len(domains) > 1 and all(name in cell for name in domains):
            noise[point, MACRO] = [_of_mean([_of_mean(noise[point, one]) for one in domains])]
            cell[MACRO] = [float(np.mean([np.mean(cell[name]) for name in domains]))]
            kinds[MACRO] = "", False
            slopes.add_mean(point, domains)
    points = sorted(cells)
    targets = {}
    for name in sorted(kinds, key=lambda name: (name != MACRO, name)):
        values = [np.mean(cells[p][name]) if name in cells[p] else np.nan for p in points]
        metric, higher = kinds[name]
        known, own = (
            np.array([_of_mean(some.get((point, name), [])) for point in points])
            for some in (errors, owns)
        )
        told = metric and np.isfinite(known).any()
        around = np.array([_of_mean(noise.get((point, name)) or [0.0]) for point in points])
        targets[name] = Target(
            name,
            np.array(values, np.float64),
            higher,
            metric,
            known if told else None,
            own if told else None,
            bool(metric) and name not in unpaired,
            around if around.any() else None,
            slopes.of(points, name),
        )
    weights = np.array(points, np.float64)
    keys = tuple(tuple(merges[point]) for point in points)
    pool_size = max((row.pool_size or 0 for row in groups[key]), default=0) or None
    return Table(
        method, options, n_params, names, weights, targets, merges=keys, pool_size=pool_size
    )


def _add(
    cells: dict[tuple[float, ...], dict[str, list[float]]],
    kinds: dict[str, tuple[str, bool]],
    row: Measurement,
    names: tuple[str, ...],
    factor: float,
) -> tuple[tuple[float, ...], str]:
    """Add a row; its point, and the name of what it is of."""
    shares = row.weights or (1 / max(row.k, 1),) * row.k
    given = dict(zip(sorted(row.subset), shares, strict=True))
    # Rounded, so that a point that was measured twice is one.
    point = tuple(round(factor * given.get(name, 0.0), 12) for name in names)
    name = row.target
    if kinds.setdefault(name, (row.metric, row.higher)) != (row.metric, row.higher):
        raise InputError(f"row {row.row}, column `better`: `{name}` is better both ways")
    cells[point][name].append(row.loss_nats)
    return point, name


def _of_mean(errors: list[float]) -> float:
    return float(np.sqrt(np.sum(np.square(errors))) / len(errors)) if errors else float("nan")


def _strength(label: str, options: str) -> float | None:
    """Factor on the mean of the deltas, for methods that merge by nothing else."""
    try:
        method, settings = method_of(label, json.loads(options))
    except InputError:
        return None
    return settings.get("lambda", 1.0) if method.name in LINEAR else None
