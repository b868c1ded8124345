"""The checkpoints of a run by the step that their names tell: `run/step-2` before `run/step-10`."""

import glob
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from mergeplan.display.text import counted, shown
from mergeplan.errors import InputError, MissingInputError
from mergeplan.system.files import expanded

_NUMBERS = re.compile(r"(\d+)")
_NAMED = 5  # as many as an error lists


def find_checkpoints(patterns: Iterable[str | Path]) -> dict[int, str]:
    """The paths that patterns stand for, by step, from the first.

    The step is the one number in which the paths differ, `1000` of `run/step-1000`; where more of
    them differ, as in `step1000-tokens4B`, all have to grow together, and it is the first.

    Args:
        patterns: Paths, with `*`, `?`, `[…]` and `**` as in a shell where there is no such path.

    Raises:
        MissingInputError: There is no such path.
        InputError: A path has no step, or another path has the same.
    """
    paths = [path for pattern in patterns for path in _matches(str(pattern))]
    if len(paths) == 1:
        found = _NUMBERS.findall(paths[0])
        return {int(found[-1]) if found else 0: paths[0]}
    _refuse_twice(paths)
    words = [_NUMBERS.split(path) for path in paths]
    _refuse_other_names(paths, [tuple(one[::2]) for one in words])
    numbers = [tuple(map(int, one[1::2])) for one in words]
    varying = [i for i, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
    if not varying:
        raise _same_step(paths[0], paths[1])
    order = sorted(range(len(paths)), key=lambda i: numbers[i][varying[0]])
    for i, j in pairwise(order):
        grows = [numbers[i][v] < numbers[j][v] for v in varying]
        if not grows[0]:
            raise _same_step(paths[i], paths[j])
        if not all(grows):
            raise InputError(
                f"the names tell no one step: `{paths[i]}` and `{paths[j]}` differ in"
                f" {len(varying)} numbers, which do not grow together",
                "give the checkpoints of one run",
            )
    return {numbers[i][varying[0]]: paths[i] for i in order}


def _matches(pattern: str) -> list[str]:
    path = expanded(pattern)
    if path.exists() or not glob.has_magic(pattern):
        if not path.exists():
            raise MissingInputError(f"there is no folder {shown(pattern)}")
        return [pattern.rstrip("/") or pattern]
    root = Path(path.anchor)
    found = sorted(map(str, root.glob(str(path.relative_to(root)))))
    if not found:
        raise MissingInputError(
            f"no folder is named as {shown(pattern)}",
            f"`ls -d {pattern}` shows what a pattern stands for, from this folder",
        )
    return found


def _refuse_twice(paths: Sequence[str]) -> None:
    there: dict[Path, str] = {}
    for path in paths:
        before = there.setdefault(Path(path).resolve(), path)
        if before is not path:
            also = "" if before == path else f", as `{before}` too"
            raise InputError(
                f"`{path}` is given twice{also}",
                "each checkpoint counts once: give a pattern that no other one overlaps",
            )


def _refuse_other_names(paths: Sequence[str], words: Sequence[tuple[str, ...]]) -> None:
    """Refuse names that differ in more than numbers: `final`, or `step-100.json`."""
    usual = max(words, key=lambda one: (len(one) > 1, words.count(one)))
    odd = [path for path, one in zip(paths, words, strict=True) if one != usual]
    if len(usual) == 1:
        odd = list(paths)
    if not odd:
        return
    told = ", ".join(f"`{path}`" for path in odd[:_NAMED])
    more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
    raise InputError(
        f"{counted(len(odd), 'names')} tell no step: expected names such as"
        f" `{'N'.join(usual) if len(usual) > 1 else 'step-N'}`, which differ in numbers alone,"
        f" found {told}{more}",
        "give a pattern that only the run's checkpoints match, such as `step-*[0-9]`",
    )


def _same_step(one: str, other: str) -> InputError:
    return InputError(
        f"`{one}` and `{other}` are the same step", "keep one of them out of the pattern"
    )
