"""Whether a run goes on: it measures what it measured. Sizes may be added at the end."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergeplan.calibration.identity import RunIdentity, contents, read_where_changed
from mergeplan.errors import InputError
from mergeplan.evaluation.halves import check_cut

# Options by their names in `run.json`; those of earlier runs have no seed and no half.
DTYPE, MAX_TOKENS, SEED, HALF = "`--dtype`", "`--max-tokens`", "`--seed`", "`--half`"
# Where both dtypes were tried; see `dtype_trial`.
AUTO_DTYPE = "what `--dtype auto` is"
LORA_EXACT, WINDOWS = "`--lora-exact`", "the windows"
# In which weights are kept by place.
ORDER = "the order of the experts"
# Whether some merges, or all, have slopes: a loss is the same with and without.
GRADIENTS = "`--gradients`"
_OPTIONS = (DTYPE, MAX_TOKENS, SEED, HALF, LORA_EXACT)
_NEW_RUN = "begin a new run in another folder"


def go_on(folder: Path, before: RunIdentity, now: RunIdentity) -> RunIdentity:
    """Compare what is measured with what was.

    Args:
        folder: The run, for messages.
        before: As it is recorded.
        now: As it is found; files that look changed are read.

    Returns:
        What to record from now on.

    Raises:
        InputError: Something differs, so that the run cannot go on; the message names it.
    """
    # Before the texts, whose hash changes with it: this is the reason.
    check_cut(folder, before.halves, now.halves)
    if len(before.texts) != len(now.texts):
        before, now = _named_by_size(before), _named_by_size(now)
    # Before anything is read for it.
    _compare(folder, dict.fromkeys(before.models), dict.fromkeys(now.models), before, now)
    models = read_where_changed(before, now)
    _compare(folder, contents(before), contents(models), before, now)
    # Before the texts too, for the same reason.
    _compare_options(folder, before.arithmetic, now.arithmetic)
    _compare(folder, before.texts, now.texts, before, now)
    return models


def _named_by_size(identity: RunIdentity) -> RunIdentity:
    """Models as a run of several sizes names them, where there is one."""
    if len(identity.texts) > 1:
        return identity
    models = {f"{name} of size 1": files for name, files in identity.models.items()}
    return replace(identity, models=models)


def _compare(
    folder: Path,
    recorded: Mapping[str, object],
    found: Mapping[str, object],
    before: RunIdentity,
    now: RunIdentity,
) -> None:
    n_sizes = len(before.texts)
    for name in sorted({*found, *recorded}):
        same = name in found and name in recorded and found[name] == recorded[name]
        if same or (name in found and _size_of(name) > n_sizes):
            continue
        hint = f"put it back, or {_NEW_RUN}"
        if name in now.texts and SEED not in before.arithmetic:
            hint = f"put it back, and give `--seed` and `--half` as at first, or {_NEW_RUN}"
        if len(now.texts) > n_sizes:
            hint = (
                f"add sizes at the end of `sizes` and leave the others as they are, or {_NEW_RUN}"
            )
        said = "the pool's text" if name in now.texts and len(now.texts) == 1 else name
        raise InputError(_changed(said, name in recorded, name in found, folder), hint)


def _size_of(name: str) -> int:
    match = re.search(r" of size (\d+)$", name)
    return int(match[1]) if match else 1


def _compare_options(folder: Path, recorded: dict[str, Any], found: dict[str, Any]) -> None:
    old, new = _by_option(recorded), _by_option(found)
    for name in sorted({*old, *new}):
        # What an earlier run does not record, the hash of its texts tells.
        unsaid = name in (SEED, HALF, ORDER) and name not in old
        if old.get(name) == new.get(name) or unsaid or name == GRADIENTS:
            continue
        if name not in (*_OPTIONS, "`--max-length`", "`--stride`"):
            said = _changed(name, name in old, name in new, folder)
            raise InputError(said, f"put it back, or {_NEW_RUN}")
        was, is_now = _said(old.get(name)), _said(new.get(name))
        option = name.strip("`")
        again = f"give `{option} {was}` again"
        if was == "not given":
            again = f"leave {name} out"
        elif was == "given":
            again = f"give {name} again"
        raise InputError(
            f"{name} was {was} in the run in `{folder}`, and is {is_now} now: what was measured"
            " there cannot be mixed with new measurements",
            f"{again}, or {_NEW_RUN}",
        )


def _by_option(arithmetic: dict[str, Any]) -> dict[str, Any]:
    length, stride = arithmetic.get(WINDOWS) or (None, None)
    rest = {name: value for name, value in arithmetic.items() if name != WINDOWS}
    return {**rest, "`--max-length`": length, "`--stride`": stride}


def _said(value: object) -> str:
    if value is None or value is False:
        return "not given"
    return "given" if value is True else str(value)


def _changed(name: str, recorded: bool, found: bool, folder: Path) -> str:
    what = "has changed since" if recorded else "is new in"
    what = what if found else "is no longer in"
    return (
        f"{name} {what} the run in `{folder}`: what was measured there cannot be mixed with new"
        " measurements"
    )
