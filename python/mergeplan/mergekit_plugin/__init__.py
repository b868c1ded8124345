"""mergeplan's kernels inside mergekit: its own planner, loaders and writers, our arithmetic.

`register` puts them behind the names of mergekit's methods, for every merge of the process:
`run_merge`, `merge_tensors`, `merge_state_dicts` and what is built on them.

Beside the cli: it imports planning and below.
"""

from mergeplan.mergekit_plugin.registry import METHODS, register, unregister
from mergeplan.mergekit_plugin.usage import Usage

__all__ = ["METHODS", "Usage", "register", "unregister"]
