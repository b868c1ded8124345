"""`mergeplan diff`."""

from pathlib import Path

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.units import threads_option


@click.command("diff")
@click.argument("a", metavar="A", type=PATH)
@click.argument("b", metavar="B", type=PATH)
@click.option(
    "--tolerance-ulp",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="A tensor whose elements are all this near counts as equal.",
)
@click.option(
    "--ignore-dtype",
    is_flag=True,
    help="Tensors of different dtypes are equal where both are once rounded to the coarser.",
)
@click.option("--all", "show_all", is_flag=True, help="List equal tensors too.")
@threads_option()
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
    """Compare checkpoints A and B, folders or files, tensor by tensor.

    Worst first, by share of the whole squared difference, with relative L2 (|A - B| / |A|) and
    cosine of each tensor and of all. float32, bfloat16 and float16 are compared by value: NaN
    equals NaN, 0 equals -0, and an element that is NaN or infinite on one side only always differs;
    relative L2 and cosine are over what is finite on both sides.
    Other dtypes are compared by their bytes. ULPs are steps between neighbouring values of the
    dtype, of the coarser one where the dtypes differ; they tell of rounding, so that where some
    element is more than 128 off, or the tensor holds no floats, none are told. Exit code 0: equal.
    1: they differ.
    """
    from mergeplan.inspection.diff import diff
    from mergeplan.inspection.tensor_diff import diff_rows
    from mergeplan.system.progress import ProgressLine

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
        print_document("diff", result.data())
    else:
        shown = result.tensors if show_all else result.differing
        for row in diff_rows(shown):
            click.echo(row)
        click.echo(result.verdict())
    if result.differing:
        ctx.exit(1)
