"""The tool that makes pools: what it collects is apart, what it measures is right."""

import csv
import json
import os
import re
from contextlib import suppress
from itertools import combinations

import numpy as np
import pytest

from tests.support.settings import DATA, DEMO_POOL, EVAL
from tests.tools.byte_pools import collect
from tests.tools.byte_pools.collect import LENGTH
from tests.tools.byte_pools.kinds import KINDS, experts_of
from tests.tools.byte_pools.measure import Judge, random_subsets
from tests.tools.byte_pools.sources import text_of
from tests.tools.trial.large import _lowest
from tests.tools.trial.pools import KINDS as SIMULATED
from tests.tools.trial.trained import StandIn, trained_pool

# Here, and not in the one test that takes it: its import, seconds long, is shared with other files.
with suppress(ImportError):
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401


def test_held_out_texts_share_no_package_and_no_13_tokens_with_training(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "KINDS", {"python": ("*.py",)})
    shared = "one licence that each package repeats at the head of all of its files word for word "
    for number in range(24):
        own = " ".join(f"word{number}x{i}" for i in range(400))
        path = tmp_path / "in" / f"package{number}-1.2" / "file.py"
        path.parent.mkdir(parents=True)
        path.write_text(shared * 8 + own)
    collect.collect(tmp_path / "out", [tmp_path / "in"], debian=False)
    texts = {
        part: [json.loads(line) for line in _lines(tmp_path / "out" / part / "python.jsonl")]
        for part in ("train", "eval")
    }
    packages = {part: {one["group"] for one in rows} for part, rows in texts.items()}
    assert not packages["train"] & packages["eval"]
    assert packages["train"] | packages["eval"] == {f"package{n}" for n in range(24)}
    assert any("licence" in one["text"] for one in texts["train"])

    def grams(part):
        for one in texts[part]:
            words = one["text"].split()
            yield from (tuple(words[i : i + 13]) for i in range(len(words) - 12))

    assert set(grams("eval"))
    assert not set(grams("eval")) & set(grams("train"))
    every = [re.sub(r"\s+", " ", one["text"]) for rows in texts.values() for one in rows]
    assert len(every) == len(set(every))
    assert max(len(text.encode()) for text in every) <= LENGTH


def _lines(path):
    return path.read_text("utf-8").splitlines()


def test_too_few_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "KINDS", {"python": ("*.py",)})
    with pytest.raises(SystemExit, match="`python` has too few packages"):
        collect.collect(tmp_path / "out", [tmp_path], debian=False)


def test_a_catalogue_gives_its_translations_and_not_its_head(tmp_path):
    def table(texts, at):
        places, blob = [], b""
        for text in texts:
            places += [len(text).to_bytes(4, "little"), (at + len(blob)).to_bytes(4, "little")]
            blob += text + b"\0"
        return b"".join(places), blob

    head = [0x950412DE, 0, 2, 28, 44, 0, 0]
    said, words = table([b"Language: de\n", "grün".encode()], 60)
    asked, _ = table([b"", b"green"], 60)
    path = tmp_path / "a.mo"
    path.write_bytes(b"".join(n.to_bytes(4, "little") for n in head) + asked + said + words)
    assert text_of(path) == "grün"
    path.write_bytes(path.read_bytes()[:30])
    assert text_of(path) == ""


def test_experts_beyond_the_kinds_are_second_ones():
    assert list(experts_of(18)) == list(KINDS)[:18]
    assert experts_of(len(KINDS) + 1)["python2"] == "python"
    with pytest.raises(SystemExit, match="2 to 30 experts, not 31"):
        experts_of(31)


def test_random_subsets_are_of_every_size_and_different():
    found = random_subsets([f"e{i:02d}" for i in range(18)], 120, seed=0)
    assert len(found) == len(set(found)) == 120
    assert set(map(len, found)) == set(range(2, 18))
    assert found == random_subsets([f"e{i:02d}" for i in range(18)], 120, seed=0)


def test_averages_have_the_losses_that_another_tool_measured(tmp_path):
    pytest.importorskip("transformers")
    with (DATA / "real_pools.csv").open(newline="") as file:
        known = {
            row["subset"]: float(row["loss_nats"])
            for row in csv.DictReader(file)
            if (row["n_params"], row["domain"]) == ("80592", "md")
        }
    experts = {name: str(DEMO_POOL / name) for name in ("md", "cheader")}
    pool = {
        "sizes": [{"base": str(DEMO_POOL / "base"), "experts": experts}],
        "data": {"md": os.path.relpath(EVAL / "md.jsonl", tmp_path)},
        "methods": {"average": {}},
    }
    (tmp_path / "pool.yml").write_text(json.dumps(pool))
    judge = Judge(tmp_path / "pool.yml", tmp_path / "losses.csv")
    # The base last: it is no mean of what was in the model before.
    for subset in ("md+cheader", "md", ""):
        names = [name for name in subset.split("+") if name]
        want = known["+".join(sorted(names))]
        assert judge.loss(names) == pytest.approx(want, abs=6e-6)  # five digits
    judge._measured = None  # what was measured is not measured again
    assert judge.loss(["cheader", "md"]) == judge.loss(["md", "cheader"])
    assert len(_lines(tmp_path / "losses.csv")) == 4


def test_what_stands_in_for_merges_that_were_not_measured_is_near_them():
    pool, gram, rule = trained_pool(18)
    others = {s: loss for s, loss in pool.losses.items() if len(s) > 1}
    assert rule.error < 0.05 * np.std(list(others.values()))
    left_out = list(others)[::10]
    fewer = {s: loss for s, loss in pool.losses.items() if s not in set(left_out)}
    said = StandIn(pool.names, fewer, gram)
    errors = [
        said.of([pool.names.index(name) for name in subset]) - others[subset] for subset in left_out
    ]
    assert np.sqrt(np.mean(np.square(errors))) < 3 * rule.error
    assert said.asked == set(left_out)


def test_the_search_of_a_simulated_pool_finds_the_lowest_of_all():
    rule = SIMULATED["harmful"](10, np.random.default_rng(3))
    every = [list(c) for k in range(1, 11) for c in combinations(range(10), k)]
    assert _lowest(rule) == pytest.approx(min(map(rule.of, every)), abs=1e-12)
