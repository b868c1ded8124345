"""A merge configuration: mergekit's YAML, read strictly."""

import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import yaml

from mergeplan.config.dialect import TOP_LEVEL, UNKNOWN, Faults, LayoutReader, Reader
from mergeplan.config.dialect_values import NATIVE_DTYPES, check_tokenizer, dtype_name, model_name
from mergeplan.config.known import find_method
from mergeplan.config.methods import KNOWN, Method
from mergeplan.config.other_tools import refuse_other_tools, refuse_several
from mergeplan.config.scopes import ModelInput, Module, Settings
from mergeplan.config.seed import check_random_seed
from mergeplan.config.values import kind_of
from mergeplan.errors import InputError, nearest, raise_all
from mergeplan.system.excerpts import with_excerpts
from mergeplan.system.files import expanded
from mergeplan.system.reading import CONFIG, read_text
from mergeplan.system.yamlfile import parse_yet

# Those that mergekit brings.
CHAT_TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")


@dataclass(frozen=True)
class MergeConfig:
    """A validated merge configuration.

    Attributes:
        modules: The scopes below the top level. `models` and `slices` are one module without name.
        base_model: The base of every slice that names no other.
        dtype, out_dtype: Torch names without prefix, or `None`.
        parameters: The settings of the widest scope.
        text: The source, verbatim.
        needs_mergekit: Why mergekit must plan this merge: `because of …`; `None` where tensors can
            be planned by their names alone.
        tokenizer_source: Whose tokens the output has: `base`, `union` or a model; `None` where it
            has the donor's tokenizer, and rows are merged as they stand.
        sets_template: Whether the config sets the chat template.
        random_seed: Seed of random masks, where nobody gives another; see `seed.seed_of`.
        warnings: What the config says to no effect, or to one that few expect.
        file: That it was read from; `None` where it was none.
    """

    method: Method
    modules: tuple[Module, ...]
    base_model: str | None
    dtype: str | None
    out_dtype: str | None
    parameters: Settings
    text: str
    needs_mergekit: str | None = None
    tokenizer_source: str | None = None
    sets_template: bool = False
    random_seed: int | None = None
    warnings: tuple[str, ...] = field(default=(), compare=False)
    file: Path | None = field(default=None, compare=False)

    @cached_property
    def models(self) -> tuple[ModelInput, ...]:
        """Every model that is read, each as it is first mentioned."""
        found: dict[str, ModelInput] = {}
        for module in self.modules:
            for piece in module.slices:
                for source in piece.sources:
                    found.setdefault(source.path, source)
        if self.base_model is not None:
            found.setdefault(self.base_model, ModelInput(self.base_model, {}))
        return tuple(found.values())

    @property
    def is_sliced(self) -> bool:
        """Whether layers are taken from their models one by one."""
        return any(model.layers is not None for model in self.models)

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


def load_config(path: Path, *, given: bool = True) -> MergeConfig:
    """Read a config file.

    Args:
        given: Whether the user names it, so that it may be a pipe; not where a file does.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no valid configuration; the message names the key.
    """
    return _without_faults(*read_config(path, given=given))


# A config as functions take it: validated, as data, or the path of a YAML file.
AnyConfig = MergeConfig | Mapping[str, Any] | str | Path


def loaded_config(config: AnyConfig) -> MergeConfig:
    """A config in whichever way it was given.

    Raises:
        MissingInputError, InputError: As for `load_config` and `parse_config`.
    """
    return _without_faults(*examined(config))


def examined(config: AnyConfig) -> tuple[MergeConfig | None, list[InputError]]:
    """The same with everything that is wrong with it.

    Raises:
        MissingInputError, InputError: A file cannot be read.
    """
    if isinstance(config, MergeConfig):
        return config, []
    if not isinstance(config, Mapping):
        return read_config(expanded(config))
    try:
        text = yaml.safe_dump(_plain(config), sort_keys=False)
    except RecursionError as error:
        raise InputError("the config holds itself") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"the config holds what no YAML can: {error}") from error
    return examine(text)


