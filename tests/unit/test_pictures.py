"""What pictures show: the numbers drawn, every name, and nothing over anything else."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from mergeplan.display.figure import GOOD, canvas
from mergeplan.errors import InputError
from mergeplan.law.fit import fit
from mergeplan.law.panels import band_of
from mergeplan.law.pictures import fill_law, plot
from mergeplan.measurements.file import load_measurements
from mergeplan.pool.geometry.geometry import Geometry, TensorGroup, mean_of_pairs
from mergeplan.pool.geometry.pictures import fill_geometry
from mergeplan.selection.fitting import fit_table
from mergeplan.selection.front import pareto_front
from mergeplan.selection.pictures import fill_selection
from mergeplan.selection.select import select
from tests.support.commands import cli
from tests.support.pictures import faults_of, texts_of
from tests.support.settings import ROOT
from tests.tools.gallery import PICTURES, page

pytest.importorskip("matplotlib")

HEAD = "method,options,n_params,k,subset,domain,loss_nats,loss_se\n"
TIES = '"{""density"": 0.2, ""lambda"": %s}"'
# What a formula, markup, a legend, a short panel or a Latin font would trip over.
NAMES = [
    "$x_1$", "a$b", "<b>&", "_hidden", "модель", "模型", "org/" + "long-" * 30 + "v1",
    "org/" + "long-" * 15 + "x-" + "long-" * 15 + "v1",
]  # fmt: skip


def table(path, names, *, error=0.07, scan=True):
    """Two methods of a pool of eight, some k measured in part, a base, and four lambdas of all."""
    rng = np.random.default_rng(0)
    lines = [f"base,{{}},80592,0,,macro,1.93,{error}"]
    for method, options, tail in (("average", "{}", 0.03), ("ties", TIES % 0.7, 0.025)):
        for k, count in ((1, 8), (2, 7), (4, 5), (8, 1)):
            some = list(itertools.combinations(names, k))
            for subset in (some[i] for i in rng.permutation(len(some))[:count]):
                loss = 1.9 + tail / k + 0.006 * rng.standard_normal() * (1 / k - 1 / 8) ** 0.5
                row = f"{method},{options},80592,{k},{'+'.join(subset)},macro,{loss:.5f},{error}"
                lines.append(row)
    for strength, loss in ((0.2, 1.912), (0.5, 1.904), (1.0, 1.92)) if scan else ():
        lines.append(f"ties,{TIES % strength},80592,8,{'+'.join(names)},macro,{loss},{error}")
    path.write_text(HEAD + "\n".join(lines) + "\n")
    return load_measurements(path)


def drawn(data, target=None):
    result = fit(data)
    with canvas() as figure:
        fill_law(figure, result, target, data.rows)
        return result, figure, faults_of(figure)


def line_of(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def test_a_law_shows_each_number_once_and_names_everything(tmp_path):
    result, figure, faults = drawn(table(tmp_path / "m.csv", list("abcdefgh")), 1.91)
    assert faults == []
    assert len(result.fits) == 2
    texts = "\n".join(texts_of(figure))
    assert "{" not in texts
    for words in (
        "average, base of 80.6k", "TIES, density 0.2, λ 0.7", "base 80.6k\n1.930", "target\n1.910",
        "all methods, base of 80.6k", "one subset by λ", "a+b+c+d+e+f+g+h", "± 0.12\nthis text",
    ):  # fmt: skip
        assert words in texts, words
    _, upper, lower, *_, scan = figure.axes
    fit_ = result.fits[0]
    # The band is of the means on this text; the text's error, ten times as much, has its bracket.
    band, whole = band_of(fit_), fit_.predict(8)
    last = (band.middle[-1], band.low[-1], band.high[-1])
    assert last == pytest.approx((whole.loss, whole.low, whole.high))
    assert np.all((band.low <= band.middle) & (band.middle <= band.high))
    assert np.ptp(upper.get_ylim()) < 0.12
    shapes = [one for one in upper.collections if one.get_label() == "band"]
    assert shapes[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(band.high.max())
    singles = line_of(upper, "singles").get_ydata()
    assert len(singles) == 20  # all but the one merge of eight
    assert singles.min() == pytest.approx(min(point.best_loss for point in fit_.series.points[:3]))
    open_ks = line_of(upper, "predicted").get_xdata()
    assert list(open_ks) == [3, 5, 6, 7]
    # Residuals are points with bars, in the unit that is said.
    points, bars = lower.lines[1], lower.collections[0]
    left = [p.loss - fit_.forecast.predict(p.k) for p in fit_.series.points]
    assert points.get_linestyle() == "None"
    assert points.get_ydata() / 1000 == pytest.approx(left)
    assert "0.001 nats" in lower.get_title(loc="left")
    assert [np.ptp(path.vertices[:, 1]) > 0 for path in bars.get_paths()] == [0, 1, 1, 0]
    assert list(scan.lines[0].get_xdata()) == [0.2, 0.5, 0.7, 1.0]
    assert list(scan.lines[1].get_xdata()) == [0.7 if scan.lines[0].get_ydata()[2] < 1.904 else 0.5]


def test_a_law_alone_shows_the_spread_that_it_knows(tmp_path):
    data = table(tmp_path / "m.csv", list("abcdefgh"))
    result = fit(data, method="average")
    with canvas() as figure:
        fill_law(figure, result)
        assert faults_of(figure) == []
    upper = figure.axes[0]
    bars = [np.ptp(one.get_ydata()) / 2 for one in upper.lines if one.get_label() == "spread"]
    known = [point for point in result.fits[0].series.points if point.spread]
    assert bars == pytest.approx([point.spread for point in known])
    assert list(line_of(upper, "best").get_ydata()) == [point.best_loss for point in known]


def test_names_of_strangers_are_text_and_stay_apart(tmp_path):
    data = table(tmp_path / "m.csv", NAMES, error="", scan=False)
    text = (tmp_path / "m.csv").read_text().replace("average", "$\\frac_$")
    (tmp_path / "m.csv").write_text(text)
    data = load_measurements(tmp_path / "m.csv")
    _, figure, faults = drawn(data)
    assert faults == []
    assert any("$\\frac_$, base" in text for text in texts_of(figure))


def test_a_file_of_another_kind_is_refused_before_anything_is_read(tmp_path):
    nothing, out = tmp_path / "none", tmp_path / "law.jpg"
    with pytest.raises(InputError, match=r"cannot draw `.*law\.jpg`") as caught:
        plot(nothing, out)
    assert caught.value.hint == "name a file that ends in .png, .pdf or .svg"
    for words in (
        ("plot", nothing, "-o"),
        ("select", nothing, "--plot"),
        ("similarity", nothing, "--plot"),
    ):
        run = cli(*words, out)
        assert run.returncode == 1
        assert "cannot draw" in run.stderr


@pytest.mark.parametrize(("suffix", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_few_rows_are_drawn_the_same_again(tmp_path, suffix, start):
    (tmp_path / "m.csv").write_text("k,loss_nats\n1,1.72\n2,1.70\n")
    files = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for file in files:
        plot(tmp_path / "m.csv", file)
    first, second = (file.read_bytes() for file in files)
    assert first.startswith(start)
    assert first == second


def pool(path, names, *, measured=15, domains=("code", "text")):
    """Merges of some experts on two domains, of which two get in each other's way, and the base."""
    rng = np.random.default_rng(1)
    own = dict(zip(names, rng.normal(0, 0.03, len(names)), strict=True))
    subsets = [s for k in range(1, len(names) + 1) for s in itertools.combinations(names, k)]
    lines = ["method,options,n_params,k,subset,domain,loss_nats"]
    lines += [f"base,{{}},80592,0,,{domain},1.95" for domain in domains]
    for number, subset in enumerate(subsets):
        if number >= measured and len(subset) < len(names):
            continue
        for shift, domain in enumerate(domains):
            worse = 0.04 * ({names[0], names[1]} <= set(subset)) / len(subset)
            mean = sum(own[name] * (-1) ** shift for name in subset) / len(subset)
            loss = 1.9 + 0.1 / len(subset) + mean + worse
            lines.append(f"average,{{}},80592,{len(subset)},{'+'.join(subset)},{domain},{loss:.5f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def selected(path, front=()):
    selection = select(path)[0]
    points = pareto_front([fit_table(selection.table, name) for name in front]) if front else []
    with canvas() as figure:
        fill_selection(figure, selection, points, front)
        return selection, figure, faults_of(figure)


def test_a_selection_tells_measured_from_predicted_and_good_pairs_from_bad(tmp_path):
    names = list("abcde")
    path = pool(tmp_path / "m.csv", names, measured=12)
    selection, figure, faults = selected(path, ("code", "text"))
    assert faults == []
    predicted, sizes, pairs, helps, front = figure.axes
    law = selection.law
    k = (law.weights > 0).sum(1)
    assert line_of(predicted, "single experts").get_xdata() == pytest.approx(law.left_out[k == 1])
    dots = np.asarray(predicted.collections[0].get_offsets())
    assert dots[:, 1] == pytest.approx(law.values[k > 1])
    assert f"merges of two and more: R² {law.r2:.3f}" in "".join(texts_of(figure))
    star = line_of(sizes, "choice")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (selection.best.k, selection.best.value)
    best = [one for one in sizes.lines if (one.get_marker(), one.get_mec()) == ("v", GOOD)]
    solid, hollow = (
        {x for one in best for x in one.get_xdata() if (one.get_mfc() == "white") == open_}
        for open_ in (False, True)
    )
    assert solid == {k for k, choice in selection.by_size.items() if choice.measured}
    assert hollow == {k for k, choice in selection.by_size.items() if not choice.measured}
    assert hollow
    # a and b get in each other's way: above zero, on a scale that is as long on both sides of it.
    image = pairs.images[0]
    order = [text.get_text() for text in pairs.get_xticklabels()]
    worst = np.unravel_index(np.nanargmax(np.asarray(image.get_array(), float)), (5, 5))
    assert {order[i] for i in worst} == {"a", "b"}
    assert image.norm.vmin == -image.norm.vmax
    beyond = np.nansum(np.asarray(image.get_array(), float), axis=0)
    assert beyond == pytest.approx(np.zeros(5), abs=1e-9)
    assert "better together ← 0 → worse, 0.001 nats" in texts_of(figure)
    assert [text.get_text() for text in helps.get_xticklabels()] == ["code", "text"]
    bold = {t.get_text() for t in helps.get_yticklabels() if t.get_fontweight() == "bold"}
    assert bold == set(selection.best.subset)
    assert front.get_xlabel() == "code"


def test_of_a_metric_blue_is_more_and_a_pair_that_is_better_is_above_zero(tmp_path):
    path = pool(tmp_path / "m.csv", list("abcd"), domains=("acc",))
    text = path.read_text().replace("base,{},80592,0,,acc,1.95\n", "")
    head, *rows = text.replace("loss_nats", "value,better,metric").splitlines()
    path.write_text("\n".join([head, *(f"{row},higher,acc" for row in rows)]) + "\n")
    _, figure, faults = selected(path)
    assert faults == []
    assert figure.axes[2].images[0].cmap.name == "RdBu"
    assert any(text.startswith("worse together ← 0 → better") for text in texts_of(figure))


def test_names_of_strangers_stay_apart_in_maps_and_lists(tmp_path):
    path = pool(tmp_path / "m.csv", NAMES[2:], domains=("$x^2$", "<i>_"))
    _, figure, faults = selected(path, ("$x^2$", "<i>_"))
    assert faults == []
    labels = [text.get_text() for text in figure.axes[2].get_yticklabels()]
    assert len(set(labels)) == len(labels)
    assert {"<b>&", "_hidden", "модель"} <= set(labels)


def geometry(names, layers, kinds):
    """Deltas that have something in common; those of a last kind are all zero."""
    rng = np.random.default_rng(0)
    n = len(names)

    def group(factor=1.0):
        delta = factor * (rng.normal(size=(n, 60)) + 0.3 * rng.normal(size=60))
        same = np.sign(delta)[:, None] == np.sign(delta)[None]
        agreement = same.mean(2) if factor else np.full((n, n), np.nan)
        return TensorGroup(60, delta @ delta.T, agreement, np.sort(rng.uniform(0, 1, (n, 2)), 1))

    by_kind = {kind: group(float(kind != kinds[-1])) for kind in kinds}
    by_layer = {layer: group() for layer in range(layers)}
    return Geometry(Path("b"), tuple(names), 8e4, (0.1, 0.5), group(), by_layer, by_kind, {}, 0)


def pictured(found):
    with canvas() as figure:
        fill_geometry(figure, found)
        return figure, faults_of(figure)


def test_a_geometry_has_chance_drawn_whole_layers_and_every_expert_named():
    found = geometry(NAMES, 2, ["attention", "$x$", "norm"])
    figure, faults = pictured(found)
    assert faults == []
    cosines, kept, by_layer, signs, kinds, _ = figure.axes
    image = cosines.images[0]
    assert image.norm.vmin == -image.norm.vmax
    drawn = np.asarray(image.get_array(), float)
    assert drawn[0, 1] == pytest.approx(found.whole.cosines[0, 1])
    assert np.isnan(np.diag(drawn)).all()
    labels = [[text.get_text() for text in axes.get_yticklabels()] for axes in (cosines, kept)]
    assert labels[0] == labels[1]
    assert len(set(labels[0])) == len(NAMES)
    normal = [line.get_xdata()[0] for line in kept.lines if line.get_label() == "normal"]
    x = np.linspace(9, 0, 100_001)
    density = np.exp(-(x**2) / 2) * np.sqrt(2 / np.pi) * (x[0] - x[1])
    shares = [(x**2 * density)[np.cumsum(density) <= largest].sum() for largest in (0.1, 0.5)]
    assert normal == pytest.approx(shares, abs=1e-3)
    marks = [line for line in kept.lines if line.get_linestyle() == "None"]
    assert [list(one.get_xdata()) for one in marks] == found.whole.kept.T.tolist()
    means = [mean_of_pairs(group.cosines) for group in found.by_layer.values()]
    assert line_of(by_layer, "means").get_ydata() == pytest.approx(means)
    assert line_of(by_layer, "chance").get_ydata()[0] == 0
    assert line_of(signs, "chance").get_ydata()[0] == 50
    assert {"unrelated\n0", "chance\n50 %"} <= set(texts_of(figure))
    low, high = by_layer.get_xlim()
    assert [tick for tick in by_layer.get_xticks() if low < tick < high] == [0, 1]
    assert [text.get_text() for text in kinds.get_yticklabels()][-1] == "norm, no delta"


@pytest.mark.parametrize(("experts", "layers"), [(1, 3), (50, 200)])
def test_one_expert_and_fifty_fit(experts, layers):
    names = [f"org/some-model-{number}" for number in range(experts)]
    figure, faults = pictured(geometry(names, layers, ["attention", "mlp"]))
    assert faults == []
    shown = texts_of(figure)
    assert all(name in shown for name in names)


def test_the_gallery_shows_what_its_command_draws():
    docs = ROOT / "docs"
    assert (docs / "gallery.md").read_text("utf-8") == page()
    files = sorted((docs / "gallery").iterdir())
    assert [file.stem for file in files] == sorted(name for name, *_ in PICTURES)
    assert sum(file.stat().st_size for file in files) < 460_000
