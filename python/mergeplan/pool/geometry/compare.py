"""Compare the experts of a pool in one pass over their weights: norms, cosines, signs."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mergeplan.checkpoints.checkpoint import Checkpoint, planned_models
from mergeplan.checkpoints.dtypes import FLOATS
from mergeplan.checkpoints.heads import counted_twice
from mergeplan.checkpoints.layers import layer_of
from mergeplan.checkpoints.opening import open_checkpoint, open_expert
from mergeplan.checkpoints.passed_over import reason_to_pass_over
from mergeplan.errors import InputError
from mergeplan.planning.document import to_json
from mergeplan.pool.bases import check_bases
from mergeplan.pool.geometry.geometry import Geometry, TensorGroup
from mergeplan.pool.opening import refuse_closed
from mergeplan.pool.pool import Pool, PoolSize, pool_of
from mergeplan.system.machine import worker_threads
from mergeplan.system.progress import Shown, shown_as_bar

if TYPE_CHECKING:
    from mergeplan._native import TensorSimilarity

Array = NDArray[np.float64]

# Shares of each tensor's elements, by magnitude, for which it is said what they hold.
DENSITIES = (0.05, 0.1, 0.2, 0.5)
# The first that a tensor's name holds says of which kind it is.
_KINDS = (
    ("norm", re.compile(r"norm|(?:^|\.)ln_")),
    ("head", re.compile(r"lm_head|embed_out")),
    ("embedding", re.compile(r"embed|wte|wpe")),
    ("attention", re.compile(r"attn|attention")),
    ("mlp", re.compile(r"mlp|ffn|feed_forward|experts")),
)


def similarity(
    pool: Pool | str | Path, *, threads: int | None = None, progress: Shown = None
) -> tuple[Geometry, ...]:
    """Compare the experts of each size of a pool.

    Args:
        pool: Its file, or as `load_pool` gives it.
        threads: Worker threads; `None` for one a usable core. They change nothing of the result.
        progress: Called some ten times a second with bytes read of a size, and all of them; or true
            for a bar, false for none, `None` for one in a notebook.

    Returns:
        One for each base size; matrices are (experts, experts).

    Raises:
        InputError: The pool or a model is at fault, or they have no tensor in common.
        SurroundingsError: A file cannot be read.

    Example:
        >>> import mergeplan
        >>> (geometry,) = mergeplan.similarity("pool/pool.yml")
        >>> js, json = (geometry.experts.index(name) for name in ("js", "json"))
        >>> round(float(geometry.whole.cosines[js, json]), 2)
        0.02
    """
    pool = pool_of(pool)
    refuse_closed(pool, merged=False)
    check_bases(pool)
    return tuple(geometry_of(size, threads=threads, progress=progress) for size in pool.sizes)


def geometry_of(size: PoolSize, *, threads: int | None = None, progress: Shown = None) -> Geometry:
    """The same for one size."""
    compared = _compare(size, threads, progress)
    names, parts = compared.experts, list(compared.parts.values())
    layers: dict[int, list[_Part]] = defaultdict(list)
    kinds: dict[str, list[_Part]] = defaultdict(list)
    for name, part in compared.parts.items():
        kinds[module_kind(name)].append(part)
        if (place := layer_of(name)) is not None:
            layers[place[1]].append(part)
    return Geometry(
        base=size.base,
        experts=names,
        n_params=size.count_params(),
        densities=DENSITIES,
        whole=_group(parts),
        by_layer={layer: _group(layers[layer]) for layer in sorted(layers)},
        by_kind={kind: _group(kinds[kind]) for kind in sorted(kinds)},
        left_out=compared.left_out,
        read_bytes=compared.read_bytes,
    )


def tensor_grams(
    size: PoolSize, *, threads: int | None = None
) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Inner products of the experts' deltas in each tensor, (experts, experts), in one pass.

    Returns:
        The experts in the order of the matrices, and the matrices by tensor.
    """
    compared = _compare(size, threads, False)
    return compared.experts, {name: part.gram for name, part in compared.parts.items()}


@dataclass(frozen=True)
class _Compared:
    experts: tuple[str, ...]
    parts: dict[str, "_Part"]
    left_out: dict[str, str]
    read_bytes: int


