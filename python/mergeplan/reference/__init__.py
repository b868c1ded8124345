"""Every merge method in readable numpy: slow, complete, and the oracle of everything fast.

All arithmetic is float64. `precision` says to which dtype each step's result is rounded: `float64`
rounds nothing and gives the mathematics; the others give what torch on a CPU, and so mergekit
0.1.5, computes for tensors of that dtype. `rounding` states torch's rules.

| symbol | meaning | shape |
|---|---|---|
| base | tensor of the common base | (...) |
| experts | tensors of the fine-tuned models | k × (...) |
| delta | expert − base | (...) |
| weights | factor of each expert | (k,) |
| densities | share of each delta that is kept | (k,) |

It imports nothing of mergeplan, and nothing that runs imports it.
"""

from mergeplan.reference.deltas import DeltaOptions, merge_deltas
from mergeplan.reference.karcher import karcher
from mergeplan.reference.linear import linear, passthrough
from mergeplan.reference.model_stock import model_stock
from mergeplan.reference.multislerp import multislerp
from mergeplan.reference.ram import ram, ramplus_tl
from mergeplan.reference.rounding import ROUNDERS, Array, Rounding, round_to
from mergeplan.reference.sce import largest_variances, sce
from mergeplan.reference.slerp import nuslerp, slerp
from mergeplan.reference.sparsify import drop, drop_by_rank, l1_scale, trim, trim_outliers
from mergeplan.reference.swap import arcee_fusion, important, nearswap

__all__ = [
    "ROUNDERS",
    "Array",
    "DeltaOptions",
    "Rounding",
    "arcee_fusion",
    "drop",
    "drop_by_rank",
    "important",
    "karcher",
    "l1_scale",
    "largest_variances",
    "linear",
    "merge_deltas",
    "model_stock",
    "multislerp",
    "nearswap",
    "nuslerp",
    "passthrough",
    "ram",
    "ramplus_tl",
    "round_to",
    "sce",
    "slerp",
    "trim",
    "trim_outliers",
]
