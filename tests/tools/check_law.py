"""How well the law describes a complete sweep, and forecasts it from three points.

    python tests/tools/check_law.py RUN_DIR/measurements.csv

For each method, the macro loss and the worst domain: R² of the curve through all k; the largest
error at other k of the curve through the means at k = 1, 2 and 4, as a share of L(1) - L(M), and as
a share of the error of the constant forecast L(4).
"""

import sys
from dataclasses import replace
from pathlib import Path

from mergeplan.law.fit import fit, fit_series
from mergeplan.law.series import Series, name_of
from mergeplan.measurements.file import load_measurements
from mergeplan.measurements.rows import MACRO, Measurements

CALIBRATION = (1, 2, 4)


def forecast_errors(whole: Series, few: Series) -> tuple[float, float]:
    """Largest error of the forecast from few points: over the drop, and over the constant's error.

    What was given to it, as L(M) of four points, is not counted.
    """
    law = fit_series(few).forecast
    truth = {point.k: point.loss for point in whole.points}
    drop = abs(truth[1] - truth[max(truth)])
    others = [k for k in truth if k not in {point.k for point in few.points}]
    error = max(abs(law.predict(k) - truth[k]) for k in others)
    constant = max(abs(truth[4] - truth[k]) for k in others)
    return error / drop, error / constant


def main() -> None:
    data = load_measurements(Path(sys.argv[1]))
    domains = sorted({row.domain for row in data.rows} - {MACRO})
    size = max(row.k for row in data.rows)
    for ks in (CALIBRATION, (*CALIBRATION, size)):
        print(f"\nfrom k = {', '.join(map(str, ks))}")
        few = replace(data, rows=tuple(row for row in data.rows if row.k in (0, *ks)))
        print_errors(data, few, domains, size)


def print_errors(data: Measurements, few: Measurements, domains: list[str], pool_size: int) -> None:
    """One line for each method and base size."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for domain in (MACRO, *domains):
        whole = {name_of(one.series): one for one in fit(data, domain=domain).fits}
        for one in fit(few, domain=domain, pool_size=pool_size).fits:
            name = name_of(one.series)
            if name in whole and len(whole[name].series.points) > len(one.series.points):
                errors = forecast_errors(whole[name].series, one.series)
                found.setdefault(name, {})[domain] = (whole[name].r2, *errors)
    print("| method | R² | worst domain | error / drop | worst domain | error / constant |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, rows in found.items():
        macro = rows.pop(MACRO)
        worst_r2 = min(row[0] for row in rows.values())
        worst = max(row[1] for row in rows.values())
        print(
            f"| {name} | {macro[0]:.4f} | {worst_r2:.4f} | {macro[1]:.1%} | {worst:.1%} |"
            f" {macro[2]:.2f} |"
        )


if __name__ == "__main__":
    main()
