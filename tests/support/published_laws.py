"""What the paper prints."""

import csv

from mergeplan.law.formulas import JointLaw
from tests.support.settings import DATA


def published(method: str) -> dict[str, JointLaw]:
    """Tables 3 to 5: coefficients by domain, N in billions."""
    with (DATA / f"law_{method}.csv").open() as file:
        return {
            row["domain"]: JointLaw(
                float(row["l_star"]),
                float(row["b_size"]),
                float(row["beta"]),
                float(row["a_0"]),
                float(row["gamma"]),
                float(row["offset"]),
            )
            for row in csv.DictReader(file)
        }
