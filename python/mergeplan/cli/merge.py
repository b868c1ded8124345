"""`mergeplan merge`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.options.merging import merge_options, merging_options
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.units import SEED
from mergeplan.cli.running import Running, run_merges

if TYPE_CHECKING:
    from mergeplan.merging.options import MergeOptions, MergeRequest


@click.command("merge")
@click.argument("paths", metavar="CONFIG.yml OUT_DIR", nargs=-1, required=True, type=PATH)
@click.option(
    "--many",
    metavar="SUBSETS.csv",
    type=PATH,
    help="Run every merge that `mergeplan sample` listed, many in one pass: --many SUBSETS.csv"
    " OUT_ROOT. Each goes into a folder of OUT_ROOT that has its key as name.",
)
@click.option(
    "--random-seed",
    type=SEED,
    help="Seed of the masks.  [default: the config's `random_seed`, or 0]",
)
@allow_methods_option
@merging_options
def command(
    paths: tuple[Path, ...], many: Path | None, random_seed: int | None, **given: Any
) -> None:
    """Run the merge that CONFIG.yml describes, as mergekit-yaml would, into OUT_DIR.

    Every flag of mergekit-yaml is taken, or refused with the reason; those that are of no use here
    are not listed. OUT_DIR is absent or complete at any moment. The same inputs, config and seed
    give the same bytes on any machine, with any number of threads.
    """
    how = Running.of(given, paths[-1], many=many is not None)
    options = merge_options(given, how.ray, random_seed)
    run_merges(partial(_wanted, paths, many, options), options, how)


def _wanted(
    paths: tuple[Path, ...], many: Path | None, options: "MergeOptions"
) -> "list[MergeRequest]":
    from mergeplan.merging.options import MergeRequest

    if many is None:
        if len(paths) != 2:
            raise click.UsageError(f"expected CONFIG.yml and OUT_DIR, found {len(paths)} paths")
        return [MergeRequest(*paths)]
    if len(paths) != 1:
        raise click.UsageError(f"expected OUT_ROOT beside --many, found {len(paths)} paths")
    from mergeplan.config.config import read_config
    from mergeplan.planning.opening import all_faultless
    from mergeplan.pool.subsets import read_subsets

    rows = read_subsets(many)
    reads = [partial(read_config, row.config, given=False) for row in rows]
    configs = all_faultless(reads, options.planning().opening)
    return [
        MergeRequest(config, paths[0] / row.key, row.merge.seed)
        for config, row in zip(configs, rows, strict=True)
    ]
