"""Losses of one loaded merge on texts, and how they move with the experts' weights."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.evaluation.scores import Scores
from mergeplan.evaluation.scoring import Batch, token_nll
from mergeplan.evaluation.texts import Texts
from mergeplan.gradients.backward import Backward
from mergeplan.gradients.memory import Holding, Needs, holding, token_bytes
from mergeplan.merging.slopes import Slopes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A merge's losses and their slopes.

    Attributes:
        scores: Of every document, by the same forward passes.
        slopes: By domain, shape (n_tensors, n_slopes): nats per token for one more of an expert's
            weight, and behind these of lambda where `Slopes` has it; what each tensor adds to it.
    """

    scores: Scores
    slopes: dict[str, Array]

    def whole(self) -> dict[str, Array]:
        """Of the whole model, shape (n_slopes,)."""
        return {name: slopes.sum(0) for name, slopes in self.slopes.items()}


class Meter:
    """One loaded model, texts, and the experts whose weights its losses depend on.

    Args:
        model: A causal language model of transformers; merges into it may follow each other.
        texts: What it is scored on.
        slopes: The experts.
        memory_limit: Bytes of anonymous memory that gradients may take beside the model; `None`
            for half of what the system could give.
        sharers: Processes between which that half is parted.

    Attributes:
        holding: How gradients are held, and what they take; known before any backward pass.

    Raises:
        InputError: The model cannot run backward, or the experts do not fit it.
        SurroundingsError: Gradients do not go into the memory.
    """

    def __init__(
        self,
        model: Any,
        texts: Texts,
        slopes: Slopes,
        *,
        memory_limit: int | None = None,
        sharers: int = 1,
    ) -> None:
        texts.check(model)
        _refuse_not_float(model)
        self._model, self._texts = model, texts
        self._backward = Backward(model, slopes)
        self._counts = {name: int(domain.n_tokens.sum()) for name, domain in texts.domains.items()}
        sizes = [job.n_elements for job in slopes.jobs]
        self.holding: Holding = holding(
            Needs(
                gradient=4 * sum(sizes),
                largest=4 * max(sizes),
                token=_token_bytes(model, texts.longest_batch(model.device)),
                core=slopes.memory_bytes,
                experts=slopes.n_bytes,
            ),
            self._counts,
            texts.longest,
            memory_limit,
            sharers,
        )
        self._batches = texts.batches_by_domain(
            model.device, batch_tokens=self.holding.batch_tokens
        )

    def measure(
        self, domains: Collection[str] | None = None, slopes: Slopes | None = None
    ) -> Measured:
        """Losses and slopes of what the model holds now.

        Args:
            domains: Whose; what each has does not depend on which others have it measured. The
                scores of the others are 0. `None` for all.
            slopes: Of the same experts at the merge's own weights, where these count: where signs
                are elected, and along lambda.

        Raises:
            InputError: The model gives losses that are not finite, or inputs changed.
        """
        nll = np.zeros(sum(len(domain.lines) for domain in self._texts.domains.values()))
        trained, _ = self._model.training, self._model.eval()
        try:
            found = self._backward.run(
                {
                    name: [self._step(batch, self._counts[name], nll) for batch in batches]
                    for name, batches in self._batches.items()
                    if domains is None or name in domains
                },
                at_once=self.holding.at_once,
                each_batch=self.holding.each_batch,
                slopes=slopes,
            )
        finally:
            self._model.train(trained)
        return Measured(self._texts.scores_of(nll), found)

    def _step(self, batch: Batch, n_tokens: int, nll: Array) -> Any:
        def step() -> torch.Tensor:
            with torch.enable_grad():
                found = next(token_nll(self._model, [batch]))
                nll[:] += np.bincount(
                    batch.documents, found.detach().cpu().double().numpy(), len(nll)
                )
                return found.sum() / n_tokens

        return step


def _token_bytes(model: Any, probe: Batch) -> int:
    try:
        return token_bytes(model, probe)
    except RuntimeError as error:  # what torch, and who writes an operator, says of such a one
        said = str(error).strip().split("\n")[0]
        raise InputError(
            f"the model cannot run backward: {said}",
            "`calibrate --no-gradients` measures it by its losses alone",
        ) from error


def _refuse_not_float(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            kind = str(parameter.dtype).removeprefix("torch.")
            raise InputError(
                f"parameter `{name}` is {kind}: the model cannot run backward",
                "load the model in a plain dtype",
            )
