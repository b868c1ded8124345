"""The measurements as Markdown, and as data."""

import dataclasses
from typing import Any

from mergeplan.bench.bench import CASES, BenchReport, CaseResult
from mergeplan.bench.models import SHAPES
from mergeplan.display.text import format_bytes, format_count

_HEAD = (
    "method",
    "dtype",
    "k",
    "mergeplan",
    "over copy",
    "anonymous",
    "resident",
    "mergekit",
    "its anonymous",
    "mergekit / mergeplan",
)


def markdown(report: BenchReport) -> str:
    """Where and how it was measured, then one row for each case."""
    options = report.options
    copies = ", ".join(f"{m.seconds:.3g} s at k = {m.k}" for m in _of(report, "copy"))
    once = "" if options.mergekit_k is None else "; mergekit ran once"
    lines = [
        _machine(report.machine),
        "",
        f"Shape `{options.shape}`: {format_count(SHAPES[options.shape].n_params)} parameters in"
        f" bfloat16, k experts, files in the page cache, {options.threads} threads, whole"
        f" processes, medians of {options.rounds}{once}.",
        f"*Copy* reads every input byte once and writes one model, synced: {copies}.",
        "*Anonymous* and *resident* are peaks of memory; mapped files count as resident only.",
        *(f"Note: {note}." for note in report.notes),
        "",
        "| " + " | ".join(_HEAD) + " |",
        "|" + "---|" * 2 + "---:|" * (len(_HEAD) - 2),
    ]
    for row in rows(report):
        cells = [row["method"], row["dtype"], str(row["k"]), _seconds(row["mergeplan_seconds"])]
        cells += [_times(row["over_copy"])]
        cells += [_memory(row["anonymous_bytes"]), _memory(row["resident_bytes"])]
        cells += [_seconds(row["mergekit_seconds"]), _memory(row["mergekit_anonymous_bytes"])]
        cells += [_times(row["mergekit_over_mergeplan"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rows(report: BenchReport) -> list[dict[str, Any]]:
    """Each of mergeplan's cases with its ratios; `None` where there is nothing to compare with."""
    found = []
    for case in _of(report, "mergeplan"):
        copy = report.find("copy", "", "", case.k)
        mergekit = report.find("mergekit", case.method, case.dtype, case.k)
        options = ", ".join(f"{key} {value:g}" for key, value in CASES[case.method].items())
        found.append(
            {
                "method": f"{case.method}, {options}" if options else case.method,
                "dtype": case.dtype,
                "k": case.k,
                "mergeplan_seconds": case.seconds,
                "copy_seconds": copy.seconds if copy else None,
                "over_copy": case.seconds / copy.seconds if copy else None,
                "anonymous_bytes": case.peak("anonymous_bytes"),
                "resident_bytes": case.peak("resident_bytes"),
                "mergekit_seconds": mergekit.seconds if mergekit else None,
                "mergekit_anonymous_bytes": mergekit.peak("anonymous_bytes") if mergekit else None,
                "mergekit_over_mergeplan": mergekit.seconds / case.seconds if mergekit else None,
            }
        )
    return found


def bench_data(report: BenchReport) -> dict[str, Any]:
    """Everything, with each single run."""
    return {
        "table": rows(report),
        "notes": report.notes,
        "machine": report.machine,
        "options": dataclasses.asdict(report.options),
        "runs": [dataclasses.asdict(measured) for measured in report.measured],
    }


def _of(report: BenchReport, contender: str) -> list[CaseResult]:
    return [measured for measured in report.measured if measured.contender == contender]


def _machine(machine: dict[str, Any]) -> str:
    memory = machine["memory_bytes"]
    usable = machine["usable_cores"]
    cores = f"{machine['cores']} cores"
    if usable not in (None, machine["cores"]):
        cores += f", {usable} of them usable"
    parts = [machine["cpu"], cores]
    parts += [f"{format_bytes(memory)} of memory"] if memory else []
    versions = [f"{name} {machine[name]}" for name in ("mergekit", "torch") if machine.get(name)]
    parts += [machine["system"], f"Python {machine['python']}", f"mergeplan {machine['mergeplan']}"]
    return "; ".join([*parts, *versions, machine["date"]]) + "."


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} s"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ×"


def _memory(value: int | None) -> str:
    return "-" if value is None else format_bytes(value)
