"""`mergeplan_manifest.json`: written last, and read strictly, since it may come from anywhere."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from annotated_types import Ge, Predicate

from mergeplan._native import __version__
from mergeplan.checkpoints.checkpoint import INDEX_ENDING
from mergeplan.checkpoints.header_bytes import header_sha256
from mergeplan.config.config import MergeConfig
from mergeplan.display.text import shown
from mergeplan.errors import InputError, MissingInputError
from mergeplan.planning.plan import MergePlan
from mergeplan.system.files import sha256_of, walk
from mergeplan.system.pathtext import path_of
from mergeplan.system.ranges import Count, Seed
from mergeplan.system.reading import MANIFEST, read_text
from mergeplan.system.strict import parse_strictly
from mergeplan.system.writing import write_durably

NAME = "mergeplan_manifest.json"
VERSION = 1


def is_plain(name: str) -> bool:
    """Whether a name stays in its folder, by the rules of every system.

    >>> is_plain("model.safetensors"), is_plain("../model.safetensors"), is_plain("c:x")
    (True, False, False)
    """
    if name in ("", ".", "..") or "\0" in name:
        return False
    return PurePosixPath(name).name == name and PureWindowsPath(name).name == name


def _digits(count: int) -> Callable[[str], bool]:
    pattern = re.compile(rf"[0-9a-f]{{{count}}}")

    def check(text: str) -> bool:
        if not pattern.fullmatch(text):
            raise ValueError(f"{count} hexadecimal digits")
        return True

    return check


def _stays(name: str) -> bool:
    if not is_plain(name):
        raise ValueError("a plain file name: a manifest names only files beside it")
    return True


def _stays_below(name: str) -> bool:
    if not all(map(is_plain, name.split("/"))):
        raise ValueError("a plain file name, or several joined by `/`: it names no file elsewhere")
    return True


def _is_path(text: str) -> bool:
    path_of(text)
    return True


PlainName = Annotated[str, Predicate(_stays)]
NameBelow = Annotated[str, Predicate(_stays_below)]
Sha256 = Annotated[str, Predicate(_digits(64))]
Xxh3 = Annotated[str, Predicate(_digits(16))]


@dataclass(frozen=True)
class InputFile:
    """A file that was merged: where it was, its length, when its content was last changed and when
    anything of it, and its number on its disk and the disk's; 0 what the system did not say."""

    path: Annotated[str, Predicate(_is_path)]
    bytes: Count
    mtime_ns: int
    ctime_ns: int = 0
    inode: int = 0
    device: int = 0


