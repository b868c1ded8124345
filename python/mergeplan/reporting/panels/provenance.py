"""Where all of this comes from: versions, hashes, options; no path of any machine."""

import hashlib
from datetime import datetime, timezone
from typing import Any

from mergeplan._native import __version__
from mergeplan.evaluation.measured import recorded_texts
from mergeplan.reporting.source import Source


def panel(source: Source) -> dict[str, Any]:
    """What a reader needs to know whether two pages are of the same measurements.

    Returns:
        Pairs of a name and a value.
    """
    digest = hashlib.sha256(source.table.read_bytes()).hexdigest()
    lines = [
        ["made by", f"mergeplan {__version__}"],
        ["made at", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")],
        ["table", f"{source.table.name}, {len(source.rows)} rows"],
        ["its SHA-256", digest],
    ]
    pools = sorted({row.pool_hash for row in source.rows if row.pool_hash})
    texts = sorted({row.data_hash for row in source.rows if row.data_hash})
    lines += [["pool", one] for one in pools]
    lines += (
        [["texts", ", ".join(texts[:6]) + (" and more" if len(texts) > 6 else "")]] if texts else []
    )
    run = None if source.folder is None else recorded_texts(source.folder)
    if run is not None:
        lines += [["halves", str(run.halves)]]
        for name, value in sorted(run.arithmetic.items()):
            if text := as_text(value):
                lines.append([name.replace("`", ""), text])
    return {"lines": lines}


def as_text(value: Any) -> str:
    """An option's value; nothing of one that was not given.

    >>> as_text(0), as_text([None, None]), as_text(["a1", 60])
    ('0', '', 'a1, 60')
    """
    if isinstance(value, dict):
        return ", ".join(f"{name} {as_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(filter(None, map(as_text, value)))
    return "" if value is None or value is False else str(value)
