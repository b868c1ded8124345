"""Whether a pool's models and texts are there, and fit: all faults are told, not just the first."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mergeplan.checkpoints.adapters.folder import is_adapter
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.opening import open_checkpoint, open_expert
from mergeplan.errors import InputError, MergeplanError, MissingInputError, raise_all
from mergeplan.planning.faults import told
from mergeplan.planning.jobs import dtype_faults
from mergeplan.planning.pairing import PairingOptions, pair_tensors, respelled
from mergeplan.pool.file import SizeFound
from mergeplan.pool.pool import Pool
from mergeplan.system.excerpts import with_excerpts


def refuse_closed(pool: Pool, *, merged: bool = True) -> None:
    """Raise where models or texts of a pool cannot be opened.

    Args:
        merged: Whether the models are merged and measured: only then must they fit each other, and
            texts be there.

    Raises:
        InputError: All that cannot, each with its line of the pool's file.
    """
    sizes = {n: SizeFound(size.base, size.experts) for n, size in enumerate(pool.sizes)}
    faults = model_faults(sizes, fitting=merged)
    if merged:
        faults += absent_texts(pool.data)
    if faults:
        raise_all(with_excerpts(faults, pool.text))


def model_faults(sizes: Mapping[int, SizeFound], *, fitting: bool = True) -> list[InputError]:
    """Models that cannot be opened, and those of the others that do not fit their base.

    Args:
        sizes: By their places in the file.
        fitting: Whether shapes and dtypes are compared too.
    """
    return [fault for n, size in sizes.items() for fault in _of_size(f"sizes[{n}]", size, fitting)]


def _of_size(where: str, size: SizeFound, fitting: bool) -> list[InputError]:
    faults: list[InputError] = []
    opened: dict[str, Checkpoint] = {}
    if size.base is not None:
        try:
            opened["base"] = open_checkpoint(str(size.base))
        except MergeplanError as error:
            faults += _at(f"{where}.base", [error])
    for name, folder in size.experts.items():
        key = f"experts.{name}"
        try:
            # What an adapter would be added to is a fault of its own.
            if "base" in opened or not is_adapter(folder):
                opened[key] = open_expert(folder, size.base or folder)
        except MergeplanError as error:
            faults += _at(f"{where}.{key}", [error])
    base = opened.pop("base", None)
    if fitting and base is not None:
        for key, expert in opened.items():
            faults += _at(f"{where}.{key}", _unfit(base, expert))
    return faults


def _unfit(base: Checkpoint, expert: Checkpoint) -> list[InputError]:
    """What tells an expert from its base."""
    views = [base, respelled(expert, base)]
    pairing = pair_tensors(views, base, PairingOptions(base=base.name))
    dtypes = (fault for match in pairing.matches for fault in dtype_faults(match, views))
    return told([*pairing.faults, *dtypes])


def _at(key: str, errors: Sequence[MergeplanError]) -> list[InputError]:
    """Errors by their key of the file."""
    return [
        (MissingInputError if isinstance(one, MissingInputError) else InputError)(
            f"`{key}`: {one.message}", one.hint
        )
        for error in errors
        for one in (error.faults if isinstance(error, InputError) else [error])
    ]


def absent_texts(data: Mapping[str, Path]) -> list[InputError]:
    """Texts that are not there, or in a folder that is closed."""
    faults: list[InputError] = []
    for domain, path in data.items():
        try:
            if not path.exists():
                faults.append(MissingInputError(f"`data.{domain}`: there is no file `{path}`"))
        except OSError as error:
            why = f"`data.{domain}`: cannot read `{path}`: {error.strerror}"
            faults.append(InputError(why))
    return faults
