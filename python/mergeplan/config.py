"""mergekit's YAML, read strictly: a key that mergekit would ignore is an error that names it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mergeplan.errors import InputError, MissingInputError, nearest
from mergeplan.methods import METHODS, Method
from mergeplan.values import Setting, kind_of, read_setting

DTYPES = ("float32", "bfloat16", "float16")
TOP_LEVEL = ("models", "merge_method", "base_model", "dtype", "out_dtype", "parameters")
# Keys of mergekit's that this version cannot run; better refused than ignored.
NOT_YET = ("slices", "modules", "tokenizer_source", "tokenizer", "chat_template")


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
        """Path of the model whose config and tokenizer the output gets.

        mergekit takes any of them at random where there is no base; here it is the first.
        """
        return self.base_model or self.models[0].path

    @property
    def compared_with(self) -> str | None:
        """Path of the base that the other models are compared with, if the method has one."""
        return None if self.method.base == "none" else self.base_model


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
    if method.base == "required" and base_model is None:
        raise InputError(f"`{method.name}` needs a `base_model`", "add `base_model: PATH`")
    models = _models(data, method)
    if base_model is not None and base_model not in [model.path for model in models]:
        models.append(ModelInput(base_model, {}))
    parameters = _parameters(data.get("parameters"), "parameters", method, in_model=False)
    _check_required(method, parameters)
    config = MergeConfig(
        method=method,
        models=tuple(models),
        base_model=base_model,
        dtype=_dtype(data, "dtype"),
        out_dtype=_dtype(data, "out_dtype"),
        parameters=parameters,
        text=text,
    )
    _check_number(config)
    return config


def _check_required(method: Method, parameters: dict[str, Setting]) -> None:
    for key, option in method.options.items():
        if option.required and not option.per_input and key not in parameters:
            raise InputError(f"`{method.name}` needs `{key}`", f"add `parameters: {{{key}: ...}}`")


def _check_number(config: MergeConfig) -> None:
    """Whether the method takes as many models as there are."""
    method = config.method
    found = sum(model.path != config.compared_with for model in config.models)
    least, most = method.min_inputs, method.max_inputs
    if found >= least and (most is None or found <= most):
        return
    number = f"exactly {least}" if least == most else f"at least {least}"
    besides = " besides the base" if config.compared_with else ""
    hint = None
    if found < least:
        hint = "add models to `models`"
    elif config.base_model and method.base == "none":
        hint = f"`{method.name}` takes `base_model` as one of its inputs: leave it out"
    elif config.base_model is None and method.base == "optional":
        hint = "perhaps one of them is the base: name it as `base_model`"
    else:
        hint = "take models out of `models`"
    raise InputError(
        f"`{method.name}` merges {number} model{'' if least == 1 else 's'}{besides}, found {found}",
        hint,
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
            f"expected a mapping with `models` and `merge_method`, found {kind_of(data)}"
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
        raise InputError(f"`models`: expected a list of models, found {kind_of(entries)}")
    models: list[ModelInput] = []
    for number, entry in enumerate(entries):
        where = f"models[{number}]"
        if not isinstance(entry, dict) or "model" not in entry:
            raise InputError(
                f"`{where}`: expected `model: PATH` and perhaps `parameters`,"
                f" found {kind_of(entry)}"
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
        raise InputError(f"`{where}`: expected a path, found {kind_of(value)}")
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
        raise InputError(f"`{where}`: expected a mapping, found {kind_of(value)}")
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
        settings[key] = read_setting(setting, f"{where}.{key}", option)
    return settings
