"""The way from a config and headers to a plan: ours, or mergekit's where only it knows how."""

from dataclasses import replace
from typing import Any

from mergeplan.checkpoints.checkpoint import planned_models, refuse_duplicates
from mergeplan.checkpoints.dtypes import most_common_dtype
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.config.config import MergeConfig
from mergeplan.errors import InputError
from mergeplan.planning.conversation import conversation_differences
from mergeplan.planning.document import Plan
from mergeplan.planning.jobs import Settled, make_job
from mergeplan.planning.options import PlanOptions
from mergeplan.planning.outputs import find_outputs
from mergeplan.planning.pairing import left_out
from mergeplan.planning.plan import MergePlan
from mergeplan.planning.slicing import beyond_names, sliced_config
from mergeplan.planning.vocabularies import compare_vocabularies, folders_of
from mergeplan.system.memory import collection_paused


@collection_paused()
def build_plan(
    config: MergeConfig,
    *,
    seed: int,
    max_shard_bytes: int,
    allow_nonfinite: bool = False,
    options: PlanOptions | None = None,
) -> MergePlan:
    """Open the headers of all models and resolve every option of every tensor.

    Raises:
        InputError: Headers, shapes, dtypes, options or vocabularies that do not fit; no weight is
            read.
    """
    head: dict[str, Any] = {
        "seed": seed,
        "max_shard_bytes": max_shard_bytes,
        "allow_nonfinite": allow_nonfinite,
    }
    options = options or PlanOptions()
    plan = _plan(config, options, head)
    vocabularies = compare_vocabularies(config, plan.checkpoints, plan.donor.name)
    warnings = [
        *vocabularies.check(allow=options.allow_vocabulary_mismatch),
        *conversation_differences(folders_of(plan.checkpoints, plan.donor.name), config),
    ]
    return replace(plan, warnings=(*plan.warnings, *warnings))


def _plan(config: MergeConfig, options: PlanOptions, head: dict[str, Any]) -> MergePlan:
    if config.needs_mergekit or options.unsafe_truncate_embeddings:
        return _plan_by_mergekit(config, config.needs_mergekit, options, head)
    checkpoints = [open_checkpoint(model.path, options.opening) for model in config.models]
    refuse_duplicates(checkpoints)
    why = beyond_names(config, checkpoints)
    if why:
        return _plan_by_mergekit(config, why, options, head)
    paths = [model.path for model in config.models]
    donor = checkpoints[paths.index(config.donor)]
    outputs = find_outputs(config, checkpoints)
    if outputs.faults:
        raise outputs.faults[0].error
    if not outputs.tensors:
        raise InputError(f"model `{donor.name}` has no tensors: nothing to merge")
    settled: Settled = {}
    made = [make_job(config, tensor, checkpoints, settled) for tensor in outputs.tensors]
    jobs = tuple(job for job, _ in made)
    return MergePlan(
        data=Plan(models=planned_models(checkpoints), jobs=jobs, **head),
        checkpoints=tuple(checkpoints),
        donor=donor,
        model_config=sliced_config(config, checkpoints, donor)
        if config.is_sliced
        else donor.config,
        out_dtype=most_common_dtype((job.out_dtype, job.n_elements) for job in jobs),
        unties_head=any(tensor.match.tied for tensor in outputs.tensors),
        warnings=(*config.warnings, *left_out(outputs.extra, donor)),
        resolved=tuple(resolved for _, resolved in made if resolved and options.explain),
    )


def _plan_by_mergekit(
    config: MergeConfig, why: str | None, options: PlanOptions, head: dict[str, Any]
) -> MergePlan:
    from mergeplan.planning.mergekit.process import plan_by_mergekit

    return plan_by_mergekit(config, options, why=why, **head)
