"""`mergeplan tune`."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import warn
from mergeplan.cli.options.evaluation import evaluation_options, setup_of
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.units import BYTES, threads_option
from mergeplan.cli.options.vocabulary import mismatch_option

if TYPE_CHECKING:
    from mergeplan.tuning.options import TuneOptions
    from mergeplan.tuning.tune import TuneForecast

BY = ("expert", "layer", "kind", "layer,kind")


class Bounds(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Two numbers, such as `0,1`."""

    name = "LOW,HIGH"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        try:
            low, high = map(float, str(value).split(","))
        except ValueError:
            self.fail(f"expected two numbers such as 0,1, found `{value}`", param, ctx)
        return low, high


class Total(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number, or `free`, which is `None`."""

    name = "free|NUMBER"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        if value in ("free", None):
            return None
        try:
            return float(str(value))
        except ValueError:
            self.fail(f"expected `free` or a number, found `{value}`", param, ctx)


@click.command("tune")
@click.argument("pool_file", metavar="POOL.yml", type=PATH)
@click.option(
    "-o",
    "--out",
    "folder",
    required=True,
    metavar="RUN_DIR",
    type=PATH,
    help="The run's folder; one that exists goes on where it stopped.",
)
@click.option(
    "--by",
    type=click.Choice(BY),
    default="expert",
    show_default=True,
    help="Which tensors of an expert share a weight: all, or those of a layer or a kind of module.",
)
@click.option(
    "--method",
    help="A method of the pool; slopes of those that elect signs, as TIES does, are approximate."
    " [default: the first that elects none]",
)
@click.option("--size", help="The base to tune, by its parameters, where the pool has several.")
@click.option(
    "--domains",
    metavar="CODE[=2],MATH",
    help="Domain to serve, or several with shares. [default: the macro mean]",
)
@click.option("--worst", is_flag=True, help="Serve the worst of them instead of their mean.")
@click.option(
    "--keep",
    multiple=True,
    metavar="CODE<=1.10",
    help="An upper bound on a domain's loss, where slopes are taken and where steps are accepted;"
    " may be given again.",
)
@click.option(
    "--sum",
    "total",
    type=Total(),
    default="free",
    show_default=True,
    help="What the experts' weights sum to, in each layer and kind.",
)
@click.option(
    "--bounds",
    type=Bounds(),
    help="Least and largest weight. [default: -1,2; 0,2 where signs are elected]",
)
@click.option(
    "--budget",
    type=click.IntRange(3),
    default=20,
    show_default=True,
    help="Most points to measure with their slopes; base and equal weights are two.",
)
@click.option(
    "--beside",
    multiple=True,
    metavar="MERGE.yml",
    type=PATH,
    help="Hold the tuned merge against this one too, such as `select` wrote; may be given again.",
)
@evaluation_options(
    auto="float32 on a CPU, the base's own on a GPU",
    seed="Of masks, of the choice of documents and of what they are for.",
    seed_default="the pool's `random_seed`, or 0",
    half=False,
)
@threads_option()
@click.option(
    "--memory-limit", type=BYTES, help="What gradients, and merging, may take beside the model."
)
@click.option(
    "--lora-exact", is_flag=True, help="Keep base + adapter in float32 before merging, as in merge."
)
@mismatch_option
@allow_methods_option
@click.option("--ray", metavar="ADDRESS", help="Run on a Ray cluster: `auto`, an address, `local`.")
@click.option("--dry-run", is_flag=True, help="Check everything, and say what it would take.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No word of points, no warnings.")
def command(
    pool_file: Path, folder: Path, dry_run: bool, as_json: bool, quiet: bool, **given: Any
) -> None:
    """Tune the weights of a merge by gradients: one for each expert, or for each of its layers.

    One backward pass at a merge tells how the losses move with the weights of all experts in all
    layers. Half of the documents tune: two thirds of them give slopes, one third accepts steps. The
    other half is scored once, at the end. Each point is kept at once: the same command goes on
    after a kill. Ends with merge.yml, which `merge` and `mergekit-yaml` both run, tune.json, and
    report.html, which shows the weights and what each does.
    """
    from mergeplan.reporting.tuned_page import tuned_page
    from mergeplan.system.signals import raise_again
    from mergeplan.tuning.result import result_data
    from mergeplan.tuning.tune import forecast_tune, tune

    options = _options(pool_file, given)
    if dry_run:
        found = forecast_tune(pool_file, folder, options)
        if as_json:
            print_document("tune_forecast", dataclasses.asdict(found))
        else:
            click.echo(_forecast(found))
        return

    def say(text: str) -> None:
        raise_again()
        if not quiet:
            click.echo(text, err=True)

    command = shlex.join(["mergeplan", *sys.argv[1:]])
    try:
        done = tune(pool_file, folder, options, say=say, command=command)
        page = tuned_page(folder, pool_file)
    except (KeyboardInterrupt, SystemExit):
        click.echo(f"what is measured stays in `{folder}`; this goes on:", err=True)
        click.echo(f"  {command}", err=True)
        raise
    if as_json:
        data = result_data(done)
        del data["version"]  # the file's own
        print_document("tune", data)
    else:
        click.echo(done.summary())
        click.echo(f"\nmerge: {done.config}, for `merge` and `mergekit-yaml`")
        click.echo(f"next: {done.next_command}")
        click.echo(f"report: {page}, for a browser")
    for warning in () if quiet else done.doubts:
        warn(warning)


def _options(pool_file: Path, given: dict[str, Any]) -> "TuneOptions":
    from mergeplan.display.text import parse_count
    from mergeplan.selection.problem import parse_constraint
    from mergeplan.tuning.options import TuneOptions

    try:
        n_params = parse_count(given["size"]) if given["size"] else None
    except ValueError as error:
        raise click.UsageError(f"--size: expected parameters such as 1B: {error}") from error
    return TuneOptions(
        by=given["by"],
        method=given["method"],
        domains=given["domains"],
        worst=given["worst"],
        keep=tuple(map(parse_constraint, given["keep"])),
        total=given["total"],
        bounds=given["bounds"],
        budget=given["budget"],
        beside=given["beside"],
        ray=given["ray"],
        n_params=n_params,
        setup=setup_of(given, pool_file),
    )


def _forecast(found: "TuneForecast") -> str:
    from mergeplan.display.text import counted, format_bytes

    lines = [
        f"{counted(found.unknowns, 'weights')} in {counted(len(found.groups), 'groups')}",
        f"at most {counted(found.points, 'points')} with slopes, each of"
        f" {found.point_tokens:,} tokens of forward passes (a backward pass counts two)",
        f"for the slopes of a point base and experts are read {counted(found.reads, 'times')},"
        f" {format_bytes(found.read_bytes)}",
        f"memory beside the model: at most {format_bytes(found.memory_bytes)}",
    ]
    return "\n".join(lines)
