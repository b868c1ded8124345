"""Code that comes with a model: which of its files what loads the model will run. Nothing is run
here; imports are read from the syntax alone."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mergeplan.checkpoints.beside import entries_beside, json_beside
from mergeplan.system.files import is_there
from mergeplan.system.reading import CODE, read_bytes

# Modules that sentence-transformers has itself.
_INSTALLED = ("sentence_transformers.", "pylate.")


@dataclass(frozen=True)
class ModelCode:
    """The code of one folder.

    Attributes:
        files: What `auto_map` names, and what those files import relatively, by their names in the
            folder.
        missing: The same, where there is no such file in the folder: with who wants it.
        elsewhere: Other repositories whose code is loaded in place of a copy.
    """

    files: tuple[str, ...]
    missing: dict[str, str]
    elsewhere: tuple[str, ...]


def code_of(folder: Path, configs: Iterable[str]) -> ModelCode:
    """Follow `auto_map`.

    Args:
        configs: Names of the JSON files that may have one; and of sentence-transformers'
            `modules.json`, whose types may be the model's own.
    """
    wanted: dict[str, str] = {}
    elsewhere: dict[str, None] = {}
    for config in configs:
        for reference in _references(folder, config):
            repository, _, name = reference.rpartition("--")
            module = name.rpartition(".")[0]
            if repository:
                elsewhere[repository] = None
            elif module:
                wanted.setdefault(f"{module.replace('.', '/')}.py", config)
    files: dict[str, None] = {}
    missing: dict[str, str] = {}
    queue = list(wanted.items())
    for name, who in queue:  # it grows
        if name in files or name in missing:
            continue
        if not is_own(folder, name):
            missing[name] = who
            continue
        files[name] = None
        queue += [(one, name) for one in _imports(folder, name)]
    return ModelCode(tuple(sorted(files)), missing, tuple(elsewhere))


def is_own(folder: Path, name: str) -> bool:
    """Whether a file lies in a folder: no `..`, and no link that leads out of it.

    In the hub's cache every file is a link, into the blobs of the same repository.
    """
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
        return False
    path = folder / name
    if not is_there(path) or not path.is_file():
        return False
    roots = [folder.resolve()]
    if folder.parent.name == "snapshots":
        roots.append((folder.parent.parent / "blobs").resolve())
    return any(path.resolve().is_relative_to(root) for root in roots)


def _references(folder: Path, config: str) -> list[str]:
    """`module.Class` or `repository--module.Class`, each that a file names."""
    if config == "modules.json":
        kinds = [str(one.get("type")) for one in entries_beside(folder / config)]
        return [kind for kind in kinds if "." in kind and not kind.startswith(_INSTALLED)]
    return list(_texts(json_beside(folder / config).get("auto_map")))


def _texts(value: Any) -> Iterable[str]:
    """Classes stand alone, or as a slow and a fast one, of which one may be null."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _imports(folder: Path, name: str) -> list[str]:
    """The files that one imports relatively, whether they are there or not."""
    try:
        tree = ast.parse(read_bytes(folder / name, CODE))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # of another Python, or damaged: the donor's loader will say
    place = PurePosixPath(name).parent
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        parents = [place, *place.parents][: node.level]
        if len(parents) < node.level:
            continue  # above the folder
        inside = parents[-1]
        if node.module:
            found += _files_of(folder, inside, node.module.split("."))
        else:  # a name may be one of the package's own
            files = [f"{inside / alias.name}.py" for alias in node.names]
            found += [file for file in files if is_own(folder, file)]
    return found


def _files_of(folder: Path, inside: PurePosixPath, words: list[str]) -> list[str]:
    """The files of a module: its own, and the packages that it lies in."""
    paths = [inside.joinpath(*words[: number + 1]) for number in range(len(words))]
    packages = [str(path / "__init__.py") for path in paths]
    found = [package for package in packages if is_own(folder, package)]
    return found if packages[-1] in found else [*found, f"{paths[-1]}.py"]
