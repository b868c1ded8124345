"""What is in folders that nobody has described: models, adapters and texts."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.adapters.folder import CONFIG as ADAPTER_CONFIG
from mergeplan.checkpoints.adapters.folder import adapter_config, is_adapter
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.lookalikes import no_model
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.checkpoints.weights import has_weights
from mergeplan.display.text import counted, is_unicode
from mergeplan.errors import InputError, MergeplanError, MissingInputError
from mergeplan.evaluation.measured import RUN
from mergeplan.merging.manifest import NAME as MANIFEST

# Folders in a folder that is given, and those in them.
LEVELS = 2
_TEXTS = ".jsonl"
_MOST_TEXTS = 100
# Texts of other kinds, as they are named where no other text is found.
_OTHER_TEXTS = re.compile(r".*\.(txt|parquet|arrow|jsonl\.(gz|zst|xz|bz2))", re.IGNORECASE)
_TRAINING = re.compile(r"(.*[-_.])?train(ing)?([-_.].*)?", re.IGNORECASE)
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# Of files that say that a folder is a model's, or was to be.
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|gguf|onnx|h5|msgpack|distcp|nemo|incomplete|aria2)"
)
_REFUSED = re.compile(r"[+,=\s\x00-\x1f\x7f-\x9f]+")
_PIPELINE, _SNAPSHOTS = "model_index.json", "snapshots"
# Who wrote them says that these folders are no experts.
_MADE = {
    MANIFEST: "a merge that mergeplan wrote",
    "mergekit_config.yml": "a merge that mergekit wrote",
    RUN: "the folder of a `calibrate` run",
}


@dataclass(frozen=True)
class Model:
    """A whole model.

    Attributes:
        place: As it was found.
        name: The folder's, or that of the training or of the hub's model that it belongs to.
    """

    place: Path
    checkpoint: Checkpoint
    name: str

    @property
    def key(self) -> str:
        """The same for all names of one folder."""
        return os.path.realpath(self.place)


@dataclass(frozen=True)
class Adapter:
    """An adapter; `named` is the base that it names, empty where it names none."""

    place: Path
    named: str
    name: str


@dataclass
class Found:
    """What folders hold.

    Attributes:
        left_out: What was passed over, and why.
        other_texts: Of how many files of other kinds each folder could be made texts.
    """

    models: list[Model] = field(default_factory=list)
    adapters: list[Adapter] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    other_texts: Counter[Path] = field(default_factory=Counter)

    @property
    def _count(self) -> int:
        return len(self.models) + len(self.adapters) + len(self.left_out)


def look_into(folders: Sequence[Path]) -> Found:
    """Look into folders and, two levels deep, into those in them; hidden ones are passed over.

    Headers and settings alone are read. A folder that several links lead to counts once.

    Args:
        folders: Of models, or of folders; a `.jsonl` file is a text.

    Raises:
        MissingInputError: One is not there.
        InputError: One is a file of another kind.
    """
    found = Found()
    seen: set[str] = set()
    for folder in folders:
        if folder.is_file() and folder.suffix == _TEXTS:
            found.texts.append(folder)
        elif folder.is_file():
            raise InputError(
                f"`{folder}`: expected a folder or a {_TEXTS} file",
                "give the folder that the model's file lies in",
            )
        elif folder.exists() and not folder.is_dir():
            raise InputError(
                f"`{folder}` is neither a folder nor a regular file", "give folders of models"
            )
        elif not folder.is_dir():
            raise MissingInputError(f"`{folder}` is not there", "give folders of models")
        else:
            _look(folder, LEVELS, found, seen)
    found.texts = _held_out(found, folders)
    return found


def _look(place: Path, levels: int, found: Found, seen: set[str], name: str = "") -> None:
    real = os.path.realpath(place)
    if real in seen:
        return
    seen.add(real)
    try:
        folders, files = _listed(place)
    except OSError as error:
        found.left_out[place] = f"cannot be read: {error.strerror}"
        return
    if not is_unicode(str(place)):
        found.left_out[place] = "its name is no UTF-8, which no YAML can hold: rename it"
    elif made := next((what for name, what in _MADE.items() if name in files), None):
        found.left_out[place] = made
    elif has_weights(place) or ADAPTER_CONFIG in files or _PIPELINE in files:
        _take(place, name or folder_name(place), found)
    elif _SNAPSHOTS in folders and (snapshot := _snapshot(place)) is not None:
        _look(snapshot, 0, found, seen, place.name.rpartition("--")[2])
    else:
        _take_texts(place, [name for name in files if name.endswith(_TEXTS)], found)
        found.other_texts[place] += sum(bool(_OTHER_TEXTS.fullmatch(name)) for name in files)
        before = found._count
        if levels and _SNAPSHOTS not in folders:
            for folder, own in _last_of_training(place, folders, found):
                _look(folder, levels - 1, found, seen, own)
        if found._count == before and _is_meant(files, folders):
            found.left_out[place] = no_model(place).message


def _listed(place: Path) -> tuple[list[str], list[str]]:
    """Folders and files that are not hidden; links come last, so that a folder has its own name."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(place) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in sorted(shown, key=lambda entry: (entry.is_symlink(), entry.name)):
        # `entry.is_dir` raises of a link to itself.
        (folders if os.path.isdir(entry) else files).append(entry.name)  # noqa: PTH112
    return folders, files


