"""`mergeplan merge`."""

import dataclasses
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.documents import head, print_document
from mergeplan.cli.messages import MisuseError, report, warn
from mergeplan.cli.options.mergekit_flags import mergekit_flags
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.tensors import tensor_options
from mergeplan.cli.options.units import BYTES, DEVICE, SEED, threads_option
from mergeplan.cli.pushing import publishing_options, push_merged, push_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergeplan.hub.push import Prepared, Pushed
    from mergeplan.merging.checked import CheckedMerge, CheckedMerges
    from mergeplan.merging.merge import MergeReport
    from mergeplan.merging.options import MergeOptions, MergeRequest
    from mergeplan.merging.runner import Runner


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
@publishing_options
@click.option("--allow-nonfinite", is_flag=True, help="Merge NaN and infinity all the same.")
@click.option(
    "--memory-limit",
    type=BYTES,
    help="Anonymous memory of the whole process: 256MiB, 1GB. [default: 256MiB at 2 threads]",
)
@click.option(
    "--allow-fallback-memory",
    is_flag=True,
    help="Let mergekit, where it must compute tensors itself, take more than the memory limit.",
)
@click.option(
    "--device",
    type=DEVICE,
    help="Merge with torch: on all GPUs, one of them, those that there are, or (slower than without"
    " this option) on the CPU.  [default: the CPU, without torch]",
)
@click.option(
    "--vram-limit",
    type=BYTES,
    help="Memory of each GPU that merging may take: 1GiB.  [default: most of what is free]",
)
@tensor_options
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace OUT_DIR at the end, if it holds a model and nothing else.",
)
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run left.")
@click.option("--discard", is_flag=True, help="Throw away what an interrupted run left.")
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Spread the output's shards over a Ray cluster: `auto`, its address, or `local`.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything, say what `inspect` says of the merge, write nothing; with --json, print"
    " the plan.",
)
@allow_methods_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "-q",
    "--quiet/--no-quiet",
    default=False,
    is_eager=True,
    help="No progress and no warnings.",
)
@mergekit_flags
def command(
    paths: tuple[Path, ...],
    many: Path | None,
    random_seed: int | None,
    threads: int | None,
    out_shard_size: int,
    copy_tokenizer: bool,
    write_model_card: bool,
    licence: str | None,
    push_to_hub: str | None,
    public: bool,
    allow_nonfinite: bool,
    memory_limit: int | None,
    allow_fallback_memory: bool,
    device: str | None,
    vram_limit: int | None,
    allow_left_out: tuple[str, ...],
    packed_experts: bool,
    overwrite: bool,
    resume: bool,
    discard: bool,
    ray: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    cuda: bool,
    gpu_rich: bool,
    **of_mergekit: Any,
) -> None:
    """Run the merge that CONFIG.yml describes, as mergekit-yaml would, into OUT_DIR.

    Every flag of mergekit-yaml is taken, or refused with the reason; those that are of no use here
    are not listed. OUT_DIR is absent or complete at any moment. The same inputs, config and seed
    give the same bytes on any machine, with any number of threads.
    """
    from mergeplan.merging.merge import merge_many
    from mergeplan.merging.options import MergeOptions
    from mergeplan.merging.turns import check_merges
    from mergeplan.system.progress import ProgressLine

    options = MergeOptions(
        seed=random_seed,
        threads=threads,
        max_shard_bytes=out_shard_size,
        allow_nonfinite=allow_nonfinite,
        memory_limit=memory_limit,
        allow_fallback_memory=allow_fallback_memory,
        device=device or ("cuda" if cuda or gpu_rich else None),
        vram_limit=vram_limit,
        allow_left_out=allow_left_out,
        packed_experts=packed_experts,
        overwrite=overwrite,
        resume=resume,
        discard=discard,
        copy_tokenizer=copy_tokenizer,
        write_model_card=write_model_card,
        license=licence,
        **of_mergekit,
    )
    if ray is not None and options.device is not None:
        raise click.UsageError("`--ray` spreads merges over CPUs: leave `--device` out")
    if vram_limit is not None and options.device is None:
        raise MisuseError(
            "`--vram-limit` says nothing without `--device`",
            "give `--device cuda` too, or `--memory-limit`, which bounds merges on the CPU",
        )
    if resume and discard:
        raise click.UsageError("`--resume` and `--discard` exclude each other")
    push = push_to(
        push_to_hub,
        many=many is not None,
        card=write_model_card,
        public=public,
        licence=licence,
        quiet=quiet,
    )
    wanted = _wanted(paths, many, options)
    if dry_run:
        checked = check_merges(wanted, options)
        found = push.prepare(checked[0], create=False) if push else None
        _say_what_would_be(checked, options, as_json, quiet, found)
        return
    line = ProgressLine(quiet=quiet)
    prepared: list[Prepared] = []

    def approve(checked: "CheckedMerges") -> None:
        if push is not None:
            prepared.append(push.prepare(checked.merges[0]))

    try:
        reports = merge_many(wanted, options, line, _runner(ray), approve)
    except BaseException as error:
        line.clear()
        for note in getattr(error, "__notes__", ()):
            if "`resume`" not in note:
                continue  # a hint, which is printed with the message
            click.echo(note.replace("`resume`", f"`{_again()}`"), err=True)
        raise
    pushed = push_merged(push, prepared[0], threads, line, _again()) if push else None
    line.clear()
    _say_what_was_done(
        reports, paths[-1], pushed, many=many is not None, as_json=as_json, quiet=quiet
    )


def _say_what_was_done(
    reports: "Sequence[MergeReport]",
    out: Path,
    pushed: "Pushed | None",
    *,
    many: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from mergeplan.merging.merge import merged_line

    if not quiet:
        for warning in sorted({warning for report in reports for warning in report.warnings}):
            warn(warning)
    if as_json:
        data = [dataclasses.asdict(report) for report in reports]
        if many:
            print_document("merges", {"merges": data})
        else:
            hub = {"hub": dataclasses.asdict(pushed)} if pushed else {}
            print_document("merge", {**data[0], **hub})
    else:
        report(merged_line(reports, out))
        if pushed:
            report(pushed.line())


def _again() -> str:
    """The command that goes on."""
    given = [word for word in sys.argv[1:] if word not in ("--resume", "--discard")]
    return shlex.join(["mergeplan", *given, "--resume"])


def _say_what_would_be(
    checked: "Sequence[CheckedMerge]",
    options: "MergeOptions",
    as_json: bool,
    quiet: bool,
    push: "Prepared | None",
) -> None:
    """What `inspect` says of merges that can run, and of a push; as JSON, the merges' plans."""
    from mergeplan.inspection.inspect import inspect
    from mergeplan.planning.document import to_json

    found = [] if as_json else [inspect([one.config], options, out=one.out) for one in checked]
    told = dict.fromkeys(w for one in found for merge in one.merges for w in merge.warnings)
    told |= dict.fromkeys(warning for one in checked for warning in one.warnings)
    for warning in () if quiet else told:
        warn(warning)
    if as_json:
        plans = [one.plan.data for one in checked]
        hub = {"hub": push.data()} if push else {}
        data = {**head("plan"), "plans": plans, "warnings": list(told), **hub}
        click.echo(to_json(data, indent=1))
    for one in found:
        click.echo(one.summary())
    if push and not as_json:
        click.echo(push.line())
    if not all(one.fits for one in found):
        click.get_current_context().exit(1)


def _runner(ray: str | None) -> "Runner | None":
    if ray is None:
        return None
    from mergeplan.merging.cluster_runner import ClusterRunner
    from mergeplan.system.ray import connect

    return ClusterRunner(connect(ray))


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
