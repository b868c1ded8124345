"""What `import mergeplan` gives: everything a notebook needs, results that fit a screen, hints."""

import inspect
import sys
import traceback

import pytest

import mergeplan
from mergeplan.display.summary import COLUMNS, LINES
from tests.support.checkpoints import load_tensors


@pytest.fixture(scope="module")
def merged(demo_pool, tmp_path_factory):
    """A merge of two experts from a dict, and its report."""
    models = [{"model": demo_pool / name} for name in ("js", "md")]
    config = {"merge_method": "linear", "models": models, "parameters": {"weight": 1}}
    return config, mergeplan.merge(config, tmp_path_factory.mktemp("merged") / "out")


def test_dir_shows_the_names_and_nothing_else():
    names = dir(mergeplan)
    assert names == sorted(mergeplan.__all__)
    assert {"calibrate", "fit", "suggest", "select", "merge", "verify", "InputError"} <= set(names)
    assert not {"Any", "TYPE_CHECKING", "import_module", "lazy_loader"} & set(names)
    for name in names:
        assert getattr(mergeplan, name) is not None


def test_public_functions_say_what_they_take_give_and_raise():
    for name in dir(mergeplan):
        found = getattr(mergeplan, name)
        if name == "__version__" or not (inspect.isfunction(found) or inspect.isclass(found)):
            continue
        text = inspect.getdoc(found) or ""
        assert text, name
        if inspect.isfunction(found):
            assert "Raises:" in text, name
            returns = inspect.signature(found).return_annotation
            if returns not in (None, "None") and "Yield" not in text:
                assert "Returns:" in text, name


def test_results_print_a_screen_and_tell_the_whole(demo_pool, few_measured, merged, tmp_path):
    rows = demo_pool / "measurements.csv"
    config, report = merged
    law = mergeplan.fit(rows)
    results = [
        law,
        mergeplan.suggest(law, 1.9055),
        mergeplan.select(few_measured, method="average"),
        *mergeplan.similarity(demo_pool / "pool.yml"),
        report,
        mergeplan.inspect(demo_pool / "base"),
        mergeplan.inspect([demo_pool / "base", demo_pool / "js"]),
        mergeplan.verify(report.out),
        mergeplan.replay(report.out, config),
        mergeplan.replay(demo_pool / "html", config),
        mergeplan.diff(demo_pool / "base", report.out),
        mergeplan.load_pool(demo_pool / "pool.yml"),
        mergeplan.init(demo_pool, dry_run=True),
        mergeplan.doctor(),
        mergeplan.load_measurements(rows),
        mergeplan.sample(demo_pool / "pool.yml", tmp_path / "s"),
        law.fits[0],
        mergeplan.suggest(law, 1.9055).best,
        mergeplan.choose_merge(mergeplan.suggest(law, 1.9055), demo_pool / "pool.yml"),
        mergeplan.select(few_measured)[:2],
    ]
    for result in results:
        lines = repr(result).split("\n")
        assert len(lines) <= LINES
        assert max(map(len, lines)) <= COLUMNS
        whole = result.summary().rstrip().split("\n")
        assert lines[0] == whole[0] or lines[0].endswith("…")
        assert (len(whole) > LINES) == ("`summary()`" in lines[-1])
    assert len(results[0].summary()) > 500


def test_a_hint_reaches_whoever_reads_a_traceback(demo_pool):
    with pytest.raises(mergeplan.InputError, match="2 fits match") as caught:
        mergeplan.fit(demo_pool / "measurements.csv").predict(4)
    assert "method=" in caught.value.hint
    if sys.version_info >= (3, 11):
        shown = "".join(traceback.format_exception(caught.value))
        assert f"\nhint: {caught.value.hint}" in shown


def test_a_notebooks_path(demo_pool, few_measured, tmp_path):
    """Fit, ask, choose, merge what was chosen, check it."""
    best = mergeplan.suggest(demo_pool / "measurements.csv", 1.9055).best
    pool = mergeplan.load_pool(str(demo_pool / "pool.yml"))
    chosen = mergeplan.choose_merge(best, pool)
    report = mergeplan.merge(chosen.config, tmp_path / "merged")
    assert mergeplan.verify(report.out).matches
    streamed = dict(mergeplan.stream(chosen.config))
    for name, tensor in load_tensors(report.out).items():
        assert streamed[name].equal(tensor), name
    selection = mergeplan.select(few_measured, method="average")[0]
    config = mergeplan.config_of(selection, selection.best, pool)
    assert mergeplan.Sweep([config, chosen.config], mergeplan.MergeOptions(threads=1)).shapes(1)
    merges = mergeplan.sample(demo_pool / "pool.yml", tmp_path / "s")
    assert (tmp_path / "s" / "configs" / f"{merges[0].key}.yml").is_file()
    mergeplan.plot(demo_pool / "measurements.csv", tmp_path / "law.svg")
    assert (tmp_path / "law.svg").stat().st_size > 1000


def test_a_config_as_a_dict_is_the_same_merge_as_its_yaml(merged, tmp_path):
    import yaml

    config, report = merged
    plain = {**config, "models": [{"model": str(one["model"])} for one in config["models"]]}
    (tmp_path / "c.yml").write_text(yaml.safe_dump(plain))
    again = mergeplan.merge(str(tmp_path / "c.yml"), tmp_path / "out")
    weights = [(one.out / "model.safetensors").read_bytes() for one in (report, again)]
    assert weights[0] == weights[1]
    with pytest.raises(mergeplan.InputError, match="merge_metod"):
        mergeplan.merge({"merge_metod": "linear"}, tmp_path / "bad")
