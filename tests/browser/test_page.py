"""The report page as a reader has it: seen, clicked, and used without a mouse."""

import csv
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import mergeplan
from tests.support.commands import cli
from tests.support.reports import run_of
from tests.support.settings import DATA, DEMO_POOL
from tests.tools.check_report import check

NUMBER = re.compile(r"\d\.\d{3}")


def number(text: str) -> float:
    return float(re.search(r"[−+-]?\d+(\.\d+)?", text)[0].replace("−", "-"))


def goal(page: Any) -> dict[str, str]:
    rows = page.locator("#goal-table tr").all()
    return dict(row.locator("td").all_inner_texts() for row in rows)


def ticked(page: Any) -> set[str]:
    return set(page.locator("#panel-subsets .ticks label:has(:checked)").all_inner_texts())


def test_every_panel_shows_numbers_whatever_is_chosen(page: Any, report_page: Path) -> None:
    data = run_of(report_page)
    shown = page.locator("section.panel")
    names = [one.get_attribute("id").removeprefix("panel-") for one in shown.all()]
    assert names == list(data["panels"])
    for one in shown.all()[:-1]:
        assert NUMBER.search(one.text_content()), one.get_attribute("id")
    faults = """() => [...document.querySelectorAll("#panels, #panels *")].flatMap((one) => [
      ...[...one.attributes].map((each) => each.value),
      ...[...one.childNodes].filter((each) => each.nodeType === 3).map((each) => each.data)])
      .filter((text) => /NaN|undefined|\\[object|\\bnull\\b/.test(text))"""
    seen = set()
    groups, targets = range(3), range(len(data["targets"]))
    for group, target in itertools.product(groups, targets):
        relative = (group + target) % 2 == 1
        page.evaluate("set", {"group": group, "target": target, "relative": relative})
        assert page.evaluate(faults) == []
        seen.add(page.locator("#panels").text_content())
    assert len(seen) == len(groups) * len(targets)


def test_the_switches_change_what_is_shown(page: Any, report_page: Path) -> None:
    base = next(one for one in run_of(report_page)["merges"] if one["k"] == 0)
    first = page.locator("#subsets tbody tr").first.locator("td").nth(2)
    value = number(first.inner_text())
    page.check("[data-key=relative]")
    assert number(first.inner_text()) == pytest.approx(value - base["v"][0], abs=2e-4)
    assert "less the base's" in page.locator("#panel-law svg").text_content()
    page.uncheck("[data-key=relative]")
    page.select_option("[data-key=target]", "1")
    assert number(first.inner_text()) != value
    of_one = page.locator("#panel-law").text_content()
    page.select_option("[data-key=group]", "1")
    assert page.locator("#panel-law").text_content() != of_one


def test_the_target_moves_k_by_slider_and_by_hand(page: Any, report_page: Path) -> None:
    group = page.input_value("[data-key=group]")
    asked = run_of(report_page)["panels"]["law"]["curves"][f"{group}:0"]["targets"]

    def holds(place: int) -> int | None:
        one, read = asked[place], goal(page)
        assert read["target"] == f"{one['value']:.4f}"
        assert read["experts"] == (
            "no number of this pool's" if one["k"] is None else f"k = {one['k']}"
        )
        return one["k"]

    slider = page.locator("#goal")
    slider.focus()
    seen = []
    last = len(asked) - 1
    for key, place in (("Home", 0), ("ArrowRight", 1), ("End", last), ("ArrowLeft", last - 1)):
        page.keyboard.press(key)
        assert int(slider.input_value()) == place
        seen.append(holds(place))
        assert page.evaluate("document.activeElement.id") == "goal"
    assert len(set(seen)) > 1

    def line() -> dict[str, float]:
        return page.locator("#panel-law .handle line").first.bounding_box()

    at = line()
    page.mouse.move(at["x"] + 200, at["y"])
    page.mouse.down()
    page.mouse.move(at["x"] + 200, at["y"] + 140, steps=4)
    page.mouse.up()
    dragged = int(slider.input_value())
    assert holds(dragged) != seen[-1]
    assert line()["y"] == pytest.approx(at["y"] + 140, abs=5)


