"""Whether base sizes have one pool of experts, as a law over sizes takes them to have."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations

from mergeplan.display.text import format_count, listed
from mergeplan.measurements.rows import Measurement

# Names of the experts met at each size.
NamesAt = Mapping[float | None, set[str]]


def names_at(rows: Iterable[Measurement]) -> NamesAt:
    """The experts of each size: where all of them are known from another size, that one's.

    Few merges of a large base need not meet every expert of its pool, and may have no names.

    Args:
        rows: Of all sizes.

    Returns:
        Names by `n_params`.
    """
    met: dict[float | None, set[str]] = defaultdict(set)
    for row in rows:
        met[row.n_params] |= set(row.subset)
    every = list(met.values())
    return {
        size: max((one for one in every if names <= one), key=len) for size, names in met.items()
    }


def unlike(pool_sizes: Mapping[float, int], names: NamesAt) -> str:
    """Why the sizes of a method are not of one pool; empty where nothing says so.

    Args:
        pool_sizes: How many experts each has, by `n_params`.
        names: Of all sizes, as `names_at` gives them.

    Returns:
        For people: which sizes, and how they differ.
    """
    for small, large in combinations(sorted(pool_sizes), 2):
        here, there = format_count(small), format_count(large)
        if pool_sizes[small] != pool_sizes[large]:
            counts = f"{pool_sizes[small]} experts at {here}, {pool_sizes[large]} at {there}"
            return f"the pools differ: {counts}"
        ours, theirs = names.get(small, set()), names.get(large, set())
        # Names that together are no more than the pool has were met at one size by chance.
        if ours != theirs and len(ours | theirs) > pool_sizes[small]:
            return f"the experts differ: {names_apart(ours, theirs, here, there)}"
    return ""


def names_apart(ours: set[str], theirs: set[str], here: str, there: str) -> str:
    """Which experts stand at one of two sizes only.

    Args:
        ours, theirs: Names at the two sizes.
        here, there: The sizes in words.

    Returns:
        For people; empty where they are the same.

    Example:
        >>> names_apart({"a", "b"}, {"b"}, "1B", "7B")
        '`a` at 1B and not at 7B'
    """
    return ", ".join(
        f"{listed(sorted(names))} at {one} and not at {other}"
        for names, one, other in ((ours - theirs, here, there), (theirs - ours, there, here))
        if names
    )
