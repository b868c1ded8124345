"""Rotary embeddings in config.json: transformers 5 writes `rope_parameters` for what 4 wrote as
`rope_theta`, `rope_scaling` and, for two kinds of layers, `rope_local_base_freq`."""

from collections.abc import Mapping
from typing import Any

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, whichever way they are written; empty where the config has none.

    >>> rope_of({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}})
    {'rope_theta': 10000.0, 'rope_type': 'linear', 'factor': 2.0}
    >>> rope_of({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}})
    {'rope_theta': 10000.0, 'rope_type': 'default'}
    """
    parameters = config.get("rope_parameters")
    if isinstance(parameters, dict):
        if not any(isinstance(value, dict) for value in parameters.values()):
            return _spelt(parameters)
        return _of_kinds({k: _spelt(v) for k, v in parameters.items() if isinstance(v, dict)})
    theta, scaling = config.get("rope_theta"), config.get("rope_scaling")
    if theta is None and not isinstance(scaling, dict):
        return {}
    own = _spelt({"rope_theta": theta, **(scaling if isinstance(scaling, dict) else {})})
    local = config.get("rope_local_base_freq")
    if local is None:
        return own
    return _of_kinds({_GLOBAL: own, _LOCAL: _spelt({"rope_theta": local})})


def _spelt(values: Mapping[str, Any]) -> dict[str, Any]:
    """One set of values: its type under the newer key, and named where it is the default."""
    kind = values.get("rope_type") or values.get("type") or "default"
    first = {"rope_theta": values.get("rope_theta"), "rope_type": kind}
    rest = {key: value for key, value in values.items() if key not in (*first, "type")}
    return {key: value for key, value in (first | rest).items() if value is not None}


def _of_kinds(kinds: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{kind}.{key}": value for kind, own in kinds.items() for key, value in own.items()}
