"""mergekit's YAML, read strictly: a key that mergekit would ignore is an error that names it."""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mergeplan.errors import InputError, MissingInputError, nearest
from mergeplan.methods import METHODS, Method, Option

DTYPES = ("float32", "bfloat16", "float16")
TOP_LEVEL = ("models", "merge_method", "base_model", "dtype", "out_dtype", "parameters")
# Keys of mergekit's that this version cannot run; better refused than ignored.
NOT_YET = ("slices", "modules", "tokenizer_source", "tokenizer", "chat_template")


@dataclass(frozen=True)
class Conditional:
    """A value for the tensors whose name contains `filter`; `None` or `*` matches all."""

    value: "Gradient"
    filter: str | None = None

    def matches(self, tensor: str) -> bool:
        return self.filter is None or self.filter == "*" or self.filter in tensor


Scalar = bool | float
Gradient = Scalar | tuple[Scalar, ...]
Setting = Gradient | tuple[Conditional, ...]


@dataclass(frozen=True)
class ModelInput:
    """One entry of `models`."""

    path: str
    parameters: dict[str, Setting]


@dataclass(frozen=True)
class MergeConfig:
    """A validated merge configuration.

    Attributes:
        models: The inputs in order; with a base that the file does not list, the base comes last.
        dtype, out_dtype: Torch names without prefix, or `None`.
        text: The source, verbatim.
    """

    method: Method
    models: tuple[ModelInput, ...]
    base_model: str | None
    dtype: str | None
    out_dtype: str | None
    parameters: dict[str, Setting]
    text: str

    @property
    def donor(self) -> str:
        """The model whose config and tokenizer the output gets.

        mergekit takes any of them at random where there is no base; here it is the first.
        """
        return self.base_model or self.models[0].path


