"""`random_seed`: of a config or a pool, and of whoever gives another."""

from pathlib import Path

from mergeplan.config.other_tools import refuse_other_tools, refuse_several
from mergeplan.system.ranges import check_number
from mergeplan.system.reading import CONFIG, read_text
from mergeplan.system.yamlfile import parse_leniently


def seed_of(written: int | None, given: int | None, where: str) -> tuple[int, list[str]]:
    """The seed of random masks: the one that is given, else the written one, else 0.

    Args:
        written: `random_seed` of a file.
        given: By an option.
        where: How messages call the file.

    Returns:
        The seed, and a warning where the two differ.

    >>> seed_of(5, 7, "the config")
    (7, ['`random_seed` is 5 in the config, and 7 was given: 7 is used'])
    """
    if given is None:
        return written or 0, []
    if written is None or written == given:
        return given, []
    return given, [f"`random_seed` is {written} in {where}, and {given} was given: {given} is used"]


def random_seed_in(path: Path) -> int | None:
    """The `random_seed` of a config file that another program reads; `None` where it has none.

    Raises:
        InputError: It is no seed, or the file cannot be read or is none of a merge.
    """
    text = read_text(path, CONFIG) if path.is_file() else ""
    refuse_several(text)
    data = parse_leniently(text)  # as that program does
    if not isinstance(data, dict):
        return None
    refuse_other_tools(data)
    return check_random_seed(data.get("random_seed"))


def check_random_seed(value: object) -> int | None:
    """The value of a key that may not be there.

    Raises:
        InputError: It is no seed.
    """
    if value is not None:
        check_number(value, "random_seed", 0, 2**64 - 1, whole=True)
    return value  # type: ignore[return-value]