def _is_meant(files: Iterable[str], folders: Iterable[str]) -> bool:
    """Whether a folder without a model's weights looks like one that should have them."""
    return (
        "config.json" in files
        or _SNAPSHOTS in folders
        or any(_WEIGHTS.fullmatch(name) for name in files)
    )


def folder_name(place: Path) -> str:
    """A folder's name, also where a path such as `.` does not say it; a link's is its own."""
    return place.name if place.name not in ("", "..") else place.resolve().name


def plain_name(text: str) -> str:
    """A name for an expert or a domain: pools and options part theirs at `+`, `,` and `=`.

    >>> plain_name("math, easy"), plain_name("code")
    ('math-easy', 'code')
    """
    return _REFUSED.sub("-", text)


def _snapshot(place: Path) -> Path | None:
    """The files of a model in the hub's cache: those of `main`, or the only ones."""
    try:
        revisions = [path.name for path in (place / _SNAPSHOTS).iterdir()]
    except OSError:
        return None
    try:
        main = (place / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        main = ""
    if main in revisions:
        return place / _SNAPSHOTS / main
    return place / _SNAPSHOTS / revisions[0] if len(revisions) == 1 else None


def _take_texts(place: Path, names: list[str], found: Found) -> None:
    if len(names) > _MOST_TEXTS:
        found.left_out[place / f"*{_TEXTS}"] = (
            f"{len(names):,} texts in one folder are parts of a data set, and no domains: `--data`"
            " names those that are"
        )
    else:
        found.texts += [place / name for name in names]


def _last_of_training(place: Path, folders: list[str], found: Found) -> list[tuple[Path, str]]:
    """The folders to look into, and their names where they have another: of a training's
    checkpoints, the last that holds a model."""
    numbers = {name: int(m[1]) for name in folders if (m := _CHECKPOINT.fullmatch(name))}
    others = [(place / name, "") for name in folders if name not in numbers]
    steps = [place / name for name in sorted(numbers, key=lambda name: numbers[name])]
    steps = [step for step in steps if has_weights(step) or is_adapter(step)]
    if not steps:
        return [(place / name, "") for name in folders]
    for step in steps[:-1]:
        found.left_out[step] = f"an earlier checkpoint of the training of `{steps[-1].name}`"
    return [*others, (steps[-1], folder_name(place))]


def _take(place: Path, name: str, found: Found) -> None:
    try:
        if is_adapter(place):
            named = name_in(adapter_config(place), "base_model_name_or_path")
            found.adapters.append(Adapter(place, named, name))
        else:
            found.models.append(Model(place, open_checkpoint(str(place)), name))
    except (MergeplanError, OSError) as error:
        found.left_out[place] = reason(error)


def name_in(config: Mapping[str, Any], key: str) -> str:
    """A model's name in settings; empty where there is none."""
    named = config.get(key)
    return named if isinstance(named, str) and "\0" not in named else ""


def reason(error: MergeplanError | OSError) -> str:
    """An error as the reason why something is left out."""
    return error.message if isinstance(error, MergeplanError) else error.strerror or str(error)


def paths(places: Iterable[Path], most: int = 8) -> str:
    """Paths for a message, whole, the first of them."""
    every = list(places)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(f"`{place}`" for place in every[:most]) + more


def _held_out(found: Found, given: Sequence[Path]) -> list[Path]:
    """Texts without those that say that they are for training, unless they are given themselves."""
    kept = []
    for text in dict.fromkeys(found.texts):
        of_training = _TRAINING.fullmatch(text.stem) or _TRAINING.fullmatch(text.parent.name)
        if of_training and text not in given:
            found.left_out[text] = "for training, by its name: a pool measures on held-out text"
        elif not is_unicode(str(text)):
            found.left_out[text] = "its name is no UTF-8, which no YAML can hold: rename it"
        else:
            kept.append(text)
    return kept


def texts_elsewhere(found: Found) -> str:
    """A word about texts of other kinds, empty where there are none."""
    places = [place for place, count in found.other_texts.items() if count]
    count = sum(found.other_texts.values())
    return f"{counted(count, 'files')} of other kinds, as in `{places[0]}`" if places else ""
