"""The same case through each implementation: float64 reference, Rust core, torch, mergekit."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mergeplan import _native, reference
from mergeplan.config.config import parse_config
from mergeplan.merging.merge import merge_many
from mergeplan.merging.options import MergeRequest
from mergeplan.merging.torch.device import find_devices
from mergeplan.merging.torch.device_runner import DeviceRunner
from tests.support.cases import Case
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.merges import config_text, run_mergeplan

Array = NDArray[np.float64]
Results = dict[str, Array]


def values(tensor: torch.Tensor) -> Array:
    return tensor.double().numpy()


def stored_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def by_reference(case: Case, seed: int = 0) -> Results:
    """`mergeplan.reference`, rounding each step to the case's dtype."""
    return {name: reference_of(case, name, seed) for name in case.experts[0]}


def reference_of(
    case: Case, name: str, seed: int = 0, mask: NDArray[np.bool_] | None = None
) -> Array:
    """One tensor; `mask` replaces what `sce` or `arcee_fusion` selects."""
    experts = [values(expert[name]) for expert in case.experts]
    base = values(case.base[name]) if case.base else None
    precision, options = case.dtype, dict(case.parameters)
    if case.info.family == "delta":
        return reference.merge_deltas(
            base, experts, case.weights, case.densities, delta_options(case, name, seed), precision
        )
    match case.method:
        case "linear":
            normalize = options["normalize"]
            return reference.linear(experts, case.weights, normalize=normalize, precision=precision)
        case "passthrough":
            scale = case.per_input.get("scale", (None,))[0]
            return reference.passthrough(experts[0], scale, precision)
        case "slerp":
            return reference.slerp(base, experts[0], options["t"], precision)
        case "nuslerp":
            total = sum(case.weights)
            t = 0.5 if abs(total) < 1e-6 else case.weights[1] / total
            along = "first" if options["nuslerp_row_wise"] else "last"
            along = "tensor" if options["nuslerp_flatten"] else along
            return reference.nuslerp(*experts, t, base=base, along=along, precision=precision)
        case "multislerp":
            return reference.multislerp(
                experts,
                case.weights,
                base=base,
                normalize=options["normalize_weights"],
                eps=options["eps"],
                precision=precision,
            )
        case "sce":
            density = options["select_topk"]
            return reference.sce(base, experts, density, mask=mask, precision=precision)
        case "karcher":
            return reference.karcher(experts, **options, precision=precision)
        case "nearswap":
            return reference.nearswap(base, experts[0], options["t"], precision)
        case "arcee_fusion":
            return reference.arcee_fusion(base, experts[0], mask=mask, precision=precision)
    return getattr(reference, case.method)(base, experts, **options, precision=precision)


def delta_options(case: Case, name: str, seed: int) -> reference.DeltaOptions:
    streams = [
        _native.stream_id(name, _native.fingerprint(stored_bytes(expert[name])))
        for expert in case.experts
    ]
    return reference.DeltaOptions(
        sparsify=case.info.sparsify,
        consensus=case.info.consensus,
        normalize=case.parameters["normalize"],
        rescale=case.parameters["rescale"],
        lambda_=case.parameters["lambda"],
        gammas=case.per_input.get("gamma", ()),
        epsilons=case.per_input.get("epsilon", ()),
        seed=seed,
        stream_ids=streams,
    )


def by_native(case: Case, folder: Path, seed: int = 0) -> Results:
    """The whole path of `mergeplan merge`, through files."""
    run_mergeplan(text_of(case, folder), folder / "out", seed=seed)
    return {name: values(tensor) for name, tensor in load_tensors(folder / "out").items()}


def by_torch(case: Case, folder: Path, seed: int = 0, *, device: str) -> Results:
    """The same with a device, which computes every tensor but mere copies."""
    runner = DeviceRunner(find_devices(device, 64 << 20), least_elements=1)
    wanted = MergeRequest(parse_config(text_of(case, folder)), folder / "out", seed)
    report = merge_many([wanted], runner=runner)[0]
    found = load_tensors(folder / "out")
    n_bytes = sum(tensor.nbytes for tensor in found.values())
    assert report.device_bytes == n_bytes or case.k == 1
    return {name: values(tensor) for name, tensor in found.items()}


# What must give the same bytes, whatever computes.
FAST = {"native": by_native, "torch-cpu": partial(by_torch, device="cpu")}
if torch.cuda.is_available():
    FAST["torch-cuda"] = partial(by_torch, device="cuda:0")


def text_of(case: Case, folder: Path) -> str:
    """The config of a case whose checkpoints are written into a folder."""
    base = save_checkpoint(folder / "base", case.base) if case.base else None
    models = [save_checkpoint(folder / f"e{i}", expert) for i, expert in enumerate(case.experts)]
    return config_text(
        case.method, models, base=base, per_model=case.per_model, parameters=case.parameters
    )


def by_mergekit(case: Case, names: list[str] | None = None) -> Results:
    """mergekit's own kernels on the tensors, rounded to the case's dtype.

    `arcee_fusion` and `ramplus_tl` return float32 for tensors of 16 bit: mergekit then writes
    float32 unless the config has an `out_dtype`.
    """
    from mergekit.merge_methods import merge_tensors

    torch.set_num_threads(1)
    results = {}
    for name in names or list(case.experts[0]):
        tensors = [expert[name] for expert in case.experts]
        ids: list[object] = list(range(case.k))
        parameters = dict(case.parameters)
        for key, found in case.per_input.items():
            parameters[key] = dict(zip(ids, found, strict=True))
        base_index = None
        if case.base:
            tensors, ids, base_index = [*tensors, case.base[name]], [*ids, "base"], case.k
        merged = merge_tensors(
            tensors, case.method, parameters=parameters, ids=ids, base_index=base_index, name=name
        )
        results[name] = values(merged.to(tensors[0].dtype))
    return results
