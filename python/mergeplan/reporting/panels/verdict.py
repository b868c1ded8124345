"""The answer, what it is held against, its YAML and the next command."""

import os
import shlex
from pathlib import Path
from typing import Any

from mergeplan.config.labels import in_words, worded
from mergeplan.config.write import to_yaml
from mergeplan.display.text import printable
from mergeplan.errors import InputError
from mergeplan.evaluation.edited import edited_rows
from mergeplan.law.diagnose import all_signs
from mergeplan.measurements.doubts import doubtful_shares, doubtful_sizes, doubtful_texts
from mergeplan.reporting.recipes import relative
from mergeplan.reporting.source import Group, Source, group_of
from mergeplan.selection.selection import Selection, Selections, sure_lines
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.from_selections import better_weights
from mergeplan.verdict.known import Merge
from mergeplan.verdict.verdict import Verdict
from mergeplan.verdict.words import harms_text
from mergeplan.verdict.write import contender_config, merge_to_write


def panel(source: Source) -> dict[str, Any]:
    """One answer, and everything that speaks against it.

    Returns:
        `headline`; a light for the base, the best single expert, the chosen, the best
        merge and all experts; gains, harms, notes and warnings; `yaml` with relative paths, and
        `folder`, from which they are.
    """
    found = source.verdict
    if isinstance(found, InputError):
        return {"missing": found.message, "warnings": _warnings(source)}
    gains = [
        {
            "over": worded(gain.over),
            "value": gain.value,
            "low": gain.low,
            "high": gain.high,
            "chance": gain.chance,
            "items": gain.items,
        }
        for gain in found.gains
    ]
    return {
        "kind": found.kind,
        "fails": found.fails,
        "headline": worded(found.headline()),
        "lights": _lights(source, found),
        "gains": gains,
        "harms": [
            worded(line)
            for line in harms_text(
                found.harms, predicted=found.chosen is not None and not found.chosen.measured
            )
        ],
        "notes": [worded(note) for note in found.notes],
        "warnings": _warnings(source),
        "sure": _sure(source, found),
        "measure": found.to_measure
        and {
            "merges": [worded(one.merge.name()) for one in found.to_measure.merges],
            "seconds": found.to_measure.seconds,
            "chance": found.to_measure.chance,
            "gain": found.to_measure.gain,
            "command": relative_command(found.to_measure.command, source),
        },
        **_yaml(source, found),
    }


def _lights(source: Source, verdict: Verdict) -> list[dict[str, Any]]:
    named = [
        ("base", verdict.base),
        ("best single expert", verdict.expert),
        ("chosen", verdict.chosen),
        ("best merge", verdict.best_merge),
    ]
    some = [{"role": role, **_contender(source, one)} for role, one in named if one is not None]
    whole = _whole(source, verdict)
    some += [] if whole is None else [{"role": "all experts", **whole}]
    shown: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in some:  # what is several of these has one light with all its roles
        same = shown.setdefault((one["group"], one["experts"], str(one["weights"])), one)
        if same is not one:
            same["role"] += f", {one['role']}"
    return list(shown.values())


def _contender(source: Source, one: Contender) -> dict[str, Any]:
    merge = one.merge
    groups = source.groups
    group = group_of(merge)
    return {
        "name": worded(merge.name()),
        "experts": "+".join(merge.subset),
        "how": in_words(merge.method, merge.options) if merge.method else "",
        "k": merge.k,
        "group": groups.index(group) if group in groups else -1,
        "weights": dict(merge.weights),
        "value": one.on_this_text,
        "expected": None if one.here is None else one.value,
        "low": one.low,
        "high": one.high,
        "measured": one.measured,
    }


