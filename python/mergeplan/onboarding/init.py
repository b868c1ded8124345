"""A new pool file, of what is in some folders."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.adapters.folder import is_adapter
from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted, format_count, listed, printable
from mergeplan.errors import InputError, MissingInputError, SurroundingsError
from mergeplan.onboarding.domains import DomainText, find_domains, short_halves
from mergeplan.onboarding.looking import look_into, texts_elsewhere
from mergeplan.onboarding.pool_text import HEAD, is_meant, left_out_lines, pool_text
from mergeplan.onboarding.roles import Size, find_sizes
from mergeplan.system.files import expanded
from mergeplan.system.reading import POOL, read_text
from mergeplan.system.writing import ExistsError, refuse_existing, write_durably
from mergeplan.system.yamlfile import parse_yaml

FILE = "pool.yml"


@dataclass(frozen=True, repr=False)
class NewPool(Summarized):
    """A pool file, and what it was made of.

    Attributes:
        path: Where it is, or would be.
        text: What it says.
        sizes: Bases with their experts.
        domains: Each domain's text.
        left_out: What was not taken, and why.
        missing: What the pool lacks.
    """

    path: Path
    text: str
    sizes: tuple[Size, ...]
    domains: dict[str, DomainText]
    left_out: dict[Path, str]
    missing: tuple[str, ...]

    def summary(self) -> str:
        """Bases, experts and domains, then what was left out, and what is missing."""
        lines = []
        for size in self.sizes:
            adapters = sum(map(is_adapter, size.experts.values()))
            whole = len(size.experts) - adapters
            kinds = [f"{n} {kind}" for n, kind in ((whole, "whole"), (adapters, "adapters")) if n]
            experts = f"{counted(len(size.experts), 'experts')} ({', '.join(kinds)})"
            lines += [
                f"base `{size.base.place}`, {format_count(size.n_params)}: {size.why}",
                f"  {experts}: {', '.join(size.experts)}",
            ]
        names = ", ".join(self.domains) or "none"
        lines.append(f"{counted(len(self.domains), 'domains')}: {names}")
        lines += [f"left out: {line}" for line in left_out_lines(self.left_out)]
        lines += [f"missing: {one}" for one in self.missing]
        return "\n".join(map(printable, lines))

    def records(self) -> list[dict[str, Any]]:
        """A row for each expert of each base."""
        return [
            {"base": str(size.base.place), "expert": name, "path": str(path)}
            for size in self.sizes
            for name, path in size.experts.items()
        ]

    def data(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "path": self.path,
            "sizes": [
                {
                    "base": size.base.place,
                    "n_params": size.n_params,
                    "why": size.why,
                    "experts": [
                        {
                            "name": name,
                            "path": path,
                            "adapter": is_adapter(path),
                            "note": size.notes[name],
                        }
                        for name, path in size.experts.items()
                    ],
                }
                for size in self.sizes
            ],
            "domains": [{"name": name, **vars(text)} for name, text in self.domains.items()],
            "left_out": [{"path": path, "why": why} for path, why in self.left_out.items()],
            "missing": self.missing,
            "text": self.text,
        }


def init(
    folders: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    bases: Sequence[str | Path] = (),
    data: Sequence[str] = (),
    overwrite: bool = False,
    dry_run: bool = False,
) -> NewPool:
    """Write a pool file, with comments, of the models, adapters and texts in some folders.

    Headers and settings alone are read, and the beginnings of texts.

    Args:
        folders: Of models, or folders of such, which are looked into two levels deep.
        out: The file; `None` for `pool.yml` in the folder that is given, or that all are in.
        bases: Which models are bases, one for each size, where nothing else tells.
        data: Texts as `evaluate` takes them; none for those in the folders.
        overwrite: Replace the file if it exists, and is a pool or empty.
        dry_run: Write nothing.

    Returns:
        What was taken, left out, and is missing, and the file's text.

    Raises:
        MissingInputError: A folder is not there, or there is no model or base in them.
        InputError: Several models could be the base, or no expert fits it.
        SurroundingsError: The file exists, is no pool, or cannot be written.

    Example:
        >>> import mergeplan
        >>> found = mergeplan.init("pool", dry_run=True)
        >>> len(found.sizes[0].experts), found.sizes[0].why
        (9, 'its folder is called so')
    """
    given = [folders] if isinstance(folders, str | Path) else folders
    places = [expanded(folder) for folder in given]
    if not places:
        raise InputError("expected folders of models, found none")
    path = _common(places) / FILE if out is None else expanded(out)
    found = look_into(places)
    if not dry_run:
        refuse_existing(path, overwrite=overwrite, inputs=map(expanded, data))
        _refuse_no_pool(path)
    sizes = find_sizes(found, [expanded(base) for base in bases])
    domains = find_domains(found, data)
    missing = _missing(sizes, domains, texts_elsewhere(found))
    text = pool_text(sizes, domains, found.left_out, missing, path)
    if not dry_run:
        write_durably(path, text, replace=overwrite)
    return NewPool(path, text, tuple(sizes), domains, found.left_out, tuple(missing))


def _refuse_no_pool(path: Path) -> None:
    """Refuse to replace a file that is neither a pool, however damaged, nor empty."""
    try:
        text = read_text(path, POOL)
        if not text.strip() or text.startswith(HEAD):
            return
        found = parse_yaml(text)
        # A geometry has `sizes` too, and says what it is.
        if isinstance(found, dict) and "sizes" in found and "format" not in found:
            return
    except MissingInputError:
        return
    except InputError:
        pass  # too long, no text, or no YAML
    raise ExistsError(
        f"`{path}` exists, and is no pool",
        "`--overwrite` replaces pools alone: choose another name, or move it away",
    )


def _common(places: Sequence[Path]) -> Path:
    """The folder that all are in; of one alone, that one."""
    absolute = [Path(os.path.normpath(place.absolute())) for place in places]
    if len(places) == 1 and not places[0].is_file():
        return places[0]
    try:
        common = Path(os.path.commonpath([place.parent for place in absolute]))
    except ValueError:
        common = Path(absolute[0].anchor)
    if common == Path(common.anchor):
        raise SurroundingsError(
            f"the folders lie together in `{common}` alone, no place for a pool",
            "say where to write it: `-o pool.yml`",
        )
    here = Path.cwd()
    return Path(os.path.relpath(common, here)) if common.is_relative_to(here) else common


def _missing(sizes: Iterable[Size], domains: Mapping[str, DomainText], elsewhere: str) -> list[str]:
    lines = []
    experts: list[str] = []
    for size in sizes:
        experts += [name for name in size.experts if name not in experts]
        if len(size.experts) == 1:
            lines.append(f"a second expert of `{size.base.place}`: one alone cannot be merged")
    kinds = list(dict.fromkeys(_family(size) for size in sizes))
    if len(kinds) > 1:
        lines.append(
            f"bases of one family: these are {listed(kinds)}, and a law over sizes is of one;"
            " `--base` takes some of them"
        )
    if not domains:
        lines.append(
            'texts to measure on: a .jsonl file for each domain, on each line {"text": "..."}'
            + (f"; found {elsewhere}" if elsewhere else "")
        )
        return lines
    if short := short_halves(domains):
        lines.append(short)
    without = [e for e in experts if not any(is_meant(domain, e) for domain in domains)]
    if without:
        lines.append(f"texts by the name of {listed(without)}: what they gain there is not seen")
    return lines


def _family(size: Size) -> str:
    return str(size.base.checkpoint.config.get("model_type") or "of no `model_type`")
