"""The way from a config and headers to a plan: ours, or mergekit's where only it knows how."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from mergeplan.checkpoints.checkpoint import (
    Checkpoint,
    planned_models,
    read_model_config,
    with_sources,
)
from mergeplan.checkpoints.dtypes import most_common_dtype
from mergeplan.config.config import MergeConfig
from mergeplan.errors import InputError, raise_all
from mergeplan.planning.architecture import architecture_differences
from mergeplan.planning.buffers import with_equal_buffers
from mergeplan.planning.conversation import conversation_differences
from mergeplan.planning.derived import DerivedModels
from mergeplan.planning.document import Plan
from mergeplan.planning.faults import job_faults, told
from mergeplan.planning.jobs import Settled, make_job
from mergeplan.planning.model_config import check_config, config_for, with_vocabulary
from mergeplan.planning.opening import SharedModels
from mergeplan.planning.options import PlanOptions
from mergeplan.planning.outputs import Outputs, OutputTensor, find_outputs
from mergeplan.planning.packing import looks_at_whole_tensors, packed_outputs, packings_of
from mergeplan.planning.pairing import (
    PairingOptions,
    left_out_warnings,
    respelled,
    unused_patterns,
)
from mergeplan.planning.plan import Companions, MergePlan
from mergeplan.planning.rows import (
    RowMap,
    all_tokens,
    cut_to_the_smallest,
    embedding_rows,
    has_row_per_token,
    stack_of,
    why_rows_must_stay,
    with_rows,
)
from mergeplan.planning.slicing import beyond_names
from mergeplan.planning.tokens import Tokens
from mergeplan.planning.vocabularies import compare_vocabularies, folders_of
from mergeplan.system.excerpts import mark_lines
from mergeplan.system.memory import collection_paused

GENERATION_FILE = "generation_config.json"


@collection_paused()
def build_plan(
    config: MergeConfig,
    *,
    seed: int,
    max_shard_bytes: int,
    allow_nonfinite: bool = False,
    options: PlanOptions | None = None,
    opened: Sequence[Checkpoint] = (),
    outputs: Outputs | None = None,
    shared: SharedModels | None = None,
) -> MergePlan:
    """Open the headers of all models and resolve every option of every tensor.

    Args:
        opened: Those of `config.models`, where somebody has opened all of them already.
        outputs: Which of their tensors belong together, where that is known too.
        shared: Opens them, where other merges have them too.

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
    try:
        shared = shared or SharedModels(options.opening)
        return _checked(config, options, _plan(config, options, head, opened, outputs, shared))
    except InputError as error:
        if config.file is not None:
            mark_lines(error.faults, config.text)
        raise


def _checked(config: MergeConfig, options: PlanOptions, plan: MergePlan) -> MergePlan:
    """A plan with what its models' settings and tokens say to it."""
    plan = with_equal_buffers(plan)
    vocabularies = compare_vocabularies(config, plan.checkpoints, plan.donor.name)
    shapes = {name: shape for job in plan.data.jobs for name, shape in job.stored.items()}
    warnings = [
        *check_config(plan.model_config, shapes),
        *architecture_differences(plan.checkpoints, plan.donor),
        *vocabularies.check(allow=options.allow_vocabulary_mismatch),
        *conversation_differences(folders_of(plan.checkpoints, plan.donor.name), config),
    ]
    return replace(plan, warnings=(*plan.warnings, *warnings))


def _plan(
    config: MergeConfig,
    options: PlanOptions,
    head: dict[str, Any],
    opened: Sequence[Checkpoint],
    outputs: Outputs | None,
    shared: SharedModels,
) -> MergePlan:
    if config.needs_mergekit:
        return _plan_by_mergekit(config, config.needs_mergekit, options, head)
    paths = [model.path for model in config.models]
    checkpoints = list(opened) or shared.of(paths)
    why = beyond_names(config, checkpoints)
    if why:
        return _plan_by_mergekit(config, why, options, head)
    donor = checkpoints[paths.index(config.donor)]
    pairing = pairing_options(config, checkpoints, options)
    outputs = outputs or find_outputs(config, checkpoints, pairing)
    if outputs.faults:
        raise_all(told(outputs.faults))
    if not outputs.tensors:
        raise InputError(f"model `{donor.name}` has no tensors: nothing to merge")
    derived = DerivedModels(len(with_sources(checkpoints)))
    free_rows = pairing.one_row_per_token
    one = _one_vocabulary(config, outputs.tensors, free_rows, checkpoints, donor, options, derived)
    tensors, tokens, rows = one
    tensors = _packed(config, tensors, checkpoints, donor, options, derived)
    settled: Settled = {}
    try:
        made = [make_job(config, tensor, checkpoints, settled) for tensor in tensors]
    except InputError as error:
        raise_all(job_faults(config, tensors, checkpoints) or [error])
    jobs = tuple(job for job, _ in made)
    return MergePlan(
        data=Plan(
            models=(*planned_models(checkpoints), *derived.models),
            jobs=jobs,
            stem=donor.stem,
            **head,
        ),
        checkpoints=tuple(checkpoints),
        donor=donor,
        model_config=config_for(config, checkpoints, donor, rows, outputs.left_out),
        out_dtype=most_common_dtype((job.out_dtype, job.n_elements) for job in jobs),
        unties_head=any(tensor.match.tied for tensor in tensors),
        warnings=(
            *config.warnings,
            *(warning for checkpoint in checkpoints for warning in checkpoint.warnings),
            *left_out_warnings(outputs.left_out),
            *unused_patterns(options.allow_left_out, outputs.left_out),
            *(tokens.warnings if tokens else ()),
        ),
        left_out=outputs.left_out,
        companions=_companions(donor, tokens, rows),
        resolved=tuple(resolved for _, resolved in made if resolved and options.explain),
    )


