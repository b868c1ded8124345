"""Losses and their slopes by the experts' weights, by plain autograd."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mergeplan.evaluation.document_choice import choose
from mergeplan.evaluation.documents import read_documents
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.pool.pool import load_pool


@dataclass
class Merges:
    """What was measured, kept in a file.

    Attributes:
        losses: By weights, shape (n_domains,).
        slopes: By weights, shape (n_domains, n_experts), in nats per unit of weight.
    """

    path: Path
    experts: tuple[str, ...]
    domains: tuple[str, ...]
    losses: dict[tuple, np.ndarray] = field(default_factory=dict)
    slopes: dict[tuple, np.ndarray] = field(default_factory=dict)

    @classmethod
    def load(cls, path):
        with np.load(path) as file:
            found = cls(path, tuple(file["experts"].tolist()), tuple(file["domains"].tolist()))
            for kind in ("losses", "slopes"):
                keys = map(tuple, file[f"{kind}_at"].tolist())
                setattr(found, kind, dict(zip(keys, file[kind], strict=True)))
        return found

    def save(self):
        arrays = {"experts": np.array(self.experts), "domains": np.array(self.domains)}
        for kind in ("losses", "slopes"):
            some = getattr(self, kind)
            arrays[f"{kind}_at"] = np.array(list(some)).reshape(-1, len(self.experts))
            arrays[kind] = np.array(list(some.values()))
        np.savez(self.path, **arrays)


class Oracle:
    """A pool's experts and texts in memory.

    Args:
        pool: A `pool.yml` of one size.
        max_tokens: As `calibrate` has it.
        double: Whether to compute in float64.
    """

    def __init__(self, pool: Path, max_tokens: int | None = None, double: bool = False):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        found = load_pool(pool)
        (size,) = found.sizes
        dtype = torch.float64 if double else torch.float32
        self.model = AutoModelForCausalLM.from_pretrained(size.base, dtype=dtype).eval()
        self.experts = tuple(sorted(size.experts))
        self.shapes = [(name, one.shape) for name, one in self.model.named_parameters()]
        self.base = self._flat(size.base)
        each = [self._flat(size.experts[name]) for name in self.experts]
        self.deltas = torch.stack(each) - self.base  # (n_experts, n_params)
        tokenizer = AutoTokenizer.from_pretrained(size.base)
        options = EvaluationOptions(max_tokens=max_tokens)
        self.texts = {
            name: self._padded(choose(read_documents(path), tokenizer, options)[0])
            for name, path in sorted(found.data.items())
        }

    def loss(self, weights: Iterable[float]) -> np.ndarray:
        """Of every domain, shape (n_domains,)."""
        import torch

        with torch.inference_mode():
            merged = self._merged(weights)
            return np.array([float(self._loss(merged, *text)) for text in self.texts.values()])

    def slopes(self, weights: Iterable[float]) -> np.ndarray:
        """Of every domain by every expert's weight, shape (n_domains, n_experts)."""
        import torch

        rows = []
        for text in self.texts.values():
            merged = self._merged(weights).requires_grad_()
            (gradient,) = torch.autograd.grad(self._loss(merged, *text), merged)
            rows.append((self.deltas.double() @ gradient.double()).numpy())
        return np.array(rows)

    def _merged(self, weights):
        import torch

        return self.base + torch.tensor(weights, dtype=self.base.dtype) @ self.deltas

    def _loss(self, merged, ids, scored):
        import torch

        sizes = [shape.numel() for _, shape in self.shapes]
        parts = merged.split(sizes)
        named = {n: part.view(s) for (n, s), part in zip(self.shapes, parts, strict=True)}
        call = {"input_ids": ids[:, :-1], "use_cache": False}
        logits = torch.func.functional_call(self.model, named, kwargs=call).logits
        lost = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), ids[:, 1:], reduction="none"
        )
        return (lost.double() * scored).sum() / scored.sum()

    def _flat(self, folder):
        import torch
        from safetensors.torch import load_file

        tensors = load_file(Path(folder) / "model.safetensors")
        flat = torch.cat([tensors[name].flatten() for name, _ in self.shapes])
        return flat.to(self.model.dtype)

    @staticmethod
    def _padded(documents):
        """Ids and what is scored of them; padding comes last, so that nothing scored sees it."""
        import torch

        rows = [sequence for document in documents for sequence in document.sequences]
        longest = max(len(row.ids) for row in rows)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        scored = torch.zeros((len(rows), longest - 1), dtype=torch.float64)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)] = torch.tensor(row.ids)
            scored[place, : len(row.ids) - 1] = torch.tensor(row.scored[1:] * 1.0)
        return ids, scored
