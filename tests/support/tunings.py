"""Folders of `tune` as it writes them, of numbers that are drawn: nothing is measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from mergeplan.calibration.identity import RunIdentity
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.tuning.aim import Aim
from mergeplan.tuning.folder import CONFIG, IDENTITY, POINTS, RESULT
from mergeplan.tuning.groups import Groups
from mergeplan.tuning.leaving_out import LeftOut
from mergeplan.tuning.result import Rival, Tuned, result_data
from mergeplan.tuning.steps import Step

DOMAINS = ("html", "python", "<b>perl")


def scores_of(rng, domains=DOMAINS):
    def one():
        return DomainScores(np.arange(8), np.full(8, 100), 100 * rng.uniform(1, 2, 8))

    return Scores({name: one() for name in domains})


def a_tuning(folder: Path, *, by="layer,kind", experts=("html", "js", "md"), n_layers=3, **changes):
    """A finished run in a folder of its own.

    Returns:
        What it wrote.
    """
    rng = np.random.default_rng(0)
    tensors = [
        f"model.layers.{layer}.{kind}.weight"
        for layer in range(n_layers)
        for kind in ("self_attn.q_proj", "mlp.up_proj")
    ]
    groups = Groups.find([*tensors, "model.embed_tokens.weight"], by)
    shape = len(experts), len(groups)
    weights = rng.uniform(-0.5, 1, shape)
    weights[0, 0] = 2.0
    aim, scores = Aim.of(DOMAINS), scores_of(rng)
    names = ("the base", "equal weights", "/home/somebody/other.yml")
    steps = [
        Step(
            name,
            kind,
            1.5,
            1.6 - n / 100,
            n / 100,
            n / 100 - 0.01,
            n / 100 + 0.01,
            0.02 if name == "step 1" else None,
            0.01 if name == "step 1" else None,
            400 * n,
            n,
            n == 2,
        )
        for n, (name, kind) in enumerate(
            [
                ("the base", "point"),
                ("equal weights", "point"),
                ("step 1", "point"),
                ("penalty 0.03", "penalty"),
            ]
        )
    ]
    tuned = Tuned(
        aim=aim.name, by=by, method="average", experts=tuple(experts), groups=groups.names,
        weights=weights, bounds=(-1.0, 2.0), penalty=0.0, stopped="the budget is spent", points=3,
        kept=0, tokens=2000, pass_tokens=200, seconds=12.0, scores=scores,
        rivals=tuple(Rival.of(name, aim, scores_of(rng), scores) for name in names),
        value=1.5, elects=False, strength=1.0, along_lambda=0.0,
        left_out=(LeftOut("expert", "md", 0.001, 0.002), LeftOut("group", "embedding", 0.1, 0.01)),
        effects={name: rng.normal(0, 0.01, shape) for name in DOMAINS},
        config=folder / CONFIG, shares=aim.shares, parts=groups.parts, steps=tuple(steps),
        promised=0.01,
    )  # fmt: skip
    tuned = replace(tuned, **changes)
    folder.mkdir(parents=True)
    (folder / IDENTITY).write_text(RunIdentity({"base": ()}, {"the text": "ab"}, {}).json())
    (folder / POINTS).write_text("")
    (folder / CONFIG).write_text("merge_method: task_arithmetic\n")
    (folder / RESULT).write_text(json.dumps(result_data(tuned), allow_nan=False))
    return tuned
