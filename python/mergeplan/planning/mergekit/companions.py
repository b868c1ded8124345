"""The files beside the weights, as mergekit makes them: config.json, tokenizer, what goes along."""

import json
import tempfile
from pathlib import Path
from typing import Any

from mergekit.merge import _set_chat_template, _update_config_vocab
from mergekit.tokenizer import TokenizerInfo
from transformers import AutoTokenizer

from mergeplan.checkpoints.checkpoint import CONFIG_FILE
from mergeplan.planning.mergekit.models import OpenModel, OrderedConfiguration
from mergeplan.planning.plan import Companions
from mergeplan.system.reading import VOCABULARY, read_bytes


def companions_of(
    config: OrderedConfiguration,
    architecture: Any,
    out_config: Any,
    donor: OpenModel,
    tokens: TokenizerInfo | None,
    trust_remote_code: bool,
) -> Companions:
    """What mergekit would write beside the weights and config.json, but for its model card.

    Args:
        out_config: The output's configuration; it gets the size of the vocabulary.
        tokens: The output's tokenizer, where the config asks for one.
    """
    files = {}
    if tokens is not None:
        padding = config.tokenizer.pad_to_multiple_of if config.tokenizer else None
        _update_config_vocab(out_config, architecture, tokens.tokenizer, padding)
        files = tokenizer_files(tokens.tokenizer, config)
    elif config.chat_template:
        tokenizer = AutoTokenizer.from_pretrained(
            donor.local_path(), trust_remote_code=trust_remote_code
        )
        files = tokenizer_files(tokenizer, config)
    folder = Path(donor.local_path())
    along = [folder / name for name in architecture.tagalong_files or []]
    files |= {path.name: read_bytes(path, VOCABULARY) for path in along if path.is_file()}
    asks_for_none = tokens is None and not config.chat_template
    return Companions(files, copies_tokenizer=asks_for_none)


def config_json(config: Any) -> dict[str, Any]:
    """What transformers writes for a configuration."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        written: dict[str, Any] = json.loads((Path(folder) / CONFIG_FILE).read_text("utf-8"))
    return written


def tokenizer_files(tokenizer: Any, config: OrderedConfiguration) -> dict[str, bytes]:
    """The files of a tokenizer, with the chat template that the config asks for."""
    _set_chat_template(tokenizer, config)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
