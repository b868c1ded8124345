"""Merges that were not measured on every domain, in words."""

from collections.abc import Mapping

from mergeplan.display.text import listed

_NAMED = 5


def gap_text(missing: Mapping[str, int], left_out: int, n_merges: int, option: str) -> str:
    """What a reader must know of merges that are no part of what follows.

    Args:
        missing: Of each domain, how many of them lack it.
        left_out: How many there are, of `n_merges`; the base is one.
        option: What chooses domains.

    >>> gap_text({"math": 2}, 2, 14, "--domain")
    '2 of 14 merges were not measured on `math` and left out: measure them on it, or choose \
other domains by `--domain`'
    """
    names = sorted(missing, key=lambda name: (-missing[name], name))
    some, all_of = listed(names), "it"
    if len(names) > 1:
        each = ", ".join(f"{missing[name]} without `{name}`" for name in names[:_NAMED])
        more = ", …" if len(names) > _NAMED else ""
        some, all_of = f"every domain ({each}{more})", "all"
    are, them = ("was", "it") if left_out == 1 else ("were", "them")
    return (
        f"{left_out} of {n_merges} merges {are} not measured on {some} and left out: measure {them}"
        f" on {all_of}, or choose other domains by `{option}`"
    )
