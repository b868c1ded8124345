"""mergekit's silence: what it logs, and the bars that it draws."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

# What mergekit says of its own workings, and what we say ourselves.
_NOISE = ("Inferred ", "  '", "No JSON architecture", "Skipping optional", "UNSAFE vocabulary")


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if record.name.partition(".")[0] in ("root", "mergekit") and not text.startswith(_NOISE):
            self._messages.append(f"mergekit: {text}")


@contextlib.contextmanager
def quietly() -> Iterator[list[str]]:
    """Run mergekit without a word on stderr; what it warned of is in the list that this gives."""
    messages: list[str] = []
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, [_Collector(messages)]
    others = [logging.getLogger(name) for name in ("transformers", "huggingface_hub", "peft")]
    levels = [logger.level for logger in others]
    for logger in others:
        logger.setLevel(logging.CRITICAL)
    try:
        # tqdm writes its bars to stderr.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield messages
    finally:
        root.handlers = handlers
        for logger, level in zip(others, levels, strict=True):
            logger.setLevel(level)
