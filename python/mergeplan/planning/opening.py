"""Open the models of a config: every one that cannot be opened is told, not just the first."""

from collections.abc import Iterable
from dataclasses import replace

from mergeplan.checkpoints.checkpoint import Checkpoint, refuse_duplicates
from mergeplan.checkpoints.names import hub_ids
from mergeplan.checkpoints.opening import OpenOptions, open_checkpoint
from mergeplan.config.config import AnyConfig, MergeConfig, examined
from mergeplan.errors import InputError, MergeplanError, raise_all
from mergeplan.system.excerpts import mark_lines


def try_to_open(
    names: Iterable[str], opening: OpenOptions | None = None, *, shard_too: bool = False
) -> tuple[list[Checkpoint], list[MergeplanError]]:
    """Open what can be opened, in the order of the names.

    Returns:
        Those, and why each other one cannot, about its name.
    """
    opened, errors = [], []
    for name in names:
        try:
            opened.append(open_checkpoint(name, opening, shard_too=shard_too))
        except MergeplanError as error:
            error.about = name
            errors.append(error)
    return opened, errors


def open_models(names: Iterable[str], opening: OpenOptions) -> list[Checkpoint]:
    """Open all models of a merge; nothing is downloaded where one that is here cannot be opened.

    Raises:
        MissingInputError, InputError: As for `open_checkpoint`, of all that cannot be opened, or
            two of them are one.
        SurroundingsError: One cannot be read.
    """
    names = list(names)
    here = replace(opening, download=False)
    if any(map(hub_ids, names)) and try_to_open((n for n in names if not hub_ids(n)), here)[1]:
        opening = here
    opened, errors = try_to_open(names, opening)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise_all([_as_input(error) for error in errors])
    refuse_duplicates(opened)
    return opened


def _as_input(error: MergeplanError) -> InputError:
    if isinstance(error, InputError):
        return error
    found = InputError(error.message, error.hint)
    found.about = error.about
    return found


def faultless(config: AnyConfig, opening: OpenOptions) -> MergeConfig:
    """A config without faults.

    Raises:
        MissingInputError, InputError: All of them, and those of its models; none is downloaded.
    """
    found, faults = examined(config)
    if found is None or faults:
        names = [one.path for one in found.models] if found else []
        _, errors = try_to_open(names, replace(opening, download=False))
        closed = list(map(_as_input, errors))
        if found is not None and found.file is not None:
            mark_lines(closed, found.text)
        raise_all([*faults, *closed])
    return found
