"""A base on all kinds of text, and one expert on each."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tools.byte_pools.kinds import SECOND, experts_of
from tests.tools.byte_pools.model import END, new_model, save

_LENGTH = 128


@dataclass(frozen=True)
class Recipe:
    """How a pool is trained.

    Attributes:
        over: The expert that is over-trained, for `over_steps`; empty for none.
    """

    experts: int = 18
    batch: int = 16
    base_steps: int = 800
    base_rate: float = 4e-3
    steps: int = 120
    rate: float = 1e-3
    over: str = "python"
    over_steps: int = 800
    seed: int = 0


def train(texts: Path, out: Path, recipe: Recipe) -> None:
    """Train what is missing in OUT: base, experts, pool.yml with the texts it is judged on."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    kinds = experts_of(recipe.experts)
    if recipe.over and recipe.over not in kinds:
        raise SystemExit(f"error: no expert `{recipe.over}` to over-train")
    if not (out / "base").exists():
        torch.manual_seed(recipe.seed)
        every = [_stream(texts, kind) for kind in dict.fromkeys(kinds.values())]
        steps, rate = recipe.base_steps, recipe.base_rate
        _fit(new_model(), every, recipe.batch, steps, rate, recipe.seed, out / "base")
    for number, (name, kind) in enumerate(kinds.items(), recipe.seed + 1):
        if not (out / name).exists():
            model = AutoModelForCausalLM.from_pretrained(out / "base")
            half = None if kind not in SECOND else name != kind
            steps = recipe.over_steps if name == recipe.over else recipe.steps
            own = [_stream(texts, kind, half)]
            _fit(model, own, recipe.batch, steps, recipe.rate, number, out / name)
    _write_pool(texts, out, kinds)


def _stream(texts: Path, kind: str, half: bool | None = None) -> Any:
    """A kind's bytes as tokens, shape (n,), of all packages or of one half of them in size."""
    import torch

    by_package: dict[str, list[str]] = {}
    for line in (texts / "train" / f"{kind}.jsonl").read_text("utf-8").splitlines():
        document = json.loads(line)
        by_package.setdefault(document["group"], []).append(document["text"])
    ordered = sorted(by_package.values(), key=len)
    chosen = ordered if half is None else ordered[half::2]
    tokens = [t for package in chosen for text in package for t in (*text.encode(), END)]
    return torch.tensor(tokens)


def _fit(
    model: Any, streams: list[Any], batch: int, steps: int, rate: float, seed: int, out: Path
) -> None:
    """AdamW on windows from all streams in turn; a base's rate, of many streams, is annealed."""
    import torch

    begun = time.process_time()
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    window = torch.arange(_LENGTH + 1)
    model.train()
    for step in range(steps):
        rows = []
        for row in range(batch):
            stream = streams[(step * batch + row) % len(streams)]
            at = torch.randint(len(stream) - _LENGTH, (1,), generator=draw)
            rows.append(stream[at + window])
        tokens = torch.stack(rows)  # (batch, length + 1)
        logits = model(input_ids=tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if len(streams) > 1:
            falls.step()
    save(model, out)
    seconds = time.process_time() - begun
    print(f"{out.name:9} {steps} steps, {seconds:.0f} CPU seconds, loss {loss:.3f}", flush=True)


def _write_pool(texts: Path, out: Path, kinds: Mapping[str, str]) -> None:
    """JSON, which is YAML too."""
    data = {
        kind: os.path.relpath(texts / "eval" / f"{kind}.jsonl", out)
        for kind in dict.fromkeys(kinds.values())
    }
    sizes = [{"base": "base", "experts": {name: name for name in kinds}}]
    pool = {"sizes": sizes, "data": data, "methods": {"average": {}}}
    (out / "pool.yml").write_text(json.dumps(pool, indent=1) + "\n", "utf-8")
