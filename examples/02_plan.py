"""Fit the law to losses at k = 1, 2 and 4, and ask for the smallest merge that reaches a target.

python examples/02_plan.py
"""

import csv
import tempfile
from pathlib import Path

import mergeplan

POOL = mergeplan.DEMO_POOL

# Keep the few rows that someone would have measured: the base, and k = 1, 2, 4.
few = Path(tempfile.mkdtemp()) / "measurements.csv"
with (POOL / "measurements.csv").open() as source, few.open("w", newline="") as target:
    rows = csv.DictReader(source)
    writer = csv.DictWriter(target, rows.fieldnames or [])
    writer.writeheader()
    writer.writerows(row for row in rows if row["k"] in ("0", "1", "2", "4"))

result = mergeplan.fit(few, method="task_arithmetic", pool_size=9)
law = result.fits[0].law
for k in range(1, 10):
    print(f"k = {k}: expected loss {law.predict(k):.4f}")
print()
print(mergeplan.suggest(result, target_loss=1.9055).summary())
