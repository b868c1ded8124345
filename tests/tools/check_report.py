"""What a report page shows, read by a browser, against `--json` and the Python API.

    python tests/tools/check_report.py report.html RUN_DIR_OR_CSV

Read are the texts of the verdict, of the target's table at several places of its slider, of the
table of subsets, of ticks, and of the experts' bars; and the page's own laws at random weights.
Shown numbers have to agree to their last digit, means to 1e-6, intervals to 5 % of their width.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mergeplan
from mergeplan.config.labels import in_words
from mergeplan.display.text import counted
from mergeplan.errors import InputError
from tests.support.browser import a_browser
from tests.support.commands import cli

NINE_IN_TEN = 1.6448536
_POSITIONS, _TICKS, _WEIGHTS = 9, 12, 60


class Check:
    """Numbers that were compared, and what disagrees."""

    def __init__(self) -> None:
        self.compared = 0
        self.faults: list[str] = []

    def same(self, what: str, found: Any, wanted: Any, within: float = 0.0) -> None:
        """One number or word."""
        self.compared += 1
        numbers = isinstance(found, float | int) and isinstance(wanted, float | int)
        if not (abs(found - wanted) <= within if numbers else found == wanted):
            self.faults.append(f"{what}: the page has {found}, wanted is {wanted}")

    def shown(self, what: str, text: str, wanted: float, digits: int = 4) -> None:
        """A number as it is read in the page."""
        read = numbers_in(text)
        self.same(what, read[0] if read else text, wanted, 0.5001 * 10**-digits + 1e-6)

    def half(self, what: str, half: float, wanted: float) -> None:
        """Half an interval's width."""
        self.same(what, half, wanted, 0.05 * wanted + 0.5001e-4)


def numbers_in(text: str) -> list[float]:
    return [float(one.replace("−", "-")) for one in re.findall(r"[−-]?\d+(?:\.\d+)?", text)]


def check(page: Any, path: Path) -> Check:
    """Compares an open page with a run's folder, or a table."""
    found = Check()
    table = path / "measurements.csv" if path.is_dir() else path
    run = page.evaluate("currentRun()")
    metric = run["targets"][0]["metric"] or None
    asked = [table, *(["--metric", metric] if metric else []), "--json"]
    headline = _verdict(found, page, asked)
    _target(found, page, run, asked, metric)
    try:
        selections = mergeplan.select(table, metric=metric)
    except InputError:
        return found
    documents = json.loads(cli("select", *asked).stdout)
    found.same("the headlines", documents["headline"], headline)
    for selection, document in zip(selections, documents["selections"], strict=True):
        own = selection.table
        group = _group(run, own.n_params, own.method, own.options)
        _subsets(found, page, group, selection.law, document)
        _experts(found, page, document)
        for place, target in enumerate(run["targets"]):
            law = selection.law if not place else selection.laws.get(target["name"])
            if law is not None:
                _law(found, page, group, place, law)
    return found


def _group(run: Any, n_params: float | None, method: str, options: str) -> int:
    label = in_words(method, options)
    return next(
        place
        for place, one in enumerate(run["groups"])
        if one["n_params"] == n_params and f"{one['label']}, ".startswith(f"{label}, ")
    )


def _verdict(found: Check, page: Any, asked: list[Any]) -> str | None:
    """The lights and the gains; returns the headline."""
    document = json.loads(cli("suggest", *asked).stdout)
    roles = {
        "base": "base",
        "best single expert": "expert",
        "chosen": "chosen",
        "best merge": "best_merge",
    }
    lights = {
        role: light
        for light in page.locator(".light").all()
        for role in light.locator("b").inner_text().split(", ")
    }
    for role, key in roles.items():
        one = document["verdict"] and document["verdict"][key]
        if one is not None:
            found.shown(role, lights[role].locator(".value").inner_text(), one["on_this_text"])
    said = page.locator("#panel-verdict").inner_text()
    for gain in document["verdict"]["gains"] if document["verdict"] else ():
        found.same("a gain", f"{abs(gain['value']):.4f} " in said, True)
    headline: str | None = document["headline"]
    return headline


def _target(found: Check, page: Any, run: Any, asked: list[Any], metric: str | None) -> None:
    """The target's table at several places of its slider."""
    try:
        fits = mergeplan.fit(asked[0], metric=metric, anyway=True).fits
    except InputError:
        return
    for fit in fits:
        own = fit.series
        group = _group(run, own.n_params, own.method, own.options)
        page.evaluate("set", {"group": group, "target": 0, "relative": False})
        curve = run["panels"]["law"]["curves"][f"{group}:0"]
        for k, mean in enumerate(curve["mean"], 1):
            found.same(f"the mean of k = {k}", mean, fit.predict(k).loss, 1e-6)
        for place in np.linspace(0, len(curve["targets"]) - 1, _POSITIONS).astype(int).tolist():
            value = curve["targets"][place]["value"]
            read = _asked(page, place)
            what = f"{own.method}, target {value:.4f}"
            solution = fit.solve(value)
            found.shown(what, read["target"], value)
            k = numbers_in(read["experts"])
            found.same(f"{what}, k", k[0] if k else None, solution.k)
            if solution.exact is None or math.isinf(solution.exact):
                found.same(f"{what}, crossing", read["crossing"], "never")
            else:
                found.shown(f"{what}, crossing", read["crossing"], solution.exact, 2)
    group = _group(run, fits[0].series.n_params, fits[0].series.method, fits[0].series.options)
    page.evaluate("set", {"group": group})
    asked_for = run["panels"]["law"]["curves"][f"{group}:0"]["targets"]
    place = len(asked_for) // 2
    document = json.loads(cli("suggest", *asked, "--target", asked_for[place]["value"]).stdout)
    for one in document["candidates"]:
        series, solution = one["fit"]["series"], one["solution"]
        options = json.dumps(series["options"])
        if _group(run, series["n_params"], series["method"], options) == group and solution:
            k = numbers_in(_asked(page, place)["experts"])
            found.same("k of suggest --json", k[0] if k else None, solution["k"])


