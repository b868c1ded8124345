"""mergeplan tells what to merge before you pay for it, and then merges fast.

`import mergeplan` loads neither torch nor scipy; names below load what they need when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mergeplan._native import __version__, build_info

if TYPE_CHECKING:
    from mergeplan.evaluation.evaluate import evaluate
    from mergeplan.evaluation.options import EvaluationOptions
    from mergeplan.inspection.inspect import InspectOptions, inspect_paths
    from mergeplan.law.fit import fit
    from mergeplan.law.recommend import recommend
    from mergeplan.merging.merge import MergeReport, merge, merge_many
    from mergeplan.merging.options import MergeOptions, MergeRequest
    from mergeplan.merging.streaming import Sweep, merge_into, stream
    from mergeplan.pool.geometry.compare import similarity
    from mergeplan.selection.select import Wish, select

__all__ = [
    "EvaluationOptions",
    "InspectOptions",
    "MergeOptions",
    "MergeReport",
    "MergeRequest",
    "Sweep",
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
    "InspectOptions": "mergeplan.inspection.inspect",
    "MergeOptions": "mergeplan.merging.options",
    "MergeReport": "mergeplan.merging.merge",
    "MergeRequest": "mergeplan.merging.options",
    "Sweep": "mergeplan.merging.streaming",
    "Wish": "mergeplan.selection.select",
    "evaluate": "mergeplan.evaluation.evaluate",
    "fit": "mergeplan.law.fit",
    "inspect_paths": "mergeplan.inspection.inspect",
    "merge": "mergeplan.merging.merge",
    "merge_into": "mergeplan.merging.streaming",
    "merge_many": "mergeplan.merging.merge",
    "recommend": "mergeplan.law.recommend",
    "select": "mergeplan.selection.select",
    "similarity": "mergeplan.pool.geometry.compare",
    "stream": "mergeplan.merging.streaming",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mergeplan' has no attribute '{name}'")


if build_info()["debug"]:
    import warnings

    warnings.warn("mergeplan was built without optimisation and is slow", stacklevel=2)
