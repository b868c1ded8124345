"""A pool's file: everything that is wrong with it, and what it names all the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen, Predicate

from mergeplan.config.labels import method_of
from mergeplan.display.text import parse_count
from mergeplan.errors import InputError
from mergeplan.system.excerpts import with_excerpts
from mergeplan.system.files import expanded, is_there
from mergeplan.system.ranges import Seed
from mergeplan.system.reading import POOL, read_text
from mergeplan.system.strict import CLOSED, fit_strictly
from mergeplan.system.yamlfile import parse_leniently, yaml_of

# The label of k = 0 in lists of merges.
BASE = "base"


@dataclass(frozen=True)
class SizeFound:
    """An entry of `sizes`; `base` is `None` where it names none."""

    base: Path | None
    experts: dict[str, Path]
    n_params: float | None = None


@dataclass(frozen=True)
class PoolFound:
    """What a file names. With faults, what is left without them.

    Attributes:
        sizes: By their places in the file.
        faults: All of the file itself, each with its line; no model is opened.
    """

    text: str
    sizes: dict[int, SizeFound] = field(default_factory=dict)
    data: dict[str, Path] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    random_seed: int | None = None
    faults: list[InputError] = field(default_factory=list)


def _is_path(text: str) -> bool:
    if not text or "\0" in text:
        raise ValueError("a path")
    return True


def _is_expert(name: str) -> bool:
    # A name becomes a part of file names and of cells of a CSV.
    if not name or set(name) & set("+,\n"):
        raise ValueError("a name without + and commas")
    return True


def _is_label(name: str) -> bool:
    if not name.strip() or name == BASE:
        raise ValueError(f"a label: words other than `{BASE}`")
    return True


_PathText = Annotated[str, Predicate(_is_path)]


@dataclass(frozen=True)
class _Size:
    """An entry of `sizes`."""

    __pydantic_config__: ClassVar = CLOSED

    base: _PathText
    experts: Annotated[dict[Annotated[str, Predicate(_is_expert)], _PathText], MinLen(1)]
    n_params: Any = None


@dataclass(frozen=True)
class _File:
    """What the file may say."""

    __pydantic_config__: ClassVar = CLOSED

    sizes: Annotated[tuple[_Size, ...], MinLen(1)]
    data: dict[str, _PathText] | None = None
    methods: dict[Annotated[str, Predicate(_is_label)], dict[str, Any] | None] | None = None
    random_seed: Seed | None = None


def find_pool(path: Path) -> PoolFound:
    """Read a pool file as far as it can be read; relative paths in it are relative to it.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read.
    """
    text = read_text(path, POOL, _hint(path), given=True)
    faults = []
    try:
        data = yaml_of(text, path, POOL)
    except InputError as error:
        faults += with_excerpts(error.faults, text, f"cannot read pool `{path}`: ")
        data = parse_leniently(text)
        if data is None:
            return PoolFound(text, faults=faults)
    if isinstance(data, dict) and "merge_method" in data and "sizes" not in data:
        message = f"pool `{path}`: it is the config of a merge, and no pool: it has `merge_method`"
        hint = f"`mergeplan merge {path} OUT_DIR` runs it; `mergeplan init FOLDER` writes a pool"
        faults += with_excerpts([InputError(message, hint)], text, f"pool `{path}`: ")
        return PoolFound(text, faults=faults)
    try:
        fit_strictly(data, _File, f"pool `{path}`")
    except InputError as error:
        faults += with_excerpts(error.faults, text, f"pool `{path}`: ")
    data, folder = _mapping(data), path.resolve().parent
    own: list[InputError] = []
    sizes = data.get("sizes")
    entries = sizes if isinstance(sizes, list) else []
    found = PoolFound(
        text,
        sizes={n: _size(_mapping(one), n, folder, own) for n, one in enumerate(entries)},
        data=_paths(data.get("data"), folder),
        methods=_methods(_mapping(data.get("methods")), own),
        random_seed=data.get("random_seed"),
    )
    found.faults.extend([*faults, *with_excerpts(own, text, f"`{path}`: ")])
    return found


def _hint(path: Path) -> str:
    """What to do where the pool cannot be read."""
    if is_there(inside := path / "pool.yml"):
        return f"name the file in it: `{inside}`"
    return "`mergeplan init FOLDER` writes a pool.yml of the models, adapters and texts in a folder"


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _fits(value: object, test: Callable[[str], bool]) -> bool:
    try:
        return isinstance(value, str) and test(value)
    except ValueError:
        return False


def _paths(
    value: object, folder: Path, test: Callable[[str], bool] = lambda name: True
) -> dict[str, Path]:
    """Those of a mapping's values that are paths, where their names pass a test."""
    return {
        name: folder / expanded(text)
        for name, text in _mapping(value).items()
        if _fits(name, test) and _fits(text, _is_path)
    }


def _methods(given: dict[str, Any], faults: list[InputError]) -> dict[str, dict[str, Any]]:
    methods: dict[str, dict[str, Any]] = {}
    for label, options in given.items():
        if not _fits(label, _is_label) or not isinstance(options, dict | None):
            continue
        methods[label] = options or {}
        try:
            method_of(label, methods[label])
        except InputError as error:
            told = (InputError(f"`methods.{label}`: {e.message}", e.hint) for e in error.faults)
            faults.extend(told)
    return methods or {"average": {}}


def _size(entry: dict[str, Any], number: int, folder: Path, faults: list[InputError]) -> SizeFound:
    where = f"sizes[{number}]"
    written, count = entry.get("n_params"), None
    try:
        count = None if written is None else parse_count(str(written))
    except ValueError as error:
        faults.append(InputError(f"`{where}.n_params`: found `{written}`", str(error)))
    base = _paths({"base": entry.get("base")}, folder)
    experts = _paths(entry.get("experts"), folder, _is_expert)
    # A folder under two names would count as two experts, or as one that changes nothing.
    seen: dict[Path, str] = {}
    for key, path in {**base, **{f"experts.{name}": p for name, p in experts.items()}}.items():
        first = seen.setdefault(path.resolve(), key)
        if first != key:
            same = f"`{where}.{key}` and `{where}.{first}` are the same folder, `{path}`"
            faults.append(InputError(same))
    return SizeFound(base.get("base"), experts, count)
