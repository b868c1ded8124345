"""Documents that are nearly the same and stand in different halves.

MinHash (Broder, 1997): what two documents share of their shingles of 16 bytes, letters and digits
alone in lower case, is estimated from the 64 smallest hashes of both. Candidates are documents that
have one of these in common. The cost is bounded: of each document the first characters count, at
most 20,000, and 50 million of all (some seconds); and of the documents that share a hash, eight
of each half.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mergeplan.evaluation.documents import Document, TextFile

# Shared of the shingles of both, from which two documents are nearly the same.
NEARLY = 0.5
_HASHES = 64
_MOST_CHARACTERS = 20_000
_ALL_CHARACTERS = 50_000_000
_OF_EACH_HALF = 8
_DROPPED = bytes(byte for byte in range(128) if not chr(byte).isalnum())
# Odd, of random bits (splitmix64's): each doubles the length of the shingles, from 1 to 16 bytes.
_FACTORS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class NearDuplicate:
    """A document of the selection half, and one of the check half."""

    selection: tuple[TextFile, Document]
    check: tuple[TextFile, Document]


def near_duplicates(files: Mapping[str, TextFile]) -> list[NearDuplicate]:
    """Pairs across the halves, in the order of the files; each document of the selection half once.

    Args:
        files: Of each domain; pairs are looked for across domains too.
    """
    documents = [(file, document) for file in files.values() for document in file.documents]
    most = min(_MOST_CHARACTERS, _ALL_CHARACTERS // max(1, len(documents)))
    sketches = [_sketch(document, most) for _, document in documents]
    checks = [document.half == "check" for _, document in documents]
    found: dict[int, int] = {}
    for one, other in sorted(_candidates(sketches, checks)):
        if one not in found and _alike(sketches[one], sketches[other]) >= NEARLY:
            found[one] = other
    return [NearDuplicate(documents[one], documents[other]) for one, other in found.items()]


def _sketch(document: Document, most: int) -> NDArray[np.uint64]:
    """The smallest hashes of its shingles, sorted: at most 64."""
    parts = [document.prompt or "", document.text]
    parts += [message["content"] for message in document.messages or ()]
    plain = "".join(parts)[:most].lower().encode().translate(None, _DROPPED)
    hashes = np.frombuffer(plain, np.uint8).astype(np.uint64) + np.uint64(1)  # (bytes,)
    for doubling, factor in enumerate(_FACTORS):
        width = min(1 << doubling, max(0, len(hashes) - 1))
        hashes = hashes[: len(hashes) - width] * np.uint64(factor) + hashes[width:]
        hashes ^= hashes >> np.uint64(31)
    # Random hashes: of the lowest share there are enough, and sorting all would take longer.
    few = hashes[hashes < np.uint64(2**64 // max(1, len(hashes) // (4 * _HASHES)) - 1)]
    smallest = np.unique(few)
    if len(smallest) < _HASHES:
        smallest = np.unique(hashes)
    return smallest[:_HASHES]


def _candidates(sketches: list[NDArray[np.uint64]], checks: list[bool]) -> set[tuple[int, int]]:
    """Documents of the selection and of the check half that have a hash in common."""
    owners = np.repeat(np.arange(len(sketches)), [len(sketch) for sketch in sketches])
    every = np.concatenate([np.empty(0, np.uint64), *sketches])  # (hashes,)
    order = np.argsort(every, kind="stable")
    ends = np.flatnonzero(np.diff(every[order])) + 1
    found: set[tuple[int, int]] = set()
    for run in np.split(owners[order], ends):
        if len(run) < 2:
            continue
        halves: dict[bool, list[int]] = {False: [], True: []}
        for owner in run.tolist():
            halves[checks[owner]].append(owner)
        found.update(product(halves[False][:_OF_EACH_HALF], halves[True][:_OF_EACH_HALF]))
    return found


def _alike(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """The share of both documents' shingles that they have in common, by their smallest hashes."""
    smallest = np.union1d(one, other)[:_HASHES]
    return float(np.isin(smallest, np.intersect1d(one, other)).mean())
