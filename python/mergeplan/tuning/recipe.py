"""Weights by expert and group as mergekit's YAML.

mergekit takes the first entry of a list whose `filter` is a part of the tensor's name, and a list
of numbers along the layers, the first of which it takes for what lies outside them, before and
behind. So tensors outside the layers have filters of their own, in front.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.checkpoints.layers import layer_of
from mergeplan.config.labels import draws_masks, elects, has_slopes, method_of
from mergeplan.config.write import merge_config
from mergeplan.errors import InputError, nearest
from mergeplan.planning.document import Delta, Job
from mergeplan.pool.pool import Pool
from mergeplan.tuning.groups import Groups

Array = NDArray[np.float64]

# What is written and measured alike; smaller steps no text tells.
DIGITS = 5
SUMS = "task_arithmetic"


@dataclass(frozen=True)
class Recipe:
    """How weights become a merge.

    Attributes:
        label, options: The method. Weights stay as they are: `normalize` is false.
        base, experts: Where they are, in the order of the weights.
        seed: Of random masks; 0 where there are none.
    """

    label: str
    options: Mapping[str, Any]
    base: Path
    experts: tuple[Path, ...]
    out_dtype: str
    groups: Groups
    seed: int = 0

    @property
    def elects(self) -> bool:
        """Whether slopes depend on the weights, by the signs that experts elect."""
        return elects(self.label, self.options)

    @property
    def strength(self) -> float:
        """Lambda."""
        return float(method_of(self.label, self.options)[1].get("lambda", 1.0))

    def config(self, weights: Array) -> dict[str, Any]:
        """The mergekit configuration.

        Args:
            weights: Shape (n_experts, n_groups).
        """
        found = merge_config(self.label, self.options, self.base, self.experts, self.out_dtype)
        found["parameters"]["normalize"] = False
        for model, row in zip(found["models"], rounded(weights), strict=True):
            model["parameters"]["weight"] = setting(self.groups, row)
        return found | ({"random_seed": self.seed} if self.seed else {})

    def check(self, jobs: Sequence[Job], weights: Array) -> None:
        """Refuse a plan whose tensors do not have their weights.

        Raises:
            InputError: Filters cannot tell the tensors apart.
        """
        wanted = rounded(weights)
        for job in jobs:
            if not isinstance(job.merge, Delta) or job.tensor not in self.groups.of:
                continue
            own = wanted[:, self.groups.of[job.tensor]]
            if not np.allclose([one.weight for one in job.merge.inputs], own, atol=1e-9):
                raise InputError(
                    f"tensor `{job.tensor}`: no filter of a mergekit YAML gives it the weights of"
                    f" `{self.groups.names[self.groups.of[job.tensor]]}` alone",
                    "tune `--by expert`",
                )


def rounded(weights: Array) -> Array:
    """As they are written; no zero is negative."""
    return np.asarray(np.round(weights, DIGITS) + 0.0, np.float64)


def choose_method(pool: Pool, label: str | None) -> tuple[str, dict[str, Any]]:
    """The method to tune, and its options: by default the pool's first without election, whose
    slopes are exact, or its first; a method of the user's own has none.

    An average is a sum of deltas here, whose weights need not sum to 1.

    Raises:
        InputError: The pool lacks it, it is the user's own, or its lambda is 0.
    """
    known = [one for one in pool.methods if has_slopes(one, pool.methods[one])]
    free = [one for one in known if not elects(one, pool.methods[one])]
    if label is not None and label not in known:
        hint = f"it has: {', '.join(known)}" if known else f"leave it out to tune `{SUMS}`"
        if label in pool.methods:
            raise InputError(f"`{label}` is a method of your own: it has no slopes", hint)
        raise InputError(f"the pool has no method `{label}`", nearest(label, known) or hint)
    if label is None and known and not free:
        label = known[0]
    label = label or (free[0] if free else SUMS)
    options = dict(pool.methods.get(label, {}))
    method, settings = method_of(label, options)
    if settings.get("lambda") == 0:
        raise InputError(
            f"method `{label}` has a lambda of 0: whatever the weights, it is the base"
        )
    if method.name == "linear":
        return SUMS, {}
    return label, options


def seed_for(label: str, options: Mapping[str, Any], seed: int) -> int:
    """The seed that a recipe has."""
    return seed if draws_masks(label, options) else 0


def setting(groups: Groups, row: Array) -> Any:
    """An expert's `weight`: a number, or a list of filters.

    Args:
        row: Its weight in each group.

    >>> names = ["model.embed_tokens.weight", *(f"model.layers.{n}.mlp.up.weight" for n in (0, 1))]
    >>> setting(Groups.find(names, "layer"), np.array([0.1, 0.2, 0.3]))
    [{'filter': 'model.embed_tokens.weight', 'value': 0.3}, {'value': [0.1, 0.2]}]
    """
    if len(groups) == 1:
        return float(row[0])
    filters = list(_filters(groups, row))
    if not _holds(groups, row, filters):
        # Of two names one of which is a part of the other, the longer comes first.
        names = sorted(groups.of, key=lambda name: (-len(name), name))
        filters = [(name, float(row[groups.of[name]])) for name in names]
    if len({str(value) for _, value in filters}) == 1:
        return filters[-1][1]
    entries: list[dict[str, Any]] = [{"filter": part, "value": value} for part, value in filters]
    # mergekit wants a weight of tensors that we do not merge too.
    del entries[-1]["filter"]
    return entries


_Value = float | list[float]


def _filters(groups: Groups, row: Array) -> Iterator[tuple[str, _Value]]:
    """Filters of tensors outside the layers, then of parts of a layer, each with its value."""
    inside: dict[str, dict[int, int]] = defaultdict(dict)  # by part of a layer: layer, group
    parts: dict[str, set[str]] = defaultdict(set)
    apart: set[str] = set()
    for name, group in groups.of.items():
        place = layer_of(name)
        if place is None:
            yield name, float(row[group])
            continue
        rest = name[len(place[0]) + len(str(place[1])) :]  # .mlp.up.weight
        part = ".".join(rest.split(".")[:2]) + "."
        parts[part].add(rest)
        if inside[part].setdefault(place[1], group) != group:
            apart.add(part)
        inside[rest][place[1]] = group
    n_layers = 1 + max((layer for one in inside.values() for layer in one), default=0)
    wanted = [rest for part in sorted(apart) for rest in sorted(parts[part], key=len, reverse=True)]
    wanted += sorted(part for part in parts if part not in apart)
    along = [(part, _along(inside[part], n_layers, row)) for part in wanted]
    # One list for all of a layer: its parts need no filters.
    yield from along if len({str(v) for _, v in along}) > 1 else along[-1:]


def _along(layers: Mapping[int, int], n_layers: int, row: Array) -> _Value:
    """The value of each layer; one that has no such part takes that of the one before."""
    values, last = [], float(row[next(iter(layers.values()))])
    for layer in range(n_layers):
        last = float(row[layers[layer]]) if layer in layers else last
        values.append(last)
    return values if len(set(values)) > 1 else values[0]


def _holds(groups: Groups, row: Array, filters: Sequence[tuple[str, _Value]]) -> bool:
    """Whether each tensor meets its own value first; the last filter takes what is left."""
    stacks = {place[0] for name in groups.of if (place := layer_of(name)) is not None}
    if len(stacks) > 1 and any(isinstance(value, list) for _, value in filters):
        return False
    for name, group in groups.of.items():
        found = next((value for part, value in filters if part in name), filters[-1][1])
        if isinstance(found, list):
            place = layer_of(name)
            found = found[place[1] if place else 0]
        if found != float(row[group]):
            return False
    return True
