"""What lies in a folder, so that two moments can be compared."""

import hashlib
import json
import os
import stat
from contextlib import suppress
from pathlib import Path

Snapshot = dict[str, str]
_MOST = 1 << 26
_MANIFEST = "mergeplan_manifest.json"


def snapshot(folder: Path, leave_out: tuple[str, ...] = ()) -> Snapshot:
    """Kind, mode and content of everything below a folder, links not followed.

    Args:
        leave_out: Names in the folder itself that do not count.
    """
    found: Snapshot = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name not in leave_out:
            _see(Path(entry.path), entry.name, found)
    return found


def contents(folder: Path) -> Snapshot | None:
    """What an output holds: content of each file, whatever its mode; `None` for no folder.

    Of the manifest all counts but when the inputs were written, and where on their disk they lie.
    """
    if not folder.is_dir():
        return None
    found = {
        name: what.split(" ", 2)[2]
        for name, what in snapshot(folder).items()
        if not what.startswith("folder")
    }
    with suppress(OSError, ValueError, KeyError, TypeError):
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        for model in manifest["inputs"]:
            model["files"] = [(file["path"], file["bytes"]) for file in model["files"]]
        text = json.dumps(manifest, sort_keys=True).encode()
        found[_MANIFEST] = hashlib.blake2b(text, digest_size=8).hexdigest()
    return found


def difference(before: Snapshot, after: Snapshot) -> str:
    """The first thing in which two snapshots differ, in words; empty where none does."""
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            was, now = (side.get(name, "nothing") for side in (before, after))
            return f"`{name}` was {was}, is {now}"
    return ""


def _see(path: Path, name: str, found: Snapshot) -> None:
    state = path.lstat()
    mode = oct(stat.S_IMODE(state.st_mode))
    if stat.S_ISDIR(state.st_mode):
        found[name] = f"folder {mode}"
        for entry in os.scandir(path):
            _see(Path(entry.path), f"{name}/{entry.name}", found)
    elif stat.S_ISREG(state.st_mode):
        with path.open("rb") as file:  # of a sparse file of a terabyte its begin and its length
            digest = hashlib.blake2b(file.read(_MOST), digest_size=8).hexdigest()
        found[name] = f"file {mode} {state.st_size}:{digest}"
    elif stat.S_ISLNK(state.st_mode):
        found[name] = f"link {mode} {path.readlink()}"
    else:
        found[name] = f"other {mode} {stat.S_IFMT(state.st_mode)}"
