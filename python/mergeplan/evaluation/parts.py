"""In what order documents are scored where not every merge is scored on all of them.

Groups of each domain stand in the order of their documents' seeded hashes, the same for all merges,
and are cut into parts: whatever part a merge has got to, it was scored on a random sample of each
domain's groups, drawn without replacement, and two merges have those in common that the one with
fewer parts has.
"""

from collections.abc import Hashable, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

# Of a domain's groups, up to the end of each part.
SHARES = (0.125, 0.25, 0.5, 1.0)
N_PARTS = len(SHARES)
# Groups of a domain in the first part at least: of fewer the spread is hardly known, and a kind of
# document that one in five is of is missed by chance too often.
FEWEST = 8


def parts_of(groups: Sequence[Hashable], hashes: Sequence[str]) -> NDArray[np.int64]:
    """The part of each document.

    Args:
        groups: What each belongs to.
        hashes: By which documents are ordered; a group stands where its first document does.

    >>> parts_of("aabcdefghij", "0A123456789").tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3]
    """
    first: dict[Hashable, str] = {}
    for group, place in zip(groups, hashes, strict=True):
        first[group] = min(first.get(group, place), place)
    rank = {group: n for n, group in enumerate(sorted(first, key=lambda group: first[group]))}
    ends = [min(len(rank), max(FEWEST, ceil(share * len(rank)))) for share in SHARES]
    ranks = [rank[group] for group in groups]
    return np.searchsorted(ends, ranks, side="right").astype(np.int64)
