"""The text of a new pool file, with a word about each line."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.display.text import format_count, printable
from mergeplan.onboarding.domains import DomainText
from mergeplan.onboarding.looking import paths
from mergeplan.onboarding.roles import Size
from mergeplan.pool.pool import PoolSize

# How every pool that `init` writes begins.
HEAD = "# A pool for mergeplan"
_PLAIN = re.compile(r"(\.{0,2}/)*[A-Za-z_][\w./-]*", re.ASCII)
# To YAML these words are no text.
_WORDS = ("y", "yes", "n", "no", "on", "off", "true", "false", "null")
# A path that climbs higher says less than an absolute one.
_CLIMBS = 3
_SPLIT = re.compile(r"[\W_]+")
_METHODS = """\
methods:
  # Each method is measured anew and costs as much again; an average is the cheapest to foretell.
  average: {}
  # Of all experts other factors lambda are tried as well: 0.2, 0.3, 0.5, 0.8 and 1.
  task_arithmetic: {lambda: 0.8}
  # ties: {density: 0.2}
  # dare: {density: 0.8}
"""
_NO_DATA = """\
# Texts to measure on are missing. Put a file for each domain into a folder `eval` beside this one,
# named by the expert that was trained for it: text that no expert was trained on, on each line a
# JSON object, {"text": "..."}, {"prompt": "...", "response": "..."} or {"messages": [...]}; 40
# lines or more. Then take away the marks below.
"""


def pool_text(
    sizes: Sequence[Size],
    domains: Mapping[str, DomainText],
    left_out: Mapping[Path, str],
    missing: Iterable[str],
    path: Path,
) -> str:
    """The whole file.

    Args:
        left_out: Why, by what.
        missing: What the pool lacks, a line each.
        path: Where it will stand: paths in it are relative to its folder.
    """
    folder = Path(os.path.realpath(path.absolute().parent))
    names = list(dict.fromkeys(name for size in sizes for name in size.experts))
    inside = {Path(relative(place, folder)): why for place, why in left_out.items()}
    name = printable(shlex.quote(path.name))
    lines = [
        f"{HEAD}, written by `mergeplan init`. Look it over, then:",
        f"#   mergeplan calibrate {name} -o run/ --dry-run   # checks everything, measures nothing",
        f"#   mergeplan calibrate {name} -o run/",
        "# Paths are relative to this file.",
        *_comments("Missing:", missing),
        *_comments("Left out:", left_out_lines(inside)),
        "",
        "sizes:",
    ]
    for size in sizes:
        lines += _size(size, folder)
    lines += ["", *(_data(domains, names, folder) if domains else _no_data(names)), "", _METHODS]
    return "\n".join(lines)


def _comments(head: str, lines: Iterable[str]) -> list[str]:
    every = [f"#   {printable(line)}" for line in lines]
    return ["#", f"# {head}", *every] if every else []


def left_out_lines(left_out: Mapping[Path, str]) -> list[str]:
    """What was left out, and why, all that have one reason on a line."""
    places: dict[str, list[Path]] = {}
    for place, why in left_out.items():
        # Of "cannot read `x`: why" the path is within the sentence, and stands before it too.
        told = why.replace(f" `{place}`: ", ": ").replace(f"`{place}`: ", "")
        places.setdefault(told, []).append(place)
    return [f"{paths(every, 3)}: {why}" for why, every in places.items()]


def _size(size: Size, folder: Path) -> list[str]:
    checkpoint = size.base.checkpoint
    what = ", ".join(filter(None, (_architecture(checkpoint), _dtype(size))))
    lines = [
        f"  # The base, {format_count(size.n_params)} parameters{', ' if what else ''}{what}:"
        f" {printable(size.why)}.",
        f"  - base: {scalar(relative(size.base.place, folder))}",
        "    experts:",
    ]
    for name, place in size.experts.items():
        note = size.notes[name]
        word = f"  # {printable(note)}" if note else ""
        lines.append(f"      {scalar(name)}: {scalar(relative(place, folder))}{word}")
    return lines


def _architecture(checkpoint: Checkpoint) -> str:
    found = checkpoint.config.get("architectures")
    return printable(str(found[0])) if isinstance(found, list) and found else ""


def _dtype(size: Size) -> str:
    return PoolSize(size.base.place, {}).out_dtype


def _data(domains: Mapping[str, DomainText], experts: Sequence[str], folder: Path) -> list[str]:
    lines = ["data:", "  # Each domain's held-out text: no expert may have been trained on it."]
    for name, text in domains.items():
        meant = [expert for expert in experts if is_meant(name, expert)]
        of = f"; of the expert {', '.join(meant)}" if meant else ""
        path = scalar(relative(text.path, folder))
        lines.append(f"  {scalar(name)}: {path}  # {printable(text.words() + of)}")
    return lines


def _no_data(experts: Sequence[str]) -> list[str]:
    shown = [f"#   {scalar(name)}: {scalar(f'eval/{name}.jsonl')}" for name in experts]
    return [_NO_DATA + "# data:", *shown]


def is_meant(domain: str, expert: str) -> bool:
    """Whether a text is an expert's own, by their names.

    >>> is_meant("python", "qwen-python"), is_meant("py", "qwen-python")
    (True, False)
    """
    one, other = domain.casefold(), expert.casefold()
    return one == other or one in _SPLIT.split(other) or other in _SPLIT.split(one)


def scalar(text: str) -> str:
    """A text as YAML, in quotes where it would be something else without.

    >>> scalar("models/base"), scalar("no"), scalar("a b: c")
    ('models/base', '"no"', '"a b: c"')
    """
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**6)
    return quoted.rstrip("\n")


def relative(place: Path, folder: Path) -> str:
    """A path as the pool names it.

    Args:
        folder: The pool's, with no links in it.
    """
    absolute = place.absolute()
    inner = Path(os.path.normpath(absolute))
    try:
        found = Path(os.path.relpath(inner, folder)) if inner.exists() else absolute
    except ValueError:  # on another drive
        return absolute.as_posix()
    if found.parts[:_CLIMBS] == ("..",) * _CLIMBS:
        return absolute.as_posix()
    text = found.as_posix()
    return f"./{text}" if text.startswith("~") else text
