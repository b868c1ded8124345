"""From one tensor's resolved options to the arithmetic of its job: the `merge` of the plan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mergeplan.config import MergeConfig, ModelInput
from mergeplan.errors import InputError
from mergeplan.settings import resolve

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


@dataclass(frozen=True)
class _Tensor:
    """The inputs of one merge, each as `{"model": index, "tensor": name}`."""

    name: str
    depth: float
    config: MergeConfig
    base: dict[str, Any] | None
    inputs: list[tuple[ModelInput, dict[str, Any]]]

    def option(self, name: str) -> Any:
        return resolve(self.config, name, self.name, self.depth)

    def each(self, name: str) -> list[Any]:
        """An option of every input, in the order of the config."""
        return [
            resolve(self.config, name, self.name, self.depth, model) for model, _ in self.inputs
        ]

    @property
    def references(self) -> list[dict[str, Any]]:
        return [reference for _, reference in self.inputs]


def lower(
    config: MergeConfig, name: str, inputs: tuple[str, ...], dtypes: Dtypes, depth: float
) -> dict[str, Any]:
    """The arithmetic of one floating-point tensor, as `rust/core/src/plan.rs` reads it.

    Args:
        name: The output tensor.
        inputs: Its name in each model.
        depth: Its place along gradients, in [0, 1].

    Raises:
        InputError: An option is missing, or does not fit another.
    """
    base = None
    others = []
    for number, (model, tensor) in enumerate(zip(config.models, inputs, strict=True)):
        reference = {"model": number, "tensor": tensor}
        if model.path == config.compared_with:
            base = reference
        else:
            others.append((model, reference))
    tensor_ = _Tensor(name, depth, config, base, others)
    family = config.method.family
    if family == "linear":
        return _linear(tensor_, dtypes)
    if family == "delta":
        return _delta(tensor_, dtypes)
    if family == "passthrough":
        return _passthrough(tensor_, dtypes, tensor_.each("scale")[0])
    if config.method.name in ("multislerp", "karcher") and len(others) == 1:
        # A mean of one: mergekit returns it as it is.
        return _passthrough(tensor_, dtypes, None)
    return _group(tensor_, dtypes.working, base, GROUP_OPTIONS[config.method.name](tensor_))


def _linear(tensor: _Tensor, dtypes: Dtypes) -> dict[str, Any]:
    return {
        "kind": "linear",
        "dtype": dtypes.working,
        "normalize": tensor.option("normalize"),
        "inputs": _with_options(tensor),
    }


def _delta(tensor: _Tensor, dtypes: Dtypes) -> dict[str, Any]:
    method = tensor.config.method
    inputs = _with_options(tensor)
    if method.sparsify == "ranks":
        for (model, _), entry in zip(tensor.inputs, inputs, strict=True):
            _check_epsilon(model, tensor.name, entry["density"], entry["epsilon"])
    return {
        "kind": "delta",
        "dtype": dtypes.working,
        "base": tensor.base,
        "sparsify": method.sparsify,
        "consensus": method.consensus,
        "rescale": tensor.option("rescale"),
        "normalize": tensor.option("normalize"),
        "lambda": tensor.option("lambda"),
        "inputs": inputs,
    }


def _with_options(tensor: _Tensor) -> list[dict[str, Any]]:
    entries = [dict(reference) for reference in tensor.references]
    for key, option in tensor.config.method.options.items():
        if option.per_input:
            for entry, value in zip(entries, tensor.each(key), strict=True):
                entry[key] = value
    return entries


def _check_epsilon(model: ModelInput, tensor: str, density: float, epsilon: float) -> None:
    """DELLA keeps elements with probabilities from density - epsilon to density + epsilon."""
    if not 0 < density < 1 or (density + epsilon < 1 and density - epsilon > 0):
        return
    raise InputError(
        f"model `{model.path}`, tensor `{tensor}`: expected `density` - `epsilon` and `density` +"
        f" `epsilon` between 0 and 1, found density {density:g} and epsilon {epsilon:g}",
        f"take an `epsilon` below {min(density, 1 - density):g}, or a density of 0 or 1",
    )


def _passthrough(tensor: _Tensor, dtypes: Dtypes, scale: float | None) -> dict[str, Any]:
    if scale is None and dtypes.inputs == dtypes.working == dtypes.output:
        return {"kind": "copy", "inputs": tensor.references}
    return _group(tensor, dtypes.working, None, {"name": "passthrough", "scale": scale})


def _group(
    tensor: _Tensor, dtype: str, base: dict[str, Any] | None, method: dict[str, Any]
) -> dict[str, Any]:
    return {
        "kind": "group",
        "dtype": dtype,
        "method": method,
        "base": base,
        "inputs": tensor.references,
    }


def _nuslerp(tensor: _Tensor) -> dict[str, Any]:
    first, second = tensor.each("weight")
    total = first + second
    along = "first" if tensor.option("nuslerp_row_wise") else "last"
    return {
        "name": "nuslerp",
        "t": 0.5 if abs(total) < SMALLEST_TOTAL else second / total,
        "along": "tensor" if tensor.option("nuslerp_flatten") else along,
    }


def _multislerp(tensor: _Tensor) -> dict[str, Any]:
    return {
        "name": "multislerp",
        "weights": tensor.each("weight"),
        "normalize": tensor.option("normalize_weights"),
        "eps": tensor.option("eps"),
    }


def _same_names(name: str, *options: str) -> Callable[[_Tensor], dict[str, Any]]:
    return lambda tensor: {"name": name, **{key: tensor.option(key) for key in options}}


GROUP_OPTIONS: dict[str, Callable[[_Tensor], dict[str, Any]]] = {
    "slerp": _same_names("slerp", "t"),
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "model_stock": _same_names("model_stock", "filter_wise"),
    "sce": lambda tensor: {"name": "sce", "density": tensor.option("select_topk")},
    "karcher": _same_names("karcher", "max_iter", "tol"),
    "nearswap": _same_names("nearswap", "t"),
    "arcee_fusion": _same_names("arcee_fusion"),
    "ram": _same_names("ram", "epsilon"),
    "ramplus_tl": _same_names("ramplus_tl", "r", "alpha", "epsilon"),
}
