"""`mergeplan evaluate`."""

from collections.abc import Iterable
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
from mergeplan.errors import InputError, MergeplanError

_FILE = PATH


@click.command("evaluate")
@click.argument("model", metavar="MODEL", type=_FILE)
@click.option(
    "--data",
    "sources",
    multiple=True,
    shell_complete=complete_files,
    metavar="DATA",
    help="A .jsonl file, name=file, a folder of .jsonl files, or a pool.yml. Repeatable."
    " --tasks and --scorer can do without.",
)
@click.option("--against", type=_FILE, help="Also score this model; print MODEL - AGAINST, paired.")
@click.option(
    "--tasks",
    multiple=True,
    help="Run tasks of lm-evaluation-harness too, by name or YAML file: a,b. Repeatable.",
)
@click.option("-o", "--out", type=_FILE, help="Append what is found to this measurements.csv.")
@click.option(
    "--as",
    "merge",
    multiple=True,
    metavar="KEY=VALUE",
    help="With -o, what MODEL is: k=0, or subset=code+algebra, method=ties. Repeatable. What the"
    " manifest of a merge of ours says need not be given.",
)
@click.option("--items", type=_FILE, help="Write each item's score of the tasks to this CSV.")
@click.option("--documents", type=_FILE, help="Write each document's loss to this CSV.")
@click.option(
    "--overwrite", is_flag=True, help="Replace the tables of --documents and --items that exist."
)
@evaluation_options(auto="the checkpoint's own", seed="Of the choice of documents.")
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    model: Path,
    sources: tuple[str, ...],
    against: Path | None,
    tasks: tuple[str, ...],
    out: Path | None,
    merge: tuple[str, ...],
    items: Path | None,
    documents: Path | None,
    overwrite: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Token cross-entropy of MODEL on held-out text, in nats per token.

    Each line of a file has `text`, or `prompt` and `response`, or `messages`, of which only
    responses and assistant turns are scored, and may have a `group`: the file or conversation that
    it is a part of. Each token is scored once. Standard errors are clustered by group, or by
    document where there is none; the macro mean counts every domain alike. With --scorer, a measure
    of your own of any model that torch runs.

    The manifest beside a merge of ours says what MODEL is: -o records that method, with its
    options, experts and weights, where the tensors are still those of the manifest, and refuses an
    --as that contradicts it.
    """
    from mergeplan.checkpoints.heads import count_params
    from mergeplan.checkpoints.opening import open_checkpoint
    from mergeplan.display.text import counted
    from mergeplan.evaluation.evaluate import evaluate_fully
    from mergeplan.evaluation.loading import set_threads
    from mergeplan.evaluation.provenance import provenance
    from mergeplan.evaluation.recording import append, columns_of, parse_merge
    from mergeplan.evaluation.scores import documents_csv, items_csv
    from mergeplan.evaluation.sources import find_data, names_in_pools
    from mergeplan.merging.manifest import NAME
    from mergeplan.system.files import input_path
    from mergeplan.system.progress import ProgressLine
    from mergeplan.system.writing import write_durably

    if not (sources or tasks or given["scorer"]):
        raise click.UsageError("--data is missing: what to score MODEL on")
    data = find_data(sources)
    if items is not None and not tasks:
        raise click.UsageError("--items are those of --tasks")
    if overwrite and documents is None and items is None:
        raise click.UsageError("--overwrite goes with --documents or --items: -o adds rows")
    named = [path for path in map(input_path, (*sources, *task_names(tasks))) if path.is_file()]
    read = (model, against, given["scorer"], *data.values(), *named)
    _refuse_outputs(out, documents, items, overwrite=overwrite, read=read)
    hashing = ProgressLine(quiet=quiet)
    try:
        made = provenance(
            model,
            names_in_pools(sources),
            verified=out is not None,
            threads=threads,
            progress=hashing,
        )
    except MergeplanError as error:
        if out is not None:
            raise
        made = None
        warn(str(error))
    finally:
        hashing.clear()
    if (out is None) != (not merge) and not (out and made):
        if out and (model / NAME).is_file():
            raise InputError(
                f"`{model / NAME}` is of other weights, or of `passthrough` without an adapter (a"
                " plain copy, or layers of several models), and does not say what to record",
                "say it with --as, such as `--as subset=code+algebra --as method=stack`;"
                f" `mergeplan verify {model}` names the tensors that differ",
            )
        raise click.UsageError("-o and --as belong together: what is recorded, and of which merge")
    known = parse_merge(merge, made) if out else {}
    options = evaluation_of(given)
    if out is not None:
        known.setdefault("n_params", str(count_params(open_checkpoint(str(model)))))
        scored = bool(options.scorer and options.scorer.metric)
        losses = bool(sources) and not scored
        columns_of(out, known, losses=losses, metrics=scored or bool(tasks))  # before the work
    if threads is not None:
        set_threads(threads)
    line = scoring_line(options, quiet)
    try:
        found = evaluate_fully(
            model,
            data,
            options,
            against=against,
            tasks=task_names(tasks),
            dtype=given["dtype"],
            device=given["device"],
            progress=line,
        )
    finally:
        line.clear()
    warnings = list(found.warnings)
    for name, scores in ((model, found.scores), (against, found.against)):
        warnings += [f"model `{name}`, {fault}" for fault in scores.faults()] if scores else []
    if as_json:
        merged = made and {**made.data(), "verified": out is not None}
        told = {"merge": merged, "warnings": warnings}
        print_document("evaluate", {**found.data(), **told})
    else:
        if made is not None:
            how = "its manifest" if out else "its manifest (its tensors were not hashed)"
            click.echo(f"{model}, by {how}: {made}\n")
        click.echo(found.table(found.scores, found.metric or "loss_nats", found.tasks))
        if found.against is not None:
            click.echo(
                f"\n{model} - {against}, paired by document" + (" and item" if tasks else "")
            )
            click.echo(found.difference())
    warn_left_out(found.left_out)
    for message in warnings:
        warn(message)
    if documents is not None:
        write_durably(documents, documents_csv(found.scores), replace=overwrite)
    if items is not None:
        write_durably(items, items_csv(found.tasks), replace=overwrite)
    if out is not None:
        repeated = append(
            out,
            found.scores,
            known,
            data_hash=found.data_hash,
            metric=found.metric,
            higher=found.higher,
            tasks=found.beside(found.tasks),
            task_hashes=found.task_hashes,
        )
        if repeated:
            warn(
                f"{counted(repeated, 'rows')} of this measurement stood in `{out}` already: keep"
                " one of each, since `fit` and `select` refuse a merge that stands twice"
            )


def _refuse_outputs(
    out: Path | None,
    documents: Path | None,
    items: Path | None,
    *,
    overwrite: bool,
    read: Iterable[Path | None],
) -> None:
    """Before the work: what cannot be written, is read, or is something else than such scores."""
    from mergeplan.evaluation.scores import DOCUMENTS_HEAD, ITEMS_HEAD
    from mergeplan.system.writing import refuse_existing, refuse_one_place, refuse_unlike

    refuse_one_place((out, documents, items))
    for path, head in ((documents, DOCUMENTS_HEAD), (items, ITEMS_HEAD)):
        if path is not None:
            refuse_existing(path, overwrite=overwrite, inputs=read)
            # What a task's file names is read too.
            refuse_unlike(path, ",".join(head), "table of such scores")
