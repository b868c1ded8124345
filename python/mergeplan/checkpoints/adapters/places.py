"""Where an adapter's changes belong in its base, whatever the modules around them are called."""

from pathlib import Path

from mergeplan.checkpoints.adapters.keys import Change
from mergeplan.checkpoints.adapters.tied import Tie
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.head_names import heads_in, is_head
from mergeplan.checkpoints.spelling import by_spelling, same_tensor, spelling
from mergeplan.errors import InputError


def place(
    changes: list[Change], tie: Tie | None, base: Checkpoint, adapter: Checkpoint
) -> dict[str, Change]:
    """Each change by the name of the base's tensor.

    transformers renames modules from version to version, trunks are saved with and without their
    prefix, and adapters are trained on either: names are compared by their spelling.

    Args:
        tie: Whose head the base need not store.

    Raises:
        InputError: The base lacks a tensor, or two changes are of one.
    """
    spelled = by_spelling(base.tensors)
    placed: dict[str, Change] = {}
    lacking = []
    for change in changes:
        target = _find(change.name, spelled, tie, base)
        if target is None:
            lacking.append(change)
            continue
        if target in placed:
            raise InputError(
                f"`{adapter.path}`: `{placed[target].name}` and `{change.name}` stand for one"
                f" tensor of the base, `{target}`",
                "save the adapter again by peft's `save_pretrained`",
            )
        placed[target] = change
    if lacking:
        raise _not_there(lacking, len(changes), base, adapter)
    return placed


def _find(name: str, spelled: dict[str, str], tie: Tie | None, base: Checkpoint) -> str | None:
    if name in base.tensors:
        return name
    found = spelled.get(spelling(name))
    if found is not None and same_tensor(name, found):
        return found
    if is_head(name):
        heads = heads_in(base.of_words) or ([tie.head] if tie else [])
        if len(heads) == 1:
            return heads[0]
    # Models with code of their own have prefixes that are not known.
    longer = [key for key in base.tensors if key.endswith(f".{name}") or name.endswith(f".{key}")]
    return longer[0] if len(longer) == 1 else None


def _not_there(
    lacking: list[Change], n_changes: int, base: Checkpoint, adapter: Checkpoint
) -> InputError:
    from difflib import get_close_matches

    name = lacking[0].name
    last = ".".join(name.split(".")[-2:])
    alike = [key for key in base.tensors if key.endswith(last)] or list(base.tensors)
    near = get_close_matches(name, alike, n=1, cutoff=0.0)
    beside = f"; the nearest there is `{near[0]}`" if near else ""
    return InputError(
        f"`{adapter.path}`: the adapter changes `{name}`, which `{base.name}` does not have, and"
        f" {len(lacking)} of its {n_changes} tensors are not there{beside}",
        other_base(base, adapter),
    )


def other_base(base: Checkpoint, adapter: Checkpoint) -> str:
    """What to do where an adapter does not fit."""
    trained = adapter.config.get("base_model_name_or_path")
    if not trained or Path(str(trained)).name in (base.path.name, Path(base.name).name):
        return (
            f"`{base.name}` is of another size or version than the model that it was trained on:"
            " give that one as `base+adapter`"
        )
    return f"it was trained on `{trained}`: give that as the base, as `base+adapter`"
