"""`mergeplan report`."""

from pathlib import Path

import click

from mergeplan.cli.options.overwrite import overwrite_option
from mergeplan.cli.options.path import PATH
from mergeplan.system.ranges import LARGEST_POOL


@click.command("report")
@click.argument("sources", metavar="RUN_DIR_OR_MEASUREMENTS...", type=PATH, nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, required=True, help="The page, a file of HTML.")
@click.option(
    "--pool", "pool_file", type=PATH, help="The pool's YAML, for the merge's own and for commands."
)
@click.option(
    "--metric", help="What decides.  [default: the losses, or the first metric that there is]"
)
@click.option(
    "--pool-size",
    type=click.IntRange(1, LARGEST_POOL),
    help="Number of experts that there are.  [default: from the file]",
)
@overwrite_option
def command(
    sources: tuple[Path, ...],
    out: Path,
    pool_file: Path | None,
    metric: str | None,
    pool_size: int | None,
    overwrite: bool,
) -> None:
    """Write a self-contained page of runs: verdict, law, subsets, experts, and how far to trust it.

    It opens from a disk and loads nothing. Names from files stand there as text, and no path of
    this machine does.
    """
    from mergeplan.cli.messages import report as told
    from mergeplan.cli.messages import warn
    from mergeplan.reporting.report import report

    done = report(
        sources,
        out,
        pool_file=pool_file,
        metric=metric,
        pool_size=pool_size,
        overwrite=overwrite,
        say=lambda text: click.echo(text, err=True),
    )
    told(done.summary())
    for text in done.warnings:
        warn(text)
