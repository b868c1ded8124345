"""What a folder is that one of our commands has written, told by the file that marks it."""

from pathlib import Path

_MARKS = {
    "tuning.json": (
        "a run of `mergeplan tune`",
        "`mergeplan report` and `mergeplan status` read it; its merge is `{merge.yml}`",
    ),
    "run.json": (
        "a run of `mergeplan calibrate`",
        "`mergeplan report` and `mergeplan status` read it; its table is `{measurements.csv}`",
    ),
    "mergeplan_manifest.json": (
        "a model that `mergeplan merge` wrote",
        "`mergeplan inspect` and `mergeplan verify` read it",
    ),
}


def what_is(path: Path) -> tuple[str, str] | None:
    """What a folder is, with its article, and what reads it; `None` of any other.

    Where a file of it is to be read instead, the hint names that if it is there.
    """
    for mark, (what, hint) in _MARKS.items():
        if (path / mark).is_file():
            hint, brace, rest = hint.partition("{")
            name = rest.partition("}")[0]
            if not brace:
                return what, hint
            if (path / name).is_file():
                return what, f"{hint}{path / name}`"
            return what, hint.partition(";")[0]
    return None


def folder_words(path: Path, hint: str | None = None) -> tuple[str, str | None]:
    """As messages call a folder where a file was wanted, and what to do about it.

    Args:
        hint: Where it is none of ours.
    """
    return what_is(path) or ("a folder", hint)
