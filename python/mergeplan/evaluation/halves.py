"""The two halves of a domain's documents: one to select by, the other to check with."""

from collections.abc import Mapping
from pathlib import Path

from mergeplan.errors import InputError
from mergeplan.evaluation.documents import Document, TextFile
from mergeplan.evaluation.near_duplicates import near_duplicates
from mergeplan.evaluation.options import BY_DOCUMENT, BY_GROUP, Cut
from mergeplan.evaluation.repeated import group_keys

# Groups of a half from which its mean, and what is said of other texts, are worth having.
LEAST = 12
UNGROUPED = (
    "no document has a `group`: halves and standard errors go by document; give the parts of one"
    " file or conversation a common `group`"
)
_NAMED = 3  # pairs of documents that are named one by one


def short_domains(files: Mapping[str, TextFile], least: int = LEAST) -> dict[str, tuple[int, int]]:
    """The domains whose halves are too small to select by one and to check with the other.

    Nothing is tokenised; `max_tokens` may leave fewer documents than counted.

    Args:
        files: Of each domain.
        least: Groups that each half should have; a document without a group counts as one.

    Returns:
        Groups in the selection and in the check half of each such domain; empty where every domain
        has enough.
    """
    counts = {name: count_halves(file.documents) for name, file in files.items()}
    return {name: both for name, both in counts.items() if min(both) < least}


def count_halves(documents: tuple[Document, ...]) -> tuple[int, int]:
    """Groups in the selection and in the check half; repeats of a document are one."""
    found: dict[str, set[int | str]] = {"selection": set(), "check": set()}
    keys = group_keys(
        [document.line for document in documents],
        [document.group for document in documents],
        [document.sha256(0) for document in documents],
    )
    for document, key in zip(documents, keys, strict=True):
        found[document.half].add(key)
    return len(found["selection"]), len(found["check"])


def cut_of(files: Mapping[str, TextFile]) -> Cut:
    """How halves are cut, and what standard errors go by: `BY_GROUP` where any document has one."""
    return BY_GROUP if any(file.grouped for file in files.values()) else BY_DOCUMENT


def check_cut(folder: Path, recorded: Cut, found: Cut) -> None:
    """Refuse to put measurements beside those of a run whose halves were cut otherwise.

    Args:
        folder: The run.
        recorded, found: `BY_DOCUMENT` or `BY_GROUP`.

    Raises:
        InputError: They differ.
    """
    if recorded == found:
        return
    hint = "take `group` out of the data again, or calibrate anew in another folder"
    now = "the data now carries `group`"
    if found == BY_DOCUMENT:
        hint = "give the data its `group` again, or calibrate anew in another folder"
        now = "the data no longer carries `group`"
    raise InputError(
        f"{now}, and the halves of the run in `{folder}` were cut {recorded}: what it was measured"
        " on is not one of the halves of today",
        hint,
    )


def faults_across(files: Mapping[str, TextFile]) -> list[str]:
    """What makes the halves less independent than they look: documents that are nearly the same."""
    pairs = near_duplicates(files)
    if not pairs:
        return []
    named = [" and ".join(map(_place, (pair.selection, pair.check))) for pair in pairs[:_NAMED]]
    more = f"; {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return [
        "documents of the two halves are nearly the same: "
        + "; ".join(named)
        + more
        + ": give both of a pair one `group`, or leave one out"
    ]


def _place(one: tuple[TextFile, Document]) -> str:
    return f"`{one[0].path}`, line {one[1].line}"
