"""Which value an option takes for one tensor: filters, gradients, precedence; as in mergekit."""

from collections.abc import Iterable

from mergeplan.config.methods import Method
from mergeplan.config.scopes import Settings
from mergeplan.config.values import Conditional, Gradient, Scalar, Setting
from mergeplan.errors import InputError


def setting_at(setting: Setting, tensor: str, depth: float) -> Scalar | None:
    """The value of a setting for a tensor; `None` where no filter matches."""
    # One of a gradient's values tells that it is one, however many there are.
    if not isinstance(setting, tuple) or not isinstance(setting[0], Conditional):
        return _along(setting, depth)
    for condition in setting:
        if isinstance(condition, Conditional) and condition.matches(tensor):
            return _along(condition.value, depth)
    return None


def _along(gradient: Gradient, depth: float) -> Scalar:
    if not isinstance(gradient, tuple):
        return gradient
    place = depth * (len(gradient) - 1)
    low = int(place)
    if isinstance(gradient[0], bool):
        return gradient[low]
    high = min(len(gradient) - 1, low + 1)
    share = place - low
    return (1 - share) * gradient[low] + share * gradient[high]


def resolve(
    method: Method,
    option: str,
    scopes: Iterable[Settings],
    tensor: str,
    depth: float,
    model: str | None = None,
) -> Scalar | None:
    """The value of an option: of the first scope that has one for the tensor, else the default.

    `None` is the value of an option that may be left unset, and is.

    Args:
        scopes: Settings, the narrowest first: the model's own, the slice's, the module's, the
            merge's.
        tensor: What filters look at: the name in the model for an option that each model has, the
            output's name for one of the whole merge.
        depth: Place of the tensor along gradients, in [0, 1].
        model: Whose value it is, for messages.

    Raises:
        InputError: The option has no default and no setting matches.
    """
    for settings in scopes:
        if option in settings:
            value = setting_at(settings[option], tensor, depth)
            if value is not None:
                return value
    spec = method.options[option]
    if spec.required:
        where = f"model `{model}`, " if model else ""
        place = "give each model" if model else "give the merge"
        error = InputError(
            f"`{option}` is missing for {where}tensor `{tensor}`",
            f"{place} `parameters: {{{option}: ...}}`, with a value that every filter"
            " falls back to",
        )
        error.about = model or ""
        raise error
    return spec.default
