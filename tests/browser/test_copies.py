"""What the report page gives to be copied, and what strangers' names do to it."""

import csv
import io
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mergeplan
from tests.support.browser import Browser
from tests.support.reports import data_of, run_of
from tests.support.settings import DATA

SVG = "{http://www.w3.org/2000/svg}"
# In place of the recorded run's experts and domains, its method and its folder; sorted as they are.
HOSTILE = {
    "html": "'\"><svg onload=window.ran=4>\u202e\u05d0\u05d1\u05d2",
    "js": "</script><img src=x onerror=window.ran=1><script>window.ran=2</script>",
    "md": "<b onmouseover=window.ran=3 style=position:fixed>md</b>",
    "perl": "=1&copy;2",
    "python": "p" * 300,
    "average": "<iframe src=javascript:window.ran=5>{{7*7}}<!--DATA-->",
}
FOLDER = "<img src=x onerror=window.ran=6>&copy;"


def copied(page: Any, panel: str, kind: str) -> str:
    button = f"#panel-{panel} .copy button[title='copy as {kind}']"
    page.evaluate(f"document.querySelector(`{button}`).click()")
    return page.evaluate("window.copied.pop()")


def rows(page: Any, panel: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(copied(page, panel, "CSV"))))


def test_each_panel_copies_as_a_picture_that_stands_alone(page: Any) -> None:
    panels = page.locator("section.panel:has(button[title='copy as SVG'])").all()
    assert len(panels) > 5
    for panel in panels:
        name = panel.get_attribute("id").removeprefix("panel-")
        text = copied(page, name, "SVG")
        picture = ET.fromstring(text)
        assert "var(" not in text
        shown = panel.locator(".body svg").all()
        inner = picture.findall(f"{SVG}svg")
        assert len(inner) == len(shown) > 0
        assert float(picture.get("height")) >= sum(float(one.get("height")) for one in inner)
        for own, one in zip(inner, shown, strict=True):
            assert "".join(own.itertext()) == one.text_content()
        texts = [one for one in picture.iter(f"{SVG}text") if one.text]
        assert all(one.get("fill").startswith("rgb(") for one in texts)
    headings = page.locator("#panel-domains h3").all_inner_texts()
    outer = ET.fromstring(copied(page, "domains", "SVG")).findall(f"{SVG}text")
    assert [one.text for one in outer] == headings


def test_each_panel_copies_as_csv_with_its_values(page: Any, report_page: Path) -> None:
    run = run_of(report_page)
    group = int(page.input_value("[data-key=group]"))
    for name in run["panels"]:
        [head, *lines] = rows(page, name)
        assert lines, name
        assert {len(line) for line in lines} == {len(head)}, name
    curve = run["panels"]["law"]["curves"][f"{group}:0"]
    law = rows(page, "law")
    assert [float(line[3]) for line in law if line[0] == "mean"] == curve["mean"]
    merges = [one for one in run["merges"] if one["g"] == group]
    assert [float(line[3]) for line in law if line[0] == "merge"] == [one["v"][0] for one in merges]
    listed = {line[0]: line for line in rows(page, "subsets")[1:]}
    assert len(listed) == 31
    for one in merges:
        name = "+".join(run["experts"][place] for place in one["x"])
        assert float(listed[name][2]) == one["v"][0]
        assert listed[name][5] == "true"
    steps = run["panels"]["history"]["steps"]
    assert [float(line[3]) for line in rows(page, "history")[1:]] == [s["value"] for s in steps]


def test_a_command_is_copied_and_said(page: Any) -> None:
    page.click("#panel-verdict .copy button[title='copy as command']")
    [said] = page.evaluate("window.copied")
    assert said.startswith("mergeplan calibrate ")
    assert page.locator("#panel-verdict button", has_text="copied").count() == 1


