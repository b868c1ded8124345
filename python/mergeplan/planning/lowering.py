"""From one tensor's resolved options to the arithmetic of its job: the `merge` of the plan."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mergeplan.checkpoints.dtypes import promote
from mergeplan.config.methods import Method, check_epsilon

# Weights of nuslerp that add up to less than this are taken as equal, as in mergekit.
SMALLEST_TOTAL = 1e-6


@dataclass(frozen=True)
class Dtypes:
    """Torch names of the dtypes of one tensor.

    Attributes:
        inputs: What the files hold, promoted.
        working: What the arithmetic is rounded to.
        output: What is written.
    """

    inputs: str
    working: str
    output: str


def dtypes_of(
    inputs: Iterable[tuple[str, str | None]], working: str | None, output: str | None
) -> Dtypes:
    """The dtypes of a tensor's arithmetic.

    What is kept in float32 for exactness is merged there, and written in the dtype that the output
    has without.

    Args:
        inputs: safetensors' names of what goes in, and of what it is without exactness, or `None`.
        working, output: Torch names that are asked for, if any.
    """
    stored = list(inputs)
    promoted = promote({dtype for dtype, _ in stored})
    plain = promote({plain or dtype for dtype, plain in stored})
    exact = any(plain for _, plain in stored)
    return Dtypes(promoted, "float32" if exact else working or promoted, output or working or plain)


@dataclass(frozen=True)
class ResolvedTensor:
    """One merge with every option resolved. A reference is `{"model": index, "tensor": name}`.

    Attributes:
        name: The output tensor.
        base: What the others are compared with, where the method does so.
        inputs: Label of each other model, for messages, and its tensor.
        shared: Options of the whole merge.
        each: Options of each of `inputs`, in their order.
    """

    name: str
    method: Method
    base: dict[str, Any] | None
    inputs: list[tuple[str, dict[str, Any]]]
    shared: dict[str, Any]
    each: list[dict[str, Any]]

    @property
    def references(self) -> list[dict[str, Any]]:
        return [reference for _, reference in self.inputs]

    def of_each(self, option: str) -> list[Any]:
        return [options[option] for options in self.each]


def lower(tensor: ResolvedTensor, dtypes: Dtypes) -> dict[str, Any]:
    """The arithmetic of one floating-point tensor, as `rust/core/src/plan` reads it.

    Raises:
        InputError: An option does not fit another.
    """
    method = tensor.method
    if method.family == "linear":
        return _linear(tensor, dtypes)
    if method.family == "delta":
        return _delta(tensor, dtypes)
    if method.family == "passthrough":
        return _passthrough(tensor, dtypes, tensor.of_each("scale")[0])
    if method.name in ("multislerp", "karcher") and len(tensor.inputs) == 1:
        # A mean of one: mergekit returns it as it is.
        return _passthrough(tensor, dtypes, None)
    return _group(tensor, dtypes.working, tensor.base, GROUP_OPTIONS[method.name](tensor))


def _linear(tensor: ResolvedTensor, dtypes: Dtypes) -> dict[str, Any]:
    return {
        "kind": "linear",
        "dtype": dtypes.working,
        "normalize": tensor.shared["normalize"],
        "inputs": _with_options(tensor),
    }


def _delta(tensor: ResolvedTensor, dtypes: Dtypes) -> dict[str, Any]:
    method = tensor.method
    inputs = _with_options(tensor)
    if method.sparsify == "ranks":
        for (label, _), entry in zip(tensor.inputs, inputs, strict=True):
            where = f"model `{label}`, tensor `{tensor.name}`"
            check_epsilon(where, entry["density"], entry["epsilon"])
    return {
        "kind": "delta",
        "dtype": dtypes.working,
        "base": tensor.base,
        "sparsify": method.sparsify,
        "consensus": method.consensus,
        "rescale": tensor.shared["rescale"],
        "normalize": tensor.shared["normalize"],
        "lambda": tensor.shared["lambda"],
        "inputs": inputs,
    }


def _with_options(tensor: ResolvedTensor) -> list[dict[str, Any]]:
    return [
        {**reference, **options}
        for reference, options in zip(tensor.references, tensor.each, strict=True)
    ]


def _passthrough(tensor: ResolvedTensor, dtypes: Dtypes, scale: float | None) -> dict[str, Any]:
    if scale is None and dtypes.inputs == dtypes.working == dtypes.output:
        return {"kind": "copy", "inputs": tensor.references}
    return _group(tensor, dtypes.working, None, {"name": "passthrough", "scale": scale})


def _group(
    tensor: ResolvedTensor, dtype: str, base: dict[str, Any] | None, method: dict[str, Any]
) -> dict[str, Any]:
    return {
        "kind": "group",
        "dtype": dtype,
        "method": method,
        "base": base,
        "inputs": tensor.references,
    }


def _nuslerp(tensor: ResolvedTensor) -> dict[str, Any]:
    first, second = tensor.of_each("weight")
    total = first + second
    along = "first" if tensor.shared["nuslerp_row_wise"] else "last"
    return {
        "name": "nuslerp",
        "t": 0.5 if abs(total) < SMALLEST_TOTAL else second / total,
        "along": "tensor" if tensor.shared["nuslerp_flatten"] else along,
    }


def _multislerp(tensor: ResolvedTensor) -> dict[str, Any]:
    return {
        "name": "multislerp",
        "weights": tensor.of_each("weight"),
        "normalize": tensor.shared["normalize_weights"],
        "eps": tensor.shared["eps"],
    }


def _same_names(name: str, *options: str) -> Callable[[ResolvedTensor], dict[str, Any]]:
    return lambda tensor: {"name": name, **{key: tensor.shared[key] for key in options}}


GROUP_OPTIONS: dict[str, Callable[[ResolvedTensor], dict[str, Any]]] = {
    "slerp": _same_names("slerp", "t"),
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "model_stock": _same_names("model_stock", "filter_wise"),
    "sce": lambda tensor: {"name": "sce", "density": tensor.shared["select_topk"]},
    "karcher": _same_names("karcher", "max_iter", "tol"),
    "nearswap": _same_names("nearswap", "t"),
    "arcee_fusion": _same_names("arcee_fusion"),
    "ram": _same_names("ram", "epsilon"),
    "ramplus_tl": _same_names("ramplus_tl", "r", "alpha", "epsilon"),
}
