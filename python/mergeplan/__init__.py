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
    from mergeplan.geometry.comparing import similarity
    from mergeplan.inspecting import InspectOptions, inspect_paths
    from mergeplan.merge_checks import MergeOptions, Wanted
    from mergeplan.merging import MergeReport, merge, merge_many
    from mergeplan.selection.selecting import Wish, select
    from mergeplan.streaming import Sweep, merge_into, stream
    from mergeplan.suggest import recommend

__all__ = [
    "EvaluationOptions",
    "InspectOptions",
    "MergeOptions",
    "MergeReport",
    "Sweep",
    "Wanted",
    "Wish",
    "__version__",
    "build_info",
    "evaluate",
    "fit",
    "inspect_paths",
    "merge",
    "merge_into",
    "merge_many",
    "recommend",
    "select",
    "similarity",
    "stream",
]

# Modules are not named like the functions, which importing them would hide.
_HOMES = {
    "EvaluationOptions": "mergeplan.evaluation.options",
    "InspectOptions": "mergeplan.inspecting",
    "MergeOptions": "mergeplan.merge_checks",
    "MergeReport": "mergeplan.merging",
    "Sweep": "mergeplan.streaming",
    "Wanted": "mergeplan.merge_checks",
    "Wish": "mergeplan.selection.selecting",
    "evaluate": "mergeplan.evaluation.running",
    "fit": "mergeplan.fitting",
    "inspect_paths": "mergeplan.inspecting",
    "merge": "mergeplan.merging",
    "merge_into": "mergeplan.streaming",
    "merge_many": "mergeplan.merging",
    "recommend": "mergeplan.suggest",
    "select": "mergeplan.selection.selecting",
    "similarity": "mergeplan.geometry.comparing",
    "stream": "mergeplan.streaming",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mergeplan' has no attribute '{name}'")


if build_info()["debug"]:
    import warnings

    warnings.warn("mergeplan was built without optimisation and is slow", stacklevel=2)
