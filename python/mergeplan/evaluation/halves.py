"""The two halves of a domain's documents: one to select by, the other to check with."""

from collections.abc import Mapping
from pathlib import Path

from mergeplan.evaluation.documents import Document, read_documents

# Groups of a half from which its mean, and what is said of other texts, are worth having.
LEAST = 12


def short_domains(data: Mapping[str, Path], least: int = LEAST) -> dict[str, tuple[int, int]]:
    """The domains whose halves are too small to select by one and to check with the other.

    Files are read, and nothing is tokenised; `max_tokens` may leave fewer documents than counted.

    Args:
        data: JSON-lines file of each domain, as `Pool.data`.
        least: Groups that each half should have; a document without a group counts as one.

    Returns:
        Groups in the selection and in the check half of each such domain; empty where every domain
        has enough.

    Raises:
        MissingInputError: A file is not there.
        InputError: A file is at fault.
    """
    counts = {name: count_halves(read_documents(path).documents) for name, path in data.items()}
    return {name: both for name, both in counts.items() if min(both) < least}


def count_halves(documents: tuple[Document, ...]) -> tuple[int, int]:
    """Groups in the selection and in the check half."""
    found: dict[str, set[int | str]] = {"selection": set(), "check": set()}
    for document in documents:
        group = document.line if document.group is None else document.group
        found[document.half].add(group)
    return len(found["selection"]), len(found["check"])
