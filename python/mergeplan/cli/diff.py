"""`mergeplan diff`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mergeplan.diffing import Diff, TensorDiff

_HEAD = ("tensor", "status", "differing", "max |d|", "mean |d|", "max ULP", "mean ULP", "NaN")
_DISTANCE = (
    "elements",
    "differing",
    "ulp_dtype",
    "unmatched",
    "nan_a",
    "nan_b",
    "max_difference",
    "mean_difference",
    "max_ulp",
    "mean_ulp",
)


@click.command("diff")
@click.argument("a", metavar="A", type=click.Path(path_type=Path))
@click.argument("b", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--tolerance-ulp",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="A tensor whose elements are all this near counts as equal.",
)
@click.option(
    "--ignore-dtype", is_flag=True, help="Judge tensors of different dtypes by their values alone."
)
@click.option("--all", "show_all", is_flag=True, help="List equal tensors too.")
@click.option(
    "-j",
    "--threads",
    type=click.IntRange(1, 1024),
    help="Worker threads. [default: one on each core]",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_context
def command(
    ctx: click.Context,
    a: Path,
    b: Path,
    tolerance_ulp: int,
    ignore_dtype: bool,
    show_all: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare checkpoints A and B, folders or .safetensors files, tensor by tensor.

    float32, bfloat16 and float16 are compared by value; ULPs are steps between neighbouring
    values of the dtype, of the coarser one where the dtypes differ. NaN equals NaN, 0 equals -0,
    and an element that is NaN or infinite on one side only always differs. Other dtypes are
    compared by their bytes. Exit code 0: equal. 1: they differ.
    """
    from mergeplan.diffing import diff
    from mergeplan.progress import ProgressLine

    line = ProgressLine(quiet=quiet)
    try:
        result = diff(
            a,
            b,
            tolerance_ulp=tolerance_ulp,
            ignore_dtype=ignore_dtype,
            threads=threads,
            progress=line,
        )
    finally:
        line.clear()
    if as_json:
        click.echo(json.dumps(_json(result, tolerance_ulp)))
    else:
        shown = result.tensors if show_all else result.differing
        for row in _table(shown):
            click.echo(row)
        click.echo(_summary(result, tolerance_ulp))
    if result.differing:
        ctx.exit(1)


def _table(tensors: "tuple[TensorDiff, ...]") -> list[str]:
    if not tensors:
        return []
    rows = [_HEAD, *(_row(tensor) for tensor in tensors)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    left = 2  # names and words; numbers are set to the right
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(tensor: "TensorDiff") -> tuple[str, ...]:
    from mergeplan.manifest import printable

    status: str = tensor.status
    if tensor.a and tensor.b and status == "shape":
        status = f"shape {tensor.a.shape} / {tensor.b.shape}"
    elif tensor.a and tensor.b and status == "dtype":
        status = f"dtype {tensor.a.dtype} / {tensor.b.dtype}"
    found = tensor.distance
    name = printable(tensor.tensor)
    if found is None:
        return (name, status, *["-"] * 6)
    share = f"{100 * found.differing / max(found.elements, 1):.3g} %"
    if found.unmatched:
        status += f", {found.unmatched} not finite on one side"
    nan = f"{found.nan_a} / {found.nan_b}" if found.nan_a or found.nan_b else "-"
    numbers = (found.max_difference, found.mean_difference, found.max_ulp, found.mean_ulp)
    cells = ["-" if n is None else f"{n}" if isinstance(n, int) else f"{n:.3g}" for n in numbers]
    return (name, status, share, *cells, nan)


def _summary(result: "Diff", tolerance_ulp: int) -> str:
    differing, total = len(result.differing), len(result.tensors)
    within = f" within {tolerance_ulp} ULP" if tolerance_ulp else ""
    if not differing:
        return f"equal{within}: {total} tensors"
    worst = max((t.distance.max_ulp or 0 for t in result.differing if t.distance), default=0)
    at_most = f"; at most {worst} ULP apart" if worst else ""
    return f"{differing} of {total} tensors differ, {total - differing} are equal{within}{at_most}"


def _json(result: "Diff", tolerance_ulp: int) -> dict[str, Any]:
    tensors = []
    for tensor in result.tensors:
        found = tensor.distance
        sides = {
            name: side and {"dtype": side.dtype, "shape": side.shape, "file": side.file}
            for name, side in (("a", tensor.a), ("b", tensor.b))
        }
        distance = found and {name: getattr(found, name) for name in _DISTANCE}
        entry = {"tensor": tensor.tensor, "status": tensor.status, **sides, "distance": distance}
        tensors.append(entry)
    return {
        "equal": not result.differing,
        "tolerance_ulp": tolerance_ulp,
        "differing": len(result.differing),
        "read_bytes": result.read_bytes,
        "tensors": tensors,
    }
