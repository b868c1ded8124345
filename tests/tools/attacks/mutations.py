"""Damage to a work folder: what a disk, an accident or an attacker may do to it."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.tools.attacks.ground import PARTIAL

# Where `victims` lie: folders and files of the user's that links lead to.
VICTIMS = "victims"
_FILES = (
    "merge.json",
    "journal",
    "lock",
    "data/model-00001-of-00002.safetensors",
    "data/model-00002-of-00002.safetensors",
    "data/config.json",
    "data/model.safetensors.index.json",
    "data/mergeplan.json",
    "publishing",
)
_LARGEST = 1 << 27  # bytes of a file that is damaged in its content
_PLACES = (*_FILES, "data", "data/tokenizer.json", "data/config.json.partial")


def victims(site: Path) -> None:
    """Files that are not ours, for links to lead to."""
    folder = site / VICTIMS
    (folder / "folder" / "data").mkdir(parents=True)
    (folder / "folder" / "thesis.tex").write_text("mine")
    (folder / "folder" / "data" / "journal").write_text("mine")
    (folder / "file").write_text("mine" * 100)
    (folder / "empty").touch()


def mutate(site: Path, chance: Random) -> list[str]:
    """Damage a work folder once to three times; says how."""
    done = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        kind = chance.choice(_MUTATIONS)
        place = site / PARTIAL / chance.choice(_PLACES)
        if kind in _OF_FILES and (not place.is_file() or place.stat().st_size > _LARGEST):
            continue
        try:
            kind(place, site, chance)
        except OSError:
            continue  # there is nothing to damage in this way
        done.append(f"{kind.__name__[1:]} {place.relative_to(site)}")
    return done


def _truncated(place: Path, site: Path, chance: Random) -> None:
    os.truncate(place, chance.randrange(place.stat().st_size + 1))


def _extended(place: Path, site: Path, chance: Random) -> None:
    with place.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(chance.randbytes(chance.choice((1, 24, 5000))))


def _sparse(place: Path, site: Path, chance: Random) -> None:
    os.truncate(place, 1 << chance.choice((31, 33, 40)))


def _flipped(place: Path, site: Path, chance: Random) -> None:
    data = bytearray(place.read_bytes())
    for _ in range(chance.choice((1, 1, 8)) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    place.write_bytes(data)


def _zeroed(place: Path, site: Path, chance: Random) -> None:
    place.write_bytes(bytes(place.stat().st_size))


def _removed(place: Path, site: Path, chance: Random) -> None:
    _clear(place)


def _a_folder(place: Path, site: Path, chance: Random) -> None:
    _clear(place)
    place.mkdir()
    if chance.random() < 0.5:
        (place / "thesis.tex").write_text("mine")


def _a_fifo(place: Path, site: Path, chance: Random) -> None:
    _clear(place)
    os.mkfifo(place)


def _a_socket(place: Path, site: Path, chance: Random) -> None:
    _clear(place)
    here = Path.cwd()
    os.chdir(place.parent)  # a socket's path may not be long
    try:
        socket.socket(socket.AF_UNIX).bind(place.name)
    finally:
        os.chdir(here)


def _a_link(place: Path, site: Path, chance: Random) -> None:
    _clear(place)
    target = chance.choice(("file", "empty", "folder", "nothing"))
    place.symlink_to(site / VICTIMS / target)


def _a_link_to_itself(place: Path, site: Path, chance: Random) -> None:
    """Its content is elsewhere, and the same: only the link tells."""
    moved = site / VICTIMS / f"moved-{place.name}"
    place.rename(moved)
    place.symlink_to(moved)


def _a_hard_link(place: Path, site: Path, chance: Random) -> None:
    _clear(place)
    os.link(site / VICTIMS / chance.choice(("file", "empty")), place)


def _linked_from_outside(place: Path, site: Path, chance: Random) -> None:
    """The user keeps the content under another name."""
    os.link(place, site / VICTIMS / f"kept-{place.name}")


def _foreign(place: Path, site: Path, chance: Random) -> None:
    """A file of the user's among ours."""
    names = ("thesis.tex", "data/thesis.tex", "data/mine/thesis.tex", "mine/thesis.tex")
    path = site / PARTIAL / chance.choice(names)
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")


def _unreadable(place: Path, site: Path, chance: Random) -> None:
    place.chmod(chance.choice((0, 0o200, 0o400)))


def _planted_marker(place: Path, site: Path, chance: Random) -> None:
    """The marker of a publishing that never began."""
    names = [path.name for path in (site / PARTIAL / "data").iterdir()]
    text = chance.choice((json.dumps(sorted(names)), "[]", "", '["../thesis"]', "{}", "[1]"))
    _clear(site / PARTIAL / "publishing")
    (site / PARTIAL / "publishing").write_text(text)


def _changed_state(place: Path, site: Path, chance: Random) -> None:
    """Another value somewhere in the record."""
    path = site / PARTIAL / "merge.json"
    if not path.is_file():
        return
    data = json.loads(path.read_text())
    inner = data
    while isinstance(inner, dict | list) and inner:
        key = chance.choice([*inner] if isinstance(inner, dict) else range(len(inner)))
        if not isinstance(inner[key], dict | list) or chance.random() < 0.2:
            inner[key] = chance.choice((None, -1, 2**70, "x", [], {}, 1e308, True, "\ud800"))
            break
        inner = inner[key]
    path.write_text(json.dumps(data))


def _whole_replaced(place: Path, site: Path, chance: Random) -> None:
    """The work folder itself is something else."""
    folder = site / PARTIAL
    kind = chance.choice(("link", "file", "fifo", "folder", "empty", "moved"))
    if kind == "moved":
        folder.rename(site / VICTIMS / "moved")
        folder.symlink_to(site / VICTIMS / "moved")
        return
    _clear(folder)
    if kind == "link":
        folder.symlink_to(site / VICTIMS / chance.choice(("folder", "file", "nothing")))
    elif kind == "file":
        folder.write_text("mine")
    elif kind == "fifo":
        os.mkfifo(folder)
    elif kind == "folder":
        shutil.copytree(site / VICTIMS / "folder", folder)
    else:
        folder.mkdir()


def _clear(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


_OF_FILES = (_truncated, _extended, _sparse, _flipped, _zeroed)
_MUTATIONS: tuple[Callable[[Path, Path, Random], None], ...] = (
    *_OF_FILES,
    _removed,
    _a_folder,
    _a_fifo,
    _a_socket,
    _a_link,
    _a_link_to_itself,
    _a_hard_link,
    _linked_from_outside,
    _foreign,
    _unreadable,
    _planted_marker,
    _changed_state,
    _whole_replaced,
)