def _compare(size: PoolSize, threads: int | None, progress: Shown) -> _Compared:
    from mergeplan._native import tensor_similarities

    names = tuple(sorted(size.experts))
    base = open_checkpoint(str(size.base))
    experts = [open_expert(size.experts[name], size.base) for name in names]
    left_out = _not_compared(base, experts)
    tensors = [name for name in base.tensors if name not in left_out]
    if not tensors:
        name, why = next(iter(left_out.items()), ("", "it has no tensors"))
        raise InputError(f"nothing of `{size.base}` can be compared: `{name}`: {why}")
    total = sum(model.tensors[name].n_bytes for model in (base, *experts) for name in tensors)
    with shown_as_bar(progress, "B") as told:
        found = tensor_similarities(
            to_json(planned_models([base, *experts])),
            len(experts),
            tensors,
            densities=list(DENSITIES),
            threads=threads or worker_threads(),
            progress=(lambda done: told(done, total)) if told else None,
        )
    parts = {name: _Part.of(one, len(names)) for name, one in zip(tensors, found, strict=True)}
    return _Compared(names, parts, left_out, total)


def module_kind(tensor: str) -> str:
    """Which kind of module a tensor belongs to.

    >>> module_kind("model.layers.0.self_attn.q_norm.weight"), module_kind("x.bias")
    ('norm', 'other')
    """
    return next((kind for kind, pattern in _KINDS if pattern.search(tensor.lower())), "other")


@dataclass(frozen=True, eq=False)
class _Part:
    """One tensor's sums, as the core gives them."""

    n_elements: int
    gram: Array
    agreeing: Array
    nonzero: Array
    kept: Array  # squared norms, not shares

    @classmethod
    def of(cls, found: "TensorSimilarity", n_experts: int) -> "_Part":
        square = (n_experts, n_experts)
        gram = np.array(found.gram).reshape(square)
        kept = np.array(found.kept).reshape(n_experts, -1) * np.diag(gram)[:, None]
        signs = (np.array(counts, np.float64) for counts in (found.agreeing, found.nonzero))
        agreeing, nonzero = (counts.reshape(square) for counts in signs)
        return cls(found.elements, gram, agreeing, nonzero, kept)


def _group(parts: Sequence[_Part]) -> TensorGroup:
    gram = np.sum([part.gram for part in parts], axis=0)
    agreeing = np.sum([part.agreeing for part in parts], axis=0)
    nonzero = np.sum([part.nonzero for part in parts], axis=0)
    kept = np.sum([part.kept for part in parts], axis=0)  # (experts, densities)
    squares = np.diag(gram)[:, None]
    agreement = np.full_like(gram, np.nan)
    np.divide(agreeing, nonzero, out=agreement, where=nonzero > 0)
    shares = np.ones_like(kept)
    np.divide(kept, squares, out=shares, where=squares > 0)
    return TensorGroup(sum(part.n_elements for part in parts), gram, agreement, shares)


def _not_compared(base: Checkpoint, experts: Iterable[Checkpoint]) -> dict[str, str]:
    """Tensors that not every model has alike; tied heads and unread buffers count once or never."""
    experts = tuple(experts)
    tied = counted_twice(base)
    found: dict[str, str] = {}
    for name in sorted({name for model in (base, *experts) for name in model.tensors}):
        owner = next(model for model in (base, *experts) if name in model.tensors)
        reason = reason_to_pass_over(name, owner.tensors[name].shape, owner.config)
        if reason is not None:
            found[name] = reason
            continue
        if name in tied:
            found[name] = "tied to the embedding"
            continue
        lacking = [model.name for model in (base, *experts) if name not in model.tensors]
        if lacking:
            found[name] = f"`{lacking[0]}` lacks it"
            continue
        first = base.tensors[name]
        for model in (base, *experts):
            tensor = model.tensors[name]
            if tensor.shape != first.shape:
                shapes = f"{list(tensor.shape)}, {list(first.shape)} in the base"
                found[name] = f"its shape in `{model.name}` is {shapes}"
            elif tensor.dtype not in FLOATS:
                found[name] = f"its dtype in `{model.name}` is {tensor.dtype}"
    return found
