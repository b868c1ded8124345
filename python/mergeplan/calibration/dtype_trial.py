"""What `--dtype auto` is on a CPU that computes in bfloat16: some merges are scored in both dtypes.

A run has one dtype for all its merges. Before its first round six merges of it, from single experts
to all, and the base are scored in float32 and in bfloat16, at each base size; where no decision
changes (`dtype_rule`) and bfloat16 is faster, all is scored in bfloat16, else in float32. What was
scored in that dtype counts for the rounds; what the other took comes off the budget.

`dtype.jsonl` in the run's folder says which it is and why, with what both dtypes gave: a run that
was killed goes on with the trial, and one that has its dtype tries none. No trial is made where
there is little to gain: under `LEAST_MERGES` in the first round, or `LEAST_WORK`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, Protocol

from mergeplan.calibration.dtype_rule import LEAST_SPEEDUP, Asked, Compared, compare, speedup
from mergeplan.calibration.going_on import AUTO_DTYPE, GRADIENTS
from mergeplan.calibration.identity import RunIdentity, short_hash
from mergeplan.calibration.limits import Budget, Spending
from mergeplan.calibration.run_folder import DTYPE_TRIAL, RunFolder
from mergeplan.calibration.setup import Setup
from mergeplan.display.text import counted, cut
from mergeplan.errors import InputError
from mergeplan.evaluation.measure import Measure
from mergeplan.evaluation.measured import MeasuredMerge, parse_lines, scores_line
from mergeplan.evaluation.texts import Texts
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.system.reading import SCORES as KIND
from mergeplan.system.reading import read_bytes
from mergeplan.system.strict import parse_strictly

FLOAT32: Final = "float32"
BFLOAT16: Final = "bfloat16"
# Merges beside the base that are tried at each size, and the fewest that tell anything.
TRIED, FEWEST = 6, 5
# With fewer merges in a first round a trial costs what it saves.
LEAST_MERGES = 12
# Multiplications and additions of the first rounds: 2 * parameters * tokens, summed over merges.
# A core does some 5e10 a second in float32.
LEAST_WORK = 1e13
_TOKENS_EACH = 64
# Most of the budget that a trial may take.
_OF_BUDGET = 0.5


class Scoring(Protocol):
    """Scores merges of one size in a dtype, one by one."""

    def __call__(
        self, size: int, dtype: str, merges: Sequence[SubsetMerge]
    ) -> Iterator[MeasuredMerge]: ...


@dataclass(frozen=True)
class Head:
    """First line of `dtype.jsonl`; lines as in `scores.jsonl` follow, those in float32 first.

    Attributes:
        measured: Hash of what the run measures.
        n_float32: Lines in float32.
        dtype: What it came to; empty before that.
        why: In words.
        speed: Tokens a second in each dtype.
        values: Mean of each merge, in float32 and in bfloat16.
    """

    measured: str
    n_float32: int = 0
    dtype: Literal["", "float32", "bfloat16"] = ""
    why: str = ""
    speed: dict[str, float] = field(default_factory=dict)
    values: dict[str, tuple[float, float]] = field(default_factory=dict)


class DtypeTrial:
    """The trial of a run, in its file.

    Args:
        identity: Of the run. A trial of something else is none of it.

    Raises:
        InputError: The file is damaged.
    """

    def __init__(self, folder: RunFolder, identity: RunIdentity) -> None:
        later = (AUTO_DTYPE, GRADIENTS)
        arithmetic = {name: v for name, v in identity.arithmetic.items() if name not in later}
        measured = short_hash([identity.pool_hash(), identity.texts, arithmetic])
        self._folder = folder
        self.head = Head(measured)
        self.found: dict[str, dict[str, MeasuredMerge]] = {FLOAT32: {}, BFLOAT16: {}}
        path = folder.path / DTYPE_TRIAL
        if not path.is_file():
            return
        first, _, rest = read_bytes(path, KIND).partition(b"\n")
        hint = "remove the file: both dtypes are then tried again"
        head = parse_strictly(first.decode(errors="replace"), Head, f"`{path}`, line 1", hint)
        if head.measured == measured:
            lines, _ = parse_lines(rest, path)
            self.head = head
            parts = lines[: head.n_float32], lines[head.n_float32 :]
            for dtype, some in zip(self.found, parts, strict=True):
                self.found[dtype] = {one.merge.key: one for one in some}

    def run(
        self,
        merges: Mapping[int, Sequence[SubsetMerge]],
        measure: Scoring,
        budget: Budget,
        asked: Asked,
    ) -> None:
        """Score what is missing, until it is known which dtype it is.

        Args:
            merges: By base size; the base is the first of each.
        """
        for dtype in self.found:
            for size, some in merges.items():
                missing = [one for one in some if one.key not in self.found[dtype]]
                if fault := self._stop(some, budget):
                    return self._decide(FLOAT32, fault)
                try:
                    for one in measure(size, dtype, missing) if missing else ():
                        self.found[dtype][one.merge.key] = one
                        self._write()
                        if fault := self._stop(some, budget):
                            return self._decide(FLOAT32, fault)
                except (InputError, RuntimeError) as error:
                    # A scorer may have numbers of its own, or turn a model's into NumPy's.
                    if dtype == FLOAT32:
                        raise
                    return self._decide(FLOAT32, f"bfloat16 fails: {cut(error, 200)}")
        compared = self.compare(asked)
        if compared.fault:
            return self._decide(FLOAT32, f"in bfloat16 a decision may change: {compared.fault}")
        wide, narrow = (list(some.values()) for some in self.found.values())
        n, unit = len(narrow), "" if asked.metric else " nats"
        why = (
            f"{counted(n, 'merges')} in both dtypes, no decision changes, differences change by at"
            f" most {compared.change:.2g}{unit}; {speedup(wide, narrow):.1f} times faster"
        )
        return self._decide(BFLOAT16, why)

    def compare(self, asked: Asked) -> Compared:
        """Hold what was scored in both dtypes against each other, at each size."""
        pairs: dict[int, list[tuple[MeasuredMerge, MeasuredMerge]]] = {}
        for key, one in self.found[FLOAT32].items():
            if key in self.found[BFLOAT16]:
                pairs.setdefault(one.merge.size, []).append((one, self.found[BFLOAT16][key]))
        change = 0.0
        for some in pairs.values():
            wide, narrow = zip(*some, strict=True)
            for aim in asked.aims:
                compared = compare(wide, narrow, aim, asked)
                if compared.fault:
                    return compared
                change = max(change, compared.change)
        return Compared(change)

    def spent(self, size: int) -> Spending:
        """What scoring in the other dtype took at a base size."""
        other = BFLOAT16 if self.head.dtype == FLOAT32 else FLOAT32
        some = [one for one in self.found[other].values() if one.merge.size == size]
        tokens = sum(one.scores.n_tokens for one in some)
        return Spending(0, tokens, sum(sum(one.seconds) for one in some))

    def _stop(self, merges: Sequence[SubsetMerge], budget: Budget) -> str:
        """Why to go no further; empty to go on."""
        keys = {merge.key for merge in merges}
        wide, narrow = (
            [one for key, one in some.items() if key in keys] for some in self.found.values()
        )
        if narrow and (times := speedup(wide, narrow)) < LEAST_SPEEDUP:
            return f"bfloat16 is {times:.1f} times as fast here"
        if wide:
            share = 2 * len(merges) / len(wide)
            seconds = share * sum(sum(one.seconds) for one in wide)
            tokens = share * sum(one.scores.n_tokens for one in wide)
            for limit, cost in ((budget.seconds, seconds), (budget.tokens, tokens)):
                if limit is not None and cost > _OF_BUDGET * limit:
                    return "trying bfloat16 would take more than half of the budget"
        return ""

    def _decide(self, dtype: Literal["float32", "bfloat16"], why: str) -> None:
        values = {
            key: (one.scores.macro().loss_nats, self.found[BFLOAT16][key].scores.macro().loss_nats)
            for key, one in self.found[FLOAT32].items()
            if key in self.found[BFLOAT16] and not one.scores.faults()
        }
        speed = {name: _speed(some.values()) for name, some in self.found.items() if some}
        own = Head(self.head.measured, 0, dtype, why, speed, values)
        self.head = own
        self._write()

    def _write(self) -> None:
        """Whole at any moment."""
        wide, narrow = (list(some.values()) for some in self.found.values())
        data = {**asdict(self.head), "n_float32": len(wide)}
        lines = [json.dumps(data).encode() + b"\n", *map(scores_line, (*wide, *narrow))]
        self._folder.place(DTYPE_TRIAL, b"".join(lines))


def spread(merges: Iterable[SubsetMerge]) -> list[SubsetMerge]:
    """The base and some of the merges, evenly from single experts to all; none of too few."""
    every = sorted(merges, key=lambda merge: (merge.k, merge.order))
    bases, merged = [one for one in every if not one.k], [one for one in every if one.k]
    if len(every) < LEAST_MERGES or len(merged) < FEWEST:
        return []
    places = dict.fromkeys(round(i * (len(merged) - 1) / (TRIED - 1)) for i in range(TRIED))
    return [*bases[:1], *(merged[place] for place in places)]


def may_try(setup: Setup) -> bool:
    """Whether merges are scored on a CPU that computes in bfloat16."""
    return setup.dtype == "auto" and setup.on_cpu() and computes_bfloat16()


def computes_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16."""
    import platform

    import torch

    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # On x86 that is also true of CPUs that convert each number.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def work_of(texts: Measure) -> float:
    """Tokens of some texts; a document of a scorer or an item of a task is taken for so many."""
    return texts.n_tokens * (1 if isinstance(texts, Texts) else _TOKENS_EACH)


def _speed(some: Iterable[MeasuredMerge]) -> float:
    every = list(some)
    return round(
        sum(one.scores.n_tokens for one in every) / max(sum(o.seconds[1] for o in every), 1e-9), 1
    )
