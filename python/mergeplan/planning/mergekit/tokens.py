"""mergekit's tokenizers: which row each token of the output has, and the files of the tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from mergekit.common import ModelPath
from mergekit.tokenizer import TokenizerInfo
from mergekit.tokenizer.build import build_tokenizer
from transformers import AutoTokenizer

from mergeplan.config.config import parse_config
from mergeplan.errors import InputError, MergeplanError
from mergeplan.planning.mergekit.companions import tokenizer_files
from mergeplan.planning.mergekit.models import (
    OpenModel,
    OrderedConfiguration,
    references_of,
    with_models,
)
from mergeplan.planning.mergekit.repairs import ordered_vocabularies
from mergeplan.planning.mergekit.silence import quietly
from mergeplan.planning.mergekit.vocabulary import Vocabulary
from mergeplan.planning.rows import RowMap, Stack
from mergeplan.planning.tokens import Tokens
from mergeplan.system.files import input_path


def make_tokens(
    text: str, folders: Sequence[Path], stacks: Sequence[Stack], *, trust_remote_code: bool
) -> Tokens:
    """See `process.tokens_by_mergekit`."""
    try:
        with quietly() as said, ordered_vocabularies():
            found = _make(text, folders, stacks, trust_remote_code)
    except MergeplanError:
        raise
    except Exception as error:
        # Whatever mergekit, transformers and tokenizers find wrong with a tokenizer.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"mergekit cannot make the output's tokenizer: {reason}",
            _absent_source(text) or "every model needs a tokenizer that transformers can load",
        ) from error
    return Tokens(found.rows, found.n_tokens, found.files, (*found.warnings, *dict.fromkeys(said)))


def _absent_source(text: str) -> str:
    """What is wrong with whose tokens are asked for, where that is no model that is here."""
    source = parse_config(text).tokenizer_source or "base"
    if source in ("base", "union") or input_path(source).exists():
        return ""
    return f"there is no folder `{source}`: a tokenizer's source is `base`, `union` or a model"


def _make(
    text: str, folders: Sequence[Path], stacks: Sequence[Stack], trust_remote_code: bool
) -> Tokens:
    asked = OrderedConfiguration.model_validate(yaml.safe_load(text))
    references = references_of(asked)
    opened = [
        OpenModel(
            model=ModelPath(path=str(folder)),
            lora=reference.lora,
            override_architecture=reference.override_architecture,
        )
        for reference, folder in zip(references, folders, strict=True)
    ]
    asked = with_models(asked, dict(zip(references, opened, strict=True)))
    source = asked.tokenizer.source if asked.tokenizer else asked.tokenizer_source
    if source is None:
        donor = asked.base_model or opened[0]
        tokenizer = AutoTokenizer.from_pretrained(
            donor.local_path(), trust_remote_code=trust_remote_code
        )
        return Tokens({}, None, tokenizer_files(tokenizer, asked), ())
    wished = dict((asked.tokenizer.tokens if asked.tokenizer else None) or {})
    info = build_tokenizer(
        base_model=asked.base_model,
        referenced_models=opened,
        tokenizer_source=source,
        trust_remote_code=trust_remote_code,
        add_tokens=list(wished),
    )
    padded_to = asked.tokenizer.pad_to_multiple_of if asked.tokenizer else None
    vocabularies = {stack: _vocabulary(info, wished, opened, stack, padded_to) for stack in stacks}
    rows = {
        stack: [vocabulary.rows_of(place) for place in range(len(stack.models))]
        for stack, vocabulary in vocabularies.items()
    }
    warnings = _unknown(vocabularies.values())
    return Tokens(rows, _n_tokens(rows), tokenizer_files(info.tokenizer, asked), warnings)


def _vocabulary(
    info: TokenizerInfo,
    wished: dict[str, Any],
    opened: Sequence[OpenModel],
    stack: Stack,
    padded_to: int | None,
) -> Vocabulary:
    models = [opened[number] for number in stack.models]
    base = None if stack.base is None else opened[stack.base]
    return Vocabulary(info, wished, models, stack.heights, base, padded_to)


def _unknown(vocabularies: Any) -> tuple[str, ...]:
    """A warning about tokens that no model has, of which all vocabularies have the same."""
    for vocabulary in vocabularies:
        unknown = vocabulary.unknown_tokens()
        if unknown:
            return (
                f"{len(unknown)} tokens are in no model's tokenizer: their rows are zeros,"
                f" the first `{unknown[0]}`",
            )
    return ()


def _n_tokens(rows: dict[Stack, list[RowMap]]) -> int | None:
    return next((maps[0].n_rows for maps in rows.values()), None)
