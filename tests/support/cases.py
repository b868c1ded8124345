"""Seeded cases for the conformance tests: options, and tensors of every awkward size."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from mergeplan.config.methods import METHODS, Method

Tensors = dict[str, torch.Tensor]
TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
RANDOM_METHODS = ("dare_ties", "dare_linear", "della", "della_linear")
# Scalars, vector widths and their neighbours, one column, one row, empty, three dimensions; more
# than a chunk.
SHAPES = [(), (0,), (1,), (2,), (15,), (16,), (17,), (48,), (300, 1), (1, 300), (64, 65), (4097,)]
SHAPES += [(3, 5, 7)]


@dataclass(frozen=True)
class Case:
    """One merge of several tensors with the same options.

    Attributes:
        k: Number of experts.
        per_input: Options of the experts, each with as many values.
        parameters: Options of the whole merge.
        based: Whether there is a base.
        make: Makes the tensors of the base, or none, and of the experts. They are made when they
            are asked for, since every test process lists all cases.
        ties: Whether values lie on a coarse grid, so that magnitudes tie and sums vanish.
    """

    method: str
    dtype: str
    k: int
    per_input: dict[str, tuple[float, ...]]
    parameters: dict[str, Any]
    seed: int
    based: bool
    make: Callable[[], tuple[Tensors, tuple[Tensors, ...]]] = field(compare=False)
    ties: bool = False

    @property
    def base(self) -> Tensors:
        return self._tensors[0]

    @property
    def experts(self) -> tuple[Tensors, ...]:
        return self._tensors[1]

    @cached_property
    def _tensors(self) -> tuple[Tensors, tuple[Tensors, ...]]:
        return self.make()

    @property
    def weights(self) -> tuple[float, ...]:
        return self.per_input.get("weight", (1.0,) * self.k)

    @property
    def densities(self) -> tuple[float, ...]:
        return self.per_input.get("density", (1.0,) * self.k)

    @property
    def per_model(self) -> list[dict[str, Any]]:
        return [{key: values[i] for key, values in self.per_input.items()} for i in range(self.k)]

    @property
    def info(self) -> Method:
        return METHODS[self.method]

    @property
    def random_mask(self) -> bool:
        """Whether chance decides what is kept."""
        return self.method in RANDOM_METHODS and any(0 < d < 1 for d in self.densities)

    @property
    def class_a(self) -> bool:
        """Whether the merge equals mergekit's to the bit, up to the order of five or more terms."""
        if self.info.family == "group":
            return False
        return not self.random_mask and not self.parameters.get("rescale", False)

    @property
    def group(self) -> bool:
        """Whether the method treats the tensor as a whole (class B)."""
        return self.info.family == "group"

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.parameters.items())
        ties = "-ties" if self.ties else ""
        based = "" if self.info.base != "optional" else "-based" if self.based else "-baseless"
        return f"{self.method}{based}-{self.dtype}-k{self.k}-{options}{ties}-{self.seed}"


def make_case(seed: int, method: str, dtype: str, k: int, ties: bool, rescale: bool) -> Case:
    """A case drawn with `seed`."""
    choose = random.Random(f"{seed}-{method}-{dtype}-{k}-{ties}-{rescale}")
    info = METHODS[method]
    based = info.base == "required" or (info.base == "optional" and choose.random() < 0.5)
    per_input = _per_input(method, k, choose)
    parameters = _parameters(method, per_input, rescale, choose)
    tensor_seed = choose.randrange(2**31)

    def make() -> tuple[Tensors, tuple[Tensors, ...]]:
        generator = torch.Generator().manual_seed(tensor_seed)

        def tensor(shape: tuple[int, ...], scale: float) -> torch.Tensor:
            values = torch.randn(shape, generator=generator) * scale
            return (values / scale).round() * scale if ties else values

        def stored(tensors: Tensors) -> Tensors:
            return {name: value.to(TORCH_DTYPES[dtype]) for name, value in tensors.items()}

        base = {f"t{i}": tensor(shape, 0.02) for i, shape in enumerate(_shapes(method, k))}
        experts = [
            {name: v + tensor(tuple(v.shape), 0.004) for name, v in base.items()} for _ in range(k)
        ]
        return stored(base) if based else {}, tuple(map(stored, experts))

    return Case(method, dtype, k, per_input, parameters, seed, based, make, ties)


