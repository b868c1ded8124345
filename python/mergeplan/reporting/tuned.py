"""A run of `tune`, as the page has it: what the weights gain, what they are, and how it went."""

import hashlib
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan._native import __version__
from mergeplan.calibration.identity import RunIdentity
from mergeplan.config.labels import worded
from mergeplan.config.write import to_yaml
from mergeplan.display.text import counted
from mergeplan.errors import InputError, MissingInputError
from mergeplan.pool.pool import load_pool
from mergeplan.reporting.panels.provenance import as_text
from mergeplan.reporting.recipes import relative
from mergeplan.system.files import expanded
from mergeplan.system.reading import CONFIG as CONFIG_KIND
from mergeplan.system.reading import RUN
from mergeplan.system.strict import load_strictly
from mergeplan.system.yamlfile import read_yaml
from mergeplan.tuning.aim import WORST
from mergeplan.tuning.folder import CONFIG, IDENTITY, RESULT
from mergeplan.tuning.record import TuneRecord, read_result

Array = NDArray[np.float64]

# Panels of such runs, in the order they are shown; see `web/panels`.
PANELS = ("tuned", "weights", "effects", "search")
# Beyond so many numbers, of ten bytes, the page has the effects on what counts alone.
MOST_EFFECTS = 120_000


@dataclass(frozen=True, eq=False)
class TunedSource:
    """A run of `tune` that has ended.

    Attributes:
        name: Of the folder.
        pool_file: For the YAML.
    """

    name: str
    folder: Path
    record: TuneRecord
    pool_file: Path | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def told(self) -> str:
        """What is being shown, for people."""
        return f"{self.name}: {counted(len(self.record.steps), 'points')}"

    def read(self) -> None:
        """There is nothing to fit."""

    def run(self) -> dict[str, Any]:
        """What the page has of it."""
        record, names = self.record, list(self.record.domains)
        effects = {name: record.array(values) for name, values in record.effects.items()}
        shown = self._effects(effects)
        notes = []
        if len(shown) < len(effects):
            notes.append(
                f"left out: what each weight does to each of {counted(len(names), 'domains')};"
                f" `{RESULT}` has it"
            )
        shapes = {
            "experts": record.experts,
            "groups": record.groups,
            "parts": [asdict(one) for one in record.parts],
        }
        weights = {"weights": record.weights, "bounds": record.bounds, "at_bound": self._at_bound()}
        steps = {"steps": [asdict(one) for one in record.steps], "stopped": record.stopped}
        panels = {
            "tuned": self._tuned(),
            "weights": {**shapes, **weights},
            "effects": {
                **shapes,
                "names": names,
                "by_expert": _rounded(np.stack([one.sum(1) for one in effects.values()], 1)),
                "by_group": _rounded(np.stack([one.sum(0) for one in effects.values()], 1)),
                "effects": list(shown.values()),
            },
            "search": {**steps, "aim": record.aim, "pass_tokens": record.pass_tokens},
            "provenance": {"lines": self._provenance()},
        }
        return {
            "name": self.name,
            "title": "tuned weights",
            "experts": record.experts,
            "targets": [{"name": name, "label": name} for name in shown],
            "groups": [],
            "merges": [],
            "panels": panels,
            "notes": notes,
        }

    def _effects(self, effects: dict[str, Array]) -> dict[str, Any]:
        """By domain, experts and groups: what counts first, where there are several domains."""
        if len(effects) == 1:
            return {name: _rounded(one) for name, one in effects.items()}
        shares = _shares(self.record)
        counted_ones = np.stack([shares[name] * one for name, one in effects.items()])
        first = {_label(self.record): _rounded(counted_ones.sum(0))}
        if counted_ones.size > MOST_EFFECTS:
            return first
        return first | {name: _rounded(one) for name, one in effects.items()}

    def _at_bound(self) -> list[list[bool]]:
        record = self.record
        one, names = len(record.groups) == 1, set(record.at_bound)
        return [
            [(expert if one else f"{expert} in {group}") in names for group in record.groups]
            for expert in record.experts
        ]

    def _tuned(self) -> dict[str, Any]:
        record = self.record
        rivals = [{**asdict(one), "name": _bare(one.name)} for one in record.rivals]
        warnings = []
        for text in record.warnings:
            for rival in record.rivals:
                text = text.replace(rival.name, _bare(rival.name))
            warnings.append(worded(text))
        return {
            "aim": record.aim,
            "by": record.by,
            "method": record.method,
            "n_weights": len(record.experts) * len(record.groups),
            "value": record.value,
            "domains": record.domains,
            "rivals": rivals,
            "penalty": record.penalty,
            "points": record.points,
            "passes": record.passes,
            "seconds": record.seconds,
            "left_out": [asdict(one) for one in record.left_out],
            "warnings": warnings,
            **self._yaml(),
        }

    def _yaml(self) -> dict[str, Any]:
        """The merge as text, with the pool's paths relative to the pool's folder."""
        path = self.folder / CONFIG
        if self.pool_file is None:
            return {"yaml": None, "why_no_yaml": "name the pool by `--pool` to have it here"}
        try:
            config = relative(
                read_yaml(path, CONFIG_KIND), load_pool(self.pool_file), self.pool_file
            )
        except (InputError, MissingInputError) as error:
            why = error.message.replace(f"{self.folder}/", "")
            return {"yaml": None, "why_no_yaml": why}
        return {
            "yaml": to_yaml(
                config, [f"mergeplan tune, by {self.record.by}, for {self.record.aim}"]
            ),
            "folder": self.pool_file.absolute().parent.name,
            "command": "mergeplan merge merge.yml OUT",
        }

    def _provenance(self) -> list[list[str]]:
        path = self.folder / RESULT
        identity = load_strictly(self.folder / IDENTITY, RunIdentity, RUN)
        lines = [
            ["made by", f"mergeplan {__version__}"],
            ["made at", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")],
            ["result", f"{path.name} of {self.name}"],
            ["its SHA-256", hashlib.sha256(path.read_bytes()).hexdigest()],
            ["models", ", ".join(name.replace("`", "") for name in identity.models)],
        ]
        lines += [[name, digest] for name, digest in sorted(identity.texts.items())]
        lines.append(["halves", str(identity.halves)])
        options = sorted(identity.arithmetic.items())
        lines += [[name.replace("`", ""), text] for name, one in options if (text := as_text(one))]
        return lines


def open_tuned(path: str | Path, pool_file: Path | None = None) -> TunedSource:
    """A run of `tune`.

    Args:
        path: Its folder.
        pool_file: The pool's YAML.

    Raises:
        MissingInputError: It has not ended.
        InputError: Its record is damaged.
    """
    folder = expanded(path)
    return TunedSource(
        folder.resolve().name, folder, read_result(folder), pool_file and expanded(pool_file)
    )


def _bare(name: str) -> str:
    """A merge's name without where its YAML is.

    >>> _bare("/home/me/other.yml"), _bare("the base")
    ('other.yml', 'the base')
    """
    return Path(name).name or name


def _rounded(values: Array) -> list[list[float]]:
    """To five digits, which is what is known of slopes at most."""
    return [[float(f"{value:.5g}") for value in row] for row in values]


def _shares(record: TuneRecord) -> dict[str, float]:
    """What each domain counts; of the worst domain, which changes, all alike."""
    names = list(record.domains)
    if record.aim == WORST:
        return dict.fromkeys(names, 1 / len(names))
    return {name: record.shares.get(name, 0.0) for name in names}


def _label(record: TuneRecord) -> str:
    return "the mean of the domains" if record.aim == WORST else record.aim
