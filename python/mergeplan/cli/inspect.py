"""`mergeplan inspect`."""

import dataclasses
from pathlib import Path

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import warn
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.tensors import tensor_options
from mergeplan.cli.options.units import BYTES, threads_option
from mergeplan.cli.options.vocabulary import mismatch_option


@click.command("inspect")
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(readable=False)
)
@click.option("--tensors", is_flag=True, help="List every tensor, and every problem.")
@click.option("--out", type=PATH, help="Where the merge would go: is there room?")
@click.option("--overwrite", is_flag=True, help="The output may replace what is there.")
@threads_option(what="Worker threads of the merge.")
@click.option("--memory-limit", type=BYTES, help="Would the merge do with this: 256MiB, 1GB?")
@click.option(
    "--out-shard-size",
    type=BYTES,
    default="5GB",
    show_default=True,
    help="Bytes of tensors in one output file.",
)
@tensor_options
@click.option("--lora-exact", is_flag=True, help="Would it keep base + adapter in float32.")
@mismatch_option
@allow_methods_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No warnings.")
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[str, ...],
    tensors: bool,
    out: Path | None,
    overwrite: bool,
    threads: int | None,
    memory_limit: int | None,
    out_shard_size: int,
    allow_left_out: tuple[str, ...],
    packed_experts: bool,
    lora_exact: bool,
    allow_vocabulary_mismatch: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Look into checkpoints and configs, by their headers alone.

    PATH is a checkpoint's folder or file, or a merge's config (.yml). Several
    checkpoints are checked against each other. A config is checked with its models, and its
    memory, disk, bytes and time are forecast. Exit code 1: there are problems; all are listed.
    """
    from mergeplan.display.text import printable
    from mergeplan.inspection.inspect import inspect
    from mergeplan.merging.options import MergeOptions

    options = MergeOptions(
        threads=threads,
        memory_limit=memory_limit,
        max_shard_bytes=out_shard_size,
        overwrite=overwrite,
        allow_left_out=allow_left_out,
        packed_experts=packed_experts,
        lora_exact=lora_exact,
        allow_vocabulary_mismatch=allow_vocabulary_mismatch,
    )
    found = inspect(paths, options, out=out)
    if as_json:
        print_document("inspect", {"fits": found.fits, **dataclasses.asdict(found)})
    else:
        click.echo(found.summary(tensors=tensors))
        for warning in found.warnings + tuple(w for m in found.merges for w in m.warnings):
            if not quiet:
                warn(printable(warning))
    if not found.fits:
        ctx.exit(1)
