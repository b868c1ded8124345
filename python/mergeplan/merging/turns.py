"""Many merges: as many at a time as memory and open files allow, one group after the other.

```text
plan each merge, and hold the plans until the next would not fit     a group
check the group as a whole, and forget it; go on with the next
for each group, in order: plan and check it again, merge, publish
```
All are checked before the first output byte. A list that fits, such as a hundred merges of models
of 300 tensors, is one group, planned once and merged in one pass over the inputs. Each further
group costs its planning a second time, and one more pass: with as many merges in it as there are
models no more than what it writes.
"""

import ctypes
import errno
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mergeplan.config.config import MergeConfig, examined
from mergeplan.config.seed import seed_of
from mergeplan.errors import InputError, MergeplanError, SurroundingsError, raise_all
from mergeplan.merging.checked import CheckedMerge, CheckedMerges
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.preflight import (
    RESERVE_BYTES,
    Candidate,
    Room,
    TooManyError,
    check_group,
    check_limit,
    check_places,
    threads_of,
)
from mergeplan.merging.runner import FILES_PER_MERGE, RESERVED_FILES, files_needed
from mergeplan.planning.opening import SharedModels, all_faultless
from mergeplan.planning.plan import MergePlan
from mergeplan.planning.planner import build_plan
from mergeplan.system.excerpts import with_excerpts
from mergeplan.system.files import check_space, input_path, kept_open, most_open_files, open_files
from mergeplan.system.memory import anonymous_bytes, default_limit

# Of a plan, here and in the core, while it is merged: measured with jobs of one to eight inputs.
_JOB_BYTES = 2100
_INPUT_BYTES = 220
# What the process grows by while it works through a list, beside a plan: memory of groups done,
# which their successors cannot use. At the least limit 135 merges of 300 tensors left 9 MB, and 30
# of 2,000 left 15; their peaks were 12 and 8 MB below the limit, as what is reserved for one merge
# is more than it takes.
_GROWTH_BYTES = 8 << 20
# What plans may take of the memory that is left; a group that is too large all the same is halved.
_SHARE = 0.8
# What the command itself takes.
_OWN_BYTES = 32 << 20


