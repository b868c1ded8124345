"""Write the mergekit YAML of an equally normalised merge.

The law is about merges whose weights sum to a constant c, each expert's being c/k. mergekit's
defaults differ from method to method, so the YAML says everything: `normalize`, the dtype of the
arithmetic (in bfloat16 the weights would be rounded, and 1/k · k be no longer 1) and that of the
output.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mergeplan.errors import InputError, nearest

# Label -> mergekit's method, and the options it takes with their defaults.
LABELS: dict[str, tuple[str, dict[str, float]]] = {
    "average": ("linear", {}),
    "task_arithmetic": ("task_arithmetic", {"lambda": 1.0}),
    "ties": ("ties", {"density": 1.0, "lambda": 1.0}),
    "dare": ("dare_linear", {"density": 1.0, "lambda": 1.0}),
}


def merge_config(
    label: str,
    options: dict[str, Any],
    base: Path,
    experts: Sequence[Path],
    out_dtype: str,
) -> dict[str, Any]:
    """The configuration of one merge, as data.

    Args:
        label: `average`, `task_arithmetic`, `ties` or `dare`, or any label whose options name one
            of them as `method`.
        options: `density`, `lambda`.
        out_dtype: Torch name of the base's dtype.

    Raises:
        InputError: No such method or option, or a path that mergekit would misread.

    >>> config = merge_config("ties", {"density": 0.2}, Path("b"), [Path("x")], "bfloat16")
    >>> config["merge_method"], config["parameters"]["lambda"]
    ('ties', 1.0)
    """
    given = dict(options)
    name = given.pop("method", label)
    if name not in LABELS:
        hint = nearest(str(name), list(LABELS)) or f"known: {', '.join(LABELS)}"
        raise InputError(f"cannot write a merge by `{name}`", hint)
    method, defaults = LABELS[name]
    for key in given:
        if key not in defaults:
            known = list(defaults)
            hint = nearest(str(key), known) or f"it has: {', '.join(known) or 'no options'}"
            raise InputError(f"method `{label}` has no option `{key}`", hint)
    for path in (base, *experts):
        if set(str(path)) & set("@+"):
            raise InputError(
                f"`{path}`: mergekit reads `@` and `+` in a path as revision and LoRA adapter",
                "move or link the models to a path without them",
            )
    models: list[dict[str, Any]] = [
        {"model": str(path), "parameters": {"weight": 1.0}} for path in experts
    ]
    parameters: dict[str, Any] = {"normalize": True, **defaults, **given}
    if name == "average":
        # Listed with weight 0: the base then donates config and tokenizer and changes no weight.
        models.insert(0, {"model": str(base), "parameters": {"weight": 0.0}})
    if name == "dare":
        parameters["rescale"] = True
    return {
        "merge_method": method,
        "base_model": str(base),
        "models": models,
        "parameters": parameters,
        "dtype": "float32",
        "out_dtype": out_dtype,
    }


def to_yaml(config: dict[str, Any], comments: Sequence[str] = ()) -> str:
    """YAML text with comments on top; mergekit and mergeplan read it alike."""
    lines = [f"# {line}" for comment in comments for line in comment.splitlines()]
    body = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=1000)
    return "\n".join([*lines, body])
