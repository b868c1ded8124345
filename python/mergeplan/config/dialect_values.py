"""Values of mergekit's YAML beside the options of methods: models, layers, dtypes, tokenizers."""

from typing import Any

from mergeplan.checkpoints.dtypes import FLOATS
from mergeplan.config.values import kind_of
from mergeplan.errors import InputError, nearest

# What the core merges in, and what only mergekit's own executor does.
NATIVE_DTYPES = tuple(FLOATS.values())
DTYPES = (*NATIVE_DTYPES, "float64", "int64")
TOKENIZER = ("source", "tokens", "pad_to_multiple_of")
TOKEN = ("source", "force")
MODEL_TOKEN = ("kind", "model", "token_id", "token")


def model_name(value: object, where: str) -> str:
    """A model as one word; mergekit also takes its parts as a mapping.

    >>> model_name({"model": {"path": "org/base", "revision": "v1"}, "lora": "adapter"}, "model")
    'org/base@v1+adapter'

    Raises:
        InputError: It is neither.
    """
    if isinstance(value, dict) and "model" in value:
        known = {"model", "lora", "override_architecture"}
        for key in value:
            if key not in known:
                raise InputError(f"unknown key `{where}.{key}`", nearest(str(key), sorted(known)))
        parts = [_model_path(value["model"], f"{where}.model")]
        if value.get("lora"):
            parts.append(_model_path(value["lora"], f"{where}.lora"))
        return "+".join(parts)
    if not isinstance(value, str) or not value:
        raise InputError(f"`{where}`: expected a path, found {kind_of(value)}")
    return value


def _model_path(value: object, where: str) -> str:
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        revision = value.get("revision")
        return f"{value['path']}@{revision}" if revision else str(value["path"])
    return model_name(value if isinstance(value, str) else None, where)


def layer_range(value: object, where: str) -> tuple[int, int]:
    """First layer, and the one after the last."""
    expected = f"`{where}.layer_range`: expected [FIRST, END], the layer after the last one as END"
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{expected}, found {kind_of(value)}")
    for entry in value:
        if isinstance(entry, bool) or not isinstance(entry, int):
            raise InputError(f"{expected}, found {kind_of(entry)}")
    first, end = value
    if not 0 <= first <= end:
        raise InputError(f"{expected}, found [{first}, {end}]")
    return first, end


def dtype_name(value: object, where: str) -> str | None:
    """A torch dtype without prefix.

    Raises:
        InputError: mergekit knows no such dtype.
    """
    if value is None:
        return None
    name = str(value).removeprefix("torch.")
    if name not in DTYPES:
        hint = nearest(name, list(DTYPES)) or f"one of: {', '.join(DTYPES)}"
        raise InputError(f"`{where}`: cannot merge in `{value}`", hint)
    return name


def check_tokenizer(value: object) -> dict[str, Any]:
    """The mapping under `tokenizer`.

    Raises:
        InputError: A key or value that mergekit would ignore or refuse.
    """
    if not isinstance(value, dict):
        raise InputError(f"`tokenizer`: expected a mapping, found {kind_of(value)}")
    _refuse_unknown(value, TOKENIZER, "tokenizer")
    if value.get("source") is not None:
        model_name(value["source"], "tokenizer.source")
    multiple = value.get("pad_to_multiple_of")
    if multiple is not None and not (_is_whole(multiple) and multiple > 0):
        raise InputError(
            "`tokenizer.pad_to_multiple_of`: expected a whole number of at least 1,"
            f" found {kind_of(multiple)}"
        )
    tokens = value.get("tokens")
    if tokens is not None and not isinstance(tokens, dict):
        raise InputError(f"`tokenizer.tokens`: expected a mapping, found {kind_of(tokens)}")
    for token, settings in (tokens or {}).items():
        _check_token(settings, f"tokenizer.tokens.{token}")
    return value


def _check_token(settings: object, where: str) -> None:
    if not isinstance(settings, dict) or settings.get("source") is None:
        raise InputError(
            f"`{where}`: expected `source: ...` and perhaps `force: true`,"
            f" found {kind_of(settings)}"
        )
    _refuse_unknown(settings, TOKEN, where)
    if not isinstance(settings.get("force", False), bool):
        found = kind_of(settings["force"])
        raise InputError(f"`{where}.force`: expected true or false, found {found}")
    source = settings["source"]
    where += ".source"
    if not isinstance(source, dict) or "kind" not in source:
        model_name(source, where)
    elif source["kind"] == "zero":
        _refuse_unknown(source, ("kind",), where)
    elif source["kind"] == "model_token":
        _refuse_unknown(source, MODEL_TOKEN, where)
        model_name(source.get("model"), f"{where}.model")
        if (source.get("token_id") is None) == (source.get("token") is None):
            raise InputError(f"`{where}`: expected one of `token` and `token_id`")
        if source.get("token_id") is not None and not _is_whole(source["token_id"]):
            found = kind_of(source["token_id"])
            raise InputError(f"`{where}.token_id`: expected a whole number, found {found}")
    else:
        raise InputError(
            f"`{where}.kind`: expected `zero` or `model_token`, found {kind_of(source['kind'])}"
        )


def _refuse_unknown(data: dict[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in known:
            raise InputError(f"unknown key `{where}.{key}`", nearest(str(key), list(known)))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