def _plain(value: Any) -> Any:
    """Data as YAML takes it: paths and dtypes as texts, numpy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, str | PurePath):
        return str(value)
    if type(value).__module__ == "torch":
        return str(value).removeprefix("torch.")
    return value


def read_config(path: Path, *, given: bool = True) -> tuple[MergeConfig | None, list[InputError]]:
    """Read a config file, and everything that is wrong with it.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read.
    """
    text = read_text(path, CONFIG, given=given)
    config, faults = examine(text)
    found = config and replace(config, file=path)
    return found, with_excerpts(faults, text, f"`{path}`: ")


def parse_config(text: str) -> MergeConfig:
    """Validate YAML text.

    Raises:
        InputError: The message names the key, what was expected and what was found.
    """
    return _without_faults(*examine(text))


def _without_faults(config: MergeConfig | None, faults: list[InputError]) -> MergeConfig:
    if config is None or faults:
        raise_all(faults)
    return config


def examine(text: str) -> tuple[MergeConfig | None, list[InputError]]:
    """Read YAML text as far as it can be read.

    Returns:
        The config, and every fault. With faults, the config is what is left without them, its
        method perhaps `UNKNOWN`, or `None` where it names no models.
    """
    faults = Faults()
    data = faults.attempt(_mapping, text, faults)
    if data is None:
        return None, faults
    faults.check_keys(data, TOP_LEVEL, "")
    method = faults.attempt(_method, data)
    base_model = None
    if data.get("base_model"):
        base_model = faults.attempt(model_name, data["base_model"], "base_model")
    reader = Reader(method, base_model, faults) if method else LayoutReader(base_model, faults)
    parameters = reader.parameters(data.get("parameters"), "parameters", False)
    modules = reader.modules(data, parameters)
    dtype = faults.attempt(dtype_name, data.get("dtype"), "dtype")
    out_dtype = faults.attempt(dtype_name, data.get("out_dtype"), "out_dtype")
    faults.attempt(_check_tokenizers, data)
    faults.attempt(_check_template, data.get("chat_template"))
    random_seed = faults.attempt(check_random_seed, data.get("random_seed"))
    if not modules:
        return None, faults
    config = MergeConfig(
        method=method or UNKNOWN,
        modules=modules,
        base_model=base_model,
        dtype=dtype,
        out_dtype=out_dtype,
        parameters=parameters,
        text=text,
        needs_mergekit=_beyond_names(data, dtype, out_dtype),
        tokenizer_source=_tokenizer_source(data),
        sets_template=data.get("chat_template") is not None,
        random_seed=random_seed,
        warnings=tuple(reader.warnings),
    )
    return config, faults


def _mapping(text: str, faults: list[InputError]) -> dict[str, Any]:
    refuse_several(text)
    data, twice = parse_yet(text)
    faults += twice
    if not isinstance(data, dict):
        raise InputError(
            f"expected a mapping with `models` and `merge_method`, found {kind_of(data)}"
        )
    refuse_other_tools(data)
    return data


def _method(data: dict[str, Any]) -> Method:
    name = data.get("merge_method")
    if name is None:
        raise InputError("`merge_method` is missing", f"one of: {', '.join(KNOWN)}")
    method = find_method(name) if isinstance(name, str) else None
    if method is None:
        hint = nearest(str(name), list(KNOWN)) or (
            f"known methods: {', '.join(KNOWN)}; `--allow-methods FILE` adds your own"
        )
        raise InputError(f"`merge_method`: unknown method `{name}`", hint)
    return method


def _check_tokenizers(data: dict[str, Any]) -> None:
    source, tokenizer = data.get("tokenizer_source"), data.get("tokenizer")
    if source is not None and tokenizer is not None:
        raise InputError(
            "`tokenizer_source` and `tokenizer` exclude each other",
            f"write `tokenizer: {{source: {source}}}` and leave `tokenizer_source` out",
        )
    if source is not None:
        model_name(source, "tokenizer_source")
    if tokenizer is not None:
        check_tokenizer(tokenizer)


def _check_template(template: object) -> None:
    if template is None or template in ("auto", *CHAT_TEMPLATES):
        return
    # What mergekit takes for a template.
    if isinstance(template, str) and len(template) >= 20 and "{" in template:
        return
    known = ["auto", *CHAT_TEMPLATES]
    raise InputError(
        f"`chat_template`: expected `auto`, a name or a Jinja template, found {kind_of(template)}",
        nearest(str(template), known) or f"known names: {', '.join(CHAT_TEMPLATES)}",
    )


def _tokenizer_source(data: dict[str, Any]) -> str | None:
    """What the tokenizer's options name as its source; mergekit's default there is `union`."""
    tokenizer = data.get("tokenizer")
    if isinstance(tokenizer, dict):
        source = tokenizer.get("source")
        return "union" if source is None else str(source)
    source = data.get("tokenizer_source")
    return None if source is None else str(source)


def _beyond_names(data: dict[str, Any], dtype: str | None, out_dtype: str | None) -> str | None:
    """Why the names of tensors are not enough to plan a merge: `because of …`, or `None`."""
    if data.get("modules") is not None:
        return "because of `modules`"
    for key, name in (("dtype", dtype), ("out_dtype", out_dtype)):
        if name is not None and name not in NATIVE_DTYPES:
            return f"because of `{key}: {name}`"
    if _mentions(data, "override_architecture"):
        return "because of `override_architecture`"
    return None


def _mentions(data: object, key: str) -> bool:
    """Whether a key stands anywhere in some YAML."""
    if isinstance(data, dict):
        return key in data or any(_mentions(value, key) for value in data.values())
    return isinstance(data, list) and any(_mentions(value, key) for value in data)
