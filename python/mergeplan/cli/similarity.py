"""`mergeplan similarity`."""

from pathlib import Path

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import warn
from mergeplan.cli.options.overwrite import overwrite_option, refuse_outputs
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.units import threads_option

_WARNINGS = 5  # tensors that are named one by one


@click.command("similarity")
@click.argument("pool_file", metavar="POOL.yml", type=PATH)
@click.option(
    "-o",
    "--out",
    type=PATH,
    help="Write the numbers here, for `mergeplan select --geometry`.",
)
@click.option("--plot", "picture", type=PATH, help="A .png, .pdf or .svg file.")
@overwrite_option
@threads_option()
@allow_methods_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    pool_file: Path,
    out: Path | None,
    picture: Path | None,
    overwrite: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare the experts of a pool by their weights, in one pass and without any evaluation.

    Prints norms, cosines and sign agreement of the deltas (expert - base), as a whole, by layer
    and by kind of module, and what share of a delta's squared norm trimming would keep.
    """
    from mergeplan.display.figure import check_picture
    from mergeplan.pool.bases import check_bases
    from mergeplan.pool.geometry.compare import similarity
    from mergeplan.pool.geometry.file import geometry_data, save_geometry
    from mergeplan.pool.pool import load_pool
    from mergeplan.system.progress import ProgressLine

    if picture is not None:
        check_picture(picture)
    refuse_outputs((out, picture), overwrite=overwrite, pool_file=pool_file)
    line = ProgressLine(quiet=quiet)
    try:
        pool = load_pool(pool_file)
        bases = check_bases(pool)
        found = similarity(pool, threads=threads, progress=line)
    finally:
        line.clear()
    for warning in bases:
        warn(warning)
    if as_json:
        print_document("similarity", {"sizes": geometry_data(found)["sizes"], "warnings": bases})
    else:
        click.echo("\n\n".join(geometry.summary() for geometry in found))
    for geometry in found:
        odd = [(name, why) for name, why in geometry.left_out.items() if "`" in why]
        for name, why in odd[:_WARNINGS]:
            warn(f"`{name}` is left out: {why}")
        if len(odd) > _WARNINGS:
            warn(f"{len(odd) - _WARNINGS} more tensors are left out")
    if out is not None:
        save_geometry(found, out, replace=overwrite)
    if picture is not None:
        from mergeplan.pool.geometry.pictures import draw_geometry

        # The largest base: one picture, of what there is most to see in.
        largest = max(found, key=lambda geometry: geometry.n_params)
        draw_geometry(largest, picture, replace=overwrite)
