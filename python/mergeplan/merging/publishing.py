"""The output folder: refuse what is unsafe, publish by one rename that loses nothing of others."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from mergeplan.checkpoints.checkpoint import CONFIG_FILE, INDEX_ENDING
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.merging.replacing import (
    Seen,
    came_since,
    content_of,
    is_folder,
    seen_in,
    why_not_replaced,
)
from mergeplan.system.files import remove, sync_folder


def refuse_overlap(out: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse an output that is an input, or lies inside one.

    Args:
        out: A resolved path.
        inputs: Folders and files that are read, links or not.
        overwrite: Also refuse one that holds an input.

    Raises:
        InputError: So it is.
    """
    for path in inputs:
        source = path.resolve()
        if source.is_dir() and any(_same(place, source) for place in (out, *out.parents)):
            raise InputError(f"output `{out}` lies inside input `{path}`", "choose another folder")
        if overwrite and any(_same(place, out) for place in source.parents):
            raise InputError(f"output `{out}` holds input `{path}`", "choose another folder")


def refuse_occupied(out: Path, written: Iterable[str], *, overwrite: bool) -> Seen:
    """Refuse an output folder that holds what may not be replaced.

    Args:
        written: Names of files that the merge writes.

    Returns:
        What it holds, and may be replaced.

    Raises:
        SurroundingsError: It has content that is not to be replaced or is no model's, or is a file.
    """
    if not out.exists():
        return {}
    if not out.is_dir():
        raise SurroundingsError(f"output `{out}` is a file", "choose another folder")
    if not content_of(out):
        return {}
    if not overwrite:
        more = "" if why_not_replaced(out, written) else ", or pass `--overwrite`"
        raise SurroundingsError(f"output `{out}` is not empty", f"choose another folder{more}")
    # Before all of it is looked at: it may be anything, of any size.
    if why := why_not_replaced(out, written):
        raise SurroundingsError(
            f"output `{out}` {why}",
            "`--overwrite` replaces models alone: choose another folder, or move what is yours out"
            " of this one; if it is a damaged output, remove it",
        )
    return seen_in(out)


def _same(a: Path, b: Path) -> bool:
    """Whether two paths are one folder, also where letter case or mounts hide it."""
    return a == b or (a.exists() and b.exists() and a.samefile(b))


def publish(data: Path, out: Path, before: Seen) -> None:
    """Give finished data its name: one rename, or one exchange with what was there.

    The folder takes the mode of the one that was there.

    Args:
        before: What `out` held at the start, and may lose.

    Raises:
        SurroundingsError: Something came into `out` since, or the system refuses; nothing of it
            was replaced.
    """
    from mergeplan._native import fault

    fault("publish")
    there = is_folder(out)
    mode = stat.S_IMODE(out.lstat().st_mode) if there else None
    if mode is not None:
        # A folder that is moved must be ours to write.
        data.chmod(mode | stat.S_IRWXU)
    if before and there:
        _exchange(data, out, before)
    else:
        _take(data, out)
    if mode is not None:
        out.chmod(mode)
    sync_folder(out.parent)
    fault("published")


def _take(data: Path, out: Path) -> None:
    from mergeplan._native import rename_new

    mode = None
    if is_folder(out):
        try:
            out.rmdir()  # never with what is in it
        except OSError as error:
            _refuse_new(out, came_since({}, seen_in(out)), error)
        mode = stat.S_IMODE(data.stat().st_mode)
    try:
        if rename_new(data, out):
            return
    except OSError:
        if mode is not None:
            out.mkdir(mode)  # as it was
        raise
    _refuse_new(out, came_since({}, seen_in(out)))


def _exchange(data: Path, out: Path, before: Seen) -> None:
    """In one step where the system can exchange two folders; else in three renames."""
    from mergeplan._native import exchange

    if new := came_since(before, seen_in(out)):
        _refuse_new(out, new)
    exchange(data, out)
    if new := came_since(before, seen_in(data)):
        exchange(data, out)
        _refuse_new(out, new)


def _refuse_new(out: Path, name: str | None, cause: OSError | None = None) -> None:
    found = f"`{out / name}`" if name else f"`{out}`"
    raise SurroundingsError(
        f"{found} was made or changed by another program while the merge ran, and is kept",
        "move it out of the way, or choose another folder",
    ) from cause


def move_into(data: Path, out: Path, names: Iterable[str], before: Seen) -> None:
    """Publish onto a mount point, which cannot be renamed onto: the files move in one by one.

    Before they do, what is to be replaced goes. Last come those without which no loader takes the
    folder for a model. Whoever was stopped in between calls again with the same names.

    Args:
        names: All files that `out` is to have; those that are not in `data` have moved already.
        before: What `out` held at the start, and may lose.

    Raises:
        SurroundingsError: Something came into `out` since.
    """
    from mergeplan._native import fault, rename_new

    fault("publish")
    names = set(names)
    last = (*sorted(name for name in names if name.endswith(INDEX_ENDING)), CONFIG_FILE)
    left = sorted(path.name for path in data.iterdir())
    moved = names - {*left}
    new = {name: one for name, one in seen_in(out).items() if name.split("/")[0] not in moved}
    if name := came_since(before, new):
        _refuse_new(out, name)
    old = [path for path in content_of(out) if path.name not in moved]
    for path in sorted(old, key=lambda path: path.name not in last):
        remove(path)
    for name in sorted(left, key=lambda name: last.index(name) if name in last else -1):
        fault("move")
        if not rename_new(data / name, out / name):
            _refuse_new(out, name)
    sync_folder(out)
    fault("published")


def is_in_steps(out: Path) -> bool:
    """Whether publishing takes several steps: a mount point has its siblings on another disk."""
    return os.path.ismount(out)
