"""Tuned weights: which tensors share one, how a YAML says so, and where the search goes."""

import re

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from mergeplan.config.write import to_yaml
from mergeplan.errors import InputError
from mergeplan.merging.copies import give_weights
from mergeplan.merging.slopes import Slopes
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.pool import load_pool
from mergeplan.selection.problem import parse_constraint
from mergeplan.tuning.aim import Aim
from mergeplan.tuning.curvature import chain, spread, start, updated
from mergeplan.tuning.groups import BY, Groups
from mergeplan.tuning.options import TuneOptions
from mergeplan.tuning.recipe import Recipe, choose_method, setting
from mergeplan.tuning.split import FEWEST, split
from mergeplan.tuning.step import Model, Region, best_step
from tests.support.checkpoints import load_tensors
from tests.support.merges import run_mergekit, run_mergeplan
from tests.support.pools import write_pool

NAMES = ("html", "python")


def recipe(pool, by, label="task_arithmetic", **options):
    paths = tuple(pool / name for name in NAMES)
    whole = Recipe(label, options, pool / "base", paths, "bfloat16", Groups(by, ("all",), {}))
    tensors = [job.tensor for job in Slopes(whole.config(np.ones((2, 1)))).jobs]
    return Recipe(label, options, pool / "base", paths, "bfloat16", Groups.find(tensors, by))


def weights_for(groups):
    return np.random.default_rng(3).uniform(-0.5, 1.0, (2, len(groups)))


