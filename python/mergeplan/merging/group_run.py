"""Merge what was checked into its workspaces, and publish each of them."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mergeplan.errors import ContentError, InputError, MissingInputError
from mergeplan.merging.card import Card, write_card
from mergeplan.merging.checked import CheckedMerge, CheckedMerges
from mergeplan.merging.companions import copy_donated, write_config, write_index, write_planned
from mergeplan.merging.fallback import write_given
from mergeplan.merging.manifest import stored_hashes, write_manifest
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.replacing import unknown_in
from mergeplan.merging.runner import Result, Runner, nothing_done
from mergeplan.merging.workfolder import refuse_removal
from mergeplan.merging.workspace import Workspace, is_published, open_workspace, remove_leftover
from mergeplan.system.files import clear_folder
from mergeplan.system.memory import MemoryWatch
from mergeplan.system.progress import Progress


@dataclass(frozen=True)
class Done:
    """What the core reported of each merge, and when all of them were durable."""

    results: list[Result]
    merged: float


def merge_and_publish(
    checked: CheckedMerges,
    options: MergeOptions,
    progress: Progress | None,
    watch: MemoryWatch,
    runner: Runner,
) -> Done:
    results = [nothing_done() for _ in checked.merges]
    open_works: dict[int, Workspace] = {}
    try:
        for number, one in enumerate(checked.merges):
            if options.resume and is_published(one):
                remove_leftover(one.out)
                continue
            resume, discard = options.resume, options.discard
            open_works[number] = open_workspace(one, resume=resume, discard=discard)
        to_merge = {i: work for i, work in open_works.items() if not work.is_publishing}
        if to_merge:
            for number, result in runner(checked, to_merge, progress, watch).items():
                results[number] = result
        merged = time.perf_counter()
        for number, work in list(open_works.items()):
            if number in to_merge:
                one = checked.merges[number]
                given = write_given(work.data, one.plan, one.prepared)
                watch.sample()
                hashes = {**results[number]["hashes"], **given}
                files = one.prepared.files
                hashes = stored_hashes(hashes, files, work.data, checked.threads)
                results[number]["hashes"] = hashes
                _write_companions(one, work.data, options, results[number])
                results[number] |= {"hashes": {}, "inputs": {}}  # a hundred times all names
            if (stays := work.publish()) is not None:
                told = f"`{stays}` stays: it holds what mergeplan did not put there"
                results[number]["warnings"] = [*results[number].get("warnings", ()), told]
            del open_works[number]
    except ContentError:
        for work in open_works.values():
            with suppress(OSError):
                work.remove()
        raise
    except BaseException as error:
        refused = isinstance(error, InputError) and not isinstance(error, MissingInputError)
        left = [work.folder for work in open_works.values() if work.leave()]
        if left and not refused:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            note = f"what is done stays in `{left[0]}`{more}; `resume` goes on from there"
            # What `add_note` of Python 3.11 does.
            error.__notes__ = [*getattr(error, "__notes__", ()), note]
        raise
    return Done(results, merged)


def _write_companions(
    checked: CheckedMerge, folder: Path, options: MergeOptions, result: Result
) -> None:
    from mergeplan._native import fault

    prepared, plan, hashes = checked.prepared, checked.plan, result["hashes"]
    files = {name: length for name, length, _ in prepared.files}
    fault("companions")
    # A run that was stopped here may have had other ideas of what goes beside the weights.
    unknown = next(unknown_in(folder, checked.written, unfinished=True), None)
    if unknown is not None:
        refuse_removal(folder / unknown)
    clear_folder(folder, keep=files)
    write_index(folder, plan.data.stem, prepared.files, prepared.tensor_bytes)
    fault("index")
    write_config(folder, plan, hashes)
    copy_donated(folder, plan, checked.copied)
    if plan.companions is not None:
        write_planned(folder, plan.companions)
    if options.write_model_card:
        write_card(folder, checked.out.name, Card(checked.config, plan, options.license))
    inputs = checked.state.inputs
    write_manifest(folder, plan, checked.config, inputs, files, hashes, result["inputs"])