def load_config(path: Path) -> MergeConfig:
    """Read a config file.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no valid configuration; the message names the key.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open config `{path}`: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read config `{path}`: {error}") from error
    try:
        return parse_config(text)
    except InputError as error:
        raise type(error)(f"`{path}`: {error.message}", error.hint) from error


def parse_config(text: str) -> MergeConfig:
    """Validate YAML text.

    Raises:
        InputError: The message names the key, what was expected and what was found.
    """
    data = _load_yaml(text)
    _check_keys(data, TOP_LEVEL, "", also=NOT_YET)
    method = _method(data)
    base_model = _model_path(data["base_model"], "base_model") if data.get("base_model") else None
    if method.base_required and base_model is None:
        raise InputError(f"`{method.name}` needs a `base_model`", "add `base_model: PATH`")
    models = _models(data, method)
    if base_model is not None and base_model not in [model.path for model in models]:
        models.append(ModelInput(base_model, {}))
    return MergeConfig(
        method=method,
        models=tuple(models),
        base_model=base_model,
        dtype=_dtype(data, "dtype"),
        out_dtype=_dtype(data, "out_dtype"),
        parameters=_parameters(data.get("parameters"), "parameters", method, in_model=False),
        text=text,
    )


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which plain YAML loaders keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise InputError(f"line {key_node.start_mark.line + 1}: a key must be a word")
            if key in seen:
                raise InputError(f"`{key}` stands twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _load_yaml(text: str) -> dict[str, Any]:
    try:
        data = yaml.load(text, _StrictLoader)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError("invalid YAML: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"invalid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(
            f"expected a mapping with `models` and `merge_method`, found {_kind(data)}"
        )
    return data


def _check_keys(
    data: dict[str, Any], known: tuple[str, ...], where: str, also: tuple[str, ...] = ()
) -> None:
    for key in data:
        name = f"{where}.{key}" if where else str(key)
        if key in also:
            if data[key] is None:
                continue
            raise InputError(
                f"`{name}` is not supported yet", "run this config with `mergekit-yaml`"
            )
        if key in known:
            continue
        if not where and any(key in method.options for method in METHODS.values()):
            raise InputError(
                f"`{key}` does nothing at the top level", f"put it under `parameters`: `{key}`"
            )
        raise InputError(f"unknown key `{name}`", nearest(str(key), list(known)))


def _method(data: dict[str, Any]) -> Method:
    name = data.get("merge_method")
    if name is None:
        raise InputError("`merge_method` is missing", f"one of: {', '.join(METHODS)}")
    if not isinstance(name, str) or name not in METHODS:
        hint = nearest(str(name), list(METHODS)) or f"known methods: {', '.join(METHODS)}"
        raise InputError(f"`merge_method`: unknown method `{name}`", hint)
    return METHODS[name]


def _models(data: dict[str, Any], method: Method) -> list[ModelInput]:
    entries = data.get("models")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"`models`: expected a list of models, found {_kind(entries)}")
    models: list[ModelInput] = []
    for number, entry in enumerate(entries):
        where = f"models[{number}]"
        if not isinstance(entry, dict) or "model" not in entry:
            raise InputError(
                f"`{where}`: expected `model: PATH` and perhaps `parameters`, found {_kind(entry)}"
            )
        for key in entry:
            if key in method.options:
                raise InputError(
                    f"`{where}.{key}` does nothing there", f"put it under `{where}.parameters`"
                )
        _check_keys(entry, ("model", "parameters"), where)
        path = _model_path(entry["model"], f"{where}.model")
        if path in [model.path for model in models]:
            raise InputError(f"`{where}.model`: `{path}` is listed twice")
        where += ".parameters"
        models.append(
            ModelInput(path, _parameters(entry.get("parameters"), where, method, in_model=True))
        )
    return models


def _model_path(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"`{where}`: expected a path, found {_kind(value)}")
    return value


def _dtype(data: dict[str, Any], key: str) -> str | None:
    value = data.get(key)
    if value is None:
        return None
    name = str(value).removeprefix("torch.")
    if name not in DTYPES:
        hint = nearest(name, list(DTYPES)) or f"one of: {', '.join(DTYPES)}"
        raise InputError(f"`{key}`: cannot merge in `{value}`", hint)
    return name


def _parameters(value: object, where: str, method: Method, in_model: bool) -> dict[str, Setting]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"`{where}`: expected a mapping, found {_kind(value)}")
    settings = {}
    for key, setting in value.items():
        option = method.options.get(key)
        if option is None:
            known = list(method.options)
            hint = nearest(str(key), known) or f"`{method.name}` has: {', '.join(known)}"
            raise InputError(f"unknown option `{where}.{key}`", hint)
        if in_model and not option.per_input:
            raise InputError(
                f"`{where}.{key}` does nothing there: it is one value for the whole merge",
                f"move it to the top level's `parameters`: `{key}`",
            )
        settings[key] = _setting(setting, f"{where}.{key}", option)
    return settings


def _setting(value: object, where: str, option: Option) -> Setting:
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return _scalar(value, where, option)
    if not value:
        raise InputError(f"`{where}`: an empty list has no value")
    if not any(isinstance(entry, dict) for entry in value):
        return tuple(_scalar(entry, f"{where}[{i}]", option) for i, entry in enumerate(value))
    conditions = []
    for number, entry in enumerate(value):
        here = f"{where}[{number}]"
        if not isinstance(entry, dict) or "value" not in entry:
            raise InputError(f"`{here}`: expected `value` and perhaps `filter`")
        _check_keys(entry, ("value", "filter"), here)
        inner = _setting(entry["value"], f"{here}.value", option)
        if isinstance(inner, tuple) and isinstance(inner[0], Conditional):
            raise InputError(f"`{here}.value`: conditions cannot be nested")
        name = entry.get("filter")
        if name is not None and not isinstance(name, str):
            raise InputError(f"`{here}.filter`: expected part of a tensor's name")
        conditions.append(Conditional(inner, name))
    return tuple(conditions)


def _scalar(value: object, where: str, option: Option) -> Scalar:
    if option.kind is bool:
        if isinstance(value, bool) or value in (0, 1):
            return bool(value)
        raise InputError(f"`{where}`: expected true or false, found {_kind(value)}")
    if isinstance(value, str):
        # YAML 1.1 reads `1e-5`, which has no dot, as text.
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"`{where}`: expected a number, found {_kind(value)}")
    number = float(value) if abs(value) < 1e300 else math.inf
    low, high = option.minimum, option.maximum
    if not math.isfinite(number):
        raise InputError(f"`{where}`: expected a finite number, found {value}")
    if (low is not None and number < low) or (high is not None and number > high):
        raise InputError(f"`{where}`: expected a number from {low:g} to {high:g}, found {value}")
    return number


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str | bool | int | float):
        return f"`{value}`"
    names: dict[type, str] = {list: "a list", dict: "a mapping"}
    return names.get(type(value), type(value).__name__)
