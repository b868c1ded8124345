"""What a task of the harness has beside its settings: files of data, and Python functions."""

import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mergeplan.display.text import cut

_PATTERNS = frozenset("*?[")
# Of a file of data that is looked at to see whether it holds anything.
_SEEN_BYTES = 1 << 16


def reason_of(error: BaseException) -> str:
    """An error of the harness on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def local_files(task: Any) -> list[Path]:
    """Files of this machine that a task names as its data; patterns are left out."""
    kwargs = task._config.dataset_kwargs or {}
    found = [one for one in _leaves(kwargs.get("data_files")) if isinstance(one, str)]
    folder = Path(kwargs.get("data_dir") or "").absolute()
    return [folder / one for one in found if "://" not in one and not _PATTERNS & {*one}]


def files_fault(files: Iterable[Path]) -> str:
    """What is wrong with the first of some files of data; empty where nothing is."""
    for path in files:
        if not path.is_file():
            return f"no such file `{path}`"
        with path.open("rb") as file:
            if not file.read(_SEEN_BYTES).strip():
                return f"`{path}` has no items"
    return ""


def code_fault(asked: str, tasks: Iterable[Any], error: BaseException) -> str:
    """An error of a task's own code: the key that names the function, its file and line.

    Args:
        asked: The name or file of the task that was asked for.
        tasks: Those whose functions may have failed.

    Returns:
        Empty where it is none of theirs.
    """
    keys = {
        code: f"key `{key}`, "
        for task in tasks
        for key, value in vars(task._config).items()
        for one in _leaves(value)
        if (code := getattr(one, "__code__", None)) is not None
    }
    beside = Path(asked).absolute().parent
    told: BaseException | None = error
    while told is not None:
        frames = list(traceback.walk_tb(told.__traceback__))
        codes = [frame.f_code for frame, _ in frames]
        key, file = next(((keys[c], c.co_filename) for c in codes if c in keys), ("", ""))
        # A class, or a file that cannot be imported, has no key: it lies beside the task's file.
        files = [c.co_filename for c in codes if Path(c.co_filename).parent == beside]
        file = file or (files[-1] if files else "")
        lines = [line for frame, line in frames if frame.f_code.co_filename == file]
        if lines:
            reason = f"{type(told).__name__}: {cut(reason_of(told), 300)}"
            return f"{key}`{file}`, line {lines[-1]}: {reason}"
        told = told.__cause__ or told.__context__
    return ""


def _leaves(value: Any) -> Iterator[Any]:
    """What lists and mappings hold."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    elif value is not None:
        yield value
