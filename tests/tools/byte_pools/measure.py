"""Losses of averages, merged and scored in memory, each once: what was measured is kept."""

import csv
import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mergeplan.pool.pool import load_pool
from tests.tools.byte_pools.model import PAD

Subset = tuple[str, ...]
_COLUMNS = ("method", "n_params", "k", "subset", "domain", "loss_nats")


class Judge:
    """Scores averages of a pool's experts on held-out text.

    Args:
        pool: A `pool.yml`.
        cache: A table of measurements, which grows.
        experts: Only the first so many, on the texts of those of their names that name a domain.
        documents: Of each domain.
    """

    def __init__(
        self, pool: Path, cache: Path, *, experts: int | None = None, documents: int | None = None
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        found = load_pool(pool)
        folders = dict(islice(found.sizes[0].experts.items(), experts))
        self.names = tuple(sorted(folders))
        self._model = AutoModelForCausalLM.from_pretrained(found.sizes[0].base).eval()
        self._base, self._flat = _in_one(self._model)
        self._experts = torch.stack([self._weights_of(folders[name]) for name in self.names])
        domains = [name for name in found.data if name in folders]
        self._domains = [_tokens(found.data[name], documents) for name in domains]
        self._cache = cache
        self.known = _read(cache) if cache.exists() else {}

    def loss(self, subset: Iterable[str]) -> float:
        """Mean over domains of the mean loss of a byte, in nats; of no expert, the base's."""
        key = tuple(sorted(subset))
        if key not in self.known:
            self.known[key] = self._measured(key)
            _append(self._cache, key, self.known[key], len(self._flat))
        return self.known[key]

    def _measured(self, subset: Subset) -> float:
        import torch

        places = [self.names.index(name) for name in subset]
        with torch.inference_mode():
            merged = self._experts[places].mean(0) if places else self._base
            self._flat.copy_(merged)
            return float(np.mean([_loss(self._model, tokens) for tokens in self._domains]))

    def _weights_of(self, folder: Path) -> Any:
        import torch
        from safetensors.torch import load_file

        tensors = load_file(folder / "model.safetensors")
        return torch.cat([tensors[name].flatten() for name, _ in self._model.named_parameters()])


def random_subsets(names: Sequence[str], count: int, seed: int) -> list[Subset]:
    """Of 2 experts up to all but one, of each k alike, none twice."""
    rng = np.random.default_rng([seed, len(names)])
    found: dict[Subset, None] = {}
    turn = 0
    while len(found) < count:
        k = 2 + turn % (len(names) - 2)
        turn += 1
        found[tuple(sorted(rng.choice(names, k, replace=False).tolist()))] = None
    return list(found)


def _in_one(model: Any) -> tuple[Any, Any]:
    """A copy of all weights, and the vector of which the model's own are now views."""
    import torch

    flat = torch.cat([one.detach().flatten() for one in model.parameters()])
    at = 0
    for one in model.parameters():
        one.data = flat[at : at + one.numel()].view_as(one)
        at += one.numel()
    return flat.clone(), flat


def _tokens(path: Path, documents: int | None) -> Any:
    """Documents of bytes, shape (n, longest), padded on the right."""
    import torch

    lines = islice(path.read_text("utf-8").splitlines(), documents)
    rows = [list(json.loads(line)["text"].encode()) for line in lines]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def _loss(model: Any, tokens: Any) -> float:
    """Padding comes last and is not scored, so that nothing scored sees it."""
    import torch

    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return float(
        torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD
        )
    )


def _read(path: Path) -> dict[Subset, float]:
    with path.open(newline="", encoding="utf-8") as file:
        return {
            tuple(filter(None, row["subset"].split("+"))): float(row["loss_nats"])
            for row in csv.DictReader(file)
        }


def _append(path: Path, subset: Subset, loss: float, n_params: int) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(_COLUMNS)
        row = ("average", n_params, len(subset), "+".join(subset), "macro", f"{loss:.6f}")
        writer.writerow(row)
