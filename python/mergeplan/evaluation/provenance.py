"""What a model is, by the manifest beside it: method, options, experts, base."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.header_bytes import header_sha256
from mergeplan.checkpoints.names import parts_of
from mergeplan.config.config import MergeConfig, parse_config
from mergeplan.config.labels import LABELS, in_words
from mergeplan.config.scopes import ModelInput
from mergeplan.config.values import Scalar
from mergeplan.display.text import listed
from mergeplan.inspection.verify import verify_weights
from mergeplan.merging.manifest import NAME, Manifest, load_manifest
from mergeplan.system.files import input_path
from mergeplan.system.progress import Shown

# What shares say, and what changes no value.
_NOT_TOLD = ("weight", "normalize", "int8_mask")
_EQUAL = 1e-6


@dataclass(frozen=True)
class Provenance:
    """What a manifest says of a merge.

    Attributes:
        path: The manifest.
        method: As tables call it; `None` where an adapter was merged into its base.
        options: All of them, as far as one value stands for the whole merge.
        usual: What they are where nobody gives them.
        varying: Those that are not the same for all models and tensors.
        experts: By the alphabet; empty where the config does not tell which models they are.
        shares: Of each expert, where that is one number.
        base: `None` where the config names none: any of the experts may be it.
        seed: Of random masks, where the method has some.
        unnamed: Why there are no experts; empty where there are.
    """

    path: Path
    method: str | None = None
    options: dict[str, Scalar] | None = None
    usual: dict[str, Scalar] | None = None
    varying: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()
    shares: dict[str, float] | None = None
    base: str | None = None
    seed: int | None = None
    unnamed: str = ""

    @property
    def unusual(self) -> dict[str, Scalar]:
        """The options that somebody gave."""
        usual = self.usual or {}
        return {key: value for key, value in (self.options or {}).items() if value != usual[key]}

    def weights(self, experts: tuple[str, ...]) -> tuple[float, ...] | None:
        """The shares of some experts; `None` where they are equal and sum to 1, or not known."""
        if self.shares is None or not experts:
            return None
        found = tuple(self.shares[name] for name in experts)
        return None if all(abs(one * len(found) - 1) < _EQUAL for one in found) else found

    def data(self) -> dict[str, Any]:
        """Ready for JSON; `k` is not known where any of the experts may be the base."""
        return {
            "method": self.method,
            "options": self.unusual,
            "k": len(self.experts) if self.experts and self.base is not None else None,
            "subset": list(self.experts),
            "weights": self.weights(self.experts),
            "base": self.base,
            "seed": self.seed,
        }

    def __str__(self) -> str:
        """In words: `TIES, density 0.2, of html + js on base`."""
        on = "" if self.base is None else f" on {_folder_name(self.base)}"
        experts = " + ".join(self.experts) + on
        if self.method is None:
            return experts
        said = in_words(self.method, json.dumps(self.unusual))
        return f"{said}, of {experts}" if self.experts else said + on


def provenance(
    model: Path,
    names: Mapping[Path, str] | None = None,
    *,
    verified: bool = False,
    threads: int | None = None,
    progress: Shown = None,
) -> Provenance | None:
    """What the manifest beside a model says it is.

    Args:
        names: What a pool calls the models in these folders; others go by their folder's name.
        verified: Hash the tensors too, as `verify` does: all merges of one shape, and what is
            trained on from one, have the same headers.
        threads, progress: Of the hashing; see `verify`.

    Returns:
        `None` where there is no manifest, or one of other weights, or of a model's plain copy.

    Raises:
        InputError: The manifest is damaged, or of another version.
    """
    path = model / NAME
    if not os.path.lexists(path):
        return None
    manifest = load_manifest(model)
    files = {file.name: header_sha256(file) for file in sorted(model.glob("*.safetensors"))}
    if files != manifest.headers:
        return None
    if verified:
        weights = verify_weights(model, manifest, threads=threads, progress=progress)
        if not weights.matches:
            return None
    config = parse_config(manifest.config)
    method = config.method
    if method.name == "passthrough":
        (name, *adapter) = parts_of(config.models[0].path)
        if not adapter or len(config.models) > 1:
            return None
        expert = _named(config.models[0].path, manifest, names or {})
        return Provenance(path, experts=(expert,), base=name)
    options, varying = _options(config)
    shares = None if varying else _shares(config, options)
    # Where just one is merged into a base, either may be what others call base.
    experts = [] if method.max_inputs == 1 else _experts(config)
    called = {_named(one.path, manifest, names or {}): one.path for one in experts}
    unnamed = _unnamed(config, called, experts)
    if unnamed:
        called = {}
    usual = {name: option.default or False for name, option in method.options.items()}
    told = {name: value for name, value in options.items() if name not in _NOT_TOLD}
    if method.consensus and "normalize" in options:
        # Labels of tables mean weights that are normalised, whatever mergekit's default.
        told["normalize"], usual["normalize"] = options["normalize"], True
    return Provenance(
        path,
        {name: label for label, name in LABELS.items()}.get(method.name, method.name),
        told,
        usual,
        varying,
        tuple(sorted(called)),
        {name: shares[path] for name, path in called.items()} if shares else None,
        config.base_model,
        manifest.seed if method.sparsify in ("random", "ranks") else None,
        unnamed,
    )


def _unnamed(config: MergeConfig, called: Mapping[str, str], experts: Sequence[ModelInput]) -> str:
    """Why the experts' names are not known, where they are not."""
    if config.method.max_inputs == 1:
        return f"of the two models of `{config.method.name}` either may be the base"
    if not experts:
        return "its config names no models of the whole merge"
    if len(called) < len(experts):
        return f"the folders of its {len(experts)} models are called {listed(sorted(called))} alike"
    if strange := [name for name in called if "+" in name]:
        return f"the name {listed(strange)} has a `+`, which stands between names"
    return ""


