"""`mergeplan verify`."""

import dataclasses
from pathlib import Path

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.units import threads_option


@click.command("verify")
@click.argument("out_dir", metavar="OUT_DIR", type=PATH)
@click.option(
    "--inputs", is_flag=True, help="Also check that the inputs have their recorded size and time."
)
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, and no word where all matches.")
@click.pass_context
def command(
    ctx: click.Context,
    out_dir: Path,
    inputs: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check a merge in OUT_DIR against its mergeplan_manifest.json.

    Every tensor is hashed; files, lengths, headers, shard index and the files beside the weights
    are checked as far as the manifest lists them. Exit code 0: it matches. 1: it differs, and each
    difference is a line: file, tensor, expected, found.
    """
    from mergeplan.inspection.verify import verify
    from mergeplan.system.progress import ProgressLine

    line = ProgressLine(quiet=quiet)
    try:
        result = verify(out_dir, inputs=inputs, threads=threads, progress=line)
    finally:
        line.clear()
    if as_json:
        print_document("verify", {"matches": result.matches, **dataclasses.asdict(result)})
    else:
        for difference in result.differences:
            click.echo(str(difference))
        if not result.matches or not quiet:
            click.echo(result.verdict(), err=not result.matches)
    if not result.matches:
        ctx.exit(1)
