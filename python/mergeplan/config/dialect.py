"""mergekit's YAML, key by key. What mergekit would ignore is a fault that names it.

Faults are gathered instead of stopping at the first, so that `inspect` can list all of them.
"""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from mergeplan.config.dialect_values import layer_range, model_name
from mergeplan.config.methods import KNOWN, METHODS, Method
from mergeplan.config.scopes import ModelInput, Module, Settings, Slice
from mergeplan.config.values import kind_of, read_setting
from mergeplan.errors import InputError, nearest

T = TypeVar("T")

TOP_LEVEL = (
    "models",
    "slices",
    "modules",
    "merge_method",
    "base_model",
    "dtype",
    "out_dtype",
    "parameters",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "random_seed",
)
# What people still write, and why it is of no use.
RETIRED = {
    "embed_slerp": "leave it out: mergekit knows it no more, and `slerp` treats every tensor alike",
    "name": "leave it out: it names a document of mergekit-multi's",
}
MODEL = ("model", "parameters")
SOURCE = ("model", "layer_range", "parameters")
SLICE = ("sources", "base_model", "residual_weight", "parameters")
MODULE = ("models", "slices", "parameters")
# Where keys belong, for those that stand where mergekit would ignore them.
PLACES = {
    **dict.fromkeys(TOP_LEVEL, "at the top level"),
    "model": "in each entry of `models`, or of a slice's `sources`",
    "layer_range": "in each entry of a slice's `sources`",
    "sources": "in each entry of `slices`",
    "tokens": "under `tokenizer`",
    "pad_to_multiple_of": "under `tokenizer`",
}
ONE_OF_THREE = ("models", "slices", "modules")


class Faults(list[InputError]):
    """Everything that is wrong with a config, in the order in which it is read."""

    def add(self, message: str, hint: str | None = None) -> None:
        self.append(InputError(message, hint))

    def attempt(self, read: Callable[..., T], *args: Any) -> T | None:
        """What `read` returns; where it raises, the fault is noted."""
        try:
            return read(*args)
        except InputError as error:
            self.append(error)
            return None

    def check_keys(self, data: dict[Any, Any], known: tuple[str, ...], where: str) -> None:
        """Note every key that mergekit would ignore here."""
        for key in data:
            if key in known:
                continue
            name = f"{where}.{key}" if where else str(key)
            here = "there" if where else "at the top level"
            if key in RETIRED:
                self.add(f"`{name}` does nothing", RETIRED[key])
            elif "parameters" in known and any(key in method.options for method in KNOWN.values()):
                place = f"`{where}.parameters`" if where else f"`parameters`: `{key}`"
                self.add(f"`{name}` does nothing {here}", f"put it under {place}")
            elif key in PLACES:
                self.add(f"`{name}` does nothing {here}", f"`{key}` belongs {PLACES[key]}")
            else:
                self.add(f"unknown key `{name}`", nearest(str(key), [*known, *PLACES]))


