"""Which texts a pool is measured on: files of documents, each a domain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mergeplan.display.text import counted
from mergeplan.errors import MergeplanError
from mergeplan.evaluation.documents import first_documents
from mergeplan.evaluation.halves import LEAST, count_halves
from mergeplan.evaluation.sources import find_data
from mergeplan.measurements.rows import MACRO, domain_name
from mergeplan.onboarding.looking import Found, plain_name, reason

# So much of a file is looked at.
_LOOKED_AT = 1 << 20


@dataclass(frozen=True)
class DomainText:
    """A file of documents, as far as its beginning tells.

    Attributes:
        whole: Whether that is all of it.
        halves: Documents, or groups of them, in the half to select by and the one to check with.
    """

    path: Path
    kind: str
    n_documents: int
    whole: bool
    halves: tuple[int, int]

    def words(self) -> str:
        """How many of which kind."""
        more = "" if self.whole else " and more"
        return f"{counted(self.n_documents, 'documents')}{more} of `{self.kind}`"


def short_halves(domains: Mapping[str, DomainText]) -> str:
    """What is missing to select by one half of the documents and check with the other, or nothing.

    A file of which the beginning alone is known is taken to have enough.
    """
    short = {n: t.halves for n, t in domains.items() if t.whole and min(t.halves) < LEAST}
    if not short:
        return ""
    each = ", ".join(f"`{name}` has {one} and {other}" for name, (one, other) in short.items())
    return (
        f"documents to check a choice on: a domain's fall into two halves by their hash, each of"
        f" which needs {LEAST} documents or groups of them, and {each}: add some more"
    )


def find_domains(found: Found, data: Sequence[str] = ()) -> dict[str, DomainText]:
    """Each domain's text; files that hold no documents go to `found.left_out`.

    Args:
        data: As `evaluate` takes it; then no other texts are taken.

    Raises:
        MissingInputError, InputError: What the user named is at fault.
    """
    if data:
        return {name: _look(path) for name, path in find_data(tuple(data)).items()}
    domains: dict[str, DomainText] = {}
    for path in found.texts:
        try:
            text = _look(path)
        except (MergeplanError, OSError) as error:
            found.left_out[path] = reason(error)
            continue
        stem = plain_name(path.stem)
        if stem in domains or domain_name(stem) == MACRO:
            stem = plain_name(f"{path.parent.name}-{stem}")
        if stem in domains:
            found.left_out[path] = f"another text is called `{stem}`: `{domains[stem].path}`"
        else:
            domains[stem] = text
    return domains


def _look(path: Path) -> DomainText:
    kind, documents, whole = first_documents(path, _LOOKED_AT)
    return DomainText(path, kind, len(documents), whole, count_halves(documents))
