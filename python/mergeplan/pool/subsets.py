"""One merge of a sweep, and `subsets.csv`, which lists them."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, Predicate

from mergeplan.config.labels import draws_masks, in_words
from mergeplan.config.write import base_config, merge_config, to_yaml
from mergeplan.display.summary import Summarized
from mergeplan.display.text import format_count, parse_count, shown
from mergeplan.errors import InputError, SurroundingsError, nearest
from mergeplan.measurements.rows import MergeKey
from mergeplan.pool.file import BASE
from mergeplan.pool.pool import Pool
from mergeplan.system.csvtext import open_table
from mergeplan.system.files import make_folder
from mergeplan.system.ranges import LARGEST_POOL, Params, Seed, is_json_object, parse_options
from mergeplan.system.reading import CONFIG, TABLE, read_bytes, read_text
from mergeplan.system.writing import ExistsError, refuse_existing, write_durably

COLUMNS = (
    "config",
    "key",
    "size",
    "n_params",
    "method",
    "options",
    "k",
    "subset",
    "pool_size",
    "seed",
    "pool_paths_hash",
)
# What earlier versions called the last one.
_OLD_HASH = "pool_hash"
_READABLE = 60


@dataclass(frozen=True)
class SubsetMerge:
    """One equally weighted merge of a subset of a pool, or its base.

    Attributes:
        size: Index into `Pool.sizes`.
        n_params: N of that base.
        method: Label; `base` for the base.
        options: Of the label, as the pool gives them: canonical JSON.
        subset: Sorted names of the experts; empty for the base.
        seed: Of random masks, which are keyed by it, the tensor and the expert's content; 0 for
            methods without masks.

    >>> merge = SubsetMerge(0, 80592.0, "ties", '{"density": 0.2}', ("js", "md"))
    >>> merge.key
    '80.6k-ties-js_md-d5143a2c8c'
    """

    size: Annotated[int, Ge(0), Le(LARGEST_POOL)]
    n_params: Params
    method: str
    options: Annotated[str, Predicate(is_json_object)] = "{}"
    subset: tuple[str, ...] = ()
    seed: Seed = 0

    def __post_init__(self) -> None:
        if list(self.subset) != sorted(set(self.subset)):
            raise ValueError(f"expected sorted, different names, found {self.subset}")
        if (self.method == BASE) != (not self.subset):
            raise ValueError(f"method `{self.method}` with {self.k} experts")

    @property
    def k(self) -> int:
        return len(self.subset)

    @property
    def settings(self) -> dict[str, Any]:
        """The options as data."""
        return dict(json.loads(self.options))

    @property
    def order(self) -> tuple[int, bool, str, str, int, tuple[str, ...], int]:
        """By size, method, options, k and names; each base before its merges."""
        merged = self.method != BASE
        return self.size, merged, self.method, self.options, self.k, self.subset, self.seed

    @property
    def merge_key(self) -> MergeKey:
        """As the rows of `measurements.csv` have it."""
        if self.method == BASE:
            return self.n_params, "", "{}", (), ""
        return self.n_params, self.method, self.options, self.subset, str(self.seed)

    @cached_property
    def key(self) -> str:
        """A name for files, readable, and by its hash unique over options and seeds as well.

        No `+`, which mergekit would read as a LoRA adapter.
        """
        identity = [self.n_params, self.method, self.options, self.subset, self.seed]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:10]
        names = "_".join(self.subset)
        if len(names) > _READABLE:
            names = f"k{self.k}"
        words = [format_count(self.n_params), self.method[:_READABLE], names, digest]
        return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(word for word in words if word))

    def config(self, pool: Pool) -> dict[str, Any]:
        """The mergekit configuration, as data.

        Raises:
            InputError: The pool lacks the size or an expert, or the options are wrong.
        """
        if self.size >= len(pool.sizes):
            raise InputError(f"the pool has {len(pool.sizes)} sizes, and no number {self.size}")
        size = pool.sizes[self.size]
        for name in self.subset:
            if name not in size.experts:
                known = list(size.experts)
                raise InputError(f"the pool has no expert `{name}`", nearest(name, known))
        if not self.subset:
            return base_config(size.base, size.out_dtype)
        experts = [size.experts[name] for name in self.subset]
        found = merge_config(self.method, self.settings, size.base, experts, size.out_dtype)
        # The YAML alone then gives the same masks.
        return found | ({"random_seed": self.seed} if self.seed else {})


class SubsetMerges(Summarized, tuple[SubsetMerge, ...]):
    """Merges in canonical order."""

    def summary(self) -> str:
        """A line for each: k, method with its options, and the experts."""
        lines = [f"{len(self)} merges"]
        for one in self:
            how = in_words(one.method, one.options)
            lines.append(f"  k = {one.k}, {how}: {', '.join(one.subset) or 'the base'}")
        return "\n".join(lines)

    def records(self) -> list[dict[str, Any]]:
        """A row for each merge."""
        names = ("key", "n_params", "method", "options", "k", "seed")
        return [
            {**{name: getattr(one, name) for name in names}, "subset": "+".join(one.subset)}
            for one in self
        ]


@dataclass(frozen=True)
class SubsetRow:
    """One row of `subsets.csv`.

    Attributes:
        config: The merge's YAML, an absolute path.
        pool_size: Experts that there are, M.
        pool_paths_hash: Which pool it was written for; see `pool_paths_hash`.
    """

    merge: SubsetMerge
    config: Path
    key: str
    pool_size: int
    pool_paths_hash: str = ""


def canonical_options(options: Mapping[str, Any]) -> str:
    """Options as canonical JSON: sorted, and numbers as floats, so that 1 and 1.0 are one.

    >>> canonical_options({"lambda": 1, "density": 0.2})
    '{"density": 0.2, "lambda": 1.0}'
    """
    plain = {key: float(v) if type(v) is int else v for key, v in options.items()}
    return json.dumps(plain, sort_keys=True)


def subset_merge(
    pool: Pool,
    size: int,
    label: str,
    subset: Iterable[str],
    *,
    seed: int = 0,
    lambda_: float | None = None,
) -> SubsetMerge:
    """A merge of the pool's experts by one of its labels; the base for an empty subset.

    Args:
        size: Index into `Pool.sizes`.
        seed: Kept only by methods with random masks, so that others are not measured twice.
        lambda_: In place of the label's own.

    Raises:
        InputError: No such label, or the base's headers are at fault.
    """
    n_params = pool.sizes[size].count_params()
    names = tuple(sorted(subset))
    if not names:
        return SubsetMerge(size, n_params, BASE)
    if label not in pool.methods:
        known = list(pool.methods)
        hint = nearest(label, known) or f"it has: {', '.join(known)}"
        raise InputError(f"the pool has no method `{label}`", hint)
    options = dict(pool.methods[label])
    if lambda_ is not None:
        options["lambda"] = lambda_
    masks = draws_masks(label, options)
    return SubsetMerge(
        size, n_params, label, canonical_options(options), names, seed if masks else 0
    )


def pool_paths_hash(pool: Pool) -> str:
    """Which pool it is: its bases and experts and where they lie; not the methods or the texts."""
    sizes = [
        [str(size.base.resolve()), {n: str(p.resolve()) for n, p in size.experts.items()}]
        for size in pool.sizes
    ]
    return hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:16]


def write_subsets(
    path: Path, merges: Iterable[SubsetMerge], pool: Pool, *, replace: bool = False
) -> None:
    """Write `subsets.csv`, and beside it `configs/` with the YAML of each merge.

    YAMLs that are there already stay as they are; the list is written last and in one step.

    Args:
        replace: Whether there is a list, of which these merges are more. Without one, a YAML is
            there only where a run was stopped: one that reads otherwise is somebody else's.

    Raises:
        InputError: The pool lacks what a merge needs; nothing is written then.
        SurroundingsError: The folder cannot be written to, or has files in the way.
    """
    rows = list(merges)
    texts = {merge.key: to_yaml(merge.config(pool), [merge.key]) for merge in rows}
    if len(texts) < len(rows):
        raise ValueError("a merge is listed twice")
    configs = path.parent / "configs"
    if not replace and configs.is_dir():
        for key, text in texts.items():
            _refuse_other(configs / f"{key}.yml", text)
    make_folder(configs)
    for key, text in texts.items():
        with suppress(ExistsError):
            write_durably(configs / f"{key}.yml", text, replace=False)
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    identity = pool_paths_hash(pool)
    for merge in rows:
        writer.writerow(
            {
                "config": f"configs/{merge.key}.yml",
                "key": merge.key,
                "size": merge.size,
                "n_params": f"{merge.n_params:.0f}",
                "method": merge.method,
                "options": merge.options,
                "k": merge.k,
                "subset": "+".join(merge.subset),
                "pool_size": len(pool.sizes[merge.size].experts),
                "seed": merge.seed,
                "pool_paths_hash": identity,
            }
        )
    write_durably(path, file.getvalue(), replace=replace)


def _refuse_other(path: Path, text: str) -> None:
    refuse_existing(path, overwrite=True)
    if path.exists() and read_bytes(path, CONFIG) != text.encode():
        raise SurroundingsError(
            f"`{path}` exists, and no `subsets.csv` that lists it",
            "sample into another folder, or move it away",
        )


def read_subsets(path: Path, *, may_be_empty: bool = False) -> list[SubsetRow]:
    """Read `subsets.csv`.

    Raises:
        MissingInputError: There is no such file.
        InputError: It lists no merges, a column is missing, or a value is wrong; the message names
            row and column.
    """
    text = read_text(path, TABLE, given=True)
    reader, columns = open_table(io.StringIO(text, newline=""), path)
    for needed in COLUMNS[:-1]:
        if needed not in columns:
            hint = nearest(needed, columns) or f"needed are {', '.join(COLUMNS[:-1])}"
            raise InputError(f"`{path}`: column `{needed}` is missing", hint)
    rows: list[SubsetRow] = []
    seen: dict[str, int] = {}
    try:
        for record in reader:
            row = _row(record, reader.line_num, path.resolve().parent)
            first = seen.setdefault(row.key, reader.line_num)
            if first != reader.line_num:
                where = f"row {reader.line_num}, column `key`"
                raise InputError(f"{where}: {shown(row.key)} stands in row {first} already")
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"`{path}`, row {reader.line_num}: {error}") from error
    except InputError as error:
        raise InputError(f"`{path}`, {error.message}", error.hint) from error
    if not rows and not may_be_empty:
        raise InputError(f"`{path}` lists no merges", "`mergeplan sample POOL.yml -o DIR` does")
    return rows


def other_columns(path: Path) -> list[str]:
    """The columns of a list that are not ours."""
    header = next(csv.reader(io.StringIO(read_text(path, TABLE), newline="")), [])
    return [name for name in header if name not in (*COLUMNS, _OLD_HASH)]


def _row(record: dict[str, str | None], row: int, folder: Path) -> SubsetRow:
    def text(column: str) -> str:
        return (record.get(column) or "").strip()

    def fail(column: str, expected: str) -> InputError:
        found = shown(text(column)) if text(column) else "nothing"
        return InputError(f"row {row}, column `{column}`: expected {expected}, found {found}")

    def whole(column: str, largest: int) -> int:
        value = int(text(column)) if re.fullmatch(r"[0-9]{1,20}", text(column)) else -1
        if not 0 <= value <= largest:
            raise fail(column, f"a whole number from 0 to {largest}")
        return value

    for column in ("config", "key", "method"):
        if not text(column):
            raise fail(column, "a text")
    try:
        n_params = parse_count(text("n_params"), smallest=1)
    except ValueError as error:
        raise fail("n_params", "a number of parameters") from error
    try:
        options = parse_options(text("options"))
    except ValueError as error:
        raise fail("options", "a JSON object") from error
    pool_size = whole("pool_size", LARGEST_POOL)
    k = whole("k", pool_size)
    subset = tuple(sorted(text("subset").split("+"))) if text("subset") else ()
    if not len(set(subset)) == len(subset) == k or "" in subset:
        raise fail("subset", f"{k} different experts joined by `+`")
    if (text("method") == BASE) != (k == 0):
        raise fail("method", f"`{BASE}` where k is 0, and only there")
    merge = SubsetMerge(
        size=whole("size", LARGEST_POOL),
        n_params=n_params,
        method=text("method"),
        options=canonical_options(options),
        subset=subset,
        seed=whole("seed", 2**64 - 1),
    )
    if merge.key != text("key"):
        raise fail("key", f"`{merge.key}`, which follows from the other columns")
    return SubsetRow(
        merge, folder / text("config"), merge.key, pool_size, text(COLUMNS[-1]) or text(_OLD_HASH)
    )