def _options(config: MergeConfig) -> tuple[dict[str, Scalar], tuple[str, ...]]:
    """The value of each option, but for weights, and the options that have no single one."""
    found: dict[str, Scalar] = {}
    varying = []
    for name, option in config.method.options.items():
        values = [setting for _, setting in _settings(config, name)]
        first = option.default if values[0] is None else values[0]
        if len(config.modules) > 1 or len(config.modules[0].slices) > 1:
            varying.append(name)
        elif name == "weight":
            varying += [name] if any(isinstance(value, tuple) for value in values) else []
        elif isinstance(first, tuple) or any(value != values[0] for value in values):
            varying.append(name)
        elif first is not None:
            found[name] = first
    return found, tuple(varying)


def _settings(config: MergeConfig, option: str) -> list[tuple[ModelInput, Any]]:
    """What each model is given as an option, where it is `None` that it is given none."""
    module = config.modules[0]
    piece = module.slices[0]
    wider = (piece.parameters, module.parameters, config.parameters)
    whole = not config.method.options[option].per_input
    found = []
    for source in piece.sources:
        scopes = wider if whole else (source.parameters, *wider)
        values = (scope[option] for scope in scopes if option in scope)
        # A delta's base has no density: what it is given counts for nothing.
        if config.compared_with is None or source.path != config.compared_with:
            found.append((source, next(values, None)))
    return found


def _experts(config: MergeConfig) -> list[ModelInput]:
    return [model for model in config.models if model.path != config.base_model]


def _shares(config: MergeConfig, options: Mapping[str, Scalar]) -> dict[str, float] | None:
    """Each model's part by its path: weights, divided by their sum where they are normalised."""
    if "weight" not in config.method.options:
        experts = _experts(config)
        return {model.path: 1 / len(experts) for model in experts}
    weights = {model.path: value for model, value in _settings(config, "weight")}
    if not all(isinstance(value, int | float) for value in weights.values()):
        return None
    total = sum(weights.values())
    names = ("normalize", "normalize_weights")
    if not next((options[name] for name in names if name in options), True):
        return weights
    return {path: weight / total for path, weight in weights.items()} if total else None


def _folder_name(model: str) -> str:
    """`org/name@revision` and `models/name` are both `name`."""
    return Path(parts_of(model)[-1].partition("@")[0]).name


def _named(model: str, manifest: Manifest, names: Mapping[Path, str]) -> str:
    """An expert's name: the pool's, or its folder's."""
    own = parts_of(model)[-1]
    folders = [input_path(own).resolve()]
    for one in manifest.inputs:
        if one.model in (model, own):
            folders += [Path(file.path).parent.resolve() for file in one.files]
    return next((names[folder] for folder in folders if folder in names), _folder_name(model))