class Turns:
    """Merges in groups, each of which memory and files hold at once.

    Iterating gives for each group the numbers of its merges, and them, checked. Whoever iterates
    lets go of a group before asking for the next one.

    Raises:
        InputError, SurroundingsError: As for `preflight.check_group`, of any merge.
    """

    def __init__(self, wanted: Sequence[MergeRequest], options: MergeOptions) -> None:
        self._options = options
        places = check_places(wanted, options)
        reads = [partial(examined, one.config) for one in wanted]
        configs = all_faultless(reads, options.planning().opening)
        seeds = [
            seed_of(
                config.random_seed, options.seed if one.seed is None else one.seed, "the config"
            )
            for config, one in zip(configs, wanted, strict=True)
        ]
        self._candidates = [
            Candidate(config, place, seed, tuple(notes))
            for config, place, (seed, notes) in zip(configs, places, seeds, strict=True)
        ]
        # What a program has in memory before it merges does not make its groups smaller.
        usual = default_limit(threads_of(options))
        more = max(0, anonymous_bytes() - _OWN_BYTES)
        self._most_bytes = options.memory_limit or usual + more
        self._files_before = open_files()  # the headers of models keep theirs
        self._shared = SharedModels(options.planning().opening)
        self._open_models()
        # Nothing up to here depends on the limit, and so the least is the same whatever it is.
        self._own_bytes = anonymous_bytes() + _GROWTH_BYTES
        self._groups: list[range] = []
        self._kept: CheckedMerges | None = None
        self.work_bytes = 0
        self._least_bytes = 0
        self._check_all()

    def __iter__(self) -> Iterator[tuple[range, CheckedMerges]]:
        if self._kept is not None:
            kept, self._kept = self._kept, None
            yield self._groups[0], kept
            return
        # Tensors left to mergekit were given their memory before the first output: what the process
        # has grown by since then refuses none of a later group.
        options = replace(self._options, allow_fallback_memory=True)
        for group in self._groups:
            give_back_memory()
            yield from self._parts(group, options)

    def _open_models(self) -> None:
        """Those of several merges; planning tells what is wrong with one."""
        if len(self._candidates) == 1:
            return
        for one in self._candidates:
            if not one.config.needs_mergekit:
                with suppress(MergeplanError):
                    self._shared.of([model.path for model in one.config.models])
        give_back_memory()

    def _check_all(self) -> None:
        """Check group after group, and forget it, unless it is the only one."""
        found = _Found()
        needed: dict[Path, int] = {}
        for planned, plans in self._grouped(self._plans(found), found):
            if found.any():
                continue  # and be told all that is wrong
            for group, checked in self._parts(planned, self._options, plans):
                self._groups.append(group)
                self.work_bytes += checked.work_bytes
                self._least_bytes = max(self._least_bytes, checked.least_memory)
                for spot, n_bytes in checked.needed.items():
                    needed[spot] = needed.get(spot, 0) + n_bytes
                # What is kept takes the memory of what is checked next.
                self._kept = checked if len(group) == len(self._candidates) else None
                del checked
        found.raise_any()
        check_limit(self._least_bytes, self._options)
        for spot, n_bytes in needed.items():
            check_space(spot, n_bytes)

    def _plans(self, found: "_Found") -> Iterator[tuple[int, MergePlan]]:
        """The plan of each merge that has one; what is wrong with the others goes to `found`."""
        for number, candidate in enumerate(self._candidates):
            try:
                yield number, self._plan(candidate)
            except InputError as error:
                if len(self._candidates) == 1:
                    raise
                _collect(error, candidate.config, found.faults)
            except SurroundingsError as error:
                if os.strerror(errno.EMFILE) not in error.message:
                    raise
                files = self._files_needed(_weight_files(candidate.config))
                found.files_needed = max(found.files_needed, files)

    def _grouped(
        self, planned: Iterator[tuple[int, MergePlan]], found: "_Found"
    ) -> Iterator[tuple[range, list[MergePlan]]]:
        """As many at a time as memory and open files hold; a group is gone before the next."""
        room = _SHARE * (self._most_bytes - self._own_bytes - RESERVE_BYTES)
        most_files = most_open_files() or sys.maxsize
        held: list[MergePlan] = []
        files: set[Path] = set()
        first = taken = 0
        for number, plan in planned:
            size = _plan_bytes(plan)
            inputs = {file for c in plan.checkpoints for file in c.files}
            if (least := self._files_needed(len(inputs))) > most_files:
                found.files_needed = max(found.files_needed, least)
                continue
            files |= inputs
            many = len(held) >= _most_at_once(len(files))
            if held and (many or taken + size > room):
                yield range(first, number), held
                held.clear()
                give_back_memory()
                first, taken = number, 0
            held.append(plan)
            taken += size
        if held:
            yield range(first, len(self._candidates)), held
            held.clear()

    def _parts(
        self, group: range, options: MergeOptions, planned: list[MergePlan] | None = None
    ) -> Iterator[tuple[range, CheckedMerges]]:
        """A group, checked; in parts where it turns out to be too large."""
        some = [self._candidates[number] for number in group]
        plans = planned or [self._plan(one) for one in some]
        room = None
        if len(self._candidates) > 1:
            own = self._own_bytes + sum(map(_plan_bytes, plans))
            room = Room(self._most_bytes, own)
        with suppress(TooManyError):
            yield group, check_group(some, plans, options, room)
            return
        # Here the error is gone, and with it what its frames held.
        plans.clear()
        for part in (group[: len(group) // 2], group[len(group) // 2 :]):
            give_back_memory()
            yield from self._parts(part, options)

    def _files_needed(self, inputs: int) -> int:
        return files_needed(inputs, threads_of(self._options), self._files_before)

    def _plan(self, candidate: Candidate) -> MergePlan:
        options = self._options
        return build_plan(
            candidate.config,
            seed=candidate.seed,
            max_shard_bytes=options.max_shard_bytes,
            allow_nonfinite=options.allow_nonfinite,
            options=options.planning(),
            shared=self._shared,
        )


@dataclass
class _Found:
    """What is wrong with some of several merges.

    Attributes:
        faults: By what they are about, and what is said of it.
        files_needed: How many files must be allowed to be open; 0 where it is enough.
    """

    faults: dict[tuple[str, str], InputError] = field(default_factory=dict)
    files_needed: int = 0

    def any(self) -> bool:
        return bool(self.faults or self.files_needed)

    def raise_any(self) -> None:
        if self.faults:
            raise_all([*self.faults.values()])
        if needed := self.files_needed:
            raise SurroundingsError(
                f"too few files may be open at a time: expected {needed} or more,"
                f" found {most_open_files()}",
                f"raise the limit, as by `ulimit -n {needed}`",
            )


def check_merges(wanted: Sequence[MergeRequest], options: MergeOptions) -> list[CheckedMerge]:
    """Check everything that can be checked before the first output byte, and keep all of it.

    Raises:
        InputError, SurroundingsError: As for `Turns`.
    """
    return [one for _, checked in Turns(wanted, options) for one in checked.merges]


def _collect(
    error: InputError, config: MergeConfig, faults: dict[tuple[str, str], InputError]
) -> None:
    """What is wrong with any of several merges is told by the config that has it first."""
    named = f"`{config.file}`: " if config.file else ""
    said = with_excerpts(error.faults, config.text, named) if named else error.faults
    for fault, one in zip(error.faults, said, strict=True):
        faults.setdefault((fault.about, fault.message), one)


def _weight_files(config: MergeConfig) -> int:
    """Files of the models, where they cannot all be opened to see which are needed."""
    folders = {input_path(model.path) for model in config.models}
    return sum(max(1, len([*folder.glob("*.safetensors")])) for folder in folders)


def _plan_bytes(plan: MergePlan) -> int:
    """Memory of a plan while it is merged."""
    return sum(
        _JOB_BYTES + len(job.merge.references) * (_INPUT_BYTES + len(job.tensor))
        for job in plan.data.jobs
    )


def _most_at_once(inputs: int) -> int:
    """Merges that the limit on open files lets run together."""
    most = most_open_files()
    if most is None:
        return sys.maxsize
    return max(1, (most - RESERVED_FILES - kept_open(inputs)) // FILES_PER_MERGE)


def give_back_memory() -> None:
    """Return to the system what was freed: glibc keeps most of it, for what comes next."""
    gc.collect()
    with suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        trim(0)
