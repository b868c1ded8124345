"""Training and held-out texts of every kind, disjoint by package and by 13-grams."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests.tools.byte_pools.kinds import KINDS
from tests.tools.byte_pools.sources import installed, text_of, unpacked

# Bytes of a document, and at most how many of one package and kind, where there are many files of
# one file.
LENGTH = 192
_OF_PACKAGE, _OF_FILE = 150, 12
# Tokens in a row that no held-out document shares with training texts.
_GRAM = 13
# A package's texts are held out where the hash of its name says so, one in four.
_HELD_OUT = 4
# Held-out documents of a kind, as evenly of its packages as they go.
_DOCUMENTS = 60
# A word, but each character for itself where a script puts no spaces between words.
_TOKEN = re.compile(r"[^\W\u3040-\uffff]+|\S")

Document = tuple[str, str]  # package, text


def collect(out: Path, folders: Sequence[Path], *, debian: bool = True) -> None:
    """Write OUT/train/KIND.jsonl and OUT/eval/KIND.jsonl, `text` and `group` on each line."""
    files = _files(folders, debian)
    train: dict[str, list[Document]] = {}
    held: dict[str, list[Document]] = {}
    seen: set[str] = set()
    for kind in KINDS:
        documents = [
            (package, text)
            for package, paths in sorted(files[kind].items())
            for text in _documents(paths, seen)
        ]
        train[kind] = [d for d in documents if _number(d[0]) % _HELD_OUT]
        held[kind] = [d for d in documents if not _number(d[0]) % _HELD_OUT]
    known = {gram for documents in train.values() for _, text in documents for gram in _grams(text)}
    for kind in KINDS:
        left = [d for d in held[kind] if (own := _grams(d[1])) and not own & known]
        shared = len(held[kind]) - len(left)
        chosen = _evenly(left, _DOCUMENTS)
        _write(out / "train" / f"{kind}.jsonl", train[kind])
        _write(out / "eval" / f"{kind}.jsonl", chosen)
        print(
            f"{kind:8} {len(train[kind]):6} texts of {_packages(train[kind]):3} packages;"
            f" {len(chosen):3} of {_packages(chosen):2} held out, {shared} shared or short ones"
            " left out"
        )
        if _packages(train[kind]) < 2 or _packages(chosen) < 2:
            raise SystemExit(
                f"error: `{kind}` has too few packages\n\nhint: give more with --folder"
            )


def _files(folders: Sequence[Path], debian: bool) -> dict[str, dict[str, list[Path]]]:
    """Files by kind and package."""
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    sources = [installed()] if debian else []
    for source in [*sources, *map(unpacked, folders)]:
        for package, path in source:
            for kind, patterns in KINDS.items():
                if any(fnmatch(str(path), pattern) for pattern in patterns):
                    found[kind][package].append(path)
    return found


def _documents(paths: Iterable[Path], seen: set[str]) -> list[str]:
    """Pieces of a package's files that nothing had before, some of each of many files."""
    found: list[str] = []
    files = sorted(set(paths), key=lambda path: _number(str(path)))[:_OF_PACKAGE]
    each = max(_OF_FILE, -(-_OF_PACKAGE // len(files)))
    for path in files:
        raw = text_of(path).encode()
        pieces = [raw[at : at + LENGTH] for at in range(0, len(raw) - LENGTH, LENGTH)]
        # A character that the cut went through is left out.
        texts = [piece.decode(errors="ignore") for piece in pieces]
        for text in sorted(texts, key=_number)[:each]:
            same = " ".join(_TOKEN.findall(text))
            if same not in seen:
                seen.add(same)
                found.append(text)
    return found[:_OF_PACKAGE]


def _grams(text: str) -> set[int]:
    tokens = _TOKEN.findall(text)
    return {hash(tuple(tokens[at : at + _GRAM])) for at in range(max(len(tokens) - _GRAM + 1, 0))}


def _evenly(documents: list[Document], count: int) -> list[Document]:
    """One of each package in turn."""
    turns: dict[str, int] = defaultdict(int)
    order = []
    for package, text in documents:
        turns[package] += 1
        order.append((turns[package], _number(text), package, text))
    return [(package, text) for *_, package, text in sorted(order)[:count]]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _packages(documents: list[Document]) -> int:
    return len({package for package, _ in documents})


def _write(path: Path, documents: list[Document]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "group": package}) for package, text in documents]
    path.write_text("\n".join(lines) + "\n", "utf-8")
