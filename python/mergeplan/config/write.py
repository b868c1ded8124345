"""Write the mergekit YAML of an equally normalised merge.

The law is about merges whose weights sum to a constant c, each expert's being c/k. mergekit's
defaults differ from method to method, so the YAML says everything: `normalize`, the dtype of the
arithmetic (in bfloat16 the weights would be rounded, and 1/k · k be no longer 1) and that of the
output.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mergeplan.checkpoints.adapters.folder import is_adapter
from mergeplan.config.labels import method_of
from mergeplan.config.methods import Method
from mergeplan.display.text import is_unicode
from mergeplan.errors import InputError

# Weights whose sum is this near to 1 are meant to sum to 1.
_ROUNDING = 1e-6


def _model_of(expert: Path, base: Path) -> str:
    """An expert as mergekit names it: an adapter is added to its base."""
    return f"{base}+{expert}" if is_adapter(expert) else str(expert)


def merge_config(
    label: str,
    options: Mapping[str, Any],
    base: Path,
    experts: Sequence[Path],
    out_dtype: str,
    weights: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The configuration of one merge, as data.

    Args:
        label: As for `method_of`.
        options: `density`, `lambda` and what else the method has.
        out_dtype: Torch name of the base's dtype.
        weights: Of the experts; equal ones that sum to 1 where they are not given. Their sum is the
            strength of the merge: the base keeps the rest of a linear one, and `lambda` is
            multiplied by it elsewhere.

    Raises:
        InputError: No such method or option, a value out of its bounds, or a path that mergekit
            would misread, or no YAML can name.

    >>> config = merge_config("ties", {"density": 0.2}, Path("b"), [Path("x")], "bfloat16")
    >>> config["merge_method"], config["parameters"]["lambda"]
    ('ties', 1.0)
    """
    method, settings = method_of(label, options)
    _refuse_misread((base, *experts))
    shares = [1.0] * len(experts) if weights is None else [float(weight) for weight in weights]
    models: list[dict[str, Any]] = [
        {"model": _model_of(path, base), "parameters": {"weight": share}}
        for path, share in zip(experts, shares, strict=True)
    ]
    parameters: dict[str, Any] = {"normalize": True, **settings}
    if method.code is not None:
        _fit_own(method, label, models, parameters)
    strength = 1.0 if weights is None else sum(shares)
    if abs(strength - 1) < _ROUNDING:
        strength = 1.0
    if method.name == "linear":
        # Listed with weight 0: the base then donates config and tokenizer and changes no weight.
        models.insert(0, {"model": str(base), "parameters": {"weight": 1.0 - strength}})
    elif strength != 1:
        if "lambda" not in settings:
            raise InputError(f"method `{label}` has no `lambda`: its weights have to sum to 1")
        parameters["lambda"] = settings["lambda"] * strength
    if "rescale" in method.options and method.options["rescale"].default:
        parameters["rescale"] = True
    return {
        "merge_method": method.name,
        "base_model": str(base),
        "models": models,
        "parameters": parameters,
        "dtype": "float32",
        "out_dtype": out_dtype,
    }


def _fit_own(
    method: Method, label: str, models: list[dict[str, Any]], parameters: dict[str, Any]
) -> None:
    """Leave out what a method of the user's own does not have."""
    if "normalize" not in method.options:
        del parameters["normalize"]
    if "weight" not in method.options:
        weights = {model.pop("parameters")["weight"] for model in models}
        if len(weights) > 1:
            raise InputError(
                f"method `{label}` has no `weight`: its experts have to count alike",
                'declare `model_options={"weight": 1.0}`',
            )


def base_config(base: Path, out_dtype: str) -> dict[str, Any]:
    """The configuration that passes a base through, as data.

    Raises:
        InputError: A path that mergekit would misread, or no YAML can name.
    """
    _refuse_misread((base,))
    return {
        "merge_method": "passthrough",
        "models": [{"model": str(base)}],
        "dtype": "float32",
        "out_dtype": out_dtype,
    }


def _refuse_misread(paths: Sequence[Path]) -> None:
    for path in paths:
        if not is_unicode(str(path)):
            raise InputError(
                f"`{path}` is no UTF-8: no YAML can name it", "rename it, or make a link to it"
            )
        if set(str(path)) & set("@+") and not path.exists():
            raise InputError(
                f"`{path}` is not there: `@` and `+` would be read as revision and LoRA adapter",
                "give a path that is there, or one without them",
            )


def to_yaml(config: dict[str, Any], comments: Sequence[str] = ()) -> str:
    """YAML text with comments on top; mergekit and mergeplan read it alike."""
    lines = [f"# {line}" for comment in comments for line in comment.splitlines()]
    body = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=1000)
    return "\n".join([*lines, body])
