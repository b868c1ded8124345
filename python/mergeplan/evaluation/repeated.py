"""Documents that stand in a domain more than once: they are one group, whatever they are called.

A text that is repeated tells nothing new of a model, and a standard error that takes each copy for
another document is too small.
"""

from collections.abc import Hashable, Sequence


def group_keys(
    lines: Sequence[int], groups: Sequence[str | None], contents: Sequence[Hashable]
) -> list[int | str]:
    """What each document counts as: its group, or its line; one for all that share a content.

    Groups that share a document are one.

    Args:
        lines: Numbers of the documents' lines.
        groups: What each belongs to by its own word.
        contents: Equal of documents that are the same.

    >>> group_keys([1, 2, 3, 4], [None, None, None, "g"], "abac")
    [1, 2, 1, 'g']
    >>> group_keys([1, 2, 3], ["g", "h", "h"], "aab")
    ['g', 'g', 'g']
    """
    above: dict[int | str, int | str] = {}

    def top(key: int | str) -> int | str:
        while key in above:
            key = above[key]
        return key

    own = [line if group is None else group for line, group in zip(lines, groups, strict=True)]
    first: dict[Hashable, int | str] = {}
    for key, content in zip(own, contents, strict=True):
        one, other = top(first.setdefault(content, key)), top(key)
        if one != other:
            above[other] = one
    return [top(key) for key in own]


def named_groups(lines: Sequence[int], keys: Sequence[int | str]) -> tuple[str | None, ...]:
    """Keys as files and `DomainScores` have them: `None` of a document that is alone.

    >>> named_groups([1, 2, 3], [1, 2, 1])
    ('text of line 1', None, 'text of line 1')
    """
    shared = {key for line, key in zip(lines, keys, strict=True) if key != line}
    names = tuple(
        key if isinstance(key, str) else f"text of line {key}" if key in shared else None
        for key in keys
    )
    return names if any(name is not None for name in names) else ()


def repeats_told(
    name: str, groups: Sequence[str | None], keys: Sequence[int | str], lines: Sequence[int]
) -> list[str]:
    """A warning where documents of a domain are the same and no `group` of theirs says so."""
    own = [line if group is None else group for line, group in zip(lines, groups, strict=True)]
    before, after = len(set(own)), len(set(keys))
    if before == after:
        return []
    return [
        f"domain `{name}`: documents repeat others word by word, so that {before} documents or"
        f" groups count as {after} in standard errors: leave the repeats out"
    ]
