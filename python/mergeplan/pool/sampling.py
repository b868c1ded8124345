"""The merges of a sweep: for each size and method the base, single experts, subsets, a scan."""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

from mergeplan.config.labels import method_of
from mergeplan.config.seed import seed_of
from mergeplan.errors import InputError, nearest
from mergeplan.pool.bases import check_bases
from mergeplan.pool.designs import DESIGNS, Subset, choose_subsets
from mergeplan.pool.pool import Pool, pool_of
from mergeplan.pool.subsets import (
    SubsetMerge,
    SubsetMerges,
    other_columns,
    pool_paths_hash,
    read_subsets,
    subset_merge,
    write_subsets,
)
from mergeplan.pool.vocabularies import check_vocabularies
from mergeplan.system.files import expanded
from mergeplan.system.ranges import check_number, check_seed, check_several
from mergeplan.system.writing import ExistsError, holding

# The three points of the paper's calibration (Section 4.2).
THREE_POINTS = (1, 2, 4)
# Factors on the merged delta, tried where one subset tells: with all experts.
SCAN = (0.2, 0.3, 0.5, 0.8, 1.0)
# Subsets of each k. Of nine experts all pairs are taken then, see `designs.NEARLY_ALL`.
COUNT = 24
# More files than these no one measures.
_MOST = 10_000


@dataclass(frozen=True)
class SampleOptions:
    """What to sample.

    Attributes:
        labels: Methods of the pool; empty for all.
        sizes: Indices into `Pool.sizes`; empty for all.
        ks: Sizes of subsets; empty for 1, 2 and 4. Single experts, and all together, are always
            there.
        count: Subsets of each k.
        design: One of `designs.DESIGNS`.
        lambda_scan: Whether to try other factors with all experts.
        seed: Of the choice, and of random masks; `None` for the pool's `random_seed`, or else 0.
        allow_vocabulary_mismatch: Sample experts too in which a token has another id.
    """

    labels: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    ks: tuple[int, ...] = ()
    count: int = COUNT
    design: str = "auto"
    lambda_scan: bool = True
    seed: int | None = None
    allow_vocabulary_mismatch: bool = False

    def __post_init__(self) -> None:
        """Raises `InputError` for a value that cannot be."""
        check_several(self.labels, "labels")
        if self.design not in DESIGNS:
            hint = nearest(self.design, list(DESIGNS)) or f"one of: {', '.join(DESIGNS)}"
            raise InputError(f"`design`: there is no `{self.design}`", hint)
        check_number(self.count, "count", 1, 1e9, whole=True)
        if self.seed is not None:
            check_seed(self.seed)


def sample_merges(
    pool: Pool, sweep: SampleOptions, have: Collection[SubsetMerge] = ()
) -> list[SubsetMerge]:
    """The merges to measure, in canonical order; all methods see the same subsets.

    Args:
        have: Merges that are there already; they stay, and the design grows around them.

    Raises:
        InputError: The pool has no such method, size or k, or too few experts, or a token has two
            ids.
    """
    seed, _ = seed_of(pool.random_seed, sweep.seed, "the pool")
    labels = sweep.labels or tuple(pool.methods)
    check_experts(pool)
    check_bases(pool)
    check_vocabularies(pool, allow=sweep.allow_vocabulary_mismatch)
    merges = set(have)
    for size in sweep.sizes or range(len(pool.sizes)):
        check_number(size, "sizes", 0, len(pool.sizes) - 1, whole=True)
        names = pool.sizes[size].experts
        ks = _ks(sweep.ks, len(names))
        merges.add(subset_merge(pool, size, labels[0], ()))
        for label in labels:
            like = subset_merge(pool, size, label, names, seed=seed)
            for k in ks:
                _refuse_too_many(sweep, len(names), k)
                subsets = choose_subsets(
                    sweep.design,
                    names,
                    k,
                    sweep.count,
                    seed=seed,
                    have=_measured(merges, like, k),
                )
                merges |= {subset_merge(pool, size, label, s, seed=seed) for s in subsets}
            singles = [(name,) for name in names]
            merges |= {subset_merge(pool, size, label, s, seed=seed) for s in singles}
            if sweep.lambda_scan:
                merges |= set(lambda_scan(pool, size, label, names, seed))
    return sorted(merges, key=lambda merge: merge.order)


def lambda_scan(
    pool: Pool, size: int, label: str, names: Iterable[str], seed: int
) -> list[SubsetMerge]:
    """One subset with several factors, the label's own among them; none for `average`."""
    _, settings = method_of(label, pool.methods[label])
    if "lambda" not in settings:
        return []
    own = subset_merge(pool, size, label, names, seed=seed)
    others = [
        subset_merge(pool, size, label, names, seed=seed, lambda_=factor)
        for factor in SCAN
        if factor != settings["lambda"]
    ]
    return [own, *others]


