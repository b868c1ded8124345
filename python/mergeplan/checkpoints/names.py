"""What a model's name means: a path or hub id, alone or with that of an adapter behind a `+`."""

from mergeplan.checkpoints.hub import is_hub_id
from mergeplan.system.files import input_path, is_there


def parts_of(name: str) -> tuple[str, ...]:
    """A model's name, and its adapter's if it has one.

    A path with `+` in it is a path where there is one; of several ways to part a name the first
    counts of which most is there.

    >>> parts_of("org/base@v1+org/adapter")
    ('org/base@v1', 'org/adapter')
    """
    if "+" not in name or _is_there(name):
        return (name,)
    places = [place for place, letter in enumerate(name) if letter == "+"]
    ways = [(name[:place], name[place + 1 :]) for place in places]
    return max(ways, key=lambda way: sum(map(_is_there, way)))


def hub_ids(name: str) -> list[str]:
    """The repositories of the hub that a model's name means, without revisions.

    Args:
        name: `org/name`, `org/name@revision`, a local path, or two of them joined by `+`, of which
            the second is an adapter.

    >>> hub_ids("org/model@main+./adapter")
    ['org/model']
    """
    found = [part.partition("@")[0] for part in parts_of(name) if not _is_there(part)]
    return [part for part in found if is_hub_id(part) and not _is_there(part)]


def _is_there(name: str) -> bool:
    # What lies in a folder that is closed is told where it is opened.
    return bool(name) and is_there(input_path(name))
