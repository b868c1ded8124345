"""From a recommendation to the YAML of a concrete merge: which experts, and where they lie."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.config.labels import draws_masks
from mergeplan.config.seed import seed_of
from mergeplan.config.write import merge_config, to_yaml
from mergeplan.display.summary import Summarized
from mergeplan.errors import InputError
from mergeplan.law.recommendation import Candidate, Recommendation
from mergeplan.pool.pool import Pool, PoolSize, method_in, pool_of, size_in


@dataclass(frozen=True, repr=False)
class ChosenMerge(Summarized):
    """A merge to run.

    Attributes:
        subset: Names of the experts.
        reason: Why these.
        text: The YAML.
        config: The same as data.
    """

    subset: tuple[str, ...]
    reason: str
    text: str
    config: dict[str, Any]

    def summary(self) -> str:
        """The YAML, with why in its comments."""
        return self.text

    def records(self) -> list[dict[str, Any]]:
        """A row for each expert."""
        return [{"expert": name} for name in self.subset]


def choose_merge(
    candidate: Candidate | Recommendation,
    pool: Pool | str | Path,
    *,
    wish: str = "",
    seed: int | None = None,
) -> ChosenMerge:
    """The merge that a candidate recommends: the best measured subset of its size, else a random
    one.

    Args:
        candidate: What `suggest` gave, or one of its candidates.
        pool: Its file, or as `load_pool` gives it.
        wish: What was asked for, for the comment in the YAML.
        seed: Of a random subset, and of the merge's masks; `None` for the pool's `random_seed`, or
            else 0.

    Returns:
        The subset, why it was chosen, and the config, which `merge` takes and so does mergekit.

    Raises:
        InputError: The pool lacks the method, the size, or enough experts.
    """
    candidate = candidate.best if isinstance(candidate, Recommendation) else candidate
    pool = pool_of(pool)
    seed, _ = seed_of(pool.random_seed, seed, "the pool")
    series = candidate.fit.series
    if candidate.k is None:
        raise InputError("nothing to write: no merge reaches the target")
    label, options = method_in(series.method, series.options, pool)
    size = size_in(series.n_params, pool)
    if candidate.k > len(size.experts):
        raise InputError(
            f"the pool has {len(size.experts)} experts, and k = {candidate.k} was recommended",
            "say `--pool-size`",
        )
    subset, reason = _subset(candidate, size, seed)
    config = merge_config(
        label, options, size.base, [size.experts[name] for name in subset], size.out_dtype
    )
    if draws_masks(label, options) and seed:
        config["random_seed"] = seed
    loss = f"{candidate.predicted.loss:.4f}"
    comments = [
        f"written by mergeplan suggest {wish}".rstrip(),
        f"expected {series.scale.name} of {candidate.k} experts by {label} on this text: {loss}",
        reason,
    ]
    return ChosenMerge(subset, reason, to_yaml(config, comments), config)


def _subset(candidate: Candidate, size: PoolSize, seed: int) -> tuple[tuple[str, ...], str]:
    point, scale = candidate.measured, candidate.fit.series.scale
    if point is not None and point.best_subset and set(point.best_subset) <= set(size.experts):
        names = ", ".join(point.best_subset)
        return point.best_subset, (
            f"experts: {names}; of {point.n_subsets} measured subsets of {point.k} the one with the"
            f" {scale.best} {scale.name}, {point.best_loss:.4f}"
        )
    drawn = random.Random(seed).sample(sorted(size.experts), candidate.k or 0)
    subset = tuple(sorted(drawn))
    return subset, f"experts: {', '.join(subset)}; drawn at random with seed {seed}"
