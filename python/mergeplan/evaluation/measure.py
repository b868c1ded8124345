"""What a model is measured by: its losses on texts, or a measure of one's own."""

from collections.abc import Callable
from typing import Any, Protocol

from mergeplan.evaluation.options import Cut
from mergeplan.evaluation.scores import Scores
from mergeplan.evaluation.texts import Domain


class Measure(Protocol):
    """Documents, and what scores a model on them; as `texts.Texts` does.

    Attributes:
        domains: The chosen documents.
        sha256: Equal hashes mean scores that can be compared.
        cut: How the halves are cut.
        left_out: Documents that cannot be scored.
        faults: Of the halves, where one of them is scored.
    """

    domains: dict[str, Domain]
    sha256: str
    cut: Cut
    left_out: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def metric(self) -> str:
        """What is measured; empty for losses in nats."""

    @property
    def higher(self) -> bool:
        """Whether more of it is better."""

    @property
    def n_tokens(self) -> int:
        """What a model takes, for budgets and progress: tokens, or documents of a scorer."""

    def check(self, model: Any) -> None:
        """Refuse a base, and with it the models merged on it, that cannot be scored.

        Raises:
            InputError: It cannot.
        """

    def score(self, model: Any, progress: Callable[[int, int], None] | None = None) -> Scores:
        """Score a model, on the device that it is on.

        Raises:
            InputError: It cannot be scored.
        """
