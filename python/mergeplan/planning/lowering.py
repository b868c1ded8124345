"""From one tensor's resolved options to the arithmetic of its job."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

from mergeplan.checkpoints.dtypes import FLOATS, promote
from mergeplan.checkpoints.plan_models import TensorRef
from mergeplan.config.methods import Method, check_epsilon
from mergeplan.planning.document import Copy, Delta, Group, Input, Linear, Merge, Wide
from mergeplan.planning.group_methods import (
    ArceeFusion,
    Custom,
    GroupMethod,
    Karcher,
    ModelStock,
    Multislerp,
    Nearswap,
    Nuslerp,
    Passthrough,
    Ram,
    RamplusTl,
    Sce,
    Slerp,
)

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
    """One merge with every option resolved.

    Attributes:
        name: The output tensor.
        base: What the others are compared with, where the method does so.
        inputs: Label of each other model, for messages, and its tensor.
        shared: Options of the whole merge.
        each: Options of each of `inputs`, in their order.
    """

    name: str
    method: Method
    base: TensorRef | None
    inputs: list[tuple[str, TensorRef]]
    shared: dict[str, Any]
    each: list[dict[str, Any]]

    @property
    def references(self) -> tuple[TensorRef, ...]:
        return tuple(reference for _, reference in self.inputs)

    def of_each(self, option: str) -> list[Any]:
        return [options[option] for options in self.each]


def lower(tensor: ResolvedTensor, dtypes: Dtypes) -> Merge:
    """The arithmetic of one floating-point tensor.

    Raises:
        InputError: An option does not fit another.
    """
    method = tensor.method
    if is_wide(dtypes) and (wide := _wide(tensor, dtypes)) is not None:
        return wide
    if method.family == "linear":
        return Linear(dtypes.working, tensor.shared["normalize"], _with_options(tensor))
    if method.family == "delta":
        return _delta(tensor, dtypes)
    if method.family == "passthrough":
        return _passthrough(tensor, dtypes, tensor.of_each("scale")[0])
    if method.name in ("multislerp", "karcher") and len(tensor.inputs) == 1:
        # A mean of one: mergekit returns it as it is.
        return _passthrough(tensor, dtypes, None)
    how = GROUP_METHODS[method.name](tensor) if method.code is None else _custom(tensor)
    return Group(dtypes.working, how, tensor.base, tensor.references)


def is_wide(dtypes: Dtypes) -> bool:
    """Whether the arithmetic is more than float32's."""
    return dtypes.working not in FLOATS.values()


def sums_alone(method: Method) -> bool:
    """Whether a method does nothing but weighted sums: those are computed in float64 too."""
    plain_deltas = method.family == "delta" and method.sparsify == "none" and not method.consensus
    return method.family in ("linear", "passthrough") or plain_deltas


def _wide(tensor: ResolvedTensor, dtypes: Dtypes) -> Wide | None:
    """The sum in float64; `None` for what is copied."""
    method, shared = tensor.method, tensor.shared
    if not sums_alone(method):
        raise ValueError(f"{method.name} in {dtypes.working}")
    if method.family == "passthrough":
        scale = tensor.of_each("scale")[0]
        if isinstance(_passthrough(tensor, dtypes, scale), Copy):
            return None
        (one,) = tensor.references
        weighted = Input(one.model, one.tensor, 1.0 if scale is None else scale)
        return Wide(None, False, 1.0, (weighted,))
    lambda_ = shared["lambda"] if method.family == "delta" else 1.0
    return Wide(tensor.base, shared["normalize"], lambda_, _with_options(tensor))


def uncopied(merge: Copy, dtypes: Dtypes) -> Group:
    """The same of a tensor that is computed: bytes can be copied from files alone."""
    return Group(dtypes.working, Passthrough(None), None, merge.inputs)


def _delta(tensor: ResolvedTensor, dtypes: Dtypes) -> Delta:
    method, shared = tensor.method, tensor.shared
    if method.sparsify == "ranks":
        for (label, _), options in zip(tensor.inputs, tensor.each, strict=True):
            where = f"model `{label}`, tensor `{tensor.name}`"
            check_epsilon(where, options["density"], options["epsilon"])
    if tensor.base is None:
        raise ValueError(f"{method.name} without a base")
    return Delta(
        dtype=dtypes.working,
        base=tensor.base,
        sparsify=method.sparsify,
        consensus=method.consensus,
        rescale=shared["rescale"],
        normalize=shared["normalize"],
        lambda_=shared["lambda"],
        inputs=_with_options(tensor),
    )


def _with_options(tensor: ResolvedTensor) -> tuple[Input, ...]:
    return tuple(
        Input(reference.model, reference.tensor, **options)
        for (_, reference), options in zip(tensor.inputs, tensor.each, strict=True)
    )


def _passthrough(tensor: ResolvedTensor, dtypes: Dtypes, scale: float | None) -> Copy | Group:
    if scale is None and dtypes.inputs == dtypes.working == dtypes.output:
        return Copy(tensor.references)
    return Group(dtypes.working, Passthrough(scale), None, tensor.references)


def _nuslerp(tensor: ResolvedTensor) -> Nuslerp:
    first, second = tensor.of_each("weight")
    total = first + second
    along = "first" if tensor.shared["nuslerp_row_wise"] else "last"
    return Nuslerp(
        t=0.5 if abs(total) < SMALLEST_TOTAL else second / total,
        along="tensor" if tensor.shared["nuslerp_flatten"] else along,
    )


def _multislerp(tensor: ResolvedTensor) -> Multislerp:
    shared = tensor.shared
    weights = tuple(tensor.of_each("weight"))
    return Multislerp(weights, shared["normalize_weights"], shared["eps"])


def _same_names(kind: type[GroupMethod]) -> Callable[[ResolvedTensor], GroupMethod]:
    names = [field.name for field in fields(kind)]
    return lambda tensor: kind(**{name: tensor.shared[name] for name in names})


def _custom(tensor: ResolvedTensor) -> Custom:
    """A method of the user's own; it is tried before the first tensor of each set of options."""
    from mergeplan.custom.rules import try_method  # numpy comes with it

    method, code = tensor.method, tensor.method.code
    if code is None:
        raise ValueError(f"{method.name} is no method of the user's own")
    each = {key: tensor.of_each(key) for key, one in method.options.items() if one.per_input}
    try_method(method.name, len(tensor.inputs), tensor.base is not None, tensor.shared, each)
    return Custom(
        method.name,
        code.sha256,
        code.by_rows,
        code.has_states,
        code.statistics,
        tuple(each["density"]) if "threshold" in code.statistics else (),
        {"shared": tensor.shared, "each": each},
    )


GROUP_METHODS: dict[str, Callable[[ResolvedTensor], GroupMethod]] = {
    "slerp": _same_names(Slerp),
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "model_stock": _same_names(ModelStock),
    "sce": lambda tensor: Sce(tensor.shared["select_topk"]),
    "karcher": _same_names(Karcher),
    "nearswap": _same_names(Nearswap),
    "arcee_fusion": _same_names(ArceeFusion),
    "ram": _same_names(Ram),
    "ramplus_tl": _same_names(RamplusTl),
}
