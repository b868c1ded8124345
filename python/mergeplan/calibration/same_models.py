"""Whether a pool's models are those that a run has measured."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mergeplan.calibration.identity import (
    ModelFile,
    Models,
    RunIdentity,
    contents,
    models_of,
    read_where_changed,
)
from mergeplan.calibration.run_folder import recorded_in
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import RUN
from mergeplan.pool.pool import Pool, size_in

# Files of a model that look changed are read up to so many bytes; of more, length and header do.
_MOST_BYTES = 2_000_000_000


def refuse_other_models(
    table: Path, pool: Pool, n_params: float | None, subset: Sequence[str]
) -> None:
    """Raise where a pool's base or experts differ from those that were measured.

    Only the run beside a table knows what was measured; nothing is said beside a bare one.

    Args:
        table: The measurements.
        n_params: Of the base that counts.
        subset: The experts that do.

    Raises:
        InputError: One differs from the run's, or the pool has no such base.
    """
    size = size_in(n_params, pool)
    if not (table.parent / RUN).is_file() or (run := recorded_in(table.parent)) is None:
        return
    experts = {name: size.experts[name] for name in subset if name in size.experts}
    models = models_of(replace(pool, sizes=(replace(size, experts=experts),)))
    now = replace(run, models=models)
    folders = {"base": size.base} | {f"expert `{name}`": path for name, path in experts.items()}
    # Of each size of the run, the first model that is another; the base is the first of all.
    found = [
        next((name for name in folders if not _same(name, before, now)), "")
        for before in _sizes_of(run)
    ]
    if "" in found:
        return
    name = next((name for name in found if name != "base"), "base")
    raise InputError(
        f"the {name} of the pool, `{folders[name]}`, is not the one that the run in"
        f" `{table.parent}` has measured",
        "name the pool that was measured",
    )


def _sizes_of(run: RunIdentity) -> list[RunIdentity]:
    """The run's models size by size, with names as a pool of one size gives them."""
    found: dict[str, Models] = {}
    for name, files in run.models.items():
        bare, _, size = name.rpartition(" of size ") if " of size " in name else (name, "", "")
        found.setdefault(size, {})[bare] = files
    return [replace(run, models=models) for models in found.values()]


def _same(name: str, before: RunIdentity, now: RunIdentity) -> bool:
    recorded, files = before.models.get(name, ()), now.models[name]
    if [_look(file) for file in recorded] != [_look(file) for file in files]:
        return False
    pairs = zip(recorded, files, strict=True)
    if sum(new.stat[0] for old, new in pairs if old.stat != new.stat) > _MOST_BYTES:
        return True
    old = replace(before, models={name: recorded})
    found = read_where_changed(old, replace(now, models={name: files}))
    return contents(found) == contents(old)


def _look(file: ModelFile) -> tuple[str, str, int]:
    return file.name, file.header, file.stat[0]
