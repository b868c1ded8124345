"""What decides which tokens are scored, after how much context."""

from dataclasses import dataclass
from typing import Literal

from mergeplan.errors import InputError
from mergeplan.evaluation.scorer import Scorer

DTYPES = ("auto", "float32", "bfloat16", "float16")
# How halves are cut, as `run.json` says it; earlier runs say nothing, and cut them by document.
Cut = Literal["by document", "by group"]
BY_DOCUMENT: Cut = "by document"
BY_GROUP: Cut = "by group"
HALVES = ("all", "selection", "check")
# What merges of a calibration are scored on.
TOKENS = ("all", "where-needed")
# Where a model would take more: its logits alone are gigabytes then.
LONGEST_WINDOW = 4096


@dataclass(frozen=True)
class EvaluationOptions:
    """How texts are chosen and cut.

    Attributes:
        max_tokens: Most tokens to score in a domain; `None` for all. Whole documents are chosen, at
            least one, in a seeded order of their contents: the same for every model, and mostly the
            same after documents were added.
        seed: Of that order.
        max_length: Most tokens in a window; `None` for the model's context, at most 4,096.
        stride: Tokens by which the windows of a long text overlap, which is the context that each
            token has at least; `None` for half a window.
        batch_tokens: Most tokens in a batch, padding included; `None` for what suits the device. It
            changes losses by rounding only.
        half: `all` documents, or the half of them to select by, or the other one to check with.
        scorer: A measure of one's own, which is given whole documents; `None` for token
            cross-entropy.
    """

    max_tokens: int | None = None
    seed: int = 0
    max_length: int | None = None
    stride: int | None = None
    batch_tokens: int | None = None
    half: str = "all"
    scorer: Scorer | None = None

    @property
    def unit(self) -> str:
        """What is counted while it is scored."""
        return "documents" if self.scorer else "tokens"

    def check(self) -> None:
        """Refuse counts and names that are none.

        Raises:
            InputError: A count is below 1, there is no such half, or a scorer is given documents
                that are not cut into tokens.
        """
        if self.half not in HALVES:
            raise InputError(f"`half`: expected {', '.join(HALVES)}, found `{self.half}`")
        for name in ("max_tokens", "max_length", "stride", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"`{name}`: expected 1 or more, found {value}")
            if value is not None and self.scorer is not None:
                raise InputError(
                    f"`{name}` has no meaning with a scorer, which is given whole documents",
                    "leave it out; a scorer may cut, and `load_documents` choose",
                )

    def deciding(self, context: int | None, cut: Cut) -> list[int | str | None]:
        """What decides which tokens are scored, and goes into the hash of the texts.

        Args:
            cut: How halves are cut; see `halves.cut_of`.

        Raises:
            InputError: As for `window`.
        """
        half = [self.half] if self.half != "all" else []
        if half and cut != BY_DOCUMENT:
            half.append(cut)
        return [self.max_tokens, self.seed, *self.window(context), *half]

    def window(self, context: int | None) -> tuple[int, int]:
        """The length of windows and their overlap, for a model that takes `context` tokens.

        Raises:
            InputError: They cannot be.
        """
        length = self.max_length or min(context or LONGEST_WINDOW, LONGEST_WINDOW)
        if length < 2:
            raise InputError(f"`max_length`: expected 2 or more, found {length}")
        if context is not None and length > context:
            raise InputError(
                f"`max_length`: expected at most the model's context, {context}, found {length}"
            )
        stride = length // 2 if self.stride is None else self.stride
        if not 1 <= stride < length:
            raise InputError(
                f"`stride`: expected 1 to {length - 1}, less than a window of {length} tokens,"
                f" found {stride}"
            )
        return length, stride
