"""The page of a tuning as a reader has it."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergeplan
from tests.support.tunings import DOMAINS, a_tuning

FAULTS = """() => [...document.querySelectorAll("#panels, #panels *")].flatMap((one) => [
  ...[...one.attributes].map((each) => each.value),
  ...[...one.childNodes].filter((each) => each.nodeType === 3).map((each) => each.data)])
  .filter((text) => /NaN|undefined|\\[object|\\bnull\\b/.test(text))"""


def test_every_panel_of_a_tuning_shows_its_numbers(opened: Callable[..., Any], tmp_path: Path):
    found = a_tuning(tmp_path / "tuned")
    out = tmp_path / "page.html"
    mergeplan.report(tmp_path / "tuned", out)
    page = opened(out, width=420, scheme="dark")
    assert page.evaluate(FAULTS) == []
    names = [one.get_attribute("id") for one in page.locator("section.panel").all()]
    assert names == [
        f"panel-{name}" for name in ("tuned", "weights", "effects", "search", "provenance")
    ]
    for name in names[:-1]:
        panel = page.locator(f"#{name}")
        assert re.search(r"\d\.\d{3}", panel.text_content())
        assert panel.locator("svg").count() > 0
        assert panel.locator("details table").count() > 0
    seen = set()
    for place in range(len(DOMAINS) + 1):
        page.select_option("[data-key=target]", str(place))
        assert page.evaluate(FAULTS) == []
        seen.add(page.locator("#panel-effects").text_content())
    assert len(seen) == len(DOMAINS) + 1
    page.locator("#panel-weights .copy button").last.click()
    rows = list(csv.DictReader(page.evaluate("window.copied.pop()").splitlines()))
    assert [float(row["weight"]) for row in rows] == found.weights.ravel().tolist()
    # What lies at a bound is outlined: one of the weights that were drawn.
    assert page.locator('#panel-weights rect[fill="none"]').count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
