"""Whether the adapters of a pool were trained on the base that they are added to: the pool's."""

from pathlib import Path

from mergeplan.checkpoints.adapters.folder import adapter_config, is_adapter
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.content import SAMPLE_BYTES, same_content
from mergeplan.checkpoints.hub import find_model, is_hub_id
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.checkpoints.spelling import by_spelling
from mergeplan.errors import InputError
from mergeplan.pool.pool import Pool, PoolSize

# Of a base's tensors, evenly.
_SAMPLED = 16
_HINT = (
    "make that model the pool's base; or, if the pool's is meant, name it as"
    " `base_model_name_or_path` in adapter_config.json"
)


def check_bases(pool: Pool) -> list[str]:
    """Compare the bases that adapters name with the pool's, where they are here.

    Returns:
        Warnings: adapters whose own base could not be compared.

    Raises:
        InputError: Shapes differ, or some values of a sample do.
    """
    return [warning for size in pool.sizes for warning in _of_size(size)]


def _of_size(size: PoolSize) -> list[str]:
    by_base: dict[str, list[Path]] = {}
    for folder in size.experts.values():
        if is_adapter(folder):
            named = adapter_config(folder).get("base_model_name_or_path")
            by_base.setdefault(str(named or ""), []).append(folder)
    warnings = []
    for named, adapters in by_base.items():
        found = _find(named, adapters[0])
        if found is not None and found.resolve() == size.base.resolve():
            continue
        why = "is not here" if found is None else _compare(named, found, size, adapters[0])
        if why is not None:
            of = f"`{adapters[0]}`" + (f" and {len(adapters) - 1} more" if adapters[1:] else "")
            trained = f"`{named}`" if named else "a base that they do not name"
            warnings.append(
                f"{of}: trained on {trained}, which {why}: it could not be compared with the pool's"
                f" base `{size.base}`, which they are added to"
            )
    return warnings


def _find(named: str, adapter: Path) -> Path | None:
    """The base that an adapter names; a relative path counts from its folder, or the one around.

    Where one happens to stand says nothing of it.
    """
    if not named:
        return None
    for folder in (adapter, adapter.parent):
        if (folder / named).is_dir():
            return folder / named
    if not is_hub_id(named):
        return None
    try:
        return find_model(named, cache=None, download=False)
    except InputError:
        return None


def _compare(named: str, found: Path, size: PoolSize, adapter: Path) -> str | None:
    """Why two bases could not be compared; `None` where they are alike.

    Raises:
        InputError: They differ.
    """
    try:
        trained = open_checkpoint(str(found))
    except InputError as error:
        return f"cannot be read ({error.message})"
    base = open_checkpoint(str(size.base))
    ours, theirs = by_spelling(base.tensors), by_spelling(trained.tensors)
    both = sorted(ours.keys() & theirs.keys())
    for spelled in both:
        first, second = trained.tensors[theirs[spelled]], base.tensors[ours[spelled]]
        if first.shape != second.shape:
            raise InputError(
                f"`{adapter}`: the adapter was trained on `{named}`, whose tensor"
                f" `{theirs[spelled]}` has shape {list(first.shape)}, found {list(second.shape)} in"
                f" the pool's base `{size.base}`",
                _HINT,
            )
    sample = _sample(both, trained, theirs, base, ours)
    if not sample:
        return "has no tensor in common with it that could be read"
    for spelled in sample:
        pair = (trained, theirs[spelled]), (base, ours[spelled])
        if not same_content(*pair, SAMPLE_BYTES):
            raise InputError(
                f"`{adapter}`: the adapter was trained on `{named}`, whose tensor"
                f" `{theirs[spelled]}` holds other values than in the pool's base `{size.base}`",
                _HINT,
            )
    return None


def _sample(
    both: list[str],
    trained: Checkpoint,
    theirs: dict[str, str],
    base: Checkpoint,
    ours: dict[str, str],
) -> list[str]:
    """Spellings of tensors that are stored in one dtype; the largest say the most."""
    if trained.made or base.made:
        return []
    alike = [s for s in both if trained.tensors[theirs[s]].dtype == base.tensors[ours[s]].dtype]
    alike.sort(key=lambda s: -base.tensors[ours[s]].n_elements)
    return [alike[n * len(alike) // _SAMPLED] for n in range(_SAMPLED)] if alike else []
