"""A pool in memory, and its documents cut into halves as `measure_tune` cuts them."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mergeplan.evaluation.loading import load_tokenizer
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.texts import Texts


class InMemory:
    """Base and experts of one size, as one flat vector each.

    Attributes:
        model: Whose parameters are parts of `flat`.
        deltas: Shape (n_experts, n_params).
        sizes: Elements of each parameter, in order.
    """

    def __init__(self, pool, double=False):
        import torch
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        (size,) = pool.sizes
        dtype = torch.float64 if double else torch.float32
        self.model = AutoModelForCausalLM.from_pretrained(size.base, dtype=dtype).eval()
        self.experts = tuple(size.experts)
        self.names = [name for name, _ in self.model.named_parameters()]
        self.sizes = [one.numel() for one in self.model.parameters()]

        def flat(folder):
            tensors = load_file(Path(folder) / "model.safetensors")
            return torch.cat([tensors[name].flatten() for name in self.names]).to(dtype)

        self.base = flat(size.base)
        self.deltas = torch.stack([flat(one) for one in size.experts.values()]) - self.base
        self.flat = self.base.clone()
        parts = self.flat.split(self.sizes)
        for part, parameter in zip(parts, self.model.parameters(), strict=True):
            parameter.data = part.view(parameter.shape)

    def give(self, weights):
        """Let the model be the merge of some weights, shape (n_experts,)."""
        import torch

        merged = self.base + torch.tensor(weights, dtype=self.base.dtype) @ self.deltas
        self.flat.copy_(merged)


def texts_of(pool, **options):
    return Texts.prepare(
        pool.data, load_tokenizer(pool.sizes[0].base), EvaluationOptions(**options)
    )


@contextmanager
def cut(pool, split):
    """The same pool, its documents in halves of their own for each split."""
    with TemporaryDirectory() as name:
        data = {}
        for domain, path in pool.data.items():
            lines = map(json.loads, path.read_text("utf-8").splitlines())
            grouped = [json.dumps({**one, "group": f"{split} {i}"}) for i, one in enumerate(lines)]
            data[domain] = Path(name) / f"{domain}.jsonl"
            data[domain].write_text("\n".join(grouped) + "\n")
        yield replace(pool, data=data)


def halves(pool, split):
    """Numbers of the documents of the half to choose by and of the other, by domain."""
    with cut(pool, split) as found:
        both = [texts_of(found, half=half).domains for half in ("selection", "check")]
    return [{name: np.array(one.lines) for name, one in domains.items()} for domains in both]
