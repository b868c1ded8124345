"""Forward passes: the negative log-likelihood of every scored token.

Windows of like length share a batch and are padded on the right. No attention mask is passed: a
causal model sees nothing to the right of a token, so padding cannot reach what is scored, and
attention without a mask takes the fast kernels. A window's last token is scored and never fed.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Elements of logits that are in float32 at once: 64 MB, whatever the vocabulary.
_FLOAT32_AT_ONCE = 1 << 24
# Tokens in a batch. On a CPU more gains little and takes memory for logits; the GPU's number is not
# measured.
_CPU_TOKENS, _GPU_TOKENS = 2048, 16384


@dataclass(frozen=True)
class Window:
    """Tokens of one document, and which of them are scored; never the first."""

    document: int
    ids: NDArray[np.int32]  # (tokens,)
    scored: NDArray[np.int64]  # (tokens scored,): places in `ids`


@dataclass(frozen=True)
class Batch:
    """Windows as tensors on a device.

    Attributes:
        keep: Logits are needed of the last `keep` positions only.
        places: Where the scored tokens' logits are among those kept, rows and positions flattened.
    """

    ids: torch.Tensor  # (rows, width)
    keep: int
    places: torch.Tensor  # (tokens scored,)
    targets: torch.Tensor  # (tokens scored,)
    documents: NDArray[np.int64]  # (tokens scored,)


def make_batches(
    windows: Sequence[Window], device: torch.device, batch_tokens: int | None
) -> list[Batch]:
    """Group windows by length; the longest come first, so that memory runs out early or never.

    Args:
        batch_tokens: Most tokens of a batch, padding included; a longer window is a batch of its
            own. `None` for what suits the device.
    """
    most = batch_tokens or (_CPU_TOKENS if device.type == "cpu" else _GPU_TOKENS)
    rows = sorted(windows, key=lambda window: -len(window.ids))
    batches = []
    start = 0
    while start < len(rows):
        width = len(rows[start].ids) - 1
        end = start + max(1, most // width)
        batches.append(_batch(rows[start:end], device))
        start = end
    return batches


def _batch(rows: Sequence[Window], device: torch.device) -> Batch:
    width = len(rows[0].ids) - 1
    first = min(int(row.scored[0]) for row in rows) - 1
    ids = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids) - 1] = row.ids[:-1]
        # Kernels multiply what they may not see by zero: were padding a token whose embedding is
        # not finite, NaN would come of that.
        ids[number, len(row.ids) - 1 :] = row.ids[-2]
    keep = width - first
    # The logits at a place are about the token after it.
    places = [row.scored - 1 - first + number * keep for number, row in enumerate(rows)]
    targets = [row.ids[row.scored].astype(np.int64) for row in rows]
    documents = [np.full(len(row.scored), row.document, np.int64) for row in rows]
    return Batch(
        torch.from_numpy(ids).to(device),
        keep,
        torch.from_numpy(np.concatenate(places)).to(device),
        torch.from_numpy(np.concatenate(targets)).to(device),
        np.concatenate(documents),
    )


def score_batches(
    model: Any, batches: list[Batch], n_documents: int, progress: Callable[[int, int], None] | None
) -> NDArray[np.float64]:
    """Sum the negative log-likelihood of each document's scored tokens, in nats, in float64.

    Args:
        progress: Called with the tokens scored so far, and all of them.
    """
    total = sum(len(batch.documents) for batch in batches)
    done = 0
    found = []
    trained, _ = model.training, model.eval()
    try:
        with torch.inference_mode():
            for batch, nll in zip(batches, token_nll(model, batches), strict=True):
                found.append(nll)
                done += len(batch.documents)
                if progress is not None:
                    progress(done, total)
            nll = torch.cat(found).cpu().double().numpy()  # (tokens scored,)
    finally:
        model.train(trained)
    documents = np.concatenate([batch.documents for batch in batches])  # (tokens scored,)
    sums = np.bincount(documents, weights=nll, minlength=n_documents)
    return np.asarray(sums, np.float64)  # (documents,)


def token_nll(model: Any, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
    """The negative log-likelihood of each scored token of each batch, in nats, float32.

    With gradients where torch is recording them.
    """
    # Most architectures can leave out the logits of a long prompt.
    can_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
    for batch in batches:
        width = batch.ids.shape[1]
        if can_keep and batch.keep < width:
            logits = model(input_ids=batch.ids, use_cache=False, logits_to_keep=batch.keep).logits
        else:
            logits = model(input_ids=batch.ids, use_cache=False).logits[:, width - batch.keep :]
        yield _nll(logits.flatten(0, 1), batch.places, batch.targets)


def _nll(logits: torch.Tensor, places: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in float32, some tokens at a time; logits are (places, vocabulary)."""
    at_once = max(1, _FLOAT32_AT_ONCE // logits.shape[1])
    parts = [
        torch.nn.functional.cross_entropy(logits[some].float(), wanted, reduction="none")
        for some, wanted in zip(places.split(at_once), targets.split(at_once), strict=True)
    ]
    return torch.cat(parts)
