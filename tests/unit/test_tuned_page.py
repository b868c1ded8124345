"""The page of a tuning, its data: what the record says, and no path of any machine."""

import json
import shutil

import numpy as np
import pytest

import mergeplan
from mergeplan.errors import InputError, MissingInputError
from mergeplan.reporting import tuned as tuned_module
from tests.support.reports import data_of, run_of
from tests.support.settings import DATA
from tests.support.tunings import DOMAINS, a_tuning


def test_the_page_has_what_the_record_says(tmp_path):
    found = a_tuning(tmp_path / "tuned")
    done = mergeplan.report(tmp_path / "tuned", tmp_path / "page.html")
    assert done.n_bytes < 400_000
    run = run_of(done.out)
    assert list(run["panels"]) == ["tuned", "weights", "effects", "search", "provenance"]
    weights = run["panels"]["weights"]
    assert weights["weights"] == found.weights.tolist()
    assert weights["parts"][0] == {"layer": "layer 0", "kind": "attention"}
    assert np.argwhere(weights["at_bound"]).tolist() == [[0, 0]]
    effects = run["panels"]["effects"]
    assert [one["label"] for one in run["targets"]] == ["the mean of the domains", *DOMAINS]
    for place, name in enumerate(DOMAINS):
        assert np.allclose(effects["effects"][place + 1], found.effects[name], rtol=1e-4)
        assert np.allclose(
            np.array(effects["by_expert"])[:, place], found.effects[name].sum(1), rtol=1e-4
        )
    mean = np.mean(list(found.effects.values()), 0)
    assert np.allclose(effects["effects"][0], mean, rtol=1e-4)
    chosen = [one["name"] for one in run["panels"]["search"]["steps"] if one["chosen"]]
    assert chosen == ["step 1"]
    warnings = " ".join(run["panels"]["tuned"]["warnings"])
    assert "outside of what was measured" in warnings
    assert "bounds" in warnings
    text = done.out.read_text("utf-8")
    assert "other.yml" in text
    assert "somebody" not in text
    assert str(tmp_path) not in text
    assert "<b>perl" not in text


def test_large_tunings_keep_the_effects_on_what_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(tuned_module, "MOST_EFFECTS", 10)
    a_tuning(tmp_path / "tuned")
    done = mergeplan.report(tmp_path / "tuned", tmp_path / "page.html")
    assert len(run_of(done.out)["panels"]["effects"]["effects"]) == 1
    assert any("3 domains" in note for note in done.notes)


def test_a_page_of_a_tuning_and_a_run(tmp_path):
    a_tuning(tmp_path / "tuned", by="expert")
    shutil.copytree(DATA / "run_5_experts", tmp_path / "run")
    out = tmp_path / "page.html"
    mergeplan.report([tmp_path / "run", tmp_path / "tuned"], out)
    assert [one["name"] for one in data_of(out)["runs"]] == ["run", "tuned"]


def test_a_tuning_that_has_not_ended_or_is_damaged_is_named(tmp_path):
    folder = tmp_path / "tuned"
    a_tuning(folder)
    record = json.loads((folder / "tune.json").read_text())
    (folder / "tune.json").write_text(json.dumps({**record, "weights": [[1.0]]}))
    with pytest.raises(InputError, match="a number for each expert and group"):
        mergeplan.report(folder, tmp_path / "page.html")
    (folder / "tune.json").unlink()
    with pytest.raises(MissingInputError, match="is not finished: 0 points") as found:
        mergeplan.report(folder, tmp_path / "page.html")
    assert "mergeplan tune" in found.value.hint
