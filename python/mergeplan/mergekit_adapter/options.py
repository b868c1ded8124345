"""What mergekit may do while it plans."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AdapterOptions:
    """Names and defaults are those of mergekit's flags.

    Attributes:
        allow_crimes: Mix architectures.
        trust_remote_code: Run code that comes with a model, to read its config and tokenizer.
        unsafe_truncate_embeddings: Cut vocabularies to the smallest; without a tokenizer option.
        transformers_cache: Folder of the hub's cache, or `None` for the default.
    """

    allow_crimes: bool = False
    trust_remote_code: bool = False
    unsafe_truncate_embeddings: bool = False
    transformers_cache: str | None = None
