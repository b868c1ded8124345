"""Plans of the `group` kind, and the same merges by mergekit."""

import json
from pathlib import Path
from typing import Any

import torch

from mergeplan import _native
from tests.support.cases import TORCH_DTYPES
from tests.support.checkpoints import load_tensors, save_checkpoint

STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
SHAPES = [(), (0,), (1,), (17,), (300, 1), (1, 300), (64, 65), (3, 4, 5), (70_000,), (130, 600)]
# name, options of the plan, options of mergekit, has a base, numbers of inputs
METHODS: list[tuple[str, dict[str, Any], dict[str, Any], bool, range]] = [
    ("slerp", {"t": 0.3}, {"t": 0.3}, True, range(1, 2)),
    ("slerp", {"t": 0.0}, {"t": 0.0}, True, range(1, 2)),
    ("slerp", {"t": 1.0}, {"t": 1.0}, True, range(1, 2)),
    *(
        (
            "nuslerp",
            {"t": 0.25, "along": along},
            {"weight": [0.75, 0.25], "nuslerp_flatten": flatten, "nuslerp_row_wise": row_wise},
            base,
            range(2, 3),
        )
        for along, flatten, row_wise in [
            ("tensor", True, False),
            ("last", False, False),
            ("first", False, True),
        ]
        for base in (False, True)
    ),
    (
        "multislerp",
        {"normalize": True, "eps": 1e-8},
        {"normalize_weights": True},
        False,
        range(1, 6),
    ),
    (
        "multislerp",
        {"normalize": True, "eps": 1e-8},
        {"normalize_weights": True},
        True,
        range(1, 6),
    ),
    (
        "multislerp",
        {"normalize": False, "eps": 1e-3},
        {"normalize_weights": False, "eps": 1e-3},
        True,
        range(2, 4),
    ),
    ("model_stock", {"filter_wise": False}, {"filter_wise": False}, True, range(2, 6)),
    ("model_stock", {"filter_wise": True}, {"filter_wise": True}, True, range(2, 6)),
    ("sce", {"density": 1.0}, {"select_topk": 1.0}, True, range(0, 6)),
    ("sce", {"density": 0.3}, {"select_topk": 0.3}, True, range(1, 6)),
    ("sce", {"density": 0.0}, {"select_topk": 0.0}, True, range(1, 3)),
    ("karcher", {"max_iter": 10, "tol": 1e-5}, {}, False, range(1, 6)),
    ("karcher", {"max_iter": 1, "tol": 1e-3}, {"max_iter": 1, "tol": 1e-3}, False, range(2, 4)),
    ("nearswap", {"t": 0.004}, {"t": 0.004}, True, range(1, 2)),
    ("nearswap", {"t": 0.0}, {"t": 0.0}, True, range(1, 2)),
    ("arcee_fusion", {}, {}, True, range(1, 2)),
    ("ram", {"epsilon": 2e-3}, {"epsilon": 2e-3}, True, range(0, 6)),
    ("ramplus_tl", {"r": 0.1, "alpha": 0.2, "epsilon": 2e-3}, {"epsilon": 2e-3}, True, range(0, 6)),
    (
        "ramplus_tl",
        {"r": 0.5, "alpha": 9.0, "epsilon": 4e-3},
        {"r": 0.5, "alpha": 9.0, "epsilon": 4e-3},
        True,
        range(2, 4),
    ),
    ("passthrough", {"scale": None}, {}, False, range(1, 2)),
    ("passthrough", {"scale": 0.3}, {"scale": 0.3}, False, range(1, 2)),
]
WEIGHTS = [1.0, 0.3, 0.5, 0.7, 1.7]

Tensors = dict[str, torch.Tensor]


def make_tensors(k: int, dtype: str, shapes: list[tuple[int, ...]], seed: int = 0) -> list[Tensors]:
    """A base and `k` experts; they share the direction of some of their changes."""
    generator = torch.Generator().manual_seed(1000 * seed + k)
    base = {str(i): 0.02 * torch.randn(s, generator=generator) for i, s in enumerate(shapes)}
    shared = {n: 0.003 * torch.randn(t.shape, generator=generator) for n, t in base.items()}
    models = [base]
    for _ in range(k):
        own = {n: 0.003 * torch.randn(t.shape, generator=generator) for n, t in base.items()}
        models.append({n: t + shared[n] + own[n] for n, t in base.items()})
    return [{n: t.to(TORCH_DTYPES[dtype]) for n, t in model.items()} for model in models]


def plan_of(
    name: str,
    options: dict[str, Any],
    has_base: bool,
    models: list[Tensors],
    dtype: str,
    root: Path,
) -> str:
    """Save `models` (the base first) and write the plan that merges them."""
    k = len(models) - 1
    method = {"name": name, **options}
    if name == "multislerp":
        method["weights"] = WEIGHTS[:k]
    jobs = [
        {
            "tensor": tensor,
            "shape": list(value.shape),
            "out_dtype": STORED[dtype],
            "merge": {
                "kind": "group",
                "dtype": dtype,
                "method": method,
                "base": {"model": 0, "tensor": tensor} if has_base else None,
                "inputs": [{"model": i + 1, "tensor": tensor} for i in range(k)],
            },
        }
        for tensor, value in models[0].items()
    ]
    paths = [save_checkpoint(root / f"m{i}", model) for i, model in enumerate(models)]
    plan = {
        "version": 1,
        "seed": 0,
        "allow_nonfinite": False,
        "max_shard_bytes": 10**12,
        "models": [str(path) for path in paths],
        "jobs": jobs,
    }
    return json.dumps(plan)


def run(plan: str, out: Path, threads: int = 2, chunk: int = 4096) -> Tensors:
    """Run a plan; the bytes that it counts as done are those it said it would read."""
    done = []
    prepared = _native.PreparedMerge(plan)
    out.mkdir()
    journal, memory = out.with_name(out.name + ".journal"), 1 << 28
    prepared.run(
        out,
        journal=journal,
        threads=threads,
        memory_bytes=memory,
        chunk=chunk,
        progress=done.append,
    )
    assert all(bytes_done <= prepared.forecast(threads)["work_bytes"] for bytes_done in done)
    return load_tensors(out)


def by_mergekit(
    name: str, options: dict[str, Any], has_base: bool, models: list[Tensors]
) -> Tensors:
    from mergekit.merge_methods import merge_tensors

    torch.set_num_threads(1)
    base, *experts = models
    used = [base, *experts] if has_base else experts
    ids = list(range(len(used)))
    if name == "multislerp":
        weights = dict(zip(ids[int(has_base) :], WEIGHTS, strict=False))
        options = options | {"weight": weights}
    elif name == "nuslerp":
        options = options | {
            "weight": dict(zip(ids[int(has_base) :], options["weight"], strict=True))
        }
    return {
        tensor: merge_tensors(
            [model[tensor] for model in used],
            name,
            parameters=options,
            ids=ids,
            base_index=0 if has_base else None,
            out_dtype=base[tensor].dtype,
        )
        for tensor in base
        # These raise for tensors without elements.
        if base[tensor].numel() > 0 or name not in ("arcee_fusion", "multislerp")
    }
