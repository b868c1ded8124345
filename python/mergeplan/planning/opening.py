"""Open the models of a config: every one that cannot be opened is told, not just the first."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from mergeplan.checkpoints.checkpoint import Checkpoint, refuse_duplicates
from mergeplan.checkpoints.hub import find_model, is_hub_id
from mergeplan.checkpoints.names import hub_ids
from mergeplan.checkpoints.opening import OpenOptions, open_checkpoint
from mergeplan.config.config import AnyConfig, MergeConfig, examined
from mergeplan.errors import InputError, MergeplanError, MissingInputError, nearest, raise_all
from mergeplan.system.excerpts import mark_lines, with_excerpts
from mergeplan.system.files import input_path

Read = Callable[[], tuple[MergeConfig | None, list[InputError]]]


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


class SharedModels:
    """Models that several merges name: the headers of each are read once."""

    def __init__(self, opening: OpenOptions) -> None:
        self._opening = opening
        self._there: dict[str, Checkpoint] = {}

    def of(self, names: Sequence[str]) -> list[Checkpoint]:
        """The models of a merge, as `open_models` gives them."""
        if any(name not in self._there for name in names):
            for name, opened in zip(names, open_models(names, self._opening), strict=True):
                self._there.setdefault(name, opened)
        found = [self._there[name] for name in names]
        refuse_duplicates(found)
        return found


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
    return all_faultless([partial(examined, config)], opening)[0]


def all_faultless(reads: Sequence[Read], opening: OpenOptions) -> list[MergeConfig]:
    """Configs without faults.

    Args:
        reads: How each is read: what is left of it without its faults, and those.

    Raises:
        MissingInputError, InputError: All of them, and those of all models, each told of the config
            that names it first; none is downloaded.
    """
    configs, faults = [], []
    opening = replace(opening, download=False)
    for read in reads:
        try:
            config, own = read()
        except InputError as error:
            config, own = None, list(error.faults)
        faults += own
        if config is not None:
            configs.append(config)
            faults += _placed(absent_source(config, opening), config, named=len(reads) > 1)
    seen: set[str] = set()
    for config in configs if faults else ():
        names = [model.path for model in config.models if model.path not in seen]
        seen.update(names)
        closed = list(map(_as_input, try_to_open(names, opening)[1]))
        faults += _placed(closed, config, named=len(reads) > 1)
    if faults:
        raise_all(faults)
    return configs


def _placed(errors: list[InputError], config: MergeConfig, *, named: bool) -> list[InputError]:
    if config.file is None:
        return errors
    if named:
        return with_excerpts(errors, config.text, f"`{config.file}`: ")
    mark_lines(errors, config.text)
    return errors


def absent_source(config: MergeConfig, opening: OpenOptions) -> list[InputError]:
    """Why the tokens that a config asks for are nowhere: its `tokenizer_source` is a slip.

    Hub ids with an owner are left to who downloads them, and so are adapters and revisions.
    """
    source = config.tokenizer_source
    known = ["base", "union", *(model.path for model in config.models)]
    if source is None or source in known or not re.fullmatch(r"[\w./~-]+", source):
        return []
    if input_path(source).exists() or (is_hub_id(source) and "/" in source):
        return []
    try:
        if is_hub_id(source):
            find_model(source, cache=opening.cache, download=False)
            return []
    except MissingInputError:
        pass
    fault = InputError(
        f"there is no folder `{source}`: a tokenizer's source is `base`, `union` or a model",
        nearest(source, known),
    )
    fault.about = source
    return [fault]
