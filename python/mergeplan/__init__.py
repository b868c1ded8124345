"""mergeplan tells what to merge before you pay for it, and then merges fast.

What the commands do, these functions do, with the same names:

measure     `init` (a pool of what is there), `sample`, `evaluate`, `compare` (several models),
            `calibrate`; `Pool`
decide      `verdict_of` (what to do, by all that is known), `fit`, `suggest` (how many experts, by
            the law), `select` (which experts and weights), `tune` (weights by gradients), `plot`,
            `similarity`
merge       `merge` (a YAML, or a dict, into a folder), `merge_many`, `merge_into` (a loaded model),
            `stream` (tensor by tensor), `Sweep` (many merges of the same models)
check       `doctor` (this machine), `inspect` (before), `verify` (after), `diff`; `replay`: is a
            stranger's file that merge

A result prints as a summary of a screen at most; `summary()` is the whole. Errors are
`MergeplanError`s: what is wrong and where, and a hint.

`import mergeplan` loads neither torch nor scipy; names load what they need when first used.

>>> import mergeplan
>>> law = mergeplan.fit("pool/measurements.csv", method="task_arithmetic")
>>> best = mergeplan.suggest(law, target_loss=1.9055).best
>>> best.k
6
>>> chosen = mergeplan.choose_merge(best, mergeplan.load_pool("pool/pool.yml"))
>>> chosen.subset
('cheader', 'html', 'js', 'json', 'mande', 'manfr')
>>> mergeplan.merge(chosen.config, "merged").tensors
27
"""

from mergeplan.system import start as _start

if _start.is_command():
    _start.be_quiet()

import lazy_loader

from mergeplan._native import __version__ as __version__
from mergeplan._native import build_info

# The names and their homes stand in `__init__.pyi`, for type checkers and for this.
__getattr__, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted(_names)


def __dir__() -> list[str]:
    return list(__all__)


if build_info()["debug"]:
    import warnings

    warnings.warn("mergeplan was built without optimisation and is slow", stacklevel=2)
