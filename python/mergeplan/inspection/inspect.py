"""What is in checkpoints, whether they fit, and what a merge of them will take: headers alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.config.config import AnyConfig, MergeConfig, examined
from mergeplan.display.text import counted, format_bytes
from mergeplan.errors import MergeplanError
from mergeplan.inspection.compatibility import (
    Refusal,
    compare,
    compare_sources,
    lone_warnings,
    open_all,
    option_problems,
    problem_of,
    with_lines,
)
from mergeplan.inspection.facts import (
    FileFacts,
    checkpoint_facts,
    dtype_shares,
)
from mergeplan.inspection.forecast import MergeForecast, forecast_merge
from mergeplan.inspection.inspection import (
    Inspection,
    MergeInspection,
    OutputFacts,
    TensorOptions,
)
from mergeplan.inspection.on_demand import OnDemand
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.preflight import check_fallback
from mergeplan.merging.publishing import refuse_occupied, refuse_overlap
from mergeplan.merging.workspace import check_leftover
from mergeplan.planning.lowering import ResolvedTensor
from mergeplan.planning.opening import absent_source
from mergeplan.planning.outputs import Outputs
from mergeplan.planning.plan import MergePlan
from mergeplan.planning.planner import build_plan
from mergeplan.planning.slicing import beyond_names
from mergeplan.system.files import check_space, expanded
from mergeplan.system.machine import worker_threads

CONFIG_ENDINGS = (".yml", ".yaml")


def inspect(
    paths: AnyConfig | Sequence[AnyConfig],
    options: MergeOptions | None = None,
    *,
    out: str | Path | None = None,
) -> Inspection:
    """Look into checkpoints (folders or files) and configs (`.yml`).

    No weight is read. Several checkpoints are checked against each other, the first giving the
    output's tensors; a config's models are checked among themselves.

    Args:
        paths: One, or several; a config may be a dict.
        options: How a merge would be run.
        out: Where its output would go; `None` leaves the disk's room unchecked.

    Returns:
        What is there, and everything that is wrong with it: faults are found, not raised.

    Raises:
        InputError, MissingInputError: A config that cannot be read, or the only checkpoint.

    Example:
        >>> import mergeplan
        >>> found = mergeplan.inspect("pool/base")
        >>> found.fits, found.checkpoints[0].n_params
        (True, 80592)
    """
    options = options or MergeOptions()
    place = None if out is None else expanded(out)
    several = [paths] if isinstance(paths, str) or not isinstance(paths, Sequence) else paths
    every: list[Any] = list(several)
    configs = [one for one in every if _is_config(one)]
    rest = [one for one in every if not _is_config(one)]
    for one in rest:
        expanded(one)  # refuses what is no path
    names = list(map(str, rest))
    if len(every) == len(names) == 1:
        open_checkpoint(names[0], shard_too=True)
    checkpoints, problems = open_all(names, shard_too=True)
    warnings = [warning for checkpoint in checkpoints for warning in lone_warnings(checkpoint)]
    if len(checkpoints) > 1:
        between, differences = compare(checkpoints, checkpoints[0], options.planning())
        problems += between
        warnings += differences
    return Inspection(
        checkpoints=tuple(checkpoint_facts(checkpoint) for checkpoint in checkpoints),
        problems=tuple(problems),
        warnings=tuple(warnings),
        merges=tuple(_inspect_merge(config, options, place) for config in configs),
    )


def _is_config(one: AnyConfig) -> bool:
    if isinstance(one, Mapping | MergeConfig):
        return True
    return str(one).lower().endswith(CONFIG_ENDINGS)


def _inspect_merge(given: AnyConfig, options: MergeOptions, out: Path | None) -> MergeInspection:
    config, faults = examined(given)
    path = Path(given) if isinstance(given, str | Path) else None
    path = path or (config and config.file) or Path("the config")
    problems = [problem_of("config", fault) for fault in faults]
    if config is None:
        return MergeInspection(path, None, None, (), tuple(problems), (), None, None, ())
    # What is not here yet is not downloaded to look at it.
    opening = replace(options.planning().opening, download=False)
    problems += [problem_of("config", fault) for fault in absent_source(config, opening)]
    checkpoints, unopened = open_all((model.path for model in config.models), opening)
    problems += unopened
    warnings = [warning for checkpoint in checkpoints for warning in lone_warnings(checkpoint)]
    by_names = not (config.needs_mergekit or beyond_names(config, checkpoints))
    outputs = None
    if by_names and not unopened:
        outputs, between, differences = compare_sources(config, checkpoints, options.planning())
        problems += between
        warnings += differences
    elif by_names and not config.is_sliced and len(checkpoints) > 1:
        donor = next((c for c in checkpoints if c.name == config.donor), checkpoints[0])
        planning = options.planning()
        between, differences = compare(checkpoints, donor, planning, config.base_model)
        problems += between
        warnings += differences
    planned = None
    try:
        if not problems:
            planned = _plan(config, checkpoints, outputs, options, out, problems)
            warnings += [warning for warning in planned.warnings if warning not in warnings]
        elif outputs is not None and not faults:
            problems += option_problems(config, outputs, checkpoints)
    except MergeplanError as error:
        # Of many tensors' complaints it names the first.
        several = option_problems(config, outputs, checkpoints) if outputs else []
        problems += several or [problem_of("option", error)]
    return MergeInspection(
        config=path,
        method=config.method.name or None,
        base=config.compared_with,
        models=tuple(checkpoint_facts(checkpoint) for checkpoint in checkpoints),
        problems=tuple(with_lines(problems, config)),
        warnings=tuple(dict.fromkeys([*config.warnings, *warnings])),
        output=planned.output if planned else None,
        forecast=planned.forecast if planned else None,
        tensors=OnDemand(planned.resolved if planned else (), _options_of),
    )


@dataclass(frozen=True)
class _Planned:
    """What a merge that can be planned would be."""

    output: OutputFacts
    forecast: MergeForecast
    warnings: list[str]
    resolved: tuple[ResolvedTensor, ...]


def _options_of(tensor: ResolvedTensor) -> TensorOptions:
    each = {
        label: options
        for (label, _), options in zip(tensor.inputs, tensor.each, strict=True)
        if options
    }
    return TensorOptions(tensor.name, tensor.method.name, tensor.shared, each)


def _plan(
    config: MergeConfig,
    checkpoints: list[Checkpoint],
    outputs: Outputs | None,
    options: MergeOptions,
    out: Path | None,
    problems: list[Refusal],
) -> _Planned:
    """Plan the merge as `merge` would; problems with its surroundings are added to `problems`."""
    from mergeplan._native import PreparedMerge
    from mergeplan.merging.companions import companion_bytes, copied_names, missing_companions

    plan = build_plan(
        config,
        seed=0,
        max_shard_bytes=options.max_shard_bytes,
        allow_nonfinite=options.allow_nonfinite,
        options=replace(options.planning(), explain=True),
        opened=checkpoints,
        outputs=outputs,
    )
    prepared = PreparedMerge(plan.json(), plan.headers)
    copied = copied_names(plan, tokenizer=options.copy_tokenizer)
    found = forecast_merge(
        config,
        plan,
        prepared,
        threads=options.threads or worker_threads(),
        memory_limit=options.memory_limit,
        out=out,
        beside_bytes=companion_bytes(plan, copied),
    )
    names = [*copied, *(name for name, _, _ in prepared.files)]
    problems += _surroundings(plan, found, options, out, names)
    output = OutputFacts(
        tensors=len(plan.data.jobs),
        n_bytes=prepared.tensor_bytes,
        dtypes=dtype_shares(Counter((j.out_dtype, j.shape, j.n_bytes) for j in plan.data.jobs)),
        files=tuple(FileFacts(name, length) for name, length, _ in prepared.files),
        donor=plan.donor.name,
    )
    warnings = [*plan.warnings, *missing_companions(plan), *_widened(config, plan)]
    return _Planned(output, found, warnings, plan.resolved)


def _surroundings(
    plan: MergePlan,
    found: MergeForecast,
    options: MergeOptions,
    out: Path | None,
    names: list[str],
) -> list[Refusal]:
    """A memory limit that is too low, an output in the way, a disk without room."""
    problems = []
    memory = found.memory
    if memory.limit_given and not memory.holds:
        message = (
            f"the memory limit is too low: expected {format_bytes(memory.minimum_bytes)} or more"
            f" with {counted(found.threads, 'threads')}, found {format_bytes(memory.limit_bytes)}"
        )
        hint = "raise `--memory-limit`" + (", or use fewer threads" if found.threads > 1 else "")
        problems.append(Refusal("memory", None, None, message, hint))
    if not options.allow_fallback_memory:
        try:
            check_fallback(plan, options.memory_limit)
        except MergeplanError as error:
            problems.append(problem_of("memory", error))
    if out is not None:
        place = out.resolve()
        try:
            refuse_overlap(place, plan.input_paths, overwrite=options.overwrite)
            check_leftover(place, resume=options.resume, discard=options.discard)
            refuse_occupied(place, names, overwrite=options.overwrite)
            check_space(place, found.disk.needed_bytes)
        except MergeplanError as error:
            problems.append(problem_of("output", error))
    return problems


def _widened(config: MergeConfig, plan: MergePlan) -> list[str]:
    """Tensors that become float32 though every input has 16 bits: twice the size, seldom meant."""
    if config.out_dtype:
        return []
    wide = [plan.input_dtypes(job) for job in plan.data.jobs if job.out_dtype == "F32"]
    count = sum(bool(found) and found <= {"BF16", "F16"} for found in wide)
    if not count:
        return []
    why = "bfloat16 and float16 meet there"
    if config.dtype:
        why = f"`dtype: {config.dtype}` is also the output's dtype unless `out_dtype` is given"
    return [
        f"{count} tensors become float32 out of 16-bit inputs ({why}); `out_dtype: bfloat16` halves"
        " the output"
    ]
