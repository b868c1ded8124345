"""`mergeplan verify`."""

import dataclasses
from pathlib import Path

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import warn
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.tensors import tensor_options
from mergeplan.cli.options.units import SEED, NumberRange, threads_option

# As `replay` takes them.
MOST_STEPS = 1e9


@click.command("verify")
@click.argument("out_dir", metavar="OUT_DIR", type=PATH)
@click.option(
    "--inputs", is_flag=True, help="Also check that the inputs have their recorded size and time."
)
@click.option(
    "--config", metavar="CONFIG.yml", type=PATH, help="Instead replay this merge, and compare."
)
@click.option(
    "--adapter", metavar="ADAPTER", help="Instead add this LoRA adapter to its base, and compare."
)
@click.option(
    "--base", metavar="BASE", help="The model below --adapter.  [default: the one that it names]"
)
@click.option(
    "--tolerance-ulp",
    metavar="STEPS",
    type=NumberRange(0, MOST_STEPS),
    help="How many steps of the dtype count as rounding in a replay.  [default: 2 in 16 bits, 16 in"
    " float32]",
)
@click.option(
    "--random-seed", type=SEED, help="Seed of the replay's masks.  [default: the config's, or 0]"
)
@tensor_options
@allow_methods_option
@click.option("--all", "show_all", is_flag=True, help="List every tensor of a replay.")
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, and no word where all matches.")
@click.pass_context
def command(
    ctx: click.Context,
    out_dir: Path,
    inputs: bool,
    config: Path | None,
    adapter: str | None,
    base: str | None,
    tolerance_ulp: float | None,
    random_seed: int | None,
    allow_left_out: tuple[str, ...],
    packed_experts: bool,
    show_all: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check a merge in OUT_DIR against its mergeplan_manifest.json, or by merging again.

    Every tensor is hashed; files, lengths, headers, shard index and the files beside the weights
    are checked as far as the manifest lists them. Exit code 0: it matches. 1: it differs, and each
    difference is a line: file, tensor, expected, found.

    With --config or --adapter OUT_DIR may be anybody's: the merge runs again, tensor by tensor, and
    nothing is written. Each tensor is equal, equal up to rounding, merged at another strength, not
    merged at all, or something else. Exit code 0: it is that merge. 1: it is not, or one cannot
    tell.
    """
    if config is not None and adapter is not None:
        raise click.UsageError("--config and --adapter exclude each other")
    if config is None and adapter is None:
        _check_no_replay(ctx)
        _by_manifest(ctx, out_dir, inputs, threads, as_json, quiet)
        return
    if base is not None and adapter is None:
        raise click.UsageError("--base goes with --adapter: a config names its own")
    if inputs:
        raise click.UsageError("--inputs is about a manifest, of which a replay knows nothing")
    from mergeplan.inspection.replay import replay
    from mergeplan.merging.options import MergeOptions
    from mergeplan.system.progress import ProgressLine

    options = MergeOptions(
        seed=random_seed,
        threads=threads,
        allow_left_out=allow_left_out,
        packed_experts=packed_experts,
    )
    line = ProgressLine(quiet=quiet)
    try:
        result = replay(
            out_dir,
            config,
            adapter=adapter,
            base=base,
            options=options,
            tolerance_ulp=tolerance_ulp,
            progress=line,
        )
    finally:
        line.clear()
    for warning in () if quiet else result.warnings:
        warn(warning)
    if as_json:
        print_document("replay", result.data())
    elif not result.verified or not quiet:
        for text in (result.verdict(), *result.notes, *result.rows(every=show_all)):
            click.echo(text)
    if not result.verified:
        ctx.exit(1)


def _check_no_replay(ctx: click.Context) -> None:
    """Without a replay its options would be passed over in silence."""
    of_replay = {
        "base": "--base",
        "tolerance_ulp": "--tolerance-ulp",
        "random_seed": "--random-seed",
        "allow_left_out": "--allow-left-out",
        "packed_experts": "--packed-experts",
        "allow_methods": "--allow-methods",
        "show_all": "--all",
    }
    for name, option in of_replay.items():
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{option} goes with --config or --adapter")


def _by_manifest(
    ctx: click.Context,
    out_dir: Path,
    inputs: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
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
