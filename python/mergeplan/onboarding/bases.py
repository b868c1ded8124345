"""Which of some models is the base: what adapters, settings and folders say, and nothing else."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.heads import embedding
from mergeplan.checkpoints.hub import find_model, is_hub_id
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.checkpoints.spelling import spelling
from mergeplan.display.text import counted
from mergeplan.errors import InputError, MergeplanError
from mergeplan.onboarding.looking import Adapter, Model, folder_name, name_in, paths, reason
from mergeplan.system.reading import open_plain

HINT = "say which is the base: `--base FOLDER`"
_WORDS = re.compile(r"[\W_]+")
_CARD_BYTES = 16_384
# Of a list with several the model is a merge of them, and none is its base.
_CARD_BASE = re.compile(
    r"---\n(?:(?!---).*\n)*?base_model:[ ]*(?:\n[ ]*-[ ]+)?([^\s\[\]]+)[ ]*\n(?![ ]*-[ ])"
)

# Of a model: names and shapes of its tensors, without the rows of the vocabulary.
_Build = frozenset[tuple[str, tuple[int, ...]]]


def groups_of(models: Iterable[Model]) -> list[list[Model]]:
    """Models of the same tensors, whatever the rows of their vocabularies."""
    groups: dict[_Build, list[Model]] = {}
    for model in models:
        groups.setdefault(_build(model.checkpoint), []).append(model)
    return list(groups.values())


def _build(checkpoint: Checkpoint) -> _Build:
    rows = found.shape[0] if (found := embedding(checkpoint)) and found.shape else None
    tensors = checkpoint.tensors.items()
    return frozenset((spelling(name), t.shape) for name, t in tensors if rows not in t.shape)


def named_base(adapter: Adapter, models: Mapping[str, Model]) -> tuple[Model | None, str]:
    """The model that an adapter names: one that was found, or on the disk, or in the hub's cache.

    A relative path counts from the adapter's folder, or the one around.

    Args:
        models: By key.

    Returns:
        The model, or `None` and why there is none.
    """
    if not adapter.named:
        return None, "names no base"
    names = f"names the base `{adapter.named}`, which"
    around = (adapter.place / adapter.named, adapter.place.parent / adapter.named)
    # `Path.is_dir` raises of a name that is too long.
    place = next((path for path in around if os.path.isdir(path)), None)  # noqa: PTH112
    if place is not None and os.path.realpath(place) == os.path.realpath(adapter.place):
        return None, f"{names} is itself"
    if place is None:
        called = [model for model in models.values() if _is_called(model, adapter.named)]
        if called:
            return (called[0], "") if len(called) == 1 else (None, f"{names} several folders are")
        try:
            if not is_hub_id(adapter.named):
                return None, f"{names} is not here"
            place = find_model(adapter.named, cache=None, download=False)
        except MergeplanError:
            return None, f"{names} is not here"
    try:
        found = models.get(os.path.realpath(place)) or open_model(place)
    except (MergeplanError, OSError) as error:
        return None, f"{names} cannot be merged: {reason(error)}"
    return found, ""


def open_model(place: Path) -> Model:
    """A model that was not looked for.

    Raises:
        InputError: It cannot be opened.
    """
    return Model(place, open_checkpoint(str(place)), folder_name(place))


def _is_called(model: Model, name: str) -> bool:
    """Whether a model has a hub id's last part, or a path's, for a name."""
    return model.name == name.partition("@")[0].rstrip("/").rpartition("/")[2]


def base_in(
    group: Sequence[Model], adapters: Mapping[str, Sequence[Path]]
) -> tuple[Model, str] | None:
    """The base among models of the same tensors, and what tells so; `None` where nothing does.

    Args:
        adapters: That name a model as their base, by its key.

    Raises:
        InputError: Two of them could be.
    """
    named = [model for model in group if model.key in adapters]
    if named:
        count = len(adapters[named[0].key])
        verb = "names" if count == 1 else "name"
        return _only(named, f"{counted(count, 'adapters')} {verb} it as the base")
    told = [model for model in group if any(_tells(other, model) for other in group)]
    called = [model for model in group if "base" in _WORDS.split(model.name.lower())]
    if len(group) == 1 or not (told or called):
        return None
    why = "config.json or the card of another model names it" if told else "its folder is called so"
    return _only([model for model in group if model in told or model in called], why)


def _tells(other: Model, model: Model) -> bool:
    """Whether a model's config.json or card says that it was made from another."""
    named = [name_in(other.checkpoint.config, "_name_or_path"), *_bases_of_card(other.place)]
    return other is not model and any(
        os.path.realpath(other.place / name) == model.key or _is_called(model, name)
        for name in named
        if name
    )


def _bases_of_card(place: Path) -> list[str]:
    """What the head of a model's card names as `base_model`: one, or a list of one."""
    try:
        with open_plain(place / "README.md") as file:
            text = file.read(_CARD_BYTES).decode("utf-8", "replace")
    except (OSError, InputError):
        return []
    found = _CARD_BASE.match(text.replace("\r\n", "\n"))
    return [found[1].strip("'\"")] if found else []


def _only(candidates: Sequence[Model], why: str) -> tuple[Model, str]:
    if len(candidates) > 1:
        raise InputError(
            f"{counted(len(candidates), 'models')} could be the base:"
            f" {paths(model.place for model in candidates)}",
            HINT,
        )
    return candidates[0], why


def given_in(group: Sequence[Model], given: Mapping[str, Model]) -> tuple[Model, str] | None:
    """The base that the user named among models of the same tensors.

    Args:
        given: By key.

    Raises:
        InputError: Two of them are.
    """
    found = [model for model in group if model.key in given]
    if len(found) > 1:
        raise InputError(
            f"two bases of one size were given: {paths(model.place for model in found)}",
            "a pool has one base of each size",
        )
    return (found[0], "`--base` names it") if found else None
