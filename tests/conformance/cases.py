"""Seeded cases for the conformance tests: options, and tensors of every awkward size."""

import random
from dataclasses import dataclass, field
from typing import Any

import torch

TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
DELTA_METHODS = ("task_arithmetic", "ties", "dare_ties", "dare_linear")
METHODS = ("linear", *DELTA_METHODS)
# Scalars, vector widths and their neighbours, one column, one row, empty; more than a chunk.
SHAPES = [(), (0,), (1,), (2,), (15,), (16,), (17,), (48,), (300, 1), (1, 300), (64, 65), (4097,)]


@dataclass(frozen=True)
class Case:
    """One merge of several tensors with the same options."""

    method: str
    dtype: str
    weights: tuple[float, ...]
    densities: tuple[float, ...]
    parameters: dict[str, Any]
    seed: int
    # Values on a coarse grid, so that magnitudes tie and sums vanish.
    ties: bool = False
    base: dict[str, torch.Tensor] = field(default_factory=dict, compare=False)
    experts: tuple[dict[str, torch.Tensor], ...] = field(default=(), compare=False)

    @property
    def per_model(self) -> list[dict[str, Any]]:
        if self.method == "linear":
            return [{"weight": weight} for weight in self.weights]
        pairs = zip(self.weights, self.densities, strict=True)
        return [{"weight": weight, "density": density} for weight, density in pairs]

    @property
    def class_a(self) -> bool:
        """Whether the merge equals mergekit's to the bit, up to the order of five or more terms."""
        random_mask = self.method.startswith("dare") and any(0 < d < 1 for d in self.densities)
        return not random_mask and not self.parameters.get("rescale", False)

    def __str__(self) -> str:
        k = len(self.weights)
        options = ",".join(f"{key}={value}" for key, value in self.parameters.items())
        ties = "-ties" if self.ties else ""
        return f"{self.method}-{self.dtype}-k{k}-{options}{ties}-{self.seed}"


def make_case(seed: int, method: str, dtype: str, k: int, ties: bool, rescale: bool) -> Case:
    """A case drawn with `seed`."""
    choose = random.Random(f"{seed}-{method}-{dtype}-{k}-{ties}-{rescale}")
    # With five terms and more, torch's order of summation differs: no cancellation there, so that
    # the difference stays within some units of the last place.
    factors = [1.0, 0.3, 0.5, -0.4, 1.7, 0.0] if k <= 4 else [1.0, 0.3, 0.5, 0.4, 1.7, 0.0]
    weights = tuple(choose.choice(factors) for _ in range(k))
    densities = tuple(choose.choice([0.0, 0.1, 0.2, 0.5, 0.77, 1.0]) for _ in range(k))
    parameters: dict[str, Any] = {"normalize": choose.random() < 0.6}
    if abs(sum(weights)) < 0.2:
        # mergekit divides by zero: refused for linear, and for float16 it gives NaN where the other
        # dtypes give the base (its 1e-8 is zero in float16).
        parameters["normalize"] = False
    if method != "linear":
        parameters |= {"lambda": choose.choice([1.0, 0.5, 1.3]), "rescale": rescale}
        parameters["int8_mask"] = choose.random() < 0.3
    generator = torch.Generator().manual_seed(choose.randrange(2**31))

    def tensor(shape: tuple[int, ...], scale: float) -> torch.Tensor:
        values = torch.randn(shape, generator=generator) * scale
        return (values / scale).round() * scale if ties else values

    base = {f"t{i}": tensor(shape, 0.02) for i, shape in enumerate(SHAPES)}
    experts = []
    for _ in range(k):
        moved = {name: value + tensor(tuple(value.shape), 0.004) for name, value in base.items()}
        experts.append({name: value.to(TORCH_DTYPES[dtype]) for name, value in moved.items()})
    base = {name: value.to(TORCH_DTYPES[dtype]) for name, value in base.items()}
    return Case(method, dtype, weights, densities, parameters, seed, ties, base, tuple(experts))


def all_cases(rounds: int) -> list[Case]:
    """Every method and dtype, with one to six experts, with and without ties and rescaling."""
    found = []
    for seed in range(rounds):
        for method in METHODS:
            for dtype in TORCH_DTYPES:
                for k in range(1, 7):
                    ties = (seed + k) % 2 == 0
                    rescale = method != "linear" and (seed + k) % 3 == 0
                    found.append(make_case(seed, method, dtype, k, ties, rescale))
    return found
