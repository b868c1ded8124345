"""`mergeplan sample`."""

from pathlib import Path
from typing import Any

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import report, warn
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.units import SEED, CountList, Integers
from mergeplan.cli.options.vocabulary import mismatch_option


@click.command("sample")
@click.argument("pool_file", metavar="POOL.yml", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Folder; one may grow.")
@click.option("--method", "labels", multiple=True, help="A label of the pool. [default: all]")
@click.option("--size", "sizes", type=CountList(), default=(), help="Base sizes. [default: all]")
@click.option(
    "--k",
    "ks",
    type=Integers(1, 10_000),
    default=(),
    help="Numbers of experts; single ones and all are always there. [default: 1,2,4 and all]",
)
@click.option(
    "--count",
    type=click.IntRange(1),
    default=24,
    show_default=True,
    help="Subsets of each k, those that are there already among them.",
)
@click.option(
    "--design",
    type=click.Choice(["auto", "all", "balanced", "uniform", "permutations"]),
    default="auto",
    show_default=True,
    help="auto: all subsets of a k where they are at most 1.5 times --count, else balanced.",
)
@click.option(
    "--lambda-scan/--no-lambda-scan",
    default=True,
    help="All experts with lambda 0.2, 0.3, 0.5, 0.8 and 1, too. [default: scan]",
)
@click.option(
    "--seed",
    type=SEED,
    help="Of the choice and of random masks.  [default: the pool's `random_seed`, or 0]",
)
@mismatch_option
@click.option("--dry-run", is_flag=True, help="Say how many merges it would be; write nothing.")
@allow_methods_option
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def command(
    pool_file: Path,
    out: Path,
    labels: tuple[str, ...],
    sizes: tuple[float, ...],
    ks: tuple[int, ...],
    count: int,
    design: str,
    lambda_scan: bool,
    seed: int | None,
    allow_vocabulary_mismatch: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Choose subsets of the experts; write a mergekit YAML for each, and subsets.csv.

    Base and single experts are always among them. In a folder that holds a sample of this pool,
    rows and files stay, and the design grows around them.
    """
    from mergeplan.config.seed import seed_of
    from mergeplan.pool.bases import check_bases
    from mergeplan.pool.pool import load_pool
    from mergeplan.pool.sampling import SampleOptions, count_merges, grow_sample
    from mergeplan.pool.vocabularies import check_vocabularies

    pool = load_pool(pool_file)
    sweep = SampleOptions(
        labels,
        tuple(pool.nearest_size(n) for n in sizes),
        ks,
        count,
        design,
        lambda_scan,
        seed,
        allow_vocabulary_mismatch,
    )
    _, differing = seed_of(pool.random_seed, seed, f"`{pool_file}`")
    vocabularies = check_vocabularies(pool, allow=allow_vocabulary_mismatch)
    warnings = (*differing, *check_bases(pool), *vocabularies)
    for warning in warnings:
        warn(warning)
    merges, kept = grow_sample(out / "subsets.csv", pool, sweep, dry_run=dry_run)
    counts = count_merges(pool, merges)
    if as_json:
        table = None if dry_run else out / "subsets.csv"
        found = {"merges": len(merges), "kept": kept, "table": table, "counts": counts}
        print_document("sample", {**found, "warnings": warnings})
        return
    for line in _table(counts, pool.methods):
        report(line)
    before = f", {kept} of them there before" if kept else ""
    report(f"{len(merges)} merges{before}")
    if dry_run:
        click.echo("nothing was written", err=True)
    else:
        click.echo(f"wrote {out / 'subsets.csv'} and the YAMLs beside it", err=True)


def _table(counts: list[dict[str, Any]], methods: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each size and method: merges of how many possible, by k; others in one figure."""
    from mergeplan.display.table import align_columns
    from mergeplan.display.text import format_count

    cells: dict[tuple[float, str], list[str]] = {}
    others: dict[tuple[float, str], int] = {}
    for entry in counts:
        row = entry["n_params"], entry["method"]
        found = cells.setdefault(row, [])
        if entry["options"] == methods.get(entry["method"], {}):
            found.append(f"k = {entry['k']}: {entry['merges']} of {entry['possible']}")
        else:
            others[row] = others.get(row, 0) + entry["merges"]
    for row, merges in others.items():
        cells[row].append(f"other options: {merges}")
    rows = [(format_count(n), label, ", ".join(found)) for (n, label), found in cells.items()]
    return align_columns(rows, left=0, words=2)
