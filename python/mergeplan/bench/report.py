"""The measurements as Markdown, and as data."""

import dataclasses
from statistics import median
from typing import Any

from mergeplan.bench.bench import CASES, BenchReport, CaseResult
from mergeplan.bench.models import SHAPES
from mergeplan.bench.serial import serial_of
from mergeplan.display.text import format_bytes, format_count

_HEAD = (
    "method",
    "dtype",
    "k",
    "mergeplan",
    "over copy",
    "serial",
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
    head = (
        (*_HEAD, "against: its time over ours, median of the pairs") if options.against else _HEAD
    )
    once = "" if options.mergekit_k is None else "; mergekit ran once"
    lines = [
        _machine(report.machine),
        "",
        f"Shape `{options.shape}`: {format_count(SHAPES[options.shape].n_params)} parameters in"
        f" bfloat16, k experts, files in the page cache, {options.threads} threads, whole"
        f" processes, medians of {options.rounds}{once}.",
        "*Copy* reads every input byte once and writes one model, unsynced, the fastest of"
        f" {options.rounds}: {copies}.",
        "*Serial* is what one thread does alone: start, plan, sync and publish.",
        *_bound(report),
        "*Anonymous* and *resident* are peaks of memory; mapped files count as resident only.",
        *(f"Note: {note}." for note in report.notes),
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * 2 + "---:|" * (len(head) - 2),
    ]
    for row in rows(report):
        cells = [row["method"], row["dtype"], str(row["k"]), _seconds(row["mergeplan_seconds"])]
        cells += [_times(row["over_copy"]), _seconds(row["serial_seconds"])]
        cells += [_memory(row["anonymous_bytes"]), _memory(row["resident_bytes"])]
        cells += [_seconds(row["mergekit_seconds"]), _memory(row["mergekit_anonymous_bytes"])]
        cells += [_times(row["mergekit_over_mergeplan"])]
        if options.against:
            cells += [_pairs(row["against_over_mergeplan"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rows(report: BenchReport) -> list[dict[str, Any]]:
    """Each of mergeplan's cases with its ratios; `None` where there is nothing to compare with."""
    found = []
    for case in _of(report, "mergeplan"):
        copy = report.find("copy", "", "", case.k)
        mergekit = report.find("mergekit", case.method, case.dtype, case.k)
        against = report.find("against", case.method, case.dtype, case.k)
        serial = serial_of(case.runs)
        options = ", ".join(f"{key} {value:g}" for key, value in CASES[case.method].items())
        found.append(
            {
                "method": f"{case.method}, {options}" if options else case.method,
                "dtype": case.dtype,
                "k": case.k,
                "mergeplan_seconds": case.seconds,
                "copy_seconds": copy.seconds if copy else None,
                "over_copy": case.seconds / copy.seconds if copy else None,
                "serial_seconds": serial.seconds if serial else None,
                "serial": dataclasses.asdict(serial) if serial else None,
                "anonymous_bytes": case.peak("anonymous_bytes"),
                "resident_bytes": case.peak("resident_bytes"),
                "mergekit_seconds": mergekit.seconds if mergekit else None,
                "mergekit_anonymous_bytes": mergekit.peak("anonymous_bytes") if mergekit else None,
                "mergekit_over_mergeplan": mergekit.seconds / case.seconds if mergekit else None,
                "against_seconds": against.seconds if against else None,
                "against_over_mergeplan": [
                    other.seconds / own.seconds
                    for own, other in zip(case.runs, against.runs, strict=True)
                ]
                if against
                else [],
            }
        )
    return found


def bench_data(report: BenchReport) -> dict[str, Any]:
    """Everything, with each single run."""
    return {
        "table": rows(report),
        "notes": report.notes,
        "machine": report.machine,
        "options": {
            **dataclasses.asdict(report.options),
            "against": str(report.options.against) if report.options.against else None,
        },
        "bound": dataclasses.asdict(report.bound) if report.bound else None,
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


def _bound(report: BenchReport) -> list[str]:
    """What bounds merges on any number of cores."""
    if (bound := report.bound) is None:
        return []
    ties = [case for case in _of(report, "mergeplan") if case.method == "ties"]
    of = ""
    if ties:
        whole = ties[0].seconds * bound.large_factor
        share = bound.large_plan / whole
        of = f", {share:.1%} of the {whole:.3g} s of TIES at as many parameters (computed)"
    return [
        f"One thread writes one output in {bound.write:.2g} s, and no merge into one file takes"
        f" less; shape `{bound.large_shape}` is started and planned in"
        f" {bound.large_plan:.2g} s{of}."
    ]


def _pairs(ratios: list[float]) -> str:
    """The median of the ratios of pairs, and how far they reach."""
    if not ratios:
        return "-"
    return f"{median(ratios):.3g} × ({min(ratios):.3g} to {max(ratios):.3g})"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} s"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ×"


def _memory(value: int | None) -> str:
    return "-" if value is None else format_bytes(value)
