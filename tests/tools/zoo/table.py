"""The table of all trials, as a page of the documentation."""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from tests.tools.zoo.judge import RIGHT
from tests.tools.zoo.trial import MERGES, THEIRS

Row = dict[str, Any]
# Python's own errors: nobody meant them for a user.
_CRASHES = ("KeyError", "AttributeError", "TypeError", "IndexError", "AssertionError", "Unbound")

_HEAD = """\
# The zoo: every class of transformers with a language-model head

transformers {version} lists {listed} pairs of a model type and a class with a language-model head.
{built} of them, of {types} model types, are built from a small config: {mixtures} mixtures and
{vision} that read pictures are among them. Each is a base and two fine-tunes with random deltas in
every tensor, merged by linear and TIES, with and without `tokenizer_source: base`, in one file and
in shards, with the head tied to the embedding and not.

mergeplan: {right} of {merges} merges are right. That means: the files have the base's names, dtypes
and shapes, and bit for bit the values of the same merge done plainly on the files' tensors (where
transformers packs a mixture's experts, on the packed tensor); `from_pretrained` reports no key that
it does not report of the base; every tensor that it has loaded is the expected one; config and
tokenizer load as the base's. Of mergekit names are not asked, and a last place may differ.

`python -m tests.tools.zoo --out docs/evidence/zoo.md` writes this page, and
`tests/conformance/test_zoo.py` tries a share of its rows.
"""


def faults_of(row: Row) -> dict[str, str]:
    """What is not right of our merges, by merge."""
    return {name: verdict for name, verdict in row["ours"].items() if verdict != RIGHT}


def word(verdict: str) -> str:
    """A verdict in one word or two."""
    if verdict == RIGHT:
        return RIGHT
    if verdict.startswith("refused: "):
        crashed = verdict.removeprefix("refused: ").startswith(_CRASHES)
        return "crashes" if crashed else "refuses"
    if "lost" in verdict or "missing_keys" in verdict:
        return "loses tensors"
    return "wrong"


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    return "\n".join([*_head(rows), *_table(rows), *_not_right(rows), *_left_out(rows)]) + "\n"


def _head(rows: Sequence[Row]) -> Iterable[str]:
    built = [row for row in rows if not row["left_out"]]
    merges = [verdict for row in built for verdict in row["ours"].values()]
    yield _HEAD.format(
        version=version("transformers"),
        listed=len(rows),
        built=len(built),
        types=len({row["key"].split(".")[0] for row in built}),
        mixtures=sum(row["mixture"] for row in built),
        vision=sum("vision" in row["tasks"] for row in built),
        right=merges.count(RIGHT),
        merges=len(merges),
    )
    yield "| mergekit 0.1.5 | right | refuses | loses tensors | wrong | crashes |"
    yield "|---" * 6 + "|"
    for name in THEIRS:
        counts = Counter(word(row["theirs"][name]) for row in built if name in row["theirs"])
        cells = (counts[w] for w in ("right", "refuses", "loses tensors", "wrong", "crashes"))
        yield f"| {name} | {' | '.join(map(str, cells))} |"
    yield ""


def _table(rows: Sequence[Row]) -> Iterable[str]:
    names = list(MERGES)
    theirs = [f"mergekit: {name}" for name in THEIRS]
    yield f"| {' | '.join(['model type', 'class', 'heads', 'tensors', *names, *theirs])} |"
    yield "|---" * (4 + len(names) + len(theirs)) + "|"
    for row in rows:
        if row["left_out"]:
            continue
        model_type, name = row["key"].split(".", 1)
        cells = [model_type, name, ", ".join(row["heads"]), str(row["n_tensors"])]
        cells += [_ours(row, merge) for merge in names]
        cells += [word(row["theirs"][merge]) if merge in row["theirs"] else "" for merge in THEIRS]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _ours(row: Row, merge: str) -> str:
    """The verdict of a merge over all kinds of head."""
    names = [f"{merge}, {head}" for head in row["heads"]]
    verdicts = {word(row["ours"][name]) for name in names if name in row["ours"]}
    return ", ".join(sorted(verdicts)) or "no end"


def _not_right(rows: Sequence[Row]) -> Iterable[str]:
    faults: dict[str, list[str]] = {}
    for row in rows:
        for merge, verdict in faults_of(row).items():
            faults.setdefault(f"`{row['key']}`: {verdict}", []).append(merge)
    if faults:
        yield "## Not right"
        yield ""
        for verdict, merges in faults.items():
            yield f"- {verdict} ({'; '.join(merges)})"
        yield ""


def _left_out(rows: Sequence[Row]) -> Iterable[str]:
    left_out = [row for row in rows if row["left_out"]]
    if left_out:
        yield "## Left out, with transformers' message"
        yield ""
        for row in left_out:
            yield f"- `{row['key']}`: {row['left_out']}"


def right_rows(text: str) -> list[str]:
    """Of a page: the keys of the classes whose every merge of ours is right."""
    ours = slice(4, 4 + len(MERGES))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [f"{cells[0]}.{cells[1]}" for cells in lines if set(cells[ours]) == {RIGHT}]
