"""Our kernels behind the names of mergekit's methods, and mergekit's own back again."""

from typing import Any

from mergeplan.mergekit_plugin.usage import Usage
from mergeplan.planning.mergekit.version import require_mergekit

METHODS = (
    "linear",
    "task_arithmetic",
    "ties",
    "dare_ties",
    "dare_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
)


def register() -> Usage:
    """Let mergeplan's core do the arithmetic of mergekit's `METHODS`, and that of the user's own.

    A tensor that the core cannot take (on another device, not contiguous, float64, not finite, one
    that records gradients) is left to mergekit's own method. Random masks are drawn from
    `torch.initial_seed()`, which mergekit's `--random-seed` and `torch.manual_seed` set, the
    tensor's name and what the expert holds, so that they do not depend on the order of work.
    Worker threads are those of torch.

    Returns:
        The counts, which go on growing. Of a second call they are those of the first.

    Raises:
        InputError: mergekit 0.1.5 is not installed.

    Example:
        >>> from mergeplan import mergekit_plugin
        >>> usage = mergekit_plugin.register()  # doctest: +SKIP
    """
    require_mergekit("mergekit with our kernels in it")
    from mergeplan.mergekit_plugin.arithmetic import merge_by_own
    from mergeplan.mergekit_plugin.method import NativeMethod
    from mergeplan.planning.mergekit.own_methods import register_own

    known = _registry()
    for method in known.values():
        if isinstance(method, NativeMethod):
            return method.usage
    usage = Usage()

    def counted(*group: Any) -> Any:
        usage.native += 1
        return merge_by_own(*group)

    register_own(counted)
    known.update({name: NativeMethod(known[name], usage) for name in METHODS})
    return usage


def unregister() -> None:
    """Give mergekit its own methods back."""
    require_mergekit("mergekit with our kernels in it")
    from mergeplan.mergekit_plugin.method import NativeMethod

    known = _registry()
    for name, method in list(known.items()):
        if isinstance(method, NativeMethod):
            known[name] = method.original


def _registry() -> dict[str, Any]:
    from mergekit.merge_methods import registry

    # Its `register` refuses a name that is taken.
    methods: dict[str, Any] = registry._METHODS
    return methods
