"""Merge three experts of the bundled pool by TIES.

python examples/01_merge.py [OUT_DIR]
"""

import sys
import tempfile
from pathlib import Path

import mergeplan
from mergeplan.demo.demo import POOL

CONFIG = f"""
merge_method: ties
base_model: {POOL / "base"}
models:
  - model: {POOL / "python"}
  - model: {POOL / "perl"}
  - model: {POOL / "js"}
parameters:
  weight: 1.0
  density: [0.2, 0.5]      # from the first layer to the last
  lambda: 0.4
dtype: float32
"""

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "merged"
out.parent.mkdir(parents=True, exist_ok=True)
config = out.with_name("merge.yml")
config.write_text(CONFIG)

report = mergeplan.merge(config, out)
print(f"{report.tensors} tensors in {report.seconds:.3f} s: {report.out}")
