"""Merge three experts of the bundled pool by TIES.

python examples/01_merge.py [OUT_DIR]
"""

import sys
import tempfile
from pathlib import Path

import mergeplan

POOL = mergeplan.DEMO_POOL
CONFIG = {
    "merge_method": "ties",
    "base_model": POOL / "base",
    "models": [{"model": POOL / name} for name in ("python", "perl", "js")],
    # A list is a gradient, from the first layer to the last.
    "parameters": {"weight": 1.0, "density": [0.2, 0.5], "lambda": 0.4},
    "dtype": "float32",
}

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "merged"
print(mergeplan.merge(CONFIG, out))
