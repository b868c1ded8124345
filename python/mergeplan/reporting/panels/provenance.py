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
            given = value if isinstance(value, list) else [value]
            shown = ", ".join(str(one) for one in given if one not in (None, False))
            if shown:
                lines.append([name.replace("`", ""), shown])
    return {"lines": lines}
