"""mergeplan tells what to merge before you pay for it, and then merges fast.

`import mergeplan` loads neither torch nor scipy; names below load what they need when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mergeplan._native import __version__, build_info

if TYPE_CHECKING:
    from mergeplan.evaluation.options import EvaluationOptions
    from mergeplan.evaluation.running import evaluate
    from mergeplan.fitting import fit
    from mergeplan.inspecting import InspectOptions, inspect_paths
    from mergeplan.merging import MergeOptions, MergeReport, merge
    from mergeplan.suggest import recommend

__all__ = [
    "EvaluationOptions",
    "InspectOptions",
    "MergeOptions",
    "MergeReport",
    "__version__",
    "build_info",
    "evaluate",
    "fit",
    "inspect_paths",
    "merge",
    "recommend",
]

# Modules are not named like the functions, which importing them would hide.
_HOMES = {
    "EvaluationOptions": "mergeplan.evaluation.options",
    "InspectOptions": "mergeplan.inspecting",
    "MergeOptions": "mergeplan.merging",
    "MergeReport": "mergeplan.merging",
    "evaluate": "mergeplan.evaluation.running",
    "fit": "mergeplan.fitting",
    "inspect_paths": "mergeplan.inspecting",
    "merge": "mergeplan.merging",
    "recommend": "mergeplan.suggest",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mergeplan' has no attribute '{name}'")


if build_info()["debug"]:
    import warnings

    warnings.warn("mergeplan was built without optimisation and is slow", stacklevel=2)
