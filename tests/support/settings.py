"""How much runs, and where the data of the tests are."""

import os
from pathlib import Path

FULL = os.environ.get("MERGEPLAN_FULL") == "1"
ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
EVAL = DATA / "eval"
DEMO_POOL = ROOT / "python" / "mergeplan" / "demo" / "pool"
