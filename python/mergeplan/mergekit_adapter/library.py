"""Whether mergekit is there, in the version that this adapter was written for; its silence."""

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator

from mergeplan.errors import InputError

VERSION = "0.1.5"
_INSTALL = "pip install 'mergeplan[mergekit]'"
# What mergekit says of its own workings, and what we say ourselves.
_NOISE = ("Inferred ", "  '", "No JSON architecture", "Skipping optional", "UNSAFE vocabulary")


def check_installed() -> None:
    """Refuse to go on without mergekit 0.1.5.

    Raises:
        InputError: The hint is the command that installs it.
    """
    if importlib.util.find_spec("mergekit") is None:
        raise InputError("this config needs mergekit to plan it, which is not installed", _INSTALL)
    found = importlib.metadata.version("mergekit")
    if found != VERSION:
        raise InputError(
            f"this config needs mergekit {VERSION} to plan it, found {found}", _INSTALL
        )


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
