"""A run's table against the scores that it was made from."""

from collections.abc import Iterable
from pathlib import Path

from mergeplan.evaluation.measured import SCORES, MeasuredMerge, read_scores, recorded_texts
from mergeplan.measurements.rows import MACRO, Measurement, domain_name

# Values are written with eight digits; differences below this change nothing.
_TOLERANCE = 1e-6


def edited_rows(table: Path, rows: Iterable[Measurement]) -> str:
    """What a run's table says otherwise than its scores.

    Args:
        table: Where the rows were read from.
        rows: Of that table.

    Returns:
        A word on it; empty where they agree, or no scores lie beside.

    Raises:
        InputError: The scores are damaged.
    """
    folder = table.parent
    if not (folder / SCORES).is_file() or (run := recorded_texts(folder)) is None:
        return ""
    known = {
        (one.merge.merge_key, *what): value
        for one in read_scores(folder)
        if one.parts is None
        for what, value in _values(one, run.metric).items()
    }
    differing = []
    for row in rows:
        value = known.get((row.merge_key, row.metric, row.domain))
        if value is not None and row.text_se is None and abs(value - row.loss_nats) > _TOLERANCE:
            differing.append((row, value))
    if not differing:
        return ""
    row, value = differing[0]
    also = f", and {len(differing) - 1} more" if len(differing) > 1 else ""
    return (
        f"`{table}`, row {row.row}{also}: {row.loss_nats:.10g} is not what `{folder / SCORES}` has"
        f" of that merge, {value:.8g}: the table was edited; the values of the table count"
    )


def _values(one: MeasuredMerge, metric: str) -> dict[tuple[str, str], float]:
    """A merge's values by metric and domain, as rows name them."""
    estimates = one.scores.estimates()
    found = {(metric, domain_name(name)): mean.loss_nats for name, mean in estimates.items()}
    found[metric, MACRO] = one.scores.macro().loss_nats
    return found | {(score.metric, score.task): score.value for score in one.tasks}