def check_experts(pool: Pool) -> None:
    """Refuse a pool in which there is nothing to choose.

    Raises:
        InputError: A size has one expert, or two sizes have the same N.
    """
    counts: dict[float, int] = {}
    for number, size in enumerate(pool.sizes):
        if len(size.experts) < 2:
            raise InputError(
                f"`sizes[{number}].experts`: found one expert; subsets need two or more",
                "add the other experts to the pool",
            )
        first = counts.setdefault(size.count_params(), number)
        if first != number:
            raise InputError(
                f"`sizes[{first}]` and `sizes[{number}]` both have {size.count_params():.0f}"
                " parameters: measurements could not be told apart",
                "put them into two pools",
            )


def load_sample(path: Path, pool: Pool) -> list[SubsetMerge]:
    """The merges of an earlier sample of the same pool; none where there is no such file.

    Raises:
        InputError: The file is at fault, or was written for another pool.
    """
    if not path.exists():
        return []
    rows = read_subsets(path, may_be_empty=True)
    if others := other_columns(path):
        raise InputError(
            f"`{path}`: column `{others[0]}` is none of ours, and would be lost",
            "sample into another folder, or keep the column in a file of its own",
        )
    identity = pool_paths_hash(pool)
    for row in rows:
        same = row.merge.size < len(pool.sizes) and row.pool_paths_hash == identity
        if not same or row.merge.n_params != pool.sizes[row.merge.size].count_params():
            raise InputError(
                f"`{path}` was written for another pool: bases, experts or their folders differ",
                "sample into another folder",
            )
    return [row.merge for row in rows]


def sample(
    pool: Pool | str | Path, out: str | Path, options: SampleOptions | None = None
) -> SubsetMerges:
    """Choose subsets of a pool's experts to measure; write a mergekit YAML for each.

    A folder that holds a sample of this pool grows: what is there stays, and the design is made
    around it.

    Args:
        pool: Its file, or as `load_pool` gives it.
        out: Folder for `subsets.csv` and `configs/`.

    Returns:
        The merges, those that were there before among them, in canonical order.

    Raises:
        MissingInputError: There is no such pool.
        InputError: The pool is at fault, or the folder holds the sample of another one.
        SurroundingsError: The folder cannot be written to.

    Example:
        >>> import mergeplan
        >>> merges = mergeplan.sample("pool/pool.yml", "sampled")
        >>> len(merges), merges[1].method, merges[1].subset
        (146, 'average', ('cheader',))
    """
    table = expanded(out) / "subsets.csv"
    merges, _ = grow_sample(table, pool_of(pool), options or SampleOptions())
    return SubsetMerges(merges)


def grow_sample(
    table: Path, pool: Pool, options: SampleOptions, *, dry_run: bool = False
) -> tuple[list[SubsetMerge], int]:
    """Choose merges around those that a list has, and write the list and their YAMLs.

    Returns:
        All of them, and how many were there before.

    Raises:
        InputError, SurroundingsError: As for `sample`.
    """
    while True:
        with nullcontext(False) if dry_run else holding(table) as exists:
            have = load_sample(table, pool)
            merges = sample_merges(pool, options, have)
            try:
                if not dry_run:
                    write_subsets(table, merges, pool, replace=exists)
            except ExistsError:
                continue  # another has just begun the sample
            return merges, len(have)


def count_merges(pool: Pool, merges: Iterable[SubsetMerge]) -> list[dict[str, Any]]:
    """How many merges there are of each size, method, options and k, of how many possible."""
    counts = Counter((merge.size, merge.method, merge.options, merge.k) for merge in merges)
    return [
        {
            "n_params": pool.sizes[size].count_params(),
            "method": label,
            "options": json.loads(options),
            "k": k,
            "merges": count,
            "possible": comb(len(pool.sizes[size].experts), k),
        }
        for (size, label, options, k), count in counts.items()
    ]


def _ks(given: tuple[int, ...], pool_size: int) -> list[int]:
    if not given:
        return sorted({k for k in THREE_POINTS if k <= pool_size} | {pool_size})
    check_ks(given, pool_size)
    # One merge, which pins the far end of the curve.
    return sorted({*given, pool_size})


def check_ks(given: Iterable[int], pool_size: int) -> None:
    """Refuse sizes of subsets that a pool does not have.

    Raises:
        InputError: A k is below 1, or above the number of experts.
    """
    for k in given:
        if not 1 <= k <= pool_size:
            raise InputError(f"k = {k}: the pool has {pool_size} experts")


def _refuse_too_many(sweep: SampleOptions, pool_size: int, k: int) -> None:
    many = comb(pool_size, k) if sweep.design == "all" else min(sweep.count, comb(pool_size, k))
    if many > _MOST:
        raise InputError(
            f"k = {k}: {many} subsets of {pool_size} experts, expected {_MOST} at most",
            "take another `--design`, or a smaller `--count`",
        )


def _measured(merges: Iterable[SubsetMerge], like: SubsetMerge, k: int) -> list[Subset]:
    """Subsets of k that are there by the same method, options and seed at the same size."""
    return [
        merge.subset
        for merge in merges
        if merge.k == k
        and (merge.n_params, merge.method, merge.options, merge.seed)
        == (like.n_params, like.method, like.options, like.seed)
    ]