def pairing_options(
    config: MergeConfig, checkpoints: Sequence[Checkpoint], options: PlanOptions
) -> PairingOptions:
    """What of tensors that do not fit may pass: rows, where a tokenizer brings them together."""
    moves = config.tokenizer_source is not None or options.unsafe_truncate_embeddings
    if not moves or _rows_must_stay(checkpoints):
        return PairingOptions(options.allow_left_out, base=config.base_model)
    donor = next(c for c in checkpoints if c.name == config.donor)
    per_token = set()
    for checkpoint in checkpoints:
        n_rows = embedding_rows(checkpoint)
        for name, tensor in respelled(checkpoint, donor).tensors.items():
            if has_row_per_token(name, tensor.shape, n_rows):
                per_token.add(name)
    return PairingOptions(options.allow_left_out, per_token, config.base_model)


def _rows_must_stay(checkpoints: Sequence[Checkpoint]) -> InputError | None:
    return next(filter(None, map(why_rows_must_stay, checkpoints)), None)


def _one_vocabulary(
    config: MergeConfig,
    tensors: list[OutputTensor],
    names: Collection[str],
    checkpoints: list[Checkpoint],
    donor: Checkpoint,
    options: PlanOptions,
    derived: DerivedModels,
) -> tuple[list[OutputTensor], Tokens | None, RowMap | None]:
    """The tensors with the rows of the output's vocabulary, its tokenizer, and the donor's rows."""
    cut = options.unsafe_truncate_embeddings and config.tokenizer_source is None
    if config.tokenizer_source is None and not config.sets_template and not cut:
        return tensors, None, None
    stacks = {
        place: stack_of(tensor, checkpoints, config.base_model)
        for place, tensor in enumerate(tensors)
        if tensor.match.name in names
    }
    # Rows that must stay are merged as they stand, where no token has another number.
    must_stay = _rows_must_stay(checkpoints) if config.tokenizer_source is not None else None
    own = checkpoints.index(donor)
    whole = all_tokens(len(checkpoints), own if config.base_model else None)
    tokens = None
    maps = {stack: cut_to_the_smallest(stack) for stack in stacks.values()} if cut else {}
    if config.tokenizer_source is not None or config.sets_template:
        from mergeplan.planning.mergekit.process import tokens_by_mergekit

        tokens = tokens_by_mergekit(
            config,
            [checkpoint.path for checkpoint in checkpoints],
            [whole] if must_stay else list(dict.fromkeys(stacks.values())),
            options,
            why=_why_mergekit(config),
        )
        if must_stay and not all(rows.keeps_numbers for rows in tokens.rows[whole]):
            raise must_stay
        maps = maps or ({} if must_stay else dict(tokens.rows))
    if not maps:
        return tensors, tokens, None
    tensors = [
        with_rows(tensor, checkpoints, maps[stacks[place]], derived) if place in stacks else tensor
        for place, tensor in enumerate(tensors)
    ]
    donors = (m[stack.models.index(own)] for stack, m in maps.items() if own in stack.models)
    return tensors, tokens, next(donors, None)


def _companions(donor: Checkpoint, tokens: Tokens | None, rows: RowMap | None) -> Companions | None:
    """The tokenizer's files, and a generation config whose tokens have their new numbers."""
    if tokens is None:
        return None
    files = dict(tokens.files)
    generation = read_model_config(donor.path / GENERATION_FILE)
    if rows is not None and generation:
        changed = with_vocabulary(generation, None, rows)
        files[GENERATION_FILE] = (json.dumps(changed, indent=2) + "\n").encode()
    return Companions(files, copies_tokenizer=False)


def _why_mergekit(config: MergeConfig) -> str:
    asked = "chat_template" if config.tokenizer_source is None else "tokenizer_source"
    return f"because of `{asked}`"


def _packed(
    config: MergeConfig,
    tensors: list[OutputTensor],
    checkpoints: list[Checkpoint],
    donor: Checkpoint,
    options: PlanOptions,
    derived: DerivedModels,
) -> list[OutputTensor]:
    """The tensors with a mixture's experts put together, where the result depends on it."""
    packings = packings_of(donor.config)
    if not packings:
        return tensors
    if not options.packed_experts and not looks_at_whole_tensors(config.method):
        return tensors
    keep = not options.packed_experts
    for packing in packings:
        tensors = packed_outputs(tensors, checkpoints, packing, derived, keep_parts=keep)
    return sorted(tensors, key=lambda tensor: (max(tensor.match.inputs), tensor.match.name))


def _plan_by_mergekit(
    config: MergeConfig, why: str, options: PlanOptions, head: dict[str, Any]
) -> MergePlan:
    from mergeplan.planning.mergekit.process import plan_by_mergekit

    return plan_by_mergekit(config, options, why=why, **head)
