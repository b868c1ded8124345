"""How many gradients are held at a time, how large batches are, and what that takes.

Held are float32 copies of what the experts change, one for each domain whose gradient is summed
over batches; the experts are read once for each group of domains that are held together. Beside
them stands what a batch's forward pass leaves for its backward pass, which grows with its tokens,
and what the core takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch

from mergeplan.display.text import format_bytes
from mergeplan.errors import SurroundingsError
from mergeplan.evaluation.scoring import Batch, token_nll
from mergeplan.system.memory import available_bytes

# Of what the system could give, where no limit is named.
_SHARE = 0.5
# Batches of fewer tokens are slower; more gain little on a CPU.
_FEWEST_TOKENS, _MOST_TOKENS = 256, 2048
# Gradients that wait for each other, and the largest one's copy: see `backward`.
_WAITING = 3


@dataclass(frozen=True)
class Needs:
    """What the gradients of one model take, in bytes.

    Attributes:
        gradient: One copy of all that experts change, in float32.
        largest: The largest tensor of it.
        token: What a token of a batch leaves for the backward pass.
        core: What reading the experts takes.
        experts: What one read of base and experts goes over.
    """

    gradient: int
    largest: int
    token: int
    core: int
    experts: int


@dataclass(frozen=True)
class Holding:
    """What is held.

    Attributes:
        at_once: Domains whose gradients are held together.
        each_batch: Whether none is, and the experts are read for every batch.
        batch_tokens: Most tokens of a batch.
        n_reads: How often base and experts are read.
        read_bytes: What those reads go over, in all.
        memory_bytes: Anonymous memory beside the model, at most.
    """

    at_once: int
    each_batch: bool
    batch_tokens: int
    n_reads: int
    read_bytes: int
    memory_bytes: int


def holding(
    needs: Needs,
    tokens: Mapping[str, int],
    longest: int,
    limit: int | None = None,
    sharers: int = 1,
) -> Holding:
    """The fewest reads that memory allows, then the largest batches.

    Args:
        tokens: Of each domain.
        longest: Tokens of the longest window, which is in one batch whatever it takes.
        limit: Bytes of memory beside the model; `None` for half of what the system could give.
        sharers: Processes between which that half is parted.

    Raises:
        SurroundingsError: It does not go into so little.
    """
    if limit is None:
        there = available_bytes()
        limit = int(_SHARE * there / sharers) if there is not None else 1 << 62
    least = max(longest, _FEWEST_TOKENS)
    fixed = needs.core + _WAITING * needs.largest
    free = limit - fixed - least * needs.token
    if free < 0:
        wanted = format_bytes(fixed + least * needs.token)
        raise SurroundingsError(
            f"gradients take {wanted} of memory beside the model, and {format_bytes(limit)} are"
            " allowed",
            "cut the documents by --max-length, or allow more by --memory-limit",
        )
    at_once = min(len(tokens), free // max(needs.gradient, 1))
    each_batch = at_once == 0
    held = at_once * needs.gradient
    most = max(longest, _MOST_TOKENS)
    batch = min(most, (limit - fixed - held) // max(needs.token, 1))
    n_batches = sum(ceil(count / batch) for count in tokens.values())
    n_reads = n_batches if each_batch else ceil(len(tokens) / at_once)
    return Holding(
        max(at_once, 1),
        each_batch,
        batch,
        n_reads,
        n_reads * needs.experts,
        fixed + held + batch * needs.token,
    )


def token_bytes(model: Any, batch: Batch) -> int:
    """What a token leaves for the backward pass, found by a forward pass of one batch.

    Tensors that a node keeps are counted once each, parameters not. The gradient of the logits, and
    that of their softmax, come on top while the backward pass begins. It runs backward to the first
    parameter, so that a model that cannot says so here.

    Raises:
        RuntimeError: It cannot.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in required:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = next(token_nll(model, [batch])).sum()
        floating = next(parameter for parameter, _ in required if parameter.requires_grad)
        torch.autograd.grad(loss, floating, allow_unused=True)
    finally:
        for parameter, before in required:
            parameter.requires_grad_(before)
    vocabulary: int = len(model.get_input_embeddings().weight)
    logits = 2 * 4 * vocabulary
    return int(ceil(sum(kept.values()) / batch.ids.numel()) + logits)
