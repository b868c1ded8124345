"""Scores as a table, as JSON and as a CSV of documents."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mergeplan.display.table import align_columns
from mergeplan.display.text import finite
from mergeplan.evaluation.evaluate import Evaluation
from mergeplan.evaluation.harness import TaskScore
from mergeplan.evaluation.scores import Estimate, Scores, difference
from mergeplan.measurements.rows import MACRO

TOKEN_WEIGHTED = "token-weighted"


def rows_of(scores: Scores) -> dict[str, Estimate]:
    """Each domain, then both means."""
    return {
        **scores.estimates(),
        MACRO: scores.macro(),
        TOKEN_WEIGHTED: scores.token_weighted(),
    }


def scores_table(
    scores: Scores, tasks: Sequence[TaskScore] = (), *, value: str = "loss_nats"
) -> str:
    """For people. With tasks, a column says what each row's value is."""
    rows = [
        (
            name,
            value,
            f"{row.loss_nats:.6f}",
            _short(row.se),
            f"{row.n_tokens}",
            f"{row.n_documents}",
        )
        for name, row in rows_of(scores).items()
    ]
    rows += [
        (task.task, task.metric, f"{task.value:.6f}", _short(task.se), "", f"{task.n_documents}")
        for task in tasks
    ]
    cells: list[tuple[str, ...]] = [
        ("domain", "metric", "value", "se", "tokens", "documents"),
        *rows,
    ]
    if not tasks:
        cells = [(row[0], *row[2:]) for row in cells]
        cells[0] = ("domain", value, *cells[0][2:])
    return "\n".join(align_columns(cells, left=2 if tasks else 1))


def to_json(found: Evaluation) -> dict[str, Any]:
    """Ready for JSON: what is not finite becomes null."""
    against = found.against and difference(found.scores, found.against)
    data = {
        "scores": _data(found.scores),
        "difference": against and _data(against),
        "tasks": [asdict(task) for task in found.tasks],
        "data_hash": found.data_hash,
        "left_out": list(found.left_out),
    }
    return dict(finite(data))


def _data(scores: Scores) -> dict[str, Any]:
    return {
        name: {
            "loss_nats": row.loss_nats,
            "se": row.se,
            "n_tokens": row.n_tokens,
            "n_documents": row.n_documents,
        }
        for name, row in rows_of(scores).items()
    }


def documents_csv(scores: Scores) -> str:
    """A row for each document: where it stands, its tokens, and their summed loss in nats."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["domain", "line", "n_tokens", "nll"])
    for name, domain in scores.domains.items():
        for row in zip(domain.lines, domain.n_tokens, domain.nll, strict=True):
            writer.writerow([name, *(entry.item() for entry in row)])
    return text.getvalue()


def _short(se: float) -> str:
    """A standard error; `-` where there is none."""
    return f"{se:.6f}" if math.isfinite(se) else "-"
