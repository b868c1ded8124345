"""The same case through each implementation: float64 reference, Rust core, mergekit."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cases import Case
from helpers import config_text, load_tensors, run_mergeplan, save_checkpoint
from mergeplan import _native, reference

Results = dict[str, NDArray[np.float64]]


def values(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.double().numpy()


def stored_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def by_reference(case: Case, seed: int = 0) -> Results:
    """`mergeplan.reference`, rounding each step to the case's dtype."""
    results = {}
    for name, base in case.base.items():
        experts = [values(expert[name]) for expert in case.experts]
        if case.method == "linear":
            results[name] = reference.linear(
                experts,
                case.weights,
                normalize=case.parameters["normalize"],
                precision=case.dtype,
            )
            continue
        streams = [
            _native.stream_id(
                name, _native.content_hash(stored_bytes(expert[name]), base.element_size())
            )
            for expert in case.experts
        ]
        options = reference.DeltaOptions(
            sparsify={"ties": "magnitude", "task_arithmetic": "none"}.get(case.method, "random"),
            consensus=case.method.endswith("ties"),
            normalize=case.parameters["normalize"],
            rescale=case.parameters["rescale"],
            lambda_=case.parameters["lambda"],
            seed=seed,
            stream_ids=streams,
        )
        results[name] = reference.merge_deltas(
            values(base), experts, case.weights, case.densities, options, case.dtype
        )
    return results


def by_native(case: Case, folder: Path, seed: int = 0) -> Results:
    """The whole path of `mergeplan merge`, through files."""
    base = save_checkpoint(folder / "base", case.base)
    models = [save_checkpoint(folder / f"e{i}", expert) for i, expert in enumerate(case.experts)]
    text = config_text(
        case.method,
        models,
        base=None if case.method == "linear" else base,
        per_model=case.per_model,
        parameters=case.parameters,
    )
    run_mergeplan(text, folder / "out", seed=seed)
    return {name: values(tensor) for name, tensor in load_tensors(folder / "out").items()}


def by_mergekit(case: Case) -> Results:
    """mergekit's own kernels on the tensors."""
    from mergekit.merge_methods import merge_tensors

    torch.set_num_threads(1)
    results = {}
    for name, base in case.base.items():
        tensors = [expert[name] for expert in case.experts]
        ids = list(range(len(tensors)))
        parameters = dict(case.parameters, weight=dict(zip(ids, case.weights, strict=True)))
        base_index = None
        if case.method != "linear":
            parameters["density"] = dict(zip(ids, case.densities, strict=True))
            tensors, ids, base_index = [*tensors, base], [*ids, "base"], len(tensors)
        merged = merge_tensors(
            tensors, case.method, parameters=parameters, ids=ids, base_index=base_index
        )
        results[name] = values(merged)
    return results
