"""Everything that can be checked before the first output byte of a merge, or of several."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mergeplan.config.config import MergeConfig
from mergeplan.display.text import counted, format_bytes
from mergeplan.errors import InputError
from mergeplan.merging.checked import CheckedMerge, CheckedMerges
from mergeplan.merging.companions import companion_bytes, copied_names, missing_companions
from mergeplan.merging.licences import licence_warnings
from mergeplan.merging.manifest import InputRows
from mergeplan.merging.marker import is_publishing
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.publishing import refuse_occupied, refuse_overlap
from mergeplan.merging.state import MergeState
from mergeplan.merging.workspace import check_leftover, is_published, partial_folder
from mergeplan.planning.plan import Fallback, MergePlan
from mergeplan.system.files import (
    allow_open_files,
    creating,
    expanded,
    kept_open,
)
from mergeplan.system.machine import worker_threads
from mergeplan.system.memory import anonymous_bytes, available_bytes, default_limit
from mergeplan.system.pathtext import path_text

# Anonymous memory that Python may take on while the core runs.
RESERVE_BYTES = 8 << 20
# By how much that may differ between two processes that begin the same merge.
SLACK_BYTES = 1 << 20


class TooManyError(Exception):
    """Merges that do not fit into memory together."""


@dataclass(frozen=True)
class Room:
    """Anonymous memory of a process that works through several merges.

    Attributes:
        most_bytes: What it may take for several at a time.
        own_bytes: What it is taken to have at its least, whatever it merged before: what it had
            before the first, what the plans take, and a reserve for its growth.
    """

    most_bytes: int
    own_bytes: int


@dataclass(frozen=True)
class Candidate:
    """A merge whose config has no faults.

    Attributes:
        seed: Of random masks.
        notes: What the seed's choice passed over.
    """

    config: MergeConfig
    out: Path
    seed: int
    notes: tuple[str, ...]


def threads_of(options: MergeOptions) -> int:
    return options.threads or worker_threads()


def check_places(wanted: Sequence[MergeRequest], options: MergeOptions) -> list[Path]:
    """The output folder of each merge.

    Raises:
        InputError: Two are in each other's way, or options exclude each other.
    """
    if options.resume and options.discard:
        raise InputError("`resume` and `discard` exclude each other")
    if options.vram_limit is not None and options.device is None:
        raise InputError(
            "`vram_limit` says nothing without a `device`",
            'give `device="cuda"` too, or `memory_limit`, which bounds merges on the CPU',
        )
    places = [expanded(one.out).resolve() for one in wanted]
    if len(set(places)) < len(places):
        raise InputError("two merges have the same output folder")
    for place in places:
        if any(other in place.parents for other in places):
            raise InputError(f"output `{place}` lies inside that of another merge")
        with creating(place):
            partial_folder(place).exists()  # a name that is too long for the system
    return places


def check_group(
    some: Sequence[Candidate],
    plans: Sequence[MergePlan],
    options: MergeOptions,
    room: Room | None = None,
) -> CheckedMerges:
    """Check of planned merges what can be checked before the first output byte.

    Args:
        room: That of a process with other merges to do; it tells itself where the limit is below
            the `least_memory` of one.

    Raises:
        InputError: Headers, shapes, dtypes or options do not fit, or the memory limit is too low.
        SurroundingsError: An output is in the way, or has no room.
        TooManyError: They are several, and do not fit into memory together.
    """
    from mergeplan._native import PreparedFamily

    files = {file for plan in plans for c in plan.checkpoints for file in c.files}
    allow_open_files(kept_open(len(files)))
    headers = [one for plan in plans for one in plan.headers]
    family = PreparedFamily((plan.json() for plan in plans), headers)
    threads = threads_of(options)
    forecast = family.forecast(threads)
    core_least = forecast["least_memory_bytes"]
    own = anonymous_bytes()
    least = RESERVE_BYTES + core_least + (own if room is None else room.own_bytes)
    if room is not None and len(some) > 1:
        if max(least, own + RESERVE_BYTES + core_least) > room.most_bytes:
            raise TooManyError
    elif room is None:
        check_limit(least, options)
    limit = options.memory_limit or max(least, default_limit(threads))
    # Other merges of a list leave the process larger than it began. That makes the next buffers
    # smaller, down to what a merge cannot do without, and refuses no merge once others are out.
    core = max(core_least, limit - own - RESERVE_BYTES)
    if not options.allow_fallback_memory:
        for plan in plans:
            check_fallback(plan, options.memory_limit, room.own_bytes if room else 0)
    read = [path for plan in plans for path in plan.input_paths]
    merges = []
    needed: dict[Path, int] = {}
    for one, plan, prepared in zip(some, plans, family.merges, strict=True):
        place = one.out
        # Models that are derived from others have no files.
        models = [rows for rows in prepared.identities if rows]
        inputs: InputRows = [[(path_text(row[0]), *row[1:]) for row in rows] for rows in models]
        state = MergeState(plan.data, inputs)
        copied = tuple(copied_names(plan, tokenizer=options.copy_tokenizer))
        refuse_overlap(partial_folder(place), read, overwrite=True)
        refuse_overlap(place, read, overwrite=options.overwrite)
        check_leftover(place, resume=options.resume, discard=options.discard)
        work = partial_folder(place)
        odd = licence_warnings(options.license) if options.write_model_card else []
        warnings = (*plan.warnings, *one.notes, *missing_companions(plan), *odd)
        merge = CheckedMerge(one.config, plan, place, prepared, state, copied, {}, warnings)
        ours = options.resume and (is_publishing(work, merge) or is_published(merge))
        if not ours:
            before = refuse_occupied(place, merge.written, overwrite=options.overwrite)
            merge = replace(merge, before=before)
        beside = companion_bytes(plan, copied)  # in every case: they must be readable
        if not work.exists() and not ours:
            n_bytes = sum(length for _, length, _ in prepared.files) + beside
            spot = place if place.exists() else place.parent
            needed[spot] = needed.get(spot, 0) + n_bytes
        merges.append(merge)
    work_bytes = forecast["work_bytes"]
    return CheckedMerges(tuple(merges), family, threads, limit, core, least, work_bytes, needed)


def check_limit(least: int, options: MergeOptions) -> None:
    """Refuse a memory limit below the least.

    Raises:
        InputError: It is.
    """
    threads, limit = threads_of(options), options.memory_limit
    if limit is not None and limit < least:
        # Whoever follows the message gets through, though the next process begins a little larger.
        enough = -(-(least + SLACK_BYTES) // 1_000_000)
        raise InputError(
            f"the memory limit is too low: expected {enough} MB or more with"
            f" {counted(threads, 'threads')}, found {format_bytes(limit)}",
            "raise `--memory-limit`" + (", or use fewer `--threads`" if threads > 1 else ""),
        )


def fallback_memory(
    fallback: Fallback, limit: int | None, later_bytes: int = 0
) -> tuple[int, int | None]:
    """Bytes that the process needs while mergekit's executor runs, and that it may take.

    Args:
        limit: That of the whole process; `None` for what the machine has free.
        later_bytes: What the process may have by then, if that is more than it has now.
    """
    own = anonymous_bytes()
    free = available_bytes()
    needed = max(own, later_bytes) + fallback.memory_bytes
    return needed, limit if limit is not None else free and own + free


def check_fallback(plan: MergePlan, limit: int | None, later_bytes: int = 0) -> None:
    """Refuse what mergekit's executor needs more memory for than there may be.

    Args:
        limit, later_bytes: As for `fallback_memory`.

    Raises:
        InputError: It does.
    """
    if plan.fallback is None:
        return
    needed, allowed = fallback_memory(plan.fallback, limit, later_bytes)
    if allowed is not None and needed > allowed:
        what = "memory limit is" if limit else "free memory is"
        raise InputError(
            f"{len(plan.fallback.tensors)} tensors are left to mergekit's executor, and the {what}"
            f" too low for the largest: expected {format_bytes(needed)}, found"
            f" {format_bytes(allowed)}",
            "raise `--memory-limit`, or pass `--allow-fallback-memory`; in dtypes float32,"
            " bfloat16 and float16 nothing is left to mergekit",
        )
