"""`mergeplan extract-lora`."""

from pathlib import Path

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.options.path import PATH, complete_files
from mergeplan.cli.options.units import SEED, NumberRange, threads_option


@click.command("extract-lora")
@click.argument("model", metavar="MODEL", shell_complete=complete_files)
@click.option(
    "--base",
    metavar="BASE",
    required=True,
    shell_complete=complete_files,
    help="The model that it was trained from.",
)
@click.option("-o", "--out", metavar="OUT", type=PATH, required=True, help="Folder to create.")
@click.option("--rank", type=click.IntRange(1), help="The rank of every layer.")
@click.option(
    "--energy",
    metavar="SHARE",
    type=NumberRange(0, 1),
    help="For each layer the least rank that keeps this share of its squared singular values, such"
    " as 0.95.",
)
@click.option(
    "--max-error",
    metavar="SHARE",
    type=NumberRange(0, 1),
    help="For each layer the least rank whose relative error is not above this.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of the factors.",
)
@click.option(
    "--save-module",
    "save_modules",
    metavar="NAME",
    multiple=True,
    help="Store modules whose name ends so whole, such as `embed_tokens`. May be given again.",
)
@click.option("--random-seed", type=SEED, default=0, show_default=True, help="Of the sketches.")
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    model: str,
    base: str,
    out: Path,
    rank: int | None,
    energy: float | None,
    max_error: float | None,
    dtype: str,
    save_modules: tuple[str, ...],
    random_seed: int,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write what MODEL learned beyond BASE as a LoRA adapter of peft.

    The difference of each linear layer becomes two factors, by a randomised SVD, and the table says
    what they leave of it. Give one of --rank, --energy and --max-error. Embeddings, heads, norms,
    biases and experts are no part of the adapter, and listed; --save-module stores a module whole.
    """
    if sum(one is not None for one in (rank, energy, max_error)) != 1:
        raise click.UsageError("give one of `--rank`, `--energy` and `--max-error`")
    if energy == 0 or max_error == 0:
        raise click.UsageError("expected a share above 0")
    from mergeplan.extraction.extract import Wanted, as_data, extract
    from mergeplan.extraction.report import lines
    from mergeplan.merging.options import MergeOptions
    from mergeplan.system.progress import ProgressLine

    wanted = Wanted(rank, energy, max_error, dtype, save_modules, random_seed)
    progress = ProgressLine(quiet=quiet)
    try:
        found = extract(model, base, out, wanted, MergeOptions(threads=threads), progress)
    finally:
        progress.clear()
    if as_json:
        print_document("extract_lora", as_data(found, model, base, wanted))
        return
    for line in lines(found):
        click.echo(line)
