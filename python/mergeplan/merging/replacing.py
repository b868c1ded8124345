"""What `--overwrite` may replace: a folder whose every entry is a model's or a merge's, by name."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from mergeplan.checkpoints.checkpoint import CONFIG_FILE, INDEX_ENDING
from mergeplan.checkpoints.code import code_of
from mergeplan.checkpoints.donated import WITH_CODE
from mergeplan.checkpoints.header_bytes import read_header
from mergeplan.checkpoints.tokenizer import SETTINGS_FILES, TOKENIZER_FILES
from mergeplan.errors import MergeplanError
from mergeplan.merging.manifest import NAME as MANIFEST
from mergeplan.merging.manifest import load_manifest
from mergeplan.system.files import walk
from mergeplan.system.jsontext import parse_json
from mergeplan.system.private import is_private
from mergeplan.system.reading import open_plain

CARD, CARD_CONFIG = "README.md", "mergekit_config.yml"
_NAMES = (CONFIG_FILE, MANIFEST, CARD, CARD_CONFIG, *TOKENIZER_FILES, *SETTINGS_FILES)
# The weights that loaders look for, with a variant as diffusers writes it, whole or in shards.
_WEIGHTS = re.compile(
    r"(model|pytorch_model|diffusion_pytorch_model|adapter_model|consolidated)(\.[A-Za-z0-9_]+)?"
    r"(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?"
)
# A zip archive, or a pickle of a protocol that names itself.
_TORCHS = (b"PK\x03\x04", b"\x80")
# What a file system keeps in its root, and where a merge onto a mount point works. It stays there.
_NO_CONTENT = ("lost+found", ".mergeplan.partial")

# Of each entry below a folder: kind and mode, inode, length, and time of change in nanoseconds.
Seen = dict[str, tuple[int, int, int, int]]


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def content_of(folder: Path) -> list[Path]:
    """What is in an output folder; of a mount point, what may have to go."""
    found = sorted(folder.iterdir())
    if not os.path.ismount(folder):
        return found
    return [path for path in found if path.name not in _NO_CONTENT and not is_private(path.name)]


def seen_in(folder: Path) -> Seen:
    """What a folder holds now; nothing where there is no such folder. Links are not followed."""
    seen: Seen = {}
    for path in _below(folder) if is_folder(folder) else ():
        found = path.lstat()
        length = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
        time = 0 if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns
        seen[path.relative_to(folder).as_posix()] = (found.st_mode, found.st_ino, length, time)
    return seen


def came_since(before: Seen, now: Seen) -> str | None:
    """The first entry that is new, or another than it was."""
    return next((name for name, one in sorted(now.items()) if before.get(name) != one), None)


def why_not_replaced(folder: Path, written: Iterable[str] = ()) -> str | None:
    """What in a folder forbids to throw it away, in words; `None` where it is a model's alone.

    Known are the weights, their index, config.json, tokenizer and settings by the names that
    loaders look for; what the folder's config.json names as the model's code; what its manifest
    lists; and the card. Without weights they are no model's; and names prove little, so that what
    is called weights must begin as such, unless there is a manifest that can be read.

    Args:
        written: More names that the merge writes itself.
    """
    unknown = next(unknown_in(folder, written), None)
    if unknown is not None:
        return f"holds `{unknown}`, which is no part of a model that mergeplan knows"
    content = content_of(folder)
    weights = [path for path in content if _is_weights(path.name)]
    begun = {path.name: _begins_as_weights(path) for path in weights}
    if (True in begun.values() and False not in begun.values()) or _has_manifest(folder):
        return None
    odd = next((name for name, good in begun.items() if good is False), None)
    if odd is not None:
        return f"holds `{odd}`, which does not begin as weights do"
    return f"holds `{content[0].name}`, and no weights of a model"


def _is_weights(name: str) -> bool:
    return _WEIGHTS.fullmatch(name) is not None and not name.endswith(INDEX_ENDING)


def _begins_as_weights(path: Path) -> bool | None:
    """Whether a file has a header of safetensors, or begins as what torch writes; `None` where
    there is nothing in it."""
    try:
        with open_plain(path) as file:
            if not (beginning := file.read(4)):
                return None
        if path.suffix == ".safetensors":
            return isinstance(parse_json(read_header(path)[8:], f"`{path}`"), dict)
    except FileNotFoundError:
        return None  # a link to nothing
    except (MergeplanError, OSError):
        return False
    return beginning.startswith(_TORCHS)


def _has_manifest(folder: Path) -> bool:
    with suppress(MergeplanError, OSError):
        load_manifest(folder)
        return True
    return False


def unknown_in(
    folder: Path, written: Iterable[str] = (), *, unfinished: bool = False
) -> Iterator[str]:
    """The names in a folder that neither a merge nor a loader of models knows, in order.

    Args:
        written: Names that a merge writes itself.
        unfinished: Whether it may have left files there that it was writing.
    """
    listed = {*written, *_listed(folder)}
    for path in _below(folder):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            if not any(path.iterdir()):
                yield f"{name}/"
        elif unfinished and stat.S_ISREG(mode) and is_private(path.name):
            continue
        elif not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) or not _is_known(name, listed):
            yield name


def _is_known(name: str, listed: set[str]) -> bool:
    if name in listed or _WEIGHTS.fullmatch(name):
        return True
    return any(
        PurePosixPath(name).match(one) and name.count("/") == one.count("/") for one in _NAMES
    )


def _listed(folder: Path) -> set[str]:
    """What the folder's own manifest and config.json list; both are files of anybody."""
    listed: set[str] = set()
    with suppress(MergeplanError, OSError):
        listed.update(code_of(folder, (CONFIG_FILE, *WITH_CODE)).files)
    with suppress(MergeplanError, OSError):
        manifest = load_manifest(folder)
        listed.update(manifest.files, manifest.companions)
    return listed


def _below(folder: Path) -> Iterator[Path]:
    for path in content_of(folder):
        yield path
        if is_folder(path):
            yield from walk(path)
