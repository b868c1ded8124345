"""Is a checkpoint the merge that it is said to be? The merge runs again, and nothing is written."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.config.config import AnyConfig
from mergeplan.display.text import printable
from mergeplan.errors import InputError, MissingInputError
from mergeplan.inspection.replayed import Replay, ReplayedTensor
from mergeplan.inspection.rerun import NOT_FINITE, Rerun
from mergeplan.merging.options import MergeOptions
from mergeplan.planning.opening import faultless
from mergeplan.system.files import expanded
from mergeplan.system.progress import Shown, shown_as_bar
from mergeplan.system.ranges import check_number

# Factors this near to each other are one, of large tensors.
_ONE_FACTOR = 0.02


def replay(
    out: str | Path,
    config: AnyConfig | None = None,
    *,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    options: MergeOptions | None = None,
    tolerance_ulp: float | None = None,
    progress: Shown = None,
) -> Replay:
    """Check a checkpoint, whoever made it, against a merge that runs again for it.

    A batch of tensors is in memory at a time, and nothing is written.

    Args:
        out: The checkpoint, a folder or a file.
        config: The merge that it is said to be, as for `merge`.
        adapter: Instead, the LoRA adapter that it is said to have.
        base: The model below the adapter; `None` for the one that the adapter names.
        options: How the merge runs: seed, threads, what may be left out. What is about an output
            folder counts for nothing.
        tolerance_ulp: Steps of the dtype that count as rounding; `None` for 2 of bfloat16 and
            float16, and 16 of float32.
        progress: Called with bytes done and bytes in all; or true for a bar, false for none, `None`
            for one in a notebook.

    Returns:
        Every tensor, the worst first; `verified` says whether it is that merge.

    Raises:
        MissingInputError, InputError: Config, adapter or a model are not there or damaged; the
            merge cannot be replayed; or the checkpoint is one of its inputs.
        SurroundingsError: A file cannot be read.

    Example:
        >>> import mergeplan
        >>> config = {"merge_method": "passthrough", "models": [{"model": "pool/js"}]}
        >>> mergeplan.replay(mergeplan.merge(config, "merged").out, config).verdict()
        'verified: 27 of 27 tensors equal'
    """
    options = options or MergeOptions()
    if tolerance_ulp is not None:
        check_number(tolerance_ulp, "tolerance_ulp", 0, 1e9)
    found = _opened(expanded(out))
    loaded = faultless(_config_of(config, adapter, base), options.planning().opening)
    run = Rerun(loaded, options, found)
    names = run.pairs
    tensors = [ReplayedTensor(name, "missing") for name in names.missing]
    tensors += [ReplayedTensor(name, "extra", name) for name in names.extra]
    with shown_as_bar(progress, "B") as told:
        done, total = 0, sum(job.n_bytes for job in run.jobs)
        for first, last in run.batches():
            tensors += run.compare(first, last, tolerance_ulp)
            done += sum(job.n_bytes for job in run.jobs[first:last])
            if told:
                told(done, total)
    tensors.sort(key=lambda one: one.badness)
    idle = run.adds and not run.changes_something
    notes = tuple(map(printable, _notes(run, tensors, idle)))
    return Replay(Path(out), tuple(tensors), notes, run.plan.warnings, changes_nothing=idle)


def _config_of(
    config: AnyConfig | None, adapter: str | Path | None, base: str | Path | None
) -> AnyConfig:
    if (config is None) == (adapter is None):
        raise InputError("expected either a config or an adapter")
    if config is not None:
        if base is not None:
            raise InputError("a base goes with an adapter: a config names its own")
        return config
    model = str(adapter) if base is None else f"{base}+{adapter}"
    return {"merge_method": "passthrough", "models": [{"model": model}]}


def _opened(path: Path) -> Checkpoint:
    if not path.exists():
        raise MissingInputError(
            f"`{path}` does not exist", "give the folder of a checkpoint, or its file"
        )
    found = open_checkpoint(str(path))
    if found.is_adapted:
        raise InputError(
            f"`{path}` is an adapter, not a merged model",
            "give the folder of the merged model, and the adapter as `--adapter`",
        )
    return found


def _notes(run: Rerun, tensors: Sequence[ReplayedTensor], idle: bool) -> Iterator[str]:
    if idle:
        yield (
            f"this merge changes nothing of `{run.begins_with}` in the dtype that was found:"
            " whether it was applied, one cannot tell"
        )
    strengths = [
        (one.factor, one.elements) for one in tensors if one.factor and one.status == "strength"
    ]
    if strengths:
        mean = sum(factor * n for factor, n in strengths) / sum(n for _, n in strengths)
        if all(abs(f - mean) <= _ONE_FACTOR * abs(mean) + 1 / n**0.5 for f, n in strengths):
            yield f"the factor {mean:.3g} fits all {len(strengths)}: 0 is the base, 1 this merge"
        else:
            low, high = min(strengths)[0], max(strengths)[0]
            yield f"no one factor fits: from {low:.3g} to {high:.3g}"
    changed = [one for one in tensors if one.changes and one.differing is not None]
    if changed and all(one.status == "not applied" for one in changed):
        yield f"nothing of this merge was applied: what it changes is as in `{run.begins_with}`"
    strange = [one for one in tensors if one.status == "unknown" and not one.changes]
    if any(NOT_FINITE not in one.detail for one in strange):
        yield f"tensors that this merge leaves as in `{run.begins_with}` differ too: another base?"
    if any("masks" in one.detail for one in tensors):
        seed = "no seed was given (0 was taken)" if run.seedless else "another program draws others"
        yield f"random masks: {seed}, so what differs may be this merge nevertheless"
    if any(".base_layer." in name for name in run.pairs.extra):
        yield "`.base_layer.` is a name of peft's inside: the model was saved without being merged"
    if run.pairs.passed_over:
        some = next(iter(run.pairs.passed_over.items()))
        count = len(run.pairs.passed_over)
        yield f"{count} passed over that mean nothing, the first: `{some[0]}`, {some[1]}"
