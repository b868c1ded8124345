"""How a model converses: chat template, end of sequence, generation settings. A merge takes the
donor's, and what differs elsewhere is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.beside import json_beside, text_beside
from mergeplan.checkpoints.checkpoint import CONFIG_FILE
from mergeplan.config.config import MergeConfig
from mergeplan.planning.vocabularies import Folders

_TOKENIZER, _GENERATION = "tokenizer_config.json", "generation_config.json"
# What says who wrote the file, and nothing of how to generate.
_IDLE = ("transformers_version", "_from_model_config")


def conversation_differences(folders: Folders, config: MergeConfig | None = None) -> list[str]:
    """Warnings about what differs from the donor, and which one the output gets.

    Args:
        folders: Of models by their names, the donor's first; see `folders_of`.
        config: What it sets itself is not the donor's.
    """
    found = []
    if config is None or config.tokenizer_source is None:
        if not (config and config.sets_template):
            found += _template_differences(folders)
        found += _value_differences(folders, _TOKENIZER, "eos_token", _eos_token)
    found += _value_differences(folders, CONFIG_FILE, "eos_token_id", _eos_id)
    return [*found, *_generation_differences(folders)]


def _template_differences(folders: Folders) -> list[str]:
    donor, *_ = folders
    templates = {name: chat_template(folder) for name, folder in folders.items()}
    own = templates[donor]
    others = [name for name, text in templates.items() if text is not None and text != own]
    if not others:
        return []
    hint = "`chat_template: auto` in the config takes the most common one"
    names = ", ".join(f"`{name}`" for name in others)
    if own is None:
        return [
            f"`{donor}` has no chat template, unlike {names}: the output gets none either; {hint}"
        ]
    return [f"{names}: another chat template: the output gets that of `{donor}`; {hint}"]


def chat_template(folder: Path) -> Any:
    """The chat template, or several by name; `None` where there is none."""
    text = text_beside(folder / "chat_template.jinja")
    if text is not None:
        return text
    for file in ("chat_template.json", _TOKENIZER):
        found = json_beside(folder / file).get("chat_template")
        if found:
            return found
    return None


def _eos_token(data: dict[str, Any]) -> Any:
    token = data.get("eos_token")
    return token.get("content") if isinstance(token, dict) else token


def _eos_id(data: dict[str, Any]) -> Any:
    text = data.get("text_config")
    number = data.get("eos_token_id", text.get("eos_token_id") if isinstance(text, dict) else None)
    return number[0] if isinstance(number, list) and len(number) == 1 else number


def _value_differences(
    folders: Folders, file: str, key: str, value_of: Callable[[dict[str, Any]], Any]
) -> list[str]:
    donor, *_ = folders
    values = {name: value_of(json_beside(folder / file)) for name, folder in folders.items()}
    own = values[donor]
    return [
        f"{file}: `{key}` is {own} in `{donor}` and {value} in `{name}`: the output gets that of"
        f" `{donor}`"
        for name, value in values.items()
        if own is not None and value is not None and value != own
    ]


def _generation_differences(folders: Folders) -> list[str]:
    donor, *_ = folders
    settings = {
        name: {k: v for k, v in json_beside(path / _GENERATION).items() if k not in _IDLE}
        for name, path in folders.items()
    }
    own = settings[donor]
    found = []
    for name, theirs in settings.items():
        keys = sorted(k for k in {*own, *theirs} if own.get(k) != theirs.get(k))
        if not keys or not theirs:
            continue
        named = ", ".join(f"`{key}`" for key in keys)
        gets = f"the output gets that of `{donor}`" if own else "the output gets none"
        found.append(f"{_GENERATION} of `{name}` is not that of `{donor}`, in {named}: {gets}")
    return found
