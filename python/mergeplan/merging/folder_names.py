"""Names of folders for others: the shortest that tell them apart, and nobody's name in them."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path

from mergeplan.display.text import printable
from mergeplan.system.files import expanded

# What has a folder for each user.
_OF_USERS = ("home", "Users")


def told_apart(places: Mapping[str, Path]) -> dict[str, str]:
    """Names of folders; where two are alike, with as many of the folders above as it takes.

    Those above may be private: the root's, and the user's own. Where they alone differ, folders
    are numbered.

    Args:
        places: Whole paths.
    """
    lengths = dict.fromkeys(places, 1)
    most = {part: _free(path) for part, path in places.items()}
    for _ in range(max(most.values(), default=0)):
        ends = {part: path.parts[-lengths[part] :] for part, path in places.items()}
        for part, path in places.items():
            alike = (other for other, found in ends.items() if found == ends[part])
            if lengths[part] < most[part] and any(places[other] != path for other in alike):
                lengths[part] += 1
    return _numbered(places, {part: _end(places[part], lengths[part]) for part in places})


def _free(path: Path) -> int:
    """How many of a path's last names may be shown: the own one, and what is below private ones."""
    home = expanded("~")
    names = path.parts[1:]
    above = names[:-1]
    of_user = 2 if above[:1] and above[0] in _OF_USERS else 1
    private = [number for number, name in enumerate(above) if number < of_user or name == home.name]
    return len(names) - max(private, default=-1) - 1


def _end(path: Path, length: int) -> str:
    names = path.parts[1:][-length:]
    if not names or path == expanded("~"):
        return "model"
    # `a/b` alone would be a repository of the hub.
    return printable(names[0] if length == 1 else "/".join([".", *names]))


def _numbered(places: Mapping[str, Path], names: dict[str, str]) -> dict[str, str]:
    """Names of which each is one folder's."""
    found: dict[tuple[str, Path], str] = {}
    by_name: dict[str, list[Path]] = {}
    for part, path in places.items():
        by_name.setdefault(names[part], []).append(path)
    for name, paths in by_name.items():
        alike = list(dict.fromkeys(paths))
        free = (f"./{number}/{name.removeprefix('./')}" for number in count(1))
        unused = (numbered for numbered in free if numbered not in by_name)
        found |= {(name, path): next(unused) if len(alike) > 1 else name for path in alike}
    return {part: found[names[part], path] for part, path in places.items()}