def _shapes(method: str, k: int) -> list[tuple[int, ...]]:
    if method == "multislerp" and k > 2:
        # One or two elements have few directions, which then may cancel: that is refused.
        return [shape for shape in SHAPES if math.prod(shape) not in (1, 2)]
    return SHAPES


def _per_input(method: str, k: int, choose: random.Random) -> dict[str, tuple[float, ...]]:
    # With five terms and more, torch's order of summation differs: no cancellation there, so that
    # the difference stays within some units of the last place.
    factors = [1.0, 0.3, 0.5, -0.4, 1.7, 0.0] if k <= 4 else [1.0, 0.3, 0.5, 0.4, 1.7, 0.0]
    if method == "multislerp":
        # Directions must not cancel.
        factors = [1.0, 0.3, 0.5, 1.7]
    if method == "nuslerp":
        # Weights of both signs extrapolate, and errors of the angle with them.
        factors = [1.0, 0.3, 0.5, 1.7, 0.0]
    values = {
        "weight": factors,
        "density": [0.0, 0.1, 0.2, 0.5, 0.77, 1.0],
        "gamma": [0.0, 0.01, 0.1, 0.4, 0.95],
        "epsilon": [0.0, 0.05, 0.09],
        "scale": [0.3, 1.0, -2.0, 0.0],
    }
    per_input = {
        key: tuple(choose.choice(values[key]) for _ in range(k))
        for key, option in METHODS[method].options.items()
        if option.per_input
    }
    if method == "passthrough" and choose.random() < 0.3:
        del per_input["scale"]
    return per_input


def _parameters(
    method: str, per_input: dict[str, tuple[float, ...]], rescale: bool, choose: random.Random
) -> dict[str, Any]:
    options = METHODS[method].options
    values: dict[str, list[Any]] = {
        "normalize": [True, True, False],
        "lambda": [1.0, 0.5, 1.3],
        "rescale": [rescale],
        "int8_mask": [False, True],
        "t": [0.0, 0.0003, 0.002] if method == "nearswap" else [0.0, 0.3, 0.5, 0.77, 1.0, 1.2],
        "nuslerp_row_wise": [False, True],
        "nuslerp_flatten": [True, False, False],
        "normalize_weights": [True, False],
        "eps": [1e-8, 1e-4],
        "filter_wise": [False, True],
        "select_topk": [0.0, 0.1, 0.29, 0.5, 1.0],
        "max_iter": [0, 1, 10],
        "tol": [1e-5, 1e-3],
        "epsilon": [1e-5, 1e-3, 0.004],
        "r": [0.1, 0.5],
        "alpha": [0.2, 1.0, 3.0],
    }
    found = {key: choose.choice(values[key]) for key, o in options.items() if not o.per_input}
    if "normalize" in found and abs(sum(per_input["weight"])) < 0.2:
        # mergekit divides by zero: refused for linear, and for float16 it gives NaN where the other
        # dtypes give the base (its 1e-8 is zero in float16).
        found["normalize"] = False
    return found


def all_cases(rounds: int) -> list[Case]:
    """Every method and dtype, with one to six experts, with and without ties and rescaling.

    Args:
        rounds: How often; 0 for a third of a round, in which each number of experts has one dtype.
    """
    found = []
    for seed in range(rounds or 1):
        for method, info in METHODS.items():
            most = 6 if info.max_inputs is None else info.max_inputs
            counts = range(max(1, info.min_inputs), most + 1)
            for number, dtype in enumerate(TORCH_DTYPES):
                for k in counts:
                    if rounds == 0 and len(counts) > 2 and (k + number) % 3:
                        continue
                    ties = (seed + k) % 2 == 0
                    rescale = info.family == "delta" and (seed // 2 + (k - 1) // 3) % 2 == 0
                    found.append(make_case(seed, method, dtype, k, ties, rescale))
    return found
