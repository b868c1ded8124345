"""From a pool to a tuned merge."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergeplan.config.write import to_yaml
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.geometry.compare import tensor_grams
from mergeplan.pool.pool import Pool
from mergeplan.tuning.folder import CONFIG, RESULT, TuneFolder, recorded_in, scores_of
from mergeplan.tuning.leaving_out import effects, left_out, without
from mergeplan.tuning.options import TuneOptions
from mergeplan.tuning.points import Ask, Points
from mergeplan.tuning.prepared import Prepared, prepare
from mergeplan.tuning.result import Rival, Tuned, result_data
from mergeplan.tuning.search import search
from mergeplan.tuning.status import record_command
from mergeplan.tuning.steps import steps_of
from mergeplan.tuning.tasks import Executor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TuneForecast:
    """What a run would take.

    Attributes:
        unknowns: Weights to tune.
        points: Points with slopes, at most.
        point_tokens: Forward passes of each in tokens; a backward pass counts two.
        reads: How often base and experts are read for a point's slopes.
        read_bytes: What those reads go over.
        memory_bytes: Beside the model, at most.
    """

    unknowns: int
    groups: tuple[str, ...]
    points: int
    point_tokens: int
    reads: int
    read_bytes: int
    memory_bytes: int
    warnings: tuple[str, ...]


def forecast_tune(
    pool: Pool | str | Path, folder: Path, options: TuneOptions | None = None
) -> TuneForecast:
    """What tuning would take; nothing is measured or written.

    Raises:
        MissingInputError, InputError, SurroundingsError: As for `tune`.
    """
    options = options or TuneOptions()
    prepared = prepare(pool, options)
    recorded_in(folder)
    _check_beside(options)
    # It imports torch, without which `prepare` has said so.
    from mergeplan.tuning.measuring import Measuring

    held = Measuring(prepared, options.setup).meter.holding
    return TuneForecast(
        prepared.equal.size,
        prepared.recipe.groups.names,
        options.budget,
        prepared.texts.point_tokens,
        held.n_reads,
        held.read_bytes,
        held.memory_bytes,
        prepared.warnings,
    )


def tune(
    pool: Pool | str | Path,
    folder: str | Path,
    options: TuneOptions | None = None,
    *,
    say: Callable[[str], object] = lambda _: None,
    command: str = "",
) -> Tuned:
    """Tune the weights of a merge of a pool's experts by gradients.

    Args:
        pool: Its file, or as `load_pool` gives it.
        folder: Of the run; one that exists goes on where it stopped.
        say: Told of each point.
        command: That goes on with the run, for `status`.

    Returns:
        The tuned weights, and what they gain on documents that had no part in tuning.

    Raises:
        MissingInputError: torch, transformers or a model is not there.
        InputError: The pool, a model, a text or an option is at fault.
        SurroundingsError: The folder is another's, or there is too little memory.
    """
    options, folder = options or TuneOptions(), Path(folder)
    begun = time.perf_counter()
    prepared = prepare(pool, options)
    recorded_in(folder)
    _check_beside(options)
    with ExitStack() as undo:
        # Before the folder: what has no room is refused before anything is written.
        executor = undo.enter_context(_executor(prepared, options))
        run = TuneFolder(folder, prepared.identity)
        undo.callback(run.close)
        record_command(run, command, ended=False)
        points = Points(executor, prepared.texts, run)
        kept = len(run.points)
        found = search(
            points, prepared.aim, prepared.region, prepared.equal, _grams(prepared, options),
            options.budget, say,
        )  # fmt: skip
        say("measuring what could be left out, and the reporting half")
        tried = without(prepared, found)
        wanted = {
            "the base": np.zeros_like(prepared.equal),
            "equal weights": prepared.equal,
            "tuned": found.weights,
        }
        asks = [Ask(weights, slopes=False) for _, _, weights in tried]
        asks += [Ask(found.weights), *(Ask(w, reported=True) for w in wanted.values())]
        others = points.measure(asks, options.beside)
        reported = {name: scores_of(points.report(w).reported) for name, w in wanted.items()}
        tuned = reported.pop("tuned")
        reported |= {str(path): others[path] for path in options.beside}
        along = points.at(found.weights).along_lambda
        config = prepared.recipe.config(found.weights)
        words = [f"mergeplan tune, by {options.by}, for {prepared.aim.name}"]
        path = run.write(CONFIG, to_yaml(config, words))
        result = Tuned(
            aim=prepared.aim.name,
            by=options.by,
            method=prepared.recipe.label,
            experts=prepared.experts,
            groups=prepared.recipe.groups.names,
            weights=found.weights,
            bounds=(prepared.region.low, prepared.region.high),
            penalty=found.penalty,
            stopped=found.stopped,
            points=len(found.seen),
            kept=min(kept, len(run.points)),
            tokens=sum(point.tokens for point in run.points),
            pass_tokens=prepared.texts.gradient.n_tokens + prepared.texts.accepting.n_tokens,
            seconds=time.perf_counter() - begun,
            scores=tuned,
            rivals=tuple(
                Rival.of(name, prepared.aim, one, tuned) for name, one in reported.items()
            ),
            value=prepared.aim.value(tuned.losses()),
            left_out=left_out(points, prepared, found, tried),
            effects=effects(points, prepared, found),
            elects=prepared.recipe.elects,
            strength=prepared.recipe.strength,
            along_lambda=None if along is None else prepared.aim.mean(along),
            config=path,
            shares=prepared.aim.shares,
            parts=prepared.recipe.groups.parts,
            steps=steps_of(found, prepared.aim, run.points),
            promised=found.promised,
            warnings=(*prepared.warnings, *prepared.aim.broken(tuned.losses())),
        )
        run.write(RESULT, json.dumps(result_data(result), allow_nan=False, indent=1) + "\n")
        record_command(run, command, ended=True)
        return result


def _check_beside(options: TuneOptions) -> None:
    for path in options.beside:
        Sweep([path], options.setup.merging())


@contextmanager
def _executor(prepared: Prepared, options: TuneOptions) -> Iterator[Executor]:
    """What measures: this process, or a cluster's workers."""
    if options.ray is not None:
        from mergeplan.tuning.cluster import ClusterMeasuring

        with closing(ClusterMeasuring(options.ray, prepared, options)) as cluster:
            yield cluster
        return
    from mergeplan.tuning.measuring import Measuring

    measuring = Measuring(prepared, options.setup)
    measuring.meter  # noqa: B018
    yield measuring


def _grams(prepared: Prepared, options: TuneOptions) -> Array:
    """Inner products of the experts by group; see `curvature.start`."""
    size, groups = prepared.pool.sizes[prepared.size], prepared.recipe.groups
    order, found = tensor_grams(size, threads=options.setup.threads)
    places = [order.index(name) for name in prepared.experts]
    grams = np.zeros((len(groups), len(places), len(places)))
    for job in prepared.slopes.jobs:
        for name in job.stored:
            if name in found:
                grams[groups.of[job.tensor]] += found[name][np.ix_(places, places)]
    return grams
