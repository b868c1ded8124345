"""Whether a pool's models and texts are there: all that are not are told, not just the first."""

from mergeplan.checkpoints.opening import open_checkpoint, open_expert
from mergeplan.errors import InputError, MergeplanError, MissingInputError, raise_all
from mergeplan.pool.pool import Pool
from mergeplan.system.excerpts import with_excerpts


def refuse_closed(pool: Pool, *, texts: bool = True) -> None:
    """Raise where models or texts of a pool cannot be opened.

    Args:
        texts: Whether those are needed.

    Raises:
        InputError: All that cannot, each with its line of the pool's file.
    """
    faults = [*_closed_models(pool), *(_absent_texts(pool) if texts else ())]
    if faults:
        raise_all(with_excerpts(faults, pool.text))


def _closed_models(pool: Pool) -> list[InputError]:
    faults = []
    for number, size in enumerate(pool.sizes):
        where = f"sizes[{number}]"
        try:
            open_checkpoint(str(size.base))
        except MergeplanError as error:
            faults.append(_at(f"{where}.base", error))
            continue
        for name, folder in size.experts.items():
            try:
                open_expert(folder, size.base)
            except MergeplanError as error:
                faults.append(_at(f"{where}.experts.{name}", error))
    return faults


def _at(key: str, error: MergeplanError) -> InputError:
    kind = MissingInputError if isinstance(error, MissingInputError) else InputError
    return kind(f"`{key}`: {error.message}", error.hint)


def _absent_texts(pool: Pool) -> list[InputError]:
    return [
        MissingInputError(f"`data.{domain}`: there is no file `{path}`")
        for domain, path in pool.data.items()
        if not path.exists()
    ]
