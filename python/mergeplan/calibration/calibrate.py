"""Calibrate a pool: from its experts to a fitted law, round by round, in a folder that goes on.

Rounds are chosen from the measurements of earlier rounds alone, and a measurement is a function of
its merge: so a run that was killed chooses the same rounds again, finds most of them measured, and
ends with the same table.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.calibration.closing import Command, verdict_on
from mergeplan.calibration.forecast import forecast_slopes
from mergeplan.calibration.held_back import HeldBack
from mergeplan.calibration.options import (
    CalibrateOptions,
    pool_sizes,
    settle,
)
from mergeplan.calibration.preflight import CheckedCalibration
from mergeplan.calibration.rounds import EachMerge, Run, Say
from mergeplan.calibration.run_folder import RunFolder, has_measured
from mergeplan.calibration.sizes import in_order
from mergeplan.calibration.status import record_status
from mergeplan.calibration.store import RunStore
from mergeplan.config.seed import seed_of
from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted, format_count
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.system.progress import Shown, shown_as_bar
from mergeplan.verdict.verdict import Verdict


@dataclass(frozen=True, repr=False)
class Calibration(Summarized):
    """What a run came to.

    Attributes:
        table: `measurements.csv`.
        n_measured: Merges that were measured now; `n_kept` were there already.
        n_tokens: Tokens that all of the run's merges were scored on, and what these merges take
            where each is scored on everything; `None` where each is.
        reasons: Why each method stopped.
        seconds: Of this run; `merging` and `evaluating` are those of all its merges.
        verdict: What to do, by all of the run's merges; `None` where none was measured.
        held_back: The verdict's merge on the other half of the documents, where they were halved.
        arithmetic: In which dtype merges are scored, and why.
        warnings: Texts that could not be scored, losses that are not finite, files that were edited
            and stay.
    """

    folder: Path
    table: Path
    n_measured: int
    n_kept: int
    n_tokens: tuple[int, int] | None
    reasons: tuple[str, ...]
    seconds: float
    merging: float
    evaluating: float
    verdict: Verdict | None
    held_back: HeldBack | None
    arithmetic: str
    warnings: tuple[str, ...]

    def tally(self) -> str:
        """What was measured now, and in which dtype."""
        share = 100 * self.merging / max(self.merging + self.evaluating, 1e-9)
        new = f"measured {counted(self.n_measured, 'merges')} in {self.seconds:.1f} s"
        kept = f"; {self.n_kept} were there already" if self.n_kept else ""
        line = f"{new}, {share:.1f} % of it merging{kept}{self._saved()}"
        return "\n".join(filter(None, (line, self.arithmetic)))

    def _saved(self) -> str:
        if self.n_tokens is None:
            return ""
        some, every = self.n_tokens
        return (
            f"; scored are {format_count(some)} tokens, {100 * some / every:.0f} % of the"
            f" {format_count(every)} that `--tokens all` takes for these merges"
        )

    def summary(self) -> str:
        """The verdict, what was measured, why each method stopped, and where the table is."""
        lines = [] if self.verdict is None else [self.verdict.summary()]
        lines += [] if self.held_back is None else [self.held_back.text()]
        lines += [self.tally(), *self.reasons, f"table: {self.table}"]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

    def records(self) -> list[dict[str, Any]]:
        """Those of the verdict; `load_measurements(table)` has all that was measured."""
        return [] if self.verdict is None else self.verdict.records()


def _tokens(measured: Sequence[MeasuredMerge], checked: CheckedCalibration) -> tuple[int, int]:
    return (
        sum(one.scores.n_tokens for one in measured),
        sum(checked.texts[one.merge.size].n_tokens for one in measured),
    )


def calibrate(
    pool_file: str | Path,
    folder: str | Path,
    options: CalibrateOptions | None = None,
    *,
    say: Say = lambda _: None,
    progress: Shown = None,
    conclude: Callable[[RunFolder, Verdict | None], object] = lambda _, __: None,
    command: Command = lambda _: "",
    each_round: Callable[[RunFolder], object] = lambda _: None,
    each_merge: EachMerge | None = None,
) -> Calibration:
    """Measure subsets of a pool until its law answers the question, or goes on where it stopped.

    Args:
        folder: The run; see `run_folder`. Created, or continued.
        say: Told what each round measures and why.
        progress: Called with tokens scored and the most that may be; or true for a bar, false for
            none, `None` for one in a notebook.
        conclude: Called at the end with the verdict, while no other run can work in the folder.
        command: Says how merges are measured that the verdict asks for; of none, how the run goes
            on.
        each_round: Called after each round, when the table has it.
        each_merge: Called after each merge with what is measured, also by earlier calls, and with
            the most that the run may take: merges and tokens.

    Returns:
        What was measured, and why each method stopped; `table` is what `fit` and `select` take.

    Raises:
        InputError: The pool is at fault, or differs from the one that the folder holds.
        SurroundingsError: The folder cannot be written to, is no run and has files where a run has
            its own, or another run works there.
    """
    begun = time.perf_counter()
    pool_file, folder = Path(pool_file), Path(folder)
    options, checked = settle(pool_file, folder, options or CalibrateOptions())
    _, seed_warnings = seed_of(checked.pool.random_seed, options.seed, f"`{pool_file}`")
    if not has_measured(folder):
        forecast_slopes(checked, options)
    with ExitStack() as undo:
        told = undo.enter_context(shown_as_bar(progress, options.setup.evaluation.unit))
        # Before there is a folder: a node of a cluster may not see the models.
        run = Run(checked, options, say, told, each_round, each_merge)
        store = undo.enter_context(
            closing(RunStore(folder, checked.identity, pool_sizes(checked), say))
        )
        record_status(store.folder, command(()))
        if kept := store.all():
            say(f"going on: {counted(len(kept), 'merges')} are measured already")
        store.compare_experts(
            checked.pool, say, threads=options.setup.threads, anew=options.choosing is not None
        )
        arithmetic = run.settle_dtype(store)
        run.settle_slopes(store)
        reasons = [
            reason
            for size in in_order(checked.pool, leaning=options.leaning)
            for reason in run.of(size, store)
        ]
        table = store.write_table()
        measured = store.all()
        verdict = verdict_on(measured, store, options, command)
        found = run.held_back(verdict, measured, store) if verdict is not None else None
        seconds = time.perf_counter() - begun
        conclude(store.folder, verdict)
        record_status(store.folder, command(()), verdict)
    new = run.measured
    n_measured = len({one.merge.key for one in new})
    faults = [f"{one.merge.key}: {fault}" for one in measured for fault in one.scores.faults()]
    return Calibration(
        folder=folder,
        table=table,
        n_measured=n_measured,
        n_kept=len(measured) - n_measured,
        n_tokens=_tokens(measured, checked) if options.partly else None,
        reasons=tuple(reasons),
        seconds=seconds,
        merging=sum(one.seconds[0] for one in new),
        evaluating=sum(one.seconds[1] for one in new),
        verdict=verdict,
        held_back=found,
        arithmetic=arithmetic,
        warnings=(
            *seed_warnings,
            *checked.warnings,
            *faults,
            *store.folder.notes,
        ),
    )
