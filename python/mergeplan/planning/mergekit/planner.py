"""From a config to a plan, with mergekit's planner in between."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml
from mergekit.architecture import get_architecture_info
from mergekit.architecture.auto import infer_architecture_info
from mergekit.common import set_config_value
from mergekit.io.tasks import LoaderCache, SaveTensor
from mergekit.merge import _model_out_config
from mergekit.options import MergeOptions
from mergekit.tokenizer import BuildTokenizer

from mergeplan.checkpoints.checkpoint import Checkpoint, planned_models
from mergeplan.checkpoints.dtypes import most_common_dtype
from mergeplan.checkpoints.plan_models import Model, TensorRef
from mergeplan.checkpoints.quantised import without_settings
from mergeplan.config.config import MergeConfig
from mergeplan.errors import InputError, MergeplanError
from mergeplan.planning.document import Plan
from mergeplan.planning.mergekit.companions import companions_of, config_json
from mergeplan.planning.mergekit.executor import MergekitExecutor, read_tensor
from mergeplan.planning.mergekit.gathering import ModelTensors
from mergeplan.planning.mergekit.jobs import JobMaker
from mergeplan.planning.mergekit.models import (
    CheckpointLoader,
    OrderedConfiguration,
    loaders,
    open_model,
    references_of,
    with_models,
)
from mergeplan.planning.mergekit.own_methods import register_own
from mergeplan.planning.mergekit.repairs import Planner, ordered_vocabularies, with_whole_prefixes
from mergeplan.planning.mergekit.silence import quietly
from mergeplan.planning.opening import open_models
from mergeplan.planning.options import PlanOptions
from mergeplan.planning.pairing import AS_ASKED, is_allowed, left_out_warnings
from mergeplan.planning.plan import MergePlan
from mergeplan.planning.sliced_config import BY_LAYER, sliced_config


def plan(
    config: MergeConfig,
    options: PlanOptions,
    *,
    seed: int,
    max_shard_bytes: int,
    allow_nonfinite: bool,
) -> MergePlan:
    """See `plan_by_mergekit`."""
    head = {
        "seed": seed,
        "allow_nonfinite": allow_nonfinite,
        "max_shard_bytes": max_shard_bytes,
    }
    try:
        with quietly() as said:
            found = _plan(config, options, head)
    except MergeplanError:
        raise
    except Exception as error:
        # Whatever mergekit and transformers find wrong with a config or its models.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"mergekit cannot plan this merge: {reason}") from error
    warnings = (*config.warnings, *found.warnings, *dict.fromkeys(said))
    return replace(found, warnings=warnings)


def _plan(config: MergeConfig, options: PlanOptions, head: dict[str, Any]) -> MergePlan:
    register_own()
    asked = OrderedConfiguration.model_validate(yaml.safe_load(config.text))
    references = references_of(asked)
    checkpoints = open_models(map(str, references), options.opening)
    opened = [open_model(r, c) for r, c in zip(references, checkpoints, strict=True)]
    models = dict(zip(opened, checkpoints, strict=True))
    if len(models) < len(checkpoints):
        raise InputError(
            "two models are files of one folder, which mergekit's planner cannot tell apart",
            "give each a folder of its own, with its config.json",
        )
    asked = with_models(asked, dict(zip(references, opened, strict=True)))
    donor = asked.base_model or opened[0]
    stored = planned_models(checkpoints)
    sources = {
        model: CheckpointLoader(checkpoint, _reader(stored, number, checkpoint))
        for number, (model, checkpoint) in enumerate(models.items())
    }
    merge_options = MergeOptions(
        allow_crimes=options.allow_crimes,
        trust_remote_code=options.trust_remote_code,
        unsafe_truncate_embeddings=options.unsafe_truncate_embeddings,
        transformers_cache=options.opening.cache,
    )
    LoaderCache().setup(merge_options)
    with loaders(sources):
        infer_architecture_info.cache_clear()  # folders may have changed since
        architecture = with_whole_prefixes(get_architecture_info(asked, merge_options))
        trust = options.trust_remote_code
        out_config = _model_out_config(asked, architecture, trust)
        if config.is_sliced and config.modules[0].name is None:
            # mergekit leaves what is said of single layers as it was.
            lists = sliced_config(config, checkpoints, models[donor])
            for key in {*BY_LAYER, "num_hidden_layers"} & {*models[donor].config} & {*lists}:
                setattr(out_config, key, lists[key])
        types = {model: model.config(trust).model_type for model in opened}
        tasks = Planner(asked, architecture, merge_options, out_config).plan_to_disk("")
    tokens = None
    done = {}
    if isinstance(tasks[-1], BuildTokenizer):
        with ordered_vocabularies():
            tokens = tasks[-1].execute()
        done[tasks[-1]] = tokens
    names_of = None if options.packed_experts else donor
    maker = JobMaker(ModelTensors(models, types, len(stored)), config.dtype, tokens, names_of)
    made = [maker.job(task) for task in tasks if isinstance(task, SaveTensor)]
    # Some descriptions list a tensor once for each layer (Qwen2.5-VL's merger): mergekit writes it
    # as often, and which one stays is chance. Here it is the first, as for what has no layer.
    once = {job.tensor: (order, job) for order, job in reversed([*filter(None, made)])}
    jobs = tuple(job for _, job in sorted(once.values(), key=lambda entry: entry[0]))
    if not jobs:
        raise InputError("the models have no tensors that mergekit knows: nothing to merge")
    written = {name for job in jobs for name in job.stored}
    left_out = _left_out(config, maker, written, options)
    out_dtype = most_common_dtype((job.out_dtype, job.n_elements) for job in jobs)
    if maker.cut_to is not None:
        key = architecture.vocab_size_config_key or "vocab_size"
        set_config_value(out_config, key, maker.cut_to)
    companions = companions_of(asked, architecture, out_config, donor, tokens, trust)
    return MergePlan(
        data=Plan(models=(*stored, *maker.inputs.derived), jobs=jobs, **head),
        checkpoints=tuple(checkpoints),
        donor=models[donor],
        model_config=without_settings(config_json(out_config)),
        out_dtype=out_dtype,
        unties_head=maker.unties_head,
        warnings=(
            *(warning for checkpoint in checkpoints for warning in checkpoint.warnings),
            *maker.warnings,
            *left_out_warnings(left_out),
        ),
        left_out=left_out,
        companions=companions,
        fallback=MergekitExecutor(maker.given, sources, done, head["seed"])
        if maker.given
        else None,
        resolved=tuple(maker.resolved) if options.explain else (),
    )


def _left_out(
    config: MergeConfig, maker: JobMaker, written: set[str], options: PlanOptions
) -> dict[str, str]:
    """Tensors that mergekit's plan leaves out, and that may be.

    Args:
        written: Names of the output's tensors.

    Raises:
        InputError: It leaves out others.
    """
    left_out = {}
    faults = []
    unused = maker.inputs.unused(layers_too=not config.is_sliced)
    for model, names in [*unused.items(), *maker.skipped.items()]:
        for name in names:
            if is_allowed(name, options.allow_left_out):
                left_out[name] = AS_ASKED
            elif not (config.is_sliced and name in written):
                faults.append((maker.inputs.name_of(model), name))
    if faults:
        owner, name = faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputError(
            f"model `{owner}`: mergekit's plan leaves out tensor `{name}`{more}, which the output"
            " would lack",
            "merged by `models`, in float32, bfloat16 or float16, every tensor counts by its name;"
            f" `--allow-left-out '{name}'` (with `*` for any part of a name) goes on without",
        )
    return left_out


def _reader(stored: tuple[Model, ...], number: int, checkpoint: Checkpoint) -> Callable[[str], Any]:
    """Reads tensors of a checkpoint by our core."""

    def read(name: str) -> Any:
        tensor = checkpoint.tensors[name]
        return read_tensor(stored, TensorRef(number, name), tensor.dtype, tensor.shape)

    return read