def _asked(page: Any, place: int) -> dict[str, str]:
    page.evaluate(
        "(place) => { const slider = document.getElementById('goal'); slider.value = place;"
        " slider.dispatchEvent(new Event('input')); }",
        place,
    )
    read = "(some) => some.map((row) => [...row.cells].map((cell) => cell.textContent))"
    return dict(page.locator("#goal-table tr").evaluate_all(read))


def _subsets(found: Check, page: Any, group: int, law: Any, document: Any) -> None:
    """The table of subsets, and ticks."""
    page.evaluate("set", {"group": group, "target": 0, "relative": False, "ticks": None})
    chosen = {
        "+".join(one["subset"]): one
        for one in document["by_size"].values()
        if len({round(weight, 9) for weight in one["weights"].values()}) == 1
    }

    def expected(names: Sequence[str]) -> tuple[float, float | None]:
        """Value and half an interval: measured, of `--json`, or of the law."""
        weights = np.array([[(name in names) / len(names) for name in law.experts]])
        measured = float(law.measured(weights)[0])
        if not np.isnan(measured):
            return measured, None
        one = chosen.get("+".join(sorted(names)))
        if one is not None:
            return one["value"], (one["high"] - one["low"]) / 2
        half = NINE_IN_TEN * float(law.deviations(weights)[0])
        return float(law.predict(weights)[0]), half

    read = "(some) => some.map((row) => [...row.cells].map((cell) => cell.textContent))"
    for name, k, value, half, known in page.locator("#subsets tbody tr").evaluate_all(read):
        names = name.split("+")
        if "," in name or not set(names) <= set(law.experts):  # of unequal weights
            continue
        wanted, around = expected(names)
        found.same(f"{name}, k", int(k), len(names))
        found.same(f"{name}, how", known, "measured" if around is None else "predicted")
        found.shown(name, value, wanted)
        found.half(f"{name}, ±", float(half), around or 0.0)
    rng = np.random.default_rng(1)
    for _ in range(_TICKS):
        names = [name for name in law.experts if rng.random() < 0.5] or list(law.experts)
        page.evaluate("(names) => set({ticks: equalWeights(names)})", names)
        if not page.locator("#predicted-value").count():  # said on the page: it did not fit
            found.same(
                "a law that is not there", bool(page.evaluate("currentRun().notes[0]")), True
            )
            continue
        value, *ends = numbers_in(page.locator("#predicted-value").inner_text())
        wanted, around = expected(names)
        found.same(f"ticks {'+'.join(names)}", value, wanted, 0.5001e-4)
        if around is not None:
            found.half(f"ticks {'+'.join(names)}, ±", (ends[1] - ends[0]) / 2, around)


def _experts(found: Check, page: Any, document: Any) -> None:
    """The bars of each expert against `select --json`."""
    read = """(some) => some.map((one) => [one.getAttribute("aria-label"),
      [...one.querySelectorAll("text")].map((text) =>
        (text.querySelector("title") || text).textContent)])"""
    bars = dict(page.locator("#panel-experts svg").evaluate_all(read))
    for title, texts in bars.items():
        for one in document["experts"]:
            wanted = {
                "alone": None if document["base"] is None else one["alone"] - document["base"],
                "on average": one["average"],
                "in the best": one["here"],
            }
            for start, value in wanted.items():
                if title.startswith(start) and value is not None:
                    text = texts[texts.index(one["name"]) + 1]
                    found.shown(f"{one['name']} {title}", text, value)


def _law(found: Check, page: Any, group: int, place: int, law: Any) -> None:
    """The page's own law at weights drawn at random."""
    rng, n = np.random.default_rng(2), len(law.experts)
    chosen = rng.random((_WEIGHTS, n)) < rng.random((_WEIGHTS, 1))
    weights = chosen * rng.exponential(size=(_WEIGHTS, n))
    weights = weights[weights.sum(1) > 0]
    weights /= weights.sum(1, keepdims=True)
    weights = weights[np.isnan(law.measured(weights))]
    read = """([group, place, weights]) => {
      const law = lawOf(currentRun(), group, place);
      return law && weights.map((one) => Object.values(law.predict(one)));
    }"""
    pairs = page.evaluate(read, [group, place, weights.tolist()])
    if pairs is None:  # said on the page: it did not fit
        found.same("a law that is not there", bool(page.evaluate("currentRun().notes[0]")), True)
        return
    exact = zip(law.predict(weights).tolist(), law.deviations(weights).tolist(), strict=True)
    for (value, width), (mean, deviation) in zip(pairs, exact, strict=True):
        found.same(f"the law of {law.name}", value, mean, 1e-6)
        found.same(f"the law of {law.name}, width", width, deviation, 0.05 * deviation)


def main() -> int:
    """Prints what disagrees; 1 where something does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("run", type=Path, help="its run's folder, or its table")
    given = parser.parse_args()
    with a_browser() as browser:
        found = check(browser.open(given.page.resolve()), given.run)
        said = browser.said
    print(*found.faults[:40], *said, sep="\n")
    print(f"{counted(found.compared, 'numbers')} compared, {len(found.faults)} disagree")
    return 1 if found.faults or said else 0


if __name__ == "__main__":
    sys.exit(main())
