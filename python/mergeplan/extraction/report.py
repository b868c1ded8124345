"""An extraction in words."""

from collections.abc import Iterator

from mergeplan.display.table import align_columns
from mergeplan.display.text import counted, format_bytes
from mergeplan.extraction.extract import Extraction


def lines(found: Extraction) -> Iterator[str]:
    """A table of the layers, worst first, then what was left out, then one line of all."""
    worst = sorted(found.layers, key=lambda layer: (-layer.error, layer.tensor))
    rows = [("tensor", "shape", "rank", "norm", "relative error")]
    for one in worst:
        shape = "×".join(map(str, one.shape))
        rows.append((one.tensor, shape, str(one.rank), f"{one.norm:.3g}", f"{one.error:.3g}"))
    yield from align_columns(rows, left=1)
    if found.left_out:
        yield ""
        rows_left = [("left out", "why", "norm of its difference")]
        for left in found.left_out:
            norm = "-" if left.norm is None else f"{left.norm:.3g}"
            rows_left.append((left.tensor, left.reason, norm))
        yield from align_columns(rows_left, left=2)
        yield ""
    ranks = [layer.rank for layer in found.layers]
    yield (
        f"{found.out}: {counted(len(ranks), 'layers')}, ranks {min(ranks)} to {max(ranks)},"
        f" relative error {found.error:.3g} in all, {format_bytes(found.written_bytes)}"
    )