@pytest.mark.parametrize(
    ("by", "label"),
    [
        *((by, "task_arithmetic") for by in BY),
        ("layer,kind", "ties"),
        ("layer", "breadcrumbs_ties"),
    ],
)
def test_merge_and_mergekit_write_the_bytes_that_were_measured(by, label, demo_pool, tmp_path):
    own = {} if label == "task_arithmetic" else {"density": 0.5, "lambda": 0.7}
    one = recipe(demo_pool, by, label, **own)
    weights = weights_for(one.groups)
    config = one.config(weights)
    model = AutoModelForCausalLM.from_pretrained(demo_pool / "base", dtype=torch.float32)
    sweep = Sweep([config])
    one.check(sweep.jobs(0), weights)
    give_weights(sweep, [(0, model)])
    measured = dict(model.state_dict())
    text = to_yaml(config)
    run_mergeplan(text, tmp_path / "ours")
    run_mergekit(text, tmp_path / "theirs")
    ours, theirs = load_tensors(tmp_path / "ours"), load_tensors(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
        assert torch.equal(tensor.float(), measured[name]), name


def test_a_plan_that_gives_other_weights_is_refused(demo_pool):
    one = recipe(demo_pool, "layer")
    weights = weights_for(one.groups)
    jobs = Sweep([one.config(weights)]).jobs(0)
    with pytest.raises(InputError, match="no filter of a mergekit YAML"):
        one.check(jobs, weights + 0.1)


def test_layers_and_kinds_have_groups_of_their_own(demo_pool):
    assert recipe(demo_pool, "expert").groups.names == ("all",)
    assert recipe(demo_pool, "layer").groups.names == (
        *("layer 0", "layer 1", "embedding", "head", "norm"),
    )
    assert recipe(demo_pool, "kind").groups.names == (
        *("attention", "embedding", "head", "mlp", "norm"),
    )
    assert len(recipe(demo_pool, "layer,kind").groups) == 9


def test_the_tenth_layer_is_behind_the_ninth_and_names_within_names_keep_their_weights():
    names = [f"m.layers.{n}.{part}" for n in (1, 2, 10) for part in ("a.mlp.w", "mlp.w", "mlp.w_s")]
    groups = Groups.find([*names, "m.layers.0.attn.w", "x.mlp.w"], "layer,kind")
    assert groups.names[:4] == ("layer 0 attention", "layer 1 mlp", "layer 2 mlp", "layer 10 mlp")
    row = np.arange(len(groups), dtype=float)
    entries = setting(groups, row)
    for name, group in groups.of.items():
        found = next(one["value"] for one in entries if one.get("filter", "") in name)
        if isinstance(found, list):
            found = found[int(name.split(".")[2])]
        assert found == row[group], name


def test_two_stacks_of_layers_are_told_apart_by_whole_names():
    names = [f"{stack}.layers.{n}.mlp.w" for stack in ("text", "vision") for n in range(12)]
    groups = Groups.find(names, "layer")
    entries = setting(groups, np.arange(24.0))
    for name, group in groups.of.items():
        found = next(one["value"] for one in entries if one.get("filter", "") in name)
        assert found == group


def test_exact_slopes_come_first_and_a_lambda_of_zero_is_refused(tmp_path):
    methods = {"ties": {"density": 0.5}, "average": {}, "dare": {"lambda": 0}}
    pool = load_pool(write_pool(tmp_path, methods=methods))
    assert choose_method(pool, None) == ("task_arithmetic", {})
    assert choose_method(pool, "ties") == ("ties", {"density": 0.5})
    for label, words in (("dare", "lambda of 0"), ("tiez", "no method `tiez`")):
        with pytest.raises(InputError, match=words):
            choose_method(pool, label)
    only = load_pool(write_pool(tmp_path, methods={"ties": {}}))
    assert choose_method(only, None)[0] == "ties"


@pytest.mark.parametrize("elects", [True, False])
def test_below_zero_weights_have_no_slope_where_signs_are_elected(elects):
    options = TuneOptions()
    assert options.region(3, elects=elects).low == (0.0 if elects else -1.0)
    assert TuneOptions(bounds=(-0.5, 1.0)).region(3, elects=elects).low == -0.5


class Domain:
    def __init__(self, groups):
        self.lines = np.arange(len(groups))
        self.n_tokens = np.ones(len(groups), np.int64)
        self.groups = tuple(groups)


class Texts:
    def __init__(self, **domains):
        self.domains = domains


def test_whole_groups_accept_steps_and_few_documents_are_refused():
    names = [f"g{n // 2}" for n in range(60)]
    masks = split(Texts(a=Domain(names), b=Domain([None] * 10)), 0)
    assert masks["a"].sum() == 20
    assert all(len(set(masks["a"][n : n + 2])) == 1 for n in range(0, 60, 2))
    assert masks["b"].sum() == FEWEST
    assert not np.array_equal(split(Texts(a=Domain(names)), 1)["a"], masks["a"])
    with pytest.raises(InputError, match=re.escape("domain `b`: 9 documents or groups")):
        split(Texts(b=Domain([None] * 9)), 0)


def valley(n_experts=3, n_groups=2):
    """Losses of two domains, each a quadratic with a minimum of its own, and their curvature."""
    generator = np.random.default_rng(1)
    n = n_experts * n_groups
    root = generator.normal(size=(n, n))
    bend = root @ root.T + 0.1 * np.eye(n)
    lowest = {name: generator.uniform(0, 0.6, n) for name in "ab"}

    def loss(x, name):
        away = x - lowest[name]
        return 1 + 0.5 * away @ bend @ away, bend @ away

    return bend, lowest, loss


def model_at(x, bend, loss, aim):
    found = {name: loss(x, name) for name in "ab"}
    losses, slopes = ({name: one[place] for name, one in found.items()} for place in (0, 1))
    return Model(aim, x.reshape(3, 2), losses, slopes, bend, np.zeros_like(bend))


def test_a_step_goes_to_the_lowest_point_that_it_may():
    bend, lowest, loss = valley()
    at = np.full(6, 0.3)
    mean = (lowest["a"] + lowest["b"]) / 2
    model = model_at(at, bend, loss, Aim.of("ab"))
    assert np.allclose(at + best_step(model, Region(-1, 2), 3.0), mean, atol=1e-4)
    near = best_step(model, Region(-1, 2), 0.05)
    assert np.abs(near).max() <= 0.05
    assert model.value(near) < model.value(np.zeros(6))
    fixed = at + best_step(model, Region(-1, 2, 0.9), 3.0)
    assert np.allclose(fixed.reshape(3, 2).sum(0), 0.9, atol=1e-6)
    bounded = at + best_step(model, Region(0.2, 0.4), 3.0)
    assert bounded.min() >= 0.2
    assert bounded.max() <= 0.4


def test_the_worst_domain_counts_and_bounds_hold():
    bend, lowest, loss = valley()
    at = lowest["a"].copy()
    worst = model_at(at, bend, loss, Aim.of("ab", worst=True))
    x = at + best_step(worst, Region(-1, 2), 3.0)
    assert abs(loss(x, "a")[0] - loss(x, "b")[0]) < 1e-4
    # Of the points between two minima with one curvature the middle is where both are alike.
    assert np.allclose(x, (lowest["a"] + lowest["b"]) / 2, atol=1e-2)
    limit = 1 + 0.1 * (loss(at, "b")[0] - 1)
    aim = Aim.of("ab", "a", keep=(parse_constraint(f"b<={limit}"),))
    x = at + best_step(model_at(at, bend, loss, aim), Region(-1, 2), 3.0)
    assert loss(x, "b")[0] <= limit + 1e-4
    assert loss(x, "a")[0] > 1.001


def test_curvature_is_what_gradients_show():
    bend, _, loss = valley()
    generator = np.random.default_rng(2)
    points = [np.zeros((3, 2)), np.full((3, 2), 1 / 3)]
    points += [generator.uniform(0, 1, (3, 2)) for _ in range(14)]
    gradients = [loss(one.ravel(), "a")[1] for one in points]
    grams = np.array([np.eye(3), np.eye(3)])
    first = start(grams, points[1], (gradients[1] - gradients[0]).reshape(3, 2))
    found = updated(first, chain(points, gradients))
    assert np.linalg.eigvalsh(found).min() > 0
    assert np.linalg.norm(found - bend) < 0.2 * np.linalg.norm(first - bend)
    # A group that was not compared is as steep as the others.
    grams[1] = 0
    blind = start(grams, points[1], (gradients[1] - gradients[0]).reshape(3, 2))
    assert 0.1 < np.diag(blind)[1] / np.diag(first)[1] < 10
    penalty = spread(found)
    assert np.allclose(penalty @ np.ones(6), 0, atol=1e-9 * np.abs(penalty).max())
    assert np.linalg.eigvalsh(penalty).min() > -1e-9 * np.abs(penalty).max()


def test_an_aim_names_domains_of_the_pool():
    assert Aim.of("ab").shares == {"a": 0.5, "b": 0.5}
    assert Aim.of("ab", "a=3,b").shares == {"a": 0.75, "b": 0.25}
    with pytest.raises(InputError, match="no domain `c`"):
        Aim.of("ab", "c")
    with pytest.raises(InputError, match="below a bound alone"):
        Aim.of("ab", keep=(parse_constraint("a>=1"),))
    with pytest.raises(InputError, match="not for the worst domain"):
        Aim.of("ab", "a=2,b", worst=True)
    with pytest.raises(InputError, match="named twice"):
        Aim.of("ab", "a=2,a")
    assert Aim.of("abcd", "a,b,c").name == "a and b and c"
    assert Aim.of("abcd").name == "the mean of the domains"


def test_bounds_that_do_not_hold_are_told_apart_from_the_value():
    aim = Aim.of("ab", "a", keep=(parse_constraint("b<=1.5"),))
    assert aim.said({"a": 2.0, "b": 1.5}) == "2.0000"
    assert aim.said({"a": 2.0, "b": 1.7}) == "2.0000 (bounds broken by 0.2000)"
    assert aim.broken({"a": 2.0, "b": 1.5}) == ()
    (said,) = aim.broken({"a": 2.0, "b": 1.7})
    assert said.startswith("`b` has a loss of 1.7000")
    assert "`--keep b<=1.5`" in said


def test_a_setting_reads_back_from_yaml():
    names = ["e.weight", *(f"m.layers.{n}.mlp.w" for n in range(3))]
    found = setting(Groups.find(names, "layer"), np.array([1e-5, 0.2, 0.3, -1e-5]))
    assert yaml.safe_load(to_yaml({"weight": found})) == {"weight": found}
