"""`mergeplan compare`."""

from pathlib import Path
from typing import Any

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import warn, warn_left_out
from mergeplan.cli.options.evaluation import (
    evaluation_of,
    evaluation_options,
    scoring_line,
    task_names,
)
from mergeplan.cli.options.path import PATH, complete_files
from mergeplan.cli.options.units import threads_option


@click.command("compare")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=PATH)
@click.option(
    "--data",
    "sources",
    multiple=True,
    shell_complete=complete_files,
    metavar="DATA",
    help="A .jsonl file, name=file, a folder of .jsonl files, or a pool.yml. Repeatable.",
)
@click.option(
    "--prompt",
    type=PATH,
    help="Print the models' completions too: a .txt of one prompt a line, or a .jsonl with text,"
    " prompt or messages.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="Most tokens of a completion.",
)
@click.option(
    "--tasks",
    multiple=True,
    help="Run tasks of lm-evaluation-harness too, by name or YAML file: a,b. Repeatable.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "markdown", "csv")),
    default="text",
    show_default=True,
    help="csv has a row for each model and domain.",
)
@evaluation_options(auto="each checkpoint's own", seed="Of the choice of documents.")
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    models: tuple[Path, ...],
    sources: tuple[str, ...],
    prompt: Path | None,
    max_new_tokens: int,
    tasks: tuple[str, ...],
    form: str,
    threads: int | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Several MODELs by domains, and what each makes of the same prompts.

    A MODEL is a folder, or `base+adapter` with the folders of a base and of a LoRA, which are
    merged in memory.

    Values are means with standard errors, as `evaluate` gives them. The best of a domain is marked
    only where the 90 % interval of its difference from every other model, paired by document or
    group, leaves 0 out. Completions are greedy, with each model's own tokenizer and chat template,
    special tokens and all.
    """
    from mergeplan.evaluation.compare import compare
    from mergeplan.evaluation.loading import set_threads
    from mergeplan.evaluation.sources import find_data

    if len(models) < 2:
        raise click.UsageError("one model only: name two or more; of one, see `evaluate`")
    if not (sources or tasks or given["scorer"] or prompt):
        raise click.UsageError("--data is missing: what to compare on; or give --prompt")
    if prompt is not None and form == "csv" and not as_json:
        raise click.UsageError("--format csv holds no completions of --prompt: take --json")
    options = evaluation_of(given)
    if threads is not None:
        set_threads(threads)
    line = scoring_line(options, quiet)
    try:
        found = compare(
            models,
            find_data(sources),
            options,
            prompts=prompt,
            max_new_tokens=max_new_tokens,
            tasks=task_names(tasks),
            dtype=given["dtype"],
            device=given["device"],
            progress=line,
        )
    finally:
        line.clear()
    if as_json:
        print_document("compare", found.data())
    elif form == "csv":
        click.echo(found.csv(), nl=False)
    else:
        click.echo(found.markdown() if form == "markdown" else found.summary())
    warn_left_out(found.left_out)
    for message in found.warnings:
        warn(message)
