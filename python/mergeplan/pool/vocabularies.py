"""Whether the experts of a pool mean the same tokens by the rows that are merged as their base."""

from mergeplan.errors import InputError
from mergeplan.planning.vocabularies import compare_folders
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
        InputError: One token has two ids; the message names some.
    """
    warnings = []
    for size in pool.sizes:
        models = {"base": size.base, **size.experts}
        # Beside a single file lies its tokenizer.
        folders = {n: path.parent if path.is_file() else path for n, path in models.items()}
        found = compare_folders(folders)
        if found.faults and not allow:
            raise InputError(found.faults[0][1].message, _HINT)
        warnings += found.allowed()
    return warnings
