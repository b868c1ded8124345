"""Which sizes of a pool lean on smaller ones, and in which order they are measured."""

from mergeplan.display.text import format_count
from mergeplan.errors import InputError
from mergeplan.law.one_pool import names_apart
from mergeplan.pool.pool import Pool


def in_order(pool: Pool, *, leaning: bool) -> list[int]:
    """The sizes as they are measured: a base that may lean on a smaller one comes after it.

    Args:
        leaning: Whether larger sizes may lean on smaller ones.

    Returns:
        Indices into `Pool.sizes`.
    """
    sizes = range(len(pool.sizes))
    if not leaning:
        return list(sizes)
    return sorted(sizes, key=lambda size: pool.sizes[size].count_params())


def smaller_sizes(pool: Pool, size: int) -> list[int]:
    """Smaller bases that have the same experts.

    Args:
        size: Index into `Pool.sizes`.

    Returns:
        Their indices.
    """
    own = pool.sizes[size]
    return [
        number
        for number, one in enumerate(pool.sizes)
        if one.count_params() < own.count_params() and set(one.experts) == set(own.experts)
    ]


def not_alike(pool: Pool, size: int) -> str:
    """Why a size leans on no smaller one: how their experts differ; empty where it does, or is the
    smallest.

    Args:
        size: Index into `Pool.sizes`.

    Returns:
        For people: which experts stand at one of the two sizes only.
    """
    own = pool.sizes[size]
    below = [one for one in pool.sizes if one.count_params() < own.count_params()]
    if not below or smaller_sizes(pool, size):
        return ""
    nearest = max(below, key=lambda one: one.count_params())
    counts = format_count(nearest.count_params()), format_count(own.count_params())
    return names_apart(set(nearest.experts), set(own.experts), *counts)


def refuse_unlike_sizes(pool: Pool) -> None:
    """Raise where no size of a pool has a smaller one to lean on.

    Args:
        pool: With all of its sizes; no model is opened but to count a base's parameters.

    Raises:
        InputError: There is one, or their experts differ.
    """
    if any(smaller_sizes(pool, size) for size in range(len(pool.sizes))):
        return
    first, *others = pool.sizes
    for number, other in enumerate(others, 1):
        for name in sorted(set(first.experts) ^ set(other.experts)):
            here, there = (0, number) if name in first.experts else (number, 0)
            raise InputError(
                f"the sizes are not of one pool: `sizes[{here}].experts` has `{name}`, and"
                f" `sizes[{there}].experts` has not",
                "name the experts of all sizes alike",
            )
    raise InputError(
        "a smaller size was asked for, and the pool has one size only",
        "add a smaller base with the same experts under `sizes`, or ask for `--transfer auto`",
    )
