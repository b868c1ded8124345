"""All that was measured: every method, every lambda, every weighting, and the bases."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import nan, sqrt
from statistics import fmean

from mergeplan.config.labels import in_words, method_of
from mergeplan.errors import InputError, nearest
from mergeplan.measurements.metrics import item_error, own_error, several_metrics
from mergeplan.measurements.rows import MACRO, Measurement, MergeKey, parse_shares, target_name

# A weight that differs from another by less is the same.
_SAME = 1e-6


@dataclass(frozen=True)
class Merge:
    """A merge of some experts, or a base; measured or not.

    Attributes:
        n_params: Of the base; `None` where it is not known.
        options: Canonical JSON.
        weights: By expert; empty for a base.
        seed: Of random masks, as the row says it; empty where it says none.
    """

    n_params: float | None
    method: str
    options: str
    weights: Mapping[str, float]
    seed: str = ""

    @property
    def subset(self) -> tuple[str, ...]:
        return tuple(sorted(self.weights))

    @property
    def k(self) -> int:
        return len(self.weights)

    @property
    def equal(self) -> bool:
        """Whether it is a plain subset, of equal shares that sum to 1."""
        return all(abs(weight * self.k - 1) < _SAME for weight in self.weights.values())

    @property
    def is_expert(self) -> bool:
        """Whether it is one expert as it is: nothing is to be merged for it."""
        if self.k != 1 or not self.equal:
            return False
        try:
            _, settings = method_of(self.method, json.loads(self.options))
        except InputError:
            return True  # of a method that we do not know nothing else can be said
        return settings.get("lambda", 1.0) == 1 and settings.get("density", 1.0) == 1

    def name(self) -> str:
        """For people: experts, and how they are merged."""
        if not self.k:
            return "the base"
        if self.is_expert:
            return f"the expert `{self.subset[0]}`"
        seed = f", seed {self.seed}" if self.seed not in ("", "0") else ""
        by = f" by {in_words(self.method, self.options)}{seed}" if self.method else ""
        if self.k == 1 and self.equal:
            return f"the expert `{self.subset[0]}`{by}"
        if self.equal:
            return "+".join(self.subset) + by
        return ", ".join(f"{n} {self.weights[n]:.3g}" for n in self.subset) + by


@dataclass(frozen=True)
class KnownMerge:
    """A measured merge, and what it came to.

    Attributes:
        key: By which its documents' losses are found.
        values: Losses by domain, other metrics by `metric:domain` or `metric`.
        errors: Standard errors of metrics, from their items, where the file says.
        own: What of them is each merge's own.
    """

    merge: Merge
    key: MergeKey
    values: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Aim:
    """What counts: a domain or metric, or a mean of several.

    Attributes:
        name: As it was asked for.
        shares: Of each domain or metric; of the macro mean, of each domain alike.
        higher: Whether more is better.
        metric: Empty for losses.
        paired: Whether the scores of its items tell what of their error merges have in common.
    """

    name: str
    shares: Mapping[str, float]
    higher: bool = False
    metric: str = ""
    paired: bool = False

    @property
    def sign(self) -> float:
        return -1.0 if self.higher else 1.0

    def of(self, values: Mapping[str, float]) -> float | None:
        """What some values come to; `None` where one of them is missing."""
        if self.name == MACRO and MACRO in values:
            return values[MACRO]
        if any(name not in values for name in self.shares):
            return None
        total = sum(self.shares.values())
        return sum(share / total * values[name] for name, share in self.shares.items())

    def error_of(self, errors: Mapping[str, float]) -> float:
        """Standard error of that, of metrics on items of their own; NaN where it is not known."""
        total = sum(self.shares.values())
        parts = (share / total * errors.get(name, nan) for name, share in self.shares.items())
        return sqrt(sum(part**2 for part in parts))


def known_merges(rows: Iterable[Measurement]) -> list[KnownMerge]:
    """Every measured merge that names its experts, and every base, in the order of the rows.

    Several values of one merge on one domain are averaged. What was scored on a part of the text is
    not known: the law of single subsets says how well.
    """
    cells: dict[MergeKey, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    metrics: dict[MergeKey, dict[str, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
    merges = {}
    for row in rows:
        if (row.k and not row.subset) or row.text_se is not None:
            continue
        shares = row.weights or (1 / max(row.k, 1),) * row.k
        weights = dict(zip(row.subset, shares, strict=True))
        _, method, options, _, _ = key = row.merge_key
        merges[key] = Merge(row.n_params, method, options, weights, row.seed)
        cells[key][row.target].append(row.loss_nats)
        if row.metric:
            metrics[key][row.target].append(row)
    return [
        KnownMerge(
            merge,
            key,
            {name: fmean(values) for name, values in cells[key].items()},
            {name: _of_mean(map(item_error, some)) for name, some in metrics[key].items()},
            {name: _of_mean(map(own_error, some)) for name, some in metrics[key].items()},
        )
        for key, merge in merges.items()
    ]


def _of_mean(errors: Iterable[float]) -> float:
    squares = [error**2 for error in errors]
    return sqrt(fmean(squares) / len(squares))


def aim_of(rows: Iterable[Measurement], wanted: str | None) -> Aim:
    """What is asked for, or the macro mean, or the only thing that was measured.

    Args:
        wanted: A name, or `code=2,math`.

    Raises:
        InputError: It was not measured, cannot be averaged, or has to be chosen.
    """
    rows = list(rows)
    kinds = {row.target: (row.metric, row.higher) for row in rows}
    losses = [name for name, (metric, _) in kinds.items() if not metric and name != MACRO]
    if wanted is None:
        if MACRO in kinds or len(losses) > 1:
            return Aim(MACRO, dict.fromkeys(sorted(losses) or [MACRO], 1.0))
        macros = {target_name(metric, MACRO) for metric, _ in kinds.values()}
        if len(macros) == 1 and macros <= kinds.keys():
            wanted = macros.pop()
        elif len(kinds) > 1 and not losses:
            raise several_metrics(row.metric for row in rows)
        else:
            wanted = losses[0] if losses else next(iter(kinds))
    shares = {wanted: 1.0} if wanted in kinds else parse_shares(wanted)
    if set(shares) == {MACRO}:
        return Aim(MACRO, dict.fromkeys(sorted(losses) or [MACRO], 1.0))
    for name in shares:
        if name not in kinds:
            hint = nearest(name, list(kinds)) or f"measured: {', '.join(kinds)}"
            raise InputError(f"no rows of domain or metric `{name}`", hint)
    found = {(bool(kinds[name][0]), kinds[name][1]) for name in shares}
    if len(found) > 1:
        raise InputError(
            f"`{wanted}`: cannot average losses with metrics, or what is better low with what is"
            " better high"
        )
    metric, higher = kinds[next(iter(shares))]
    paired = bool(metric) and all(row.own_se is not None for row in rows if row.target in shares)
    return Aim(wanted, shares, higher, metric, paired)
