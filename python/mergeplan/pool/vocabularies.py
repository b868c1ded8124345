"""Whether the experts of a pool mean the same tokens by the rows that are merged as their base."""

from collections.abc import Mapping

from mergeplan.errors import InputError, raise_all
from mergeplan.planning.vocabularies import Mismatch, compare_folders
from mergeplan.pool.file import SizeFound
from mergeplan.pool.pool import Pool

_HINT = (
    "merge that expert by a config with `tokenizer_source`, and take it out of the pool;"
    " `--allow-vocabulary-mismatch` merges the rows as they stand"
)


def check_vocabularies(pool: Pool, *, allow: bool) -> list[str]:
    """Compare the tokens of each size's experts with those of its base.

    Args:
        allow: Whether one token may have two ids, which is then a warning.

    Returns:
        Warnings.

    Raises:
        InputError: One token has two ids; the messages name some.
    """
    sizes = {n: SizeFound(size.base, size.experts) for n, size in enumerate(pool.sizes)}
    found = _compared_all(sizes)
    if not allow and (faults := _faults(found)):
        raise_all(faults)
    return [warning for mismatch in found.values() for warning in mismatch.allowed()]


def vocabulary_faults(sizes: Mapping[int, SizeFound]) -> list[InputError]:
    """Experts of which a token has another id than in their base.

    Args:
        sizes: By their places in the file; their models can be opened.
    """
    return _faults(_compared_all(sizes))


def _faults(found: Mapping[int, Mismatch]) -> list[InputError]:
    return [
        InputError(f"`sizes[{number}].experts.{name}`: {error.message}", _HINT)
        for number, mismatch in found.items()
        for name, error in mismatch.faults
    ]


def _compared_all(sizes: Mapping[int, SizeFound]) -> dict[int, Mismatch]:
    return {number: _compared(size) for number, size in sizes.items()}


def _compared(size: SizeFound) -> Mismatch:
    models = {"base": size.base, **size.experts} if size.base else size.experts
    # Beside a single file lies its tokenizer.
    folders = {n: path.parent if path.is_file() else path for n, path in models.items()}
    return compare_folders(folders)
