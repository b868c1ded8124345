"""Hashes that tell whether two runs scored the same tokens."""

import hashlib
import json
from typing import Any

from mergeplan.evaluation.documents import TextFile


def texts_sha256(
    files: dict[str, TextFile], tokenizer: Any, options: list[int | str | None]
) -> str:
    """Of the files' bytes, the tokenizer's content, and the options that decide what is scored."""
    content = [
        sorted((name, file.sha256) for name, file in files.items()),
        tokenizer_content(tokenizer),
        options,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def tokenizer_content(tokenizer: Any) -> list[Any]:
    """What a tokenizer does, but for its settings of the moment."""
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content = [content[key] for key in sorted(content) if key not in ("truncation", "padding")]
    else:
        content = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
        content += sorted(map(str, tokenizer.special_tokens_map.items()))
    return [content, tokenizer.chat_template]