def test_the_table_sorts_by_each_column_and_is_searched(page: Any) -> None:
    def column(place: int) -> list[str]:
        return page.locator(f"#subsets tbody td:nth-child({place})").all_inner_texts()

    keys = (str, int, number, number, str)
    for place, key in enumerate(keys, 1):
        head = page.locator("#subsets th button").nth(place - 1)
        head.click()
        once = [key(text) for text in column(place)]
        head.click()
        twice = [key(text) for text in column(place)]
        assert len(set(once)) > 1
        ways = {tuple(once), tuple(twice)}
        assert ways == {tuple(sorted(once)), tuple(sorted(once, reverse=True))}
    every = column(1)
    page.fill("[data-key=find]", "HTML py")
    assert column(1) == [name for name in every if "html" in name and "python" in name]
    assert 0 < len(column(1)) < len(every)


def test_ticks_and_weights_are_predicted_and_their_yaml_runs(
    page: Any, run: Path, tmp_path: Path
) -> None:
    some = mergeplan.select(run / "measurements.csv")
    law = next(one.law for one in some if one.table.method == "average")
    box = page.locator("#panel-subsets")

    def predicted() -> list[float]:
        text = box.locator("#predicted-value").inner_text()
        return [float(one) for one in re.findall(r"\d\.\d{4}", text)]

    before = box.locator("#explorer-yaml").inner_text()
    for name in ticked(page) - {"js"}:
        if len(ticked(page)) > 1:
            box.locator(f"[data-key='tick {name}']").click()
    for name in ("js", "python"):
        box.locator(f"[data-key='tick {name}']").set_checked(True)
    for name in ticked(page) - {"js", "python"}:
        box.locator(f"[data-key='tick {name}']").click()
    assert ticked(page) == {"js", "python"}
    assert box.locator("#explorer-yaml").inner_text() != before
    box.locator("[data-key='weight js']").fill("0.3")
    weights = np.array([[0.3 * (name == "js") + 0.7 * (name == "python") for name in law.experts]])
    half = 1.6448536 * law.deviations(weights)[0]
    [value] = law.predict(weights)
    assert predicted() == pytest.approx([value, value - half, value + half], abs=6e-5)

    (run.parent / "ticked.yml").write_text(box.locator("#explorer-yaml").inner_text())
    done = cli("merge", "ticked.yml", tmp_path / "out", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    [merged, js, python] = [
        load_file(folder / "model.safetensors")["lm_head.weight"]
        for folder in (tmp_path / "out", run.parent / "js", run.parent / "python")
    ]
    assert merged == pytest.approx(0.3 * js + 0.7 * python, abs=1e-6)


def test_the_verdicts_yaml_runs(page: Any, run: Path, tmp_path: Path) -> None:
    text = page.locator("#panel-verdict pre", has_text="models:").inner_text()
    (run.parent / "verdict.yml").write_text(text)
    assert cli("merge", "verdict.yml", tmp_path / "out", cwd=run.parent).returncode == 0
    assert yaml.safe_load(text)["base_model"] == "base"


def test_bounds_and_the_front_leave_what_keeps_them(page: Any) -> None:
    count = page.locator("#subsets tbody tr").count()
    page.click("#panel-subsets summary")
    page.locator("[data-key='keep 2']").fill("10")
    assert 0 < page.locator("#subsets tbody tr").count() < count
    page.locator("#panel-subsets .ticks input").first.click()
    said = page.locator("#panel-subsets details p").inner_text()  # still open
    assert re.search(r"--keep 'md<=\d\.\d{4}'", said)
    labels = "#panel-subsets svg[aria-label=front] text.soft"
    assert page.locator(labels).all_text_contents() == ["html", "md"]
    page.select_option("[data-key='front b']", "3")
    assert page.locator(labels).all_text_contents() == ["html", "python"]


def test_a_dot_pins_its_merge_in_all_panels(page: Any, report_page: Path) -> None:
    assert page.locator("tr.pinned").count() == 0
    bold = page.locator("#panel-experts svg text[font-weight='700']")
    assert bold.count() == 0
    dot = page.locator("#panel-law circle.dot", has_text="html+perl:")
    dot.click(force=True)
    assert page.locator("#panel-law .pin").inner_text().startswith("pinned: html+perl: ")
    assert page.locator("tr.pinned td").first.inner_text() == "html+perl"
    assert ticked(page) == {"html", "perl"}
    assert set(bold.all_text_contents()) == {"htmlhtml", "perlperl"}  # each with its tip
    run = run_of(report_page)
    group, pair = int(page.input_value("[data-key=group]")), [0, 3]  # html, perl
    own = next(one for one in run["merges"] if one["g"] == group and one["x"] == pair)
    shown = page.locator("#panel-domains svg").first.text_content()
    assert f"pinned{own['d'][1]:+.4f}".replace("-", "−") in shown.replace("pinnedpinned", "pinned")
    said = page.locator("#panel-law .pin").inner_text()
    gap, half = own["d"][0], own["e"][0]
    numbers = [number(one) for one in re.findall(r"[−+]\d\.\d{4}", said)]
    assert numbers == pytest.approx([gap, gap - half, gap + half], abs=6e-5)
    line = page.evaluate("domainRows(currentRun(), 1).find((one) => one.name === 'pinned')")
    ends = line["value"] - line["low"], line["high"] - line["value"]
    assert ends == pytest.approx((own["e"][1], own["e"][1]))


def test_it_works_without_a_mouse(page: Any) -> None:
    seen: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.dataset.key || ''"))
        if seen[-1].startswith("row "):
            break
    met = [one for one in seen if one in ("group", "target", "relative", "goal", "find")]
    assert met == ["group", "target", "relative", "goal", "find"]
    page.keyboard.press("Enter")
    name = seen[-1].removeprefix("row ")
    assert page.locator("tr.pinned td").first.inner_text() == name
    assert page.evaluate("document.activeElement.dataset.key") == f"row {name}"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("tr.pinned td").first.inner_text() != name
    page.keyboard.press("Escape")
    assert page.locator("tr.pinned").count() == 0

    page.locator("[data-key='tick js']").focus()
    was = ticked(page)
    page.keyboard.press("Space")
    assert ticked(page) ^ was == {"js"}
    assert page.evaluate("document.activeElement.dataset.key") == "tick js"
    page.locator("[data-key=target]").focus()
    page.keyboard.press("ArrowDown")
    assert page.input_value("[data-key=target]") == "1"
    assert page.evaluate("document.activeElement.dataset.key") == "target"


def test_a_redraw_leaves_the_table_where_it_was(page: Any) -> None:
    table = page.locator("#panel-subsets .scroll")
    table.evaluate("(one) => one.scrollTo(0, 200)")
    page.locator("#subsets tbody tr").nth(20).click()
    assert page.locator("tr.pinned").count() == 1
    assert table.evaluate("(one) => one.scrollTop") >= 200


def test_nothing_is_cut_off_on_a_phone(opened: Callable[..., Any], report_page: Path) -> None:
    page = opened(report_page, width=390)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 391
    page.locator("#panel-subsets .ticks label", has_text="js").click()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 391


# Of every text that is drawn: its contrast against what is behind it, as WCAG computes it.
CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (ink, share, back) => back.map((c, i) => share * ink[i] + (1 - share) * c);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = (color) => color.map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  function behind(node) {
    if (!node) return [255, 255, 255];
    const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
    return a === 1 ? [r, g, b] : over([r, g, b], a, behind(node.parentElement));
  }
  const hasText = (one) => one.tagName !== "title" && one.checkVisibility()
    && [...one.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
  return [...document.querySelectorAll("body *")].filter(hasText).map((one) => {
    const style = getComputedStyle(one), drawn = one instanceof SVGElement;
    let back = behind(drawn ? one.ownerSVGElement.parentElement : one);
    const cell = drawn && one.parentElement.querySelector(":scope > rect:first-child");
    if (cell) {
      const { fill, fillOpacity } = getComputedStyle(cell);
      back = over(parse(fill), +fillOpacity, back);
    }
    const ink = parse(drawn ? style.fill : style.color);
    const found = [light(over(ink, ink[3] ?? 1, back)), light(back)];
    const contrast = (Math.max(...found) + 0.05) / (Math.min(...found) + 0.05);
    return [contrast, one.outerHTML.slice(0, 200)];
  });
}"""


def test_every_text_stands_out(page: Any) -> None:
    page.locator("#panel-law circle.dot").first.click(force=True)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        body = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (body == "rgb(255, 255, 255)") == (scheme == "light")
        found = page.evaluate(CONTRASTS)
        assert len(found) > 300
        assert [one for one in found if one[0] < 4.5] == []


def test_printed_it_is_without_its_controls(page: Any) -> None:
    page.emulate_media(media="print")
    hidden = page.locator("#top, button, input[type=search], .noprint")
    shown = hidden.evaluate_all("(some) => some.map((one) => one.checkVisibility())")
    assert len(shown) > 10
    assert not any(shown)
    assert page.locator("#panel-verdict .headline").is_visible()
    rows = page.locator("#subsets tbody tr").evaluate_all(
        "(some) => some.filter((one) => one.checkVisibility()).length"
    )
    assert 0 < rows <= 25
    table = page.locator("#panel-subsets .scroll")
    assert table.evaluate("(one) => one.scrollHeight <= one.clientHeight")
    page.emulate_media(media="print", color_scheme="dark")
    assert [one for one in page.evaluate(CONTRASTS) if one[0] < 4.5] == []
    style = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert style == "rgb(255, 255, 255)"


def test_all_that_is_shown_of_a_run_is_what_the_commands_say(page: Any, run: Path) -> None:
    found = check(page, run)
    assert found.faults == []
    assert found.compared > 1000


def test_seeds_of_a_subset_are_shown_by_their_mean(
    opened: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    rows = list(csv.DictReader((run / "measurements.csv").read_text().splitlines()))
    average = [row for row in rows if row["method"] in ("base", "average")]
    again = [
        {**row, "seed": "7", "loss_nats": f"{float(row['loss_nats']) + 0.002 * len(row['subset'])}"}
        for row in average
        if row["k"] != "0"
    ]
    table = tmp_path / "seeds.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([*average, *again])
    mergeplan.report(table, tmp_path / "out.html")
    page = opened(tmp_path / "out.html")
    assert check(page, table).faults == []
    page.locator("#panel-law circle.dot", has_text="seed 7").first.click(force=True)
    assert "measured, the mean of 2 seeds" in page.locator("#panel-law .pin").inner_text()


def test_no_interval_is_promised_where_none_is_drawn(page: Any) -> None:
    panel = page.locator("#panel-domains")
    assert "lines: 90 % on texts of this kind" in panel.inner_text()
    page.evaluate("currentRun().merges.forEach((one) => delete one.e); PANELS.forEach(redraw)")
    assert "lines:" not in panel.inner_text()
    assert "no intervals on other texts: some domain has fewer than five" in panel.inner_text()


def test_what_was_scored_on_a_part_of_the_text_is_expected_not_measured(
    opened: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    rows = list(csv.DictReader((run / "measurements.csv").read_text().splitlines()))
    rows = [row for row in rows if row["method"] in ("base", "average")]
    for row in rows:
        row["text_se"] = "0.005" if row["k"] == "2" else ""
    table = tmp_path / "parts.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    mergeplan.report(table, tmp_path / "out.html")
    page = opened(tmp_path / "out.html")
    known = page.locator("#subsets tbody tr", has_text="html+perl").first.locator("td").last
    assert known.inner_text() == "predicted"
    assert check(page, table).faults == []
    page.locator("#panel-law circle.dot", has_text="on a part of the text").first.click(force=True)
    assert " predicted, " in page.locator("#panel-law .pin").inner_text()


def test_a_target_is_asked_of_its_own_curve(page: Any) -> None:
    page.evaluate("set", {"goal": 0.5})
    page.select_option("[data-key=target]", "1")
    slider = page.locator("#goal")
    assert slider.input_value() == str(int(slider.get_attribute("max")) // 3)


@pytest.mark.long
@pytest.mark.parametrize(
    "table",
    [
        DEMO_POOL / "measurements.csv",
        DATA / "real_lm_pool.csv",
        DATA / "byte_pool_30.csv",
        DATA / "downstream_8b_5_experts.csv",
        DATA / "loss_and_scores_270k.csv",
        DATA / "measured_llama3b_16_experts.csv",
        DATA / "select_270k_ties.csv",
    ],
    ids=lambda path: path.stem,
)
def test_all_that_is_shown_of_a_table_is_what_the_commands_say(
    opened: Callable[..., Any], table: Path, tmp_path: Path
) -> None:
    mergeplan.report(table, tmp_path / "out.html")
    found = check(opened(tmp_path / "out.html"), table)
    assert found.faults == []
    assert found.compared > 40


def test_the_headline_says_what_the_answer_comes_to(page: Any, report_page: Path) -> None:
    verdict = run_of(report_page)["panels"]["verdict"]
    chosen = next(one for one in verdict["lights"] if "chosen" in one["role"])
    [gain] = [one for one in verdict["gains"] if one["over"] == "the base"]
    said = page.locator("#panel-verdict .headline").inner_text()
    assert said.startswith(verdict["headline"])
    assert f": {chosen['value']:.4f}, {abs(gain['value']):.4f} better than the base" in said
    assert ("paired, 90 %" in said) == (gain["low"] is not None)
