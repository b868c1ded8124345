"""`mergeplan merge`."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import click

from mergeplan.cli import warn
from mergeplan.cli.units import BYTES, SEED, threads_option


@click.command("merge")
@click.argument("config_file", metavar="CONFIG.yml", type=click.Path(path_type=Path))
@click.argument("out_dir", metavar="OUT_DIR", type=click.Path(path_type=Path))
@click.option("--random-seed", type=SEED, default=0, show_default=True, help="Seed of the masks.")
@threads_option("--num-threads")
@click.option(
    "--out-shard-size",
    type=BYTES,
    default="5GB",
    show_default=True,
    help="Bytes of tensors in one output file: 5GB, 500MB, 2GiB; a bare k, M or B means 10^3, 10^6"
    " or 10^9 bytes, as mergekit counts them.",
)
@click.option("--copy-tokenizer/--no-copy-tokenizer", default=True, help="[default: copy]")
@click.option("--write-model-card/--no-write-model-card", default=True, help="[default: write]")
@click.option("--allow-nonfinite", is_flag=True, help="Merge NaN and infinity all the same.")
@click.option(
    "--memory-limit",
    type=BYTES,
    help="Anonymous memory of the whole process: 256MiB, 1GB. [default: 256MiB at 2 threads]",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT_DIR if it has content, at the end.")
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run left.")
@click.option("--discard", is_flag=True, help="Throw away what an interrupted run left.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no warnings.")
def command(
    config_file: Path,
    out_dir: Path,
    random_seed: int,
    threads: int | None,
    out_shard_size: int,
    copy_tokenizer: bool,
    write_model_card: bool,
    allow_nonfinite: bool,
    memory_limit: int | None,
    overwrite: bool,
    resume: bool,
    discard: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the merge that CONFIG.yml describes, as mergekit-yaml would, into OUT_DIR.

    OUT_DIR is absent or complete at any moment. The same inputs, config and seed give the same
    bytes on any machine, with any number of threads.
    """
    from mergeplan.config import load_config
    from mergeplan.merge_checks import MergeOptions, check_merges
    from mergeplan.merging import merge
    from mergeplan.output import format_bytes
    from mergeplan.progress import ProgressLine
    from mergeplan.workspace import partial_folder

    options = MergeOptions(
        seed=random_seed,
        threads=threads,
        max_shard_bytes=out_shard_size,
        allow_nonfinite=allow_nonfinite,
        memory_limit=memory_limit,
        overwrite=overwrite,
        resume=resume,
        discard=discard,
        copy_tokenizer=copy_tokenizer,
        write_model_card=write_model_card,
    )
    config = load_config(config_file)
    if dry_run:
        [checked] = check_merges([(config, out_dir)], options).merges
        for warning in checked.warnings:
            warn(warning)
        click.echo(json.dumps(checked.plan.data, indent=1))
        return
    line = ProgressLine(quiet=quiet)
    try:
        report = merge(config, out_dir, options, line)
    except BaseException as error:
        line.clear()
        if getattr(error, "__notes__", None):
            left = partial_folder(out_dir.expanduser().resolve())
            given = [word for word in sys.argv[1:] if word not in ("--resume", "--discard")]
            again = shlex.join(["mergeplan", *given, "--resume"])
            click.echo(f"what is done stays in `{left}`; `{again}` goes on", err=True)
        raise
    line.clear()
    if not quiet:
        for warning in report.warnings:
            warn(warning)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), default=str))
    else:
        rate = format_bytes(report.read_bytes / max(report.seconds, 1e-9))
        click.echo(
            f"{report.out}: {report.tensors} tensors, {format_bytes(report.written_bytes)} in"
            f" {report.seconds:.2f} s ({rate}/s read)"
        )
