"""Labels of methods: what measurements and pools call a method with its options."""

import json
import re
from collections.abc import Mapping
from typing import Any

from mergeplan.config.known import find_method
from mergeplan.config.methods import METHODS, Method, Option, check_epsilon
from mergeplan.errors import InputError, nearest

# Label -> mergekit's method. What each may be given is below; the defaults are mergekit's.
LABELS = {
    "average": "linear",
    "task_arithmetic": "task_arithmetic",
    "ties": "ties",
    "dare": "dare_linear",
    "dare_ties": "dare_ties",
    "breadcrumbs": "breadcrumbs",
    "breadcrumbs_ties": "breadcrumbs_ties",
    "della": "della",
    "della_linear": "della_linear",
}
# Beyond this arithmetic in float64 runs out of range.
_LARGEST = 1e300
_OPTIONS = ("density", "gamma", "epsilon", "lambda")

_SPELLED = {"ties": "TIES", "dare": "DARE", "dare_ties": "DARE-TIES", "della": "DELLA"}
_SPELLED |= {"breadcrumbs_ties": "breadcrumbs-TIES", "della_linear": "DELLA linear"}


def in_words(label: str, options: str) -> str:
    """A method and its options for people.

    Args:
        label: Of any kind; empty for all rows alike.
        options: As JSON.

    >>> in_words("task_arithmetic", '{"lambda": 0.4}'), in_words("mine_1", '{"a b": "x"}')
    ('task arithmetic, λ 0.4', 'mine_1, a b x')
    """
    words = _SPELLED.get(label, label.replace("_", " ") if label in LABELS else label)
    given = json.loads(options)
    named = [f"{'λ' if key == 'lambda' else key} {_value(given[key])}" for key in given]
    return ", ".join([words or "all rows", *named])


_LABELLED = re.compile(r"([^\W\d]\w*) (\{[^{}]*\})")


def worded(text: str) -> str:
    """A sentence in which methods' options are words, not JSON.

    >>> worded('a+b by task_arithmetic {"lambda": 0.4}: 1.9034')
    'a+b by task arithmetic, λ 0.4: 1.9034'
    """

    def said(found: re.Match[str]) -> str:
        try:
            return in_words(found[1], found[2])
        except json.JSONDecodeError:
            return found[0]

    return _LABELLED.sub(said, text)


def _value(value: object) -> str:
    if isinstance(value, str):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return text.removesuffix(".0") if isinstance(value, float) else text


def draws_masks(label: str, options: Mapping[str, Any]) -> bool:
    """Whether a label's method has random masks, and so a seed."""
    return method_of(label, options)[0].sparsify in ("random", "ranks")


def elects(label: str, options: Mapping[str, Any]) -> bool:
    """Whether merges divide by the experts that agree at each element, and not by k, as TIES does.

    Args:
        label, options: See `method_of`; those of no known method do not.
    """
    try:
        return method_of(label, options)[0].consensus
    except InputError:
        return False


def has_slopes(label: str, options: Mapping[str, Any]) -> bool:
    """Whether losses have slopes along the weights of a label's merges: of all methods but the
    user's own, and those of no known method."""
    try:
        return method_of(label, options)[0].code is None
    except InputError:
        return False


def _labelled(name: str) -> Method | None:
    if name in LABELS:
        return METHODS[LABELS[name]]
    method = find_method(name)
    return method if method is not None and method.code is not None else None


def _settled_once(method: Method) -> list[str]:
    """The options that a label has: each has one value for all experts."""
    if method.code is not None:
        return [key for key in method.options if key not in ("weight", "normalize")]
    # Task arithmetic thins nothing out: mergekit accepts a density there, and ignores it.
    sparse = method.sparsify != "none"
    return [key for key in _OPTIONS if key in method.options and (sparse or key == "lambda")]


def _check_own(label: str, method: Method) -> None:
    """Pools are merged with their base, in any number of experts."""
    if method.base == "none":
        raise InputError(f"method `{label}` has no base", 'declare it with `base="required"`')
    if method.min_inputs > 1 or method.max_inputs is not None:
        raise InputError(
            f"method `{label}` does not merge any number of models", "declare it without `models`"
        )


def _settled(label: str, key: str, option: Option, value: Any) -> float:
    """An option's value, of the option's kind."""
    low = -float("inf") if option.minimum is None else option.minimum
    high = float("inf") if option.maximum is None else option.maximum
    if option.kind is bool:
        kind, fits = "true or false", isinstance(value, bool)
    else:
        kind = "a number" if option.kind is float else "a whole number"
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits and low <= value <= high and abs(value) <= _LARGEST
        fits = fits and (option.kind is float or value == int(value))
    if not fits:
        bounds = "" if option.minimum is None else f" from {low:g} to {high:g}"
        raise InputError(f"method `{label}`: expected {kind}{bounds} as `{key}`: `{value}`")
    return option.kind(value)


def method_of(label: str, options: Mapping[str, Any]) -> tuple[Method, dict[str, float]]:
    """The method of a label, and all its options with what is not given at its default.

    Args:
        label: A key of `LABELS`, a method of the user's own, or any label whose options name one
            of both as `method`.

    Raises:
        InputError: No such method or option, or a value out of its bounds.

    >>> method, options = method_of("sparse", {"method": "ties", "density": 0.2})
    >>> method.name, options
    ('ties', {'density': 0.2, 'lambda': 1.0})
    """
    given = dict(options)
    name = given.pop("method", label)
    method = _labelled(name) if isinstance(name, str) else None
    if method is None:
        known = f"known: {', '.join(LABELS)}; `--allow-methods FILE` adds your own"
        hint = nearest(str(name), list(LABELS)) or known
        raise InputError(f"cannot write a merge by `{name}`", hint)
    if method.code is not None:
        _check_own(label, method)
    found = {}
    for key in _settled_once(method):
        option = method.options[key]
        if option.required and key not in given:
            raise InputError(f"method `{label}` needs `{key}`")
        found[key] = _settled(label, key, option, given.pop(key, option.default))
    for key in given:
        hint = nearest(str(key), list(found)) or f"it has: {', '.join(found) or 'no options'}"
        raise InputError(f"method `{label}` has no option `{key}`", hint)
    if "epsilon" in found:
        check_epsilon(f"method `{label}`", found["density"], found["epsilon"])
    return method, found