def test_without_a_clipboard_the_text_is_there_to_be_copied(page: Any) -> None:
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    page.click("#panel-history button[title='copy as CSV']")
    assert page.locator("#panel-history textarea").input_value().startswith("merge,method,k,")


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded run, whose names are traps, and a table of three rows."""
    folder = tmp_path_factory.mktemp("hostile")
    run = Path(shutil.copytree(DATA / "run_5_experts", folder / FOLDER))
    for path in (run / "scores.jsonl", run / "held_back.jsonl", run / "geometry.json"):
        lines = map(json.loads, path.read_text("utf-8").splitlines())
        path.write_text("".join(json.dumps(renamed(line)) + "\n" for line in lines), "utf-8")
    with (run / "measurements.csv").open(newline="", encoding="utf-8") as file:
        table = [renamed(row) for row in csv.reader(file)]
    with (run / "measurements.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    out = folder / "report.html"
    (folder / "three.csv").write_text("k,loss_nats\n1,2.0\n2,1.9\n4,1.85\n")
    mergeplan.report([run, folder / "three.csv"], out)
    return out


def renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {renamed(key): renamed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [renamed(one) for one in value]
    if isinstance(value, str):
        return "+".join(HOSTILE.get(name, name) for name in value.split("+"))
    return value


def test_hostile_names_are_shown_and_do_nothing(
    opened: Callable[..., Any], hostile_page: Path
) -> None:
    page = opened(hostile_page, width=390)
    panels = page.locator("section.panel").all()
    assert {one.get_attribute("id").removeprefix("panel-") for one in panels} == set(
        data_of(hostile_page)["runs"][0]["panels"]
    )
    page.locator("#panel-law circle.dot").first.click(force=True)
    page.locator("#panel-subsets tbody tr").first.hover()
    for place in range(4):
        page.select_option("[data-key=target]", str(place))
    assert page.evaluate("window.ran") is None
    assert (
        page.locator("img, iframe, #panels script, #panels style, #panels b:not(.light b)").count()
        == 0
    )
    attributes = "[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())"
    assert not [one for one in page.evaluate(attributes) if one.startswith("on")]
    ticks = page.locator("#panel-subsets .ticks label").all_text_contents()
    shown = [one.replace("\u202e", "\\u202e") for one in HOSTILE.values()]
    assert sorted(ticks) == sorted(shown[:5])
    assert page.locator("h1").text_content() == f"{FOLDER}: what to merge"
    assert page.title() == f"{FOLDER}, three.csv - mergeplan"
    assert HOSTILE["average"] in page.locator("[data-key=group] option").all_text_contents()
    assert HOSTILE["md"] in page.locator("[data-key=target] option").all_text_contents()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 391
    assert not set("\u202a\u202b\u202d\u202e") & set(page.locator("#panels").text_content())
    names = {line[0] for line in rows(page, "experts")}
    assert "'" + HOSTILE["perl"] in names  # no formula
    assert HOSTILE["md"] in names
    ET.fromstring(copied(page, "experts", "SVG"))


def test_runs_on_one_page_are_chosen_between(
    opened: Callable[..., Any], hostile_page: Path
) -> None:
    page = opened(hostile_page)
    count = page.locator("#subsets tbody tr").count()
    page.click("#panel-subsets summary")
    page.locator("[data-key='keep 2']").fill("10")
    assert page.locator("#subsets tbody tr").count() < count
    page.select_option("[data-key=run]", "1")
    assert page.locator("h1").inner_text() == "three.csv: what to merge"
    assert page.locator("#panel-history").is_hidden()
    assert "2.0000" in page.locator("#panel-law").text_content()
    page.select_option("[data-key=run]", "0")
    assert page.locator("#panel-history").is_visible()
    assert page.locator("#subsets tbody tr").count() == count


def test_its_policy_lets_nothing_run_or_load(browser: Browser, report_page: Path) -> None:
    page = browser.open(report_page)
    asked: list[str] = []
    page.on("requestfinished", lambda one: asked.append(one.url))
    blocked = page.evaluate("""async () => {
      const found = new Set();
      addEventListener("securitypolicyviolation", (event) => found.add(event.effectiveDirective));
      const add = (tag, given) => {
        const node = Object.assign(document.createElement(tag), given);
        document.body.append(node);
        return node;
      };
      add("script", {textContent: "window.ran = 1"});
      add("script", {src: "http://127.0.0.1:9/x.js"});
      add("img", {src: "http://127.0.0.1:9/x.png"});
      add("iframe", {src: "http://127.0.0.1:9/"});
      add("link", {rel: "stylesheet", href: "http://127.0.0.1:9/x.css"});
      add("style", {textContent: "body { display: none }"});
      const held = add("div", {innerHTML: "<a onclick='window.ran = 2' style='color: red'>x</a>"});
      held.firstChild.click();
      await fetch("http://127.0.0.1:9/").catch(() => null);
      await new Promise((done) => setTimeout(done, 50));
      return [...found].sort();
    }""")
    assert page.evaluate("window.ran") is None
    assert asked == []
    assert page.locator("body").is_visible()
    assert {one.removesuffix("-elem").removesuffix("-attr") for one in blocked} == {
        "connect-src",
        "frame-src",
        "img-src",
        "script-src",
        "style-src",
    }
