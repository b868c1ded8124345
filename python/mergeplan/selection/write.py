"""The chosen merge as a config that `mergeplan merge` and `mergekit-yaml` both run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergeplan.config.labels import draws_masks
from mergeplan.config.write import merge_config
from mergeplan.errors import InputError, nearest
from mergeplan.pool.pool import Pool, method_in, pool_of, size_in
from mergeplan.selection.choices import Choice
from mergeplan.selection.selection import Selection

# Digits of a weight in the YAML: no loss tells apart what more would.
_DIGITS = 5


def config_of(selection: Selection, choice: Choice, pool: Pool | str | Path) -> dict[str, Any]:
    """The mergekit configuration of a choice, as data.

    Args:
        selection: One of what `select` gave.
        choice: Its `best`, `weighted` or `free`.
        pool: Its file, or as `load_pool` gives it.

    Returns:
        A mergekit configuration, as `merge` takes it.

    Raises:
        InputError: The pool lacks the method, the size or an expert.
    """
    table, pool = selection.table, pool_of(pool)
    label, options = method_in(table.method, table.options, pool)
    size = size_in(table.n_params, pool)
    for name in choice.subset:
        if name not in size.experts:
            hint = nearest(name, list(size.experts))
            raise InputError(f"the pool has no expert `{name}`", hint)
    experts = [size.experts[name] for name in choice.subset]
    weights = None if choice.equal else rounded(choice.weights)
    config = merge_config(label, options, size.base, experts, size.out_dtype, weights)
    if pool.random_seed and draws_masks(label, options):
        config["random_seed"] = pool.random_seed
    return config


def rounded(weights: Mapping[str, float]) -> list[float]:
    """Weights of few digits, by name; the sum stays what it was, the largest takes the difference.

    >>> rounded({"a": 1 / 3, "b": 2 / 3})
    [0.33333, 0.66667]
    """
    shares = [round(weights[name], _DIGITS) for name in sorted(weights)]
    total = round(sum(weights.values()), _DIGITS)
    largest = shares.index(max(shares))
    shares[largest] = round(shares[largest] + total - sum(shares), _DIGITS)
    return shares
