"""The output folder: refuse what is unsafe, publish by one rename."""

import os
import shutil
from pathlib import Path

from mergeplan.checkpoints.checkpoint import CONFIG_FILE, INDEX_ENDING
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.system.files import sync_folder


def check_output(out: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse an output that would hurt an input or something that is there already.

    Args:
        out: A resolved path.
        inputs: Folders and files that are read, links or not.

    Raises:
        SurroundingsError: It has content, or is a file.
        InputError: It is an input, lies inside one, or holds one.
    """
    for path in inputs:
        source = path.resolve()
        if source.is_dir() and any(_same(place, source) for place in (out, *out.parents)):
            raise InputError(f"output `{out}` lies inside input `{path}`", "choose another folder")
        if overwrite and any(_same(place, out) for place in source.parents):
            raise InputError(f"output `{out}` holds input `{path}`", "choose another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise SurroundingsError(f"output `{out}` is a file", "choose another folder")
    if folder_content(out) and not overwrite:
        raise SurroundingsError(
            f"output `{out}` is not empty", "choose another folder, or pass `--overwrite`"
        )


def _same(a: Path, b: Path) -> bool:
    """Whether two paths are one folder, also where letter case or mounts hide it."""
    return a == b or (a.exists() and b.exists() and a.samefile(b))


# The shard index, by its name on the hub.
# What a file system keeps in its root, and where a merge onto a mount point works.
_NO_CONTENT = {"lost+found", ".mergeplan.partial"}


def folder_content(folder: Path) -> list[Path]:
    """What is in an output folder, but for what does not count as content."""
    return [path for path in folder.iterdir() if path.name not in _NO_CONTENT]


def publish(data: Path, out: Path) -> None:
    """Give finished data its name: one rename, or one exchange with what was there.

    Raises:
        SurroundingsError: The system refuses.
    """
    from mergeplan._native import exchange, fault

    fault("publish")
    if out.exists() and any(out.iterdir()):
        # In one step where the system can exchange two folders; else in three renames.
        exchange(data, out)
    else:
        if out.exists() and os.name == "nt":
            out.rmdir()  # elsewhere a rename replaces an empty folder
        data.rename(out)
    sync_folder(out.parent)
    fault("published")


def move_into(data: Path, out: Path, names: list[str]) -> None:
    """Publish onto a mount point, which cannot be renamed onto: the files move in one by one.

    Last come those without which no loader takes the folder for a model. Whoever was stopped in
    between calls again with the same names.

    Args:
        names: All files that `out` is to have; those that are not in `data` have moved already.
    """
    from mergeplan._native import fault

    fault("publish")
    last = (*(name for name in names if name.endswith(INDEX_ENDING)), CONFIG_FILE)
    left = sorted(path.name for path in data.iterdir())
    left.sort(key=lambda name: last.index(name) if name in last else -1)
    if any(name not in last for name in left):
        for name in last:
            (out / name).unlink(missing_ok=True)
    for path in folder_content(out):
        weights = path.suffix in (".safetensors", ".bin")
        if path.is_file() and weights and path.name not in names:
            path.unlink()
    for name in left:
        fault("move")
        if (data / name).is_dir() and (out / name).is_dir():
            shutil.rmtree(out / name)  # only an empty folder can be renamed onto
        (data / name).replace(out / name)
    sync_folder(out)
    fault("published")
