"""Averages of a run's checkpoints, as the `linear` merges that they are.

```text
paths that match → by step → up to `until` → every S-th, counted from the newest → the last N
weights by the schedule → a plain config, which mergekit runs too
```
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import CONFIG_FILE, Checkpoint, read_model_config
from mergeplan.checkpoints.dtypes import FLOATS, most_common_dtype
from mergeplan.checkpoints.opening import OpenOptions, open_checkpoint
from mergeplan.config.schedule import check_schedule, schedule_weights
from mergeplan.config.steps import find_checkpoints
from mergeplan.display.text import counted, shown
from mergeplan.errors import InputError, MergeplanError
from mergeplan.planning.opening import open_models
from mergeplan.system.files import input_path
from mergeplan.system.ranges import check_number

# Of config.json: how the model was saved, not what it computes.
_OF_SAVING = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}


@dataclass(frozen=True)
class AverageOptions:
    """Which checkpoints of a run, and how much each counts.

    Of `schedules`, `last` and `until` each may have several values: every combination of them is
    an average of its own, and all are made in one read.

    Attributes:
        schedules: Of `schedule.SCHEDULES`.
        last: How many checkpoints; none for all.
        until: The step of the newest; none for the newest there is.
        every: Take only every S-th, counted back from the newest.
        decay: Of `ema`.
        out_dtype: Torch name of the output's dtype; `None` for the one that most of the newest
            checkpoint's bytes have.
    """

    schedules: tuple[str, ...] = ("mean",)
    last: tuple[int, ...] = ()
    until: tuple[int, ...] = ()
    every: int = 1
    decay: float | None = None
    out_dtype: str | None = None

    def __post_init__(self) -> None:
        """Raises `InputError` for a value out of its range, or given twice."""
        for one in self.schedules:
            check_schedule(one, self.decay if one == "ema" else None)
        if self.decay is not None and "ema" not in self.schedules:
            raise InputError(
                "`decay` says nothing without the schedule `ema`", "leave it out, or name `ema`"
            )
        for name in ("last", "until", "every"):
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                check_number(value, name, 0 if name == "until" else 1, 2**63 - 1, whole=True)
        for name in ("schedules", "last", "until"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"`{name.removesuffix('s')}`: a value is given twice")
        if self.out_dtype is not None and self.out_dtype not in FLOATS.values():
            known = ", ".join(FLOATS.values())
            raise InputError(f"`out_dtype`: expected one of {known}, found `{self.out_dtype}`")


def average_configs(
    patterns: Sequence[str | Path], options: AverageOptions, opening: OpenOptions | None = None
) -> dict[str, dict[str, Any]]:
    """The config of each average, by a name that says what of it others have otherwise.

    The newest checkpoint of each gives config and tokenizer. Sums are in float32.

    Raises:
        MissingInputError, InputError: Names that tell no step, a window that is not there, folders
            without weights, or checkpoints of several runs.
    """
    steps = find_checkpoints(patterns)
    windows = {
        (until, last): _window(steps, until, last, options.every)
        for until in options.until or (None,)
        for last in options.last or (None,)
    }
    chosen = [steps[step] for step in steps if any(step in one for one in windows.values())]
    newest = _opened(chosen, opening or OpenOptions())
    _refuse_other_runs(chosen)
    amounts = ((tensor.dtype, tensor.n_bytes) for tensor in newest.tensors.values())
    out_dtype = options.out_dtype or most_common_dtype(amounts)
    found = {}
    for schedule, until, last in product(
        options.schedules, options.until or (None,), options.last or (None,)
    ):
        paths = [steps[step] for step in windows[until, last]]
        words = (
            *([schedule] if len(options.schedules) > 1 else []),
            *([f"until-{until}"] if len(options.until) > 1 else []),
            *([f"last-{last}"] if len(options.last) > 1 else []),
        )
        decay = options.decay if schedule == "ema" else None
        weights = schedule_weights(schedule, len(paths), decay)
        found["-".join(words)] = linear_config(paths, weights, out_dtype)
    return found


def linear_config(paths: Sequence[str], weights: Sequence[float], out_dtype: str) -> dict[str, Any]:
    """A weighted average, its donor the last of the models, as a plain config."""
    return {
        "merge_method": "linear",
        "base_model": paths[-1],
        "models": [
            {"model": path, "parameters": {"weight": weight}}
            for path, weight in zip(paths, weights, strict=True)
        ],
        # In float32 the weights sum to 1 but for its rounding, and this takes that out.
        "parameters": {"normalize": True},
        "dtype": "float32",
        "out_dtype": out_dtype,
    }


def _window(steps: dict[int, str], until: int | None, last: int | None, every: int) -> list[int]:
    """The steps of one average, from the oldest."""
    known = list(steps)
    if until is not None:
        if until not in steps:
            near = min(known, key=lambda step: abs(step - until))
            raise InputError(
                f"`until`: there is no step {until}", f"the nearest one is {near}, `{steps[near]}`"
            )
        known = known[: known.index(until) + 1]
    known = known[::-1][::every]
    if last is not None and len(known) < last:
        upto = f" up to step {until}" if until is not None else ""
        strided = f", every {every}th of them" if every > 1 else ""
        raise InputError(
            f"`last`: expected {counted(last, 'checkpoints')}{upto}{strided}, found {len(known)}",
            "take fewer, or leave `last` out for all",
        )
    return known[:last][::-1]


def _opened(chosen: Sequence[str], opening: OpenOptions) -> Checkpoint:
    """The newest; where it cannot be opened, all that cannot are told."""
    try:
        return open_checkpoint(chosen[-1], opening)
    except MergeplanError:
        open_models(chosen, opening)
        raise


def _refuse_other_runs(chosen: Sequence[str]) -> None:
    """Refuse models that compute another thing than the newest, as far as config.json tells.

    What only shapes and names of tensors tell, planning finds.
    """
    newest = _settings(chosen[-1])
    for path in chosen[:-1]:
        other = _settings(path)
        for key in sorted(newest.keys() | other.keys()):
            if newest.get(key) != other.get(key):
                raise InputError(
                    f"`{path}/{CONFIG_FILE}` is of another run: expected `{key}`"
                    f" {shown(newest.get(key))}, as in `{chosen[-1]}`, found"
                    f" {shown(other.get(key))}",
                    "give the checkpoints of one run; a `linear` config averages other models too",
                )


def _settings(path: str) -> dict[str, Any]:
    folder = input_path(path)
    config = read_model_config((folder if folder.is_dir() else folder.parent) / CONFIG_FILE)
    return {key: value for key, value in config.items() if key not in _OF_SAVING}