class Reader:
    """Reads the scopes of one config.

    Attributes:
        warnings: What is accepted, and does nothing or something unexpected.
    """

    def __init__(self, method: Method, base_model: str | None, faults: Faults) -> None:
        self.warnings: list[str] = []
        self._method = method
        self._base = base_model
        self._faults = faults

    def modules(self, data: dict[str, Any], shared: Settings) -> tuple[Module, ...]:
        """The scopes below the top level.

        Args:
            data: The whole config.
            shared: Its own `parameters`.
        """
        given = [key for key in ONE_OF_THREE if data.get(key) is not None]
        if not given:
            self._faults.add(
                "`models` is missing",
                "list the models under `models`, or layers of them under `slices`",
            )
        elif len(given) > 1:
            self._faults.add(
                f"expected one of `models`, `slices` and `modules`, found"
                f" {' and '.join(f'`{key}`' for key in given)}",
            )
        elif given == ["modules"]:
            modules = data["modules"]
            if isinstance(modules, dict) and modules:
                found = [self._module(str(key), modules[key], shared) for key in modules]
                return tuple(module for module in found if module.slices)
            self._faults.add(f"`modules`: expected a mapping of modules, found {kind_of(modules)}")
        else:
            slices = self._slices(data, "", (shared,))
            return (Module(None, slices, {}),) if slices else ()
        return ()

    def parameters(self, value: object, where: str, in_model: bool) -> Settings:
        """The settings of one scope.

        Args:
            in_model: Whether they belong to one model.
        """
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._faults.add(f"`{where}`: expected a mapping, found {kind_of(value)}")
            return {}
        settings = {}
        for key, setting in value.items():
            option = self._method.options.get(key)
            if option is None and key in RETIRED:
                self._faults.add(f"`{where}.{key}` does nothing", RETIRED[key])
            elif option is None:
                known = list(self._method.options)
                hint = nearest(str(key), known) or _options_of(self._method)
                self._faults.add(f"unknown option `{where}.{key}`", hint)
            elif in_model and not option.per_input:
                self._faults.add(
                    f"`{where}.{key}` does nothing there: it is one value for the whole merge",
                    f"move it to the top level's `parameters`: `{key}`",
                )
            else:
                read = self._faults.attempt(read_setting, setting, f"{where}.{key}", option)
                if read is not None:
                    settings[key] = read
        return settings

    def _module(self, name: str, data: object, shared: Settings) -> Module:
        where = f"modules.{name}"
        if not isinstance(data, dict):
            self._faults.add(f"`{where}`: expected `models` or `slices`, found {kind_of(data)}")
            return Module(name, (), {})
        self._faults.check_keys(data, MODULE, where)
        given = [key for key in ("models", "slices") if data.get(key) is not None]
        parameters = self.parameters(data.get("parameters"), f"{where}.parameters", False)
        if len(given) != 1:
            found = "both" if given else "neither"
            self._faults.add(f"`{where}`: expected `models` or `slices`, found {found}")
            return Module(name, (), parameters)
        return Module(name, self._slices(data, f"{where}.", (shared, parameters)), parameters)

    def _slices(
        self, data: dict[str, Any], prefix: str, wider: tuple[Settings, ...]
    ) -> tuple[Slice, ...]:
        """The slices of a module; whole models are one slice.

        Args:
            wider: The settings of the scopes around.
        """
        if data.get("models") is not None:
            where = f"{prefix}models"
            sources = self._inputs(data["models"], where, MODEL)
            base = self._base
            if base is not None and sources and base not in [source.path for source in sources]:
                self._warn_of_unlisted_base(wider)
                sources.append(ModelInput(base, {}))
            return self._slice(sources, base, {}, where, wider)
        entries = data["slices"]
        where = f"{prefix}slices"
        if not isinstance(entries, list) or not entries:
            self._faults.add(
                f"`{where}`: expected a list of slices, found {_kind_of_list(entries)}"
            )
            return ()
        return tuple(
            piece
            for number, entry in enumerate(entries)
            for piece in self._layers(entry, f"{where}[{number}]", wider)
        )

    def _layers(self, entry: object, where: str, wider: tuple[Settings, ...]) -> tuple[Slice, ...]:
        """One entry of `slices`."""
        if not isinstance(entry, dict):
            self._faults.add(f"`{where}`: expected `sources`, found {kind_of(entry)}")
            return ()
        self._faults.check_keys(entry, SLICE, where)
        if entry.get("residual_weight") is not None:
            self.warnings.append(f"`{where}.residual_weight` has no effect, in mergekit neither")
        sources = self._inputs(entry.get("sources"), f"{where}.sources", SOURCE)
        base = self._base
        if entry.get("base_model"):
            base = self._faults.attempt(model_name, entry["base_model"], f"{where}.base_model")
        compared = base is not None and self._method.base != "none"
        if compared and sources and base not in [source.path for source in sources]:
            self._faults.add(
                f"`{where}`: the base `{base}` is not among the sources",
                f"add `{{model: {base}, layer_range: [...]}}` to `{where}.sources`",
            )
            return ()
        lengths = {source.layers[1] - source.layers[0] for source in sources if source.layers}
        if len(lengths) > 1:
            found = ", ".join(f"`{s.path}` {list(s.layers)}" for s in sources if s.layers)
            self._faults.add(f"`{where}`: expected as many layers from each source, found {found}")
        settings = self.parameters(entry.get("parameters"), f"{where}.parameters", False)
        return self._slice(sources, base, settings, where, (*wider, settings))

    def _slice(
        self,
        sources: list[ModelInput],
        base: str | None,
        settings: Settings,
        where: str,
        scopes: tuple[Settings, ...],
    ) -> tuple[Slice, ...]:
        """Check what a method asks of its inputs."""
        method = self._method
        if not sources:
            return ()
        compared = None if method.base == "none" else base
        if method.base == "required" and compared is None:
            self._faults.add(f"`{method.name}` needs a `base_model`", "add `base_model: PATH`")
        for key, option in method.options.items():
            if option.required and not option.per_input and not any(key in s for s in scopes):
                self._faults.add(
                    f"`{method.name}` needs `{key}`", f"add `parameters: {{{key}: ...}}`"
                )
        for source in sources:
            if source.path == compared:
                self.warnings += [
                    f"`{key}` of the base model has no effect" for key in source.parameters
                ]
        self._check_number(sources, base, compared, where)
        return (Slice(tuple(sources), compared, settings),)

    def _check_number(
        self, sources: list[ModelInput], base: str | None, compared: str | None, where: str
    ) -> None:
        """Whether the method takes as many models as there are."""
        method = self._method
        found = sum(source.path != compared for source in sources)
        least, most = method.min_inputs, method.max_inputs
        if found >= least and (most is None or found <= most):
            return
        number = f"exactly {least}" if least == most else f"at least {least}"
        besides = " besides the base" if compared else ""
        place = "`sources`" if where.endswith("]") else "`models`"
        if found < least:
            hint = f"add models to {place}"
        elif base and method.base == "none":
            hint = f"`{method.name}` takes `base_model` as one of its inputs: leave it out"
        elif base is None and method.base == "optional":
            hint = "perhaps one of them is the base: name it as `base_model`"
        else:
            hint = f"take models out of {place}"
        self._faults.add(
            f"`{method.name}` merges {number} model{'' if least == 1 else 's'}{besides},"
            f" found {found}" + (f" in `{where}`" if place == "`sources`" else ""),
            hint,
        )

    def _warn_of_unlisted_base(self, wider: tuple[Settings, ...]) -> None:
        method = self._method
        if method.base != "none" or not any("weight" in settings for settings in wider):
            return
        self.warnings.append(
            f"`{method.name}` takes `base_model` as one more input, and `{self._base}` is not"
            " listed: it is merged in with the weight of all; list it with a weight of its own"
            " (0 leaves it out)"
        )

    def _inputs(self, entries: object, where: str, known: tuple[str, ...]) -> list[ModelInput]:
        """Entries of `models` or `sources`."""
        if not isinstance(entries, list) or not entries:
            self._faults.add(
                f"`{where}`: expected a list of models, found {_kind_of_list(entries)}"
            )
            return []
        found: list[ModelInput] = []
        for number, entry in enumerate(entries):
            here = f"{where}[{number}]"
            if not isinstance(entry, dict) or "model" not in entry:
                besides = (
                    "perhaps `parameters`" if known is MODEL else "`layer_range: [FIRST, END]`"
                )
                self._faults.add(
                    f"`{here}`: expected `model: PATH` and {besides}, found {kind_of(entry)}"
                )
                continue
            self._faults.check_keys(entry, known, here)
            path = self._faults.attempt(model_name, entry["model"], f"{here}.model")
            layers = None
            if known is SOURCE:
                layers = self._faults.attempt(layer_range, entry.get("layer_range"), here)
            settings = self.parameters(entry.get("parameters"), f"{here}.parameters", True)
            if path in [model.path for model in found]:
                self._faults.add(f"`{here}.model`: `{path}` is listed twice")
            elif path is not None and (layers is not None or known is MODEL):
                found.append(ModelInput(path, settings, layers))
        return found


# In the place of a method that is not known: it takes any models.
UNKNOWN = replace(
    METHODS["linear"],
    name="",
    options=MappingProxyType({}),
    base="optional",
    min_inputs=0,
    max_inputs=None,
)


class LayoutReader(Reader):
    """Reads a config whose method is not known, but for options and how many models there are."""

    def __init__(self, base_model: str | None, faults: Faults) -> None:
        super().__init__(UNKNOWN, base_model, faults)

    def parameters(self, value: object, where: str, in_model: bool) -> Settings:
        return {}


def _kind_of_list(value: object) -> str:
    return "an empty list" if value == [] else kind_of(value)


def _options_of(method: Method) -> str:
    known = ", ".join(method.options)
    return f"`{method.name}` has: {known}" if known else f"`{method.name}` has no options"