def _whole(source: Source, verdict: Verdict) -> dict[str, Any] | None:
    """All experts by the method of the answer, where they were measured or are predicted."""
    one, selection = _merge_of(verdict), _of_answer(source)
    if one is None or not isinstance(source.selections, Selections):
        return None
    group = group_of(one.merge)
    if one.merge.k == _most(source, group):
        return _contender(source, one)
    choice = None if selection is None else selection.by_size.get(len(selection.table.experts))
    if choice is None:
        return None
    value = choice.value if choice.here is None else choice.here
    found = Contender(Merge(*group, choice.weights), value, choice.low, choice.high)
    return {**_contender(source, found), "measured": choice.measured}


def _merge_of(verdict: Verdict) -> Contender | None:
    """What the answer merges, or the best merge where it merges nothing."""
    return verdict.chosen if verdict.chosen and verdict.chosen.merge.k else verdict.best_merge


def _most(source: Source, group: Group) -> int:
    """Experts that were measured or named of a group's base."""
    return max(len(row.subset) for row in source.rows if row.n_params == group[0])


def _warnings(source: Source) -> list[str]:
    """What the commands would say on stderr, of the answer's method and size."""
    doubts = (
        doubtful_sizes(source.rows),
        doubtful_texts(source.rows),
        doubtful_shares(source.rows),
    )
    found = [text for some in doubts for text in some]
    if source.folder is not None:
        found.append(edited_rows(source.table, source.rows))
    selection = _of_answer(source)
    found += () if selection is None else selection.warnings
    found += source.selections.unfitted if isinstance(source.selections, Selections) else ()
    curve = source.curves[source.main.name]
    if not isinstance(curve, InputError):
        found += all_signs(curve)
    notes = () if isinstance(source.verdict, InputError) else source.verdict.notes
    return [worded(text) for text in dict.fromkeys(found) if text and text not in notes]


def _of_answer(source: Source) -> Selection | None:
    """What the law of single subsets says of the answer's method and size."""
    if not isinstance(source.selections, Selections) or isinstance(source.verdict, InputError):
        return None
    one = _merge_of(source.verdict)
    for selection in source.selections:
        if one is not None and group_of(selection.table) == group_of(one.merge):
            return selection
    return None


def _sure(source: Source, verdict: Verdict) -> list[str]:
    """How sure the best subset is, and whether other weights are predicted to be better."""
    selection = _of_answer(source)
    if selection is None or selection.best is None or selection.confidence is None:
        return []
    lines = [f"the best subset of its method, {'+'.join(selection.best.subset)}:"]
    lines += sure_lines(selection.confidence)
    better = better_weights(selection, verdict)
    return [worded(line.strip()) for line in (*lines, *([better] if better else []))]


def _yaml(source: Source, verdict: Verdict) -> dict[str, Any]:
    """The merge as text, with the pool's paths relative to the pool's folder."""
    one = merge_to_write(verdict, anyway=True)
    if one is None:
        why = "nothing is to be merged"
        if verdict.kind == "k":
            why = "only a number of experts is known: a column `subset` would name them"
        return {"yaml": None, "why_no_yaml": why}
    if source.pool is None or source.pool_file is None:
        return {"yaml": None, "why_no_yaml": "name the pool by `--pool` to have it here"}
    try:
        config = contender_config(one, source.pool)
    except InputError as error:
        return {"yaml": None, "why_no_yaml": error.message}
    return {
        "yaml": to_yaml(relative(config, source.pool, source.pool_file), [verdict.headline()]),
        "folder": source.pool_file.absolute().parent.name,
        "command": "mergeplan merge merge.yml OUT",
        "pays": verdict.merge is not None,
    }


def relative_command(command: str, source: Source) -> str:
    """A command without absolute paths, to be run where the table's or run's folder is.

    What lies elsewhere is named without its folder: where that is, is nobody else's business.
    """
    here = source.table.absolute().parent
    here = here.parent if source.folder is not None else here

    def shown(word: str) -> str:
        if not Path(word).is_absolute():
            return word
        near = os.path.relpath(word, here)
        return Path(word).name if Path(near).parts[:2] == ("..", "..") else near

    return printable(shlex.join(map(shown, shlex.split(command))))