@dataclass(frozen=True)
class InputModel:
    """A model that was merged, and its files."""

    model: str
    files: tuple[InputFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a merge says of itself: enough to tell later whether an output is still that merge.

    Attributes:
        seed: Of random masks.
        config: The YAML.
        plan_sha256: Of the plan's canonical text.
        inputs: The models that are stored, and their files.
        inputs_sha256: Of the hashes of all that each job read: see `content_of_inputs`. `None`
            where mergekit's executor read some.
        files: Length in bytes of each safetensors file.
        headers: SHA-256 of the header of each safetensors file: names, dtypes, shapes, offsets.
            Empty where the manifest lists none.
        companions: SHA-256 of each file beside the weights, and in folders there; empty where it
            lists none.
        tensors: Content hash of each tensor: xxh3 of the stored bytes, over blocks of 65,536
            elements.
        methods: SHA-256 of the code of each method of the user's own.
        left_out: Tensors that some model lacked and the output does too, each with the reason.
    """

    mergeplan_version: str
    manifest_version: int
    seed: Seed
    config: str
    plan_sha256: Sha256
    inputs: tuple[InputModel, ...] = ()
    inputs_sha256: Sha256 | None = None
    files: dict[PlainName, Count]
    headers: dict[PlainName, Sha256] = field(default_factory=dict)
    companions: dict[NameBelow, Sha256] = field(default_factory=dict)
    tensors: dict[str, Xxh3]
    methods: dict[str, Sha256] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if more := sorted(set(self.headers) - set(self.files)):
            raise ValueError(f"headers of files that it lists, and not of {shown(more[0])}")

    @property
    def input_files(self) -> list[InputFile]:
        return [file for model in self.inputs for file in model.files]


@dataclass(frozen=True)
class _Version:
    manifest_version: Annotated[int, Ge(1)]


def load_manifest(folder: Path, most_bytes: int | None = None) -> Manifest:
    """Read the manifest of a merge.

    Args:
        most_bytes: How long it may be, where that is known.

    Raises:
        MissingInputError: No such folder, or it has no manifest.
        InputError: The manifest is damaged, of another version, or names files outside its folder.
    """
    if not folder.is_dir():
        raise MissingInputError(f"`{folder}` is not a folder", "give the folder that a merge wrote")
    path = folder / NAME
    if not os.path.lexists(path):
        raise MissingInputError(
            f"no manifest in `{folder}`: expected `{NAME}`",
            "only a folder that `mergeplan merge` wrote can be verified; `mergeplan diff` compares"
            " any two checkpoints",
        )
    hint = "the manifest is damaged or was not written by mergeplan"
    text = read_text(path, MANIFEST, hint, most_bytes=most_bytes)
    version = parse_strictly(text, _Version, f"manifest `{path}`", hint).manifest_version
    if version != VERSION:
        raise InputError(
            f"`{path}`: expected `manifest_version` {VERSION}, found {version}",
            "a newer mergeplan wrote it; verify with that version",
        )
    return parse_strictly(text, Manifest, f"manifest `{path}`", hint)


def stored_hashes(
    hashes: dict[str, str], files: Sequence[tuple[str, int, list[str]]], folder: Path, threads: int
) -> dict[str, str]:
    """The content hash of each tensor that a merge's files hold.

    What was merged as one and lies there in parts is read once more.

    Args:
        hashes: By the tensors of jobs.
        files: Name, length and tensors of each file.
    """
    from mergeplan._native import content_hashes

    found = {}
    for name, _, tensors in files:
        if all(tensor in hashes for tensor in tensors):
            found.update({tensor: hashes[tensor] for tensor in tensors})
        else:
            found.update(content_hashes(folder / name, threads=threads))
    return found


def content_of_inputs(read: dict[str, str]) -> str:
    """One hash for the hashes of all that each job read, by its tensor."""
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


InputRows = list[list[tuple[str, int, int, int, int, int]]]


def write_manifest(
    folder: Path,
    plan: MergePlan,
    config: MergeConfig,
    inputs: InputRows,
    files: dict[str, int],
    hashes: dict[str, str],
    read: dict[str, str],
) -> None:
    """Write the manifest of a merge, last of all files.

    Args:
        inputs: For each model that is stored, its files as `InputFile` has them.
        files: Bytes of each file that was written.
        hashes: Content hash of each tensor.
        read: Hash of all that each job read, by its tensor.
    """
    # The index is checked by what it says, and may be written anew.
    there = [path for path in walk(folder) if not stat.S_ISDIR(path.lstat().st_mode)]
    every = {path.relative_to(folder).as_posix() for path in there}
    beside = sorted(name for name in every - {*files} if not name.endswith(INDEX_ENDING))
    code = config.method.code
    manifest = Manifest(
        mergeplan_version=__version__,
        manifest_version=VERSION,
        seed=plan.data.seed,
        config=config.text,
        plan_sha256=plan.data.sha256(),
        inputs=tuple(
            InputModel(model.name, tuple(InputFile(*row) for row in rows))
            for model, rows in zip(plan.stored, inputs, strict=True)
        ),
        inputs_sha256=None if plan.fallback else content_of_inputs(read),
        files=files,
        headers={name: header_sha256(folder / name) for name in files},
        companions={name: sha256_of(folder / name) for name in beside},
        tensors=hashes,
        methods={} if code is None else {config.method.name: code.sha256},
        left_out=plan.left_out,
    )
    write_durably(folder / NAME, json.dumps(asdict(manifest), indent=2) + "\n", replace=True)
