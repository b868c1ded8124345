"""A verdict's merge, measured on documents that had no part in it."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mergeplan.calibration.same_models import refuse_other_models
from mergeplan.calibration.setup import Setup, hash_texts, prepare_texts
from mergeplan.calibration.worker import load_for
from mergeplan.config.write import base_config
from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted
from mergeplan.errors import InputError
from mergeplan.evaluation.halves import check_cut
from mergeplan.evaluation.measured import recorded_texts
from mergeplan.evaluation.scores import Estimate, Scores, difference
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.metrics import domains_of
from mergeplan.measurements.rows import MACRO
from mergeplan.merging.copies import give_weights
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.pool import Pool, size_in
from mergeplan.selection.selection import Selection, Selections
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.known import Merge
from mergeplan.verdict.verdict import Verdict
from mergeplan.verdict.write import contender_config

# Best subsets of other k that are measured beside it.
RIVALS = 4


@dataclass(frozen=True)
class Rival:
    """What a merge is held against.

    Attributes:
        name: `base`, `all experts`, the best single expert, or a subset.
        loss: Its own.
        gain: By how much the merge is better, paired by document.
    """

    name: str
    loss: Estimate
    gain: Estimate


@dataclass(frozen=True, repr=False)
class Check(Summarized):
    """What a merge comes to on the check half.

    Attributes:
        name: Of the merge.
        expected: On the documents it was chosen by, measured or predicted.
        loss: On the check half; its texts are others, so that it differs from what is expected by
            more than the misfit.
        rivals: All experts, the best single one, the best subsets of other k, and the base.
        regret: The loss less that of the best subset that was measured here.
        apart: Whether the measurements were made on the selection half.
    """

    name: str
    expected: float
    measured: bool
    loss: Estimate
    rivals: tuple[Rival, ...]
    regret: float
    apart: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.apart:
            return ()
        return (
            "the measurements were not made on the selection half alone, so that the check's"
            " documents may have had a part in the choice: measure with `--half selection`",
        )

    def summary(self) -> str:
        """The check in a few lines, for people."""
        how = "measured" if self.measured else "predicted"
        lines = [
            f"checked on {counted(self.loss.n_documents, 'other documents')}: {self.name}",
            f"  {self.loss.loss_nats:.4f} ({self.expected:.4f} {how} on those it was chosen by)",
        ]
        for rival in self.rivals:
            gain, se = rival.gain.loss_nats, rival.gain.se
            verb = "better" if gain >= 0 else "worse"
            low, high = gain - NINE_IN_TEN * se, gain + NINE_IN_TEN * se
            interval = f", paired 90 % interval of the difference {low:+.4f} to {high:+.4f}"
            if not math.isfinite(se):
                interval = ""
            lines.append(f"  {abs(gain):.4f} {verb} than {rival.name}{interval}")
        if not all(math.isfinite(rival.gain.se) for rival in self.rivals):
            lines.append(
                "  no interval is told: it takes two documents or groups of them in every domain"
            )
        lines.append(f"  regret beside these subsets: {self.regret:.4f}")
        return "\n".join(lines)

    def records(self) -> list[dict[str, Any]]:
        """A row for each merge that it is held against."""
        return [
            {
                "rival": rival.name,
                "loss": rival.loss.loss_nats,
                "gain": rival.gain.loss_nats,
                "gain_se": rival.gain.se,
            }
            for rival in self.rivals
        ]


def check_choice(
    one: Contender,
    verdict: Verdict,
    selections: Selections,
    pool: Pool,
    source: Path,
    setup: Setup,
) -> Check:
    """Merge one and its rivals in memory, and score them on the check half.

    Args:
        one: What the verdict says to merge, or what else is to be written.
        source: The measurements.
        setup: How they were scored; its half does not count.

    Raises:
        InputError: What counts is not what the setup measures, the pool or its texts are at fault
            or not the run's, or the run's halves were cut otherwise.
    """
    aim = selections[0].law.name
    target = selections[0].table.target(aim)
    sign = -1.0 if target.higher else 1.0
    scorer = setup.evaluation.scorer
    measured = scorer.metric if scorer else ""
    if target.metric != measured:
        raise InputError(
            f"`{aim}` cannot be checked: documents are scored here by"
            f" {f'`{measured}`' if measured else 'losses'}",
            "give the `--scorer` that it was measured by, or run the benchmark on the merge",
        )
    size = size_in(one.merge.n_params, pool)
    number = pool.sizes.index(size)
    texts = prepare_texts(pool, number, replace(setup.evaluation, half="check"))
    shares = domains_of(aim, target.metric)
    if (run := recorded_texts(source.parent)) is not None:
        check_cut(source.parent, run.halves, texts.cut)
    selecting = hash_texts(pool, number, replace(setup.evaluation, half="selection"))
    rivals = _rivals(one, verdict, selections)
    contenders = [one, *rivals.values()]
    every = {name for each in contenders for name in each.merge.subset}
    refuse_other_models(source, pool, one.merge.n_params, sorted(every))
    configs = [contender_config(each, pool) for each in contenders]
    configs.append(base_config(size.base, size.out_dtype))
    # Masks as they were measured, and else of one seed with the texts, as in `calibrate`.
    given = setup.evaluation.seed
    seeds = [int(c.merge.seed) if c.merge.seed.isdecimal() else given for c in contenders]
    model = load_for(size.base, setup)
    sweep = Sweep(configs, setup.merging(model), seeds=[*seeds, given])
    scores = []
    for merge in range(len(configs)):
        give_weights(sweep, [(merge, model)])
        scores.append(texts.score(model))
    own = scores[0]
    found = [
        Rival(name, _loss(each, shares), _turned(_loss(difference(each, own), shares), sign))
        for name, each in zip([*rivals, "base"], scores[1:], strict=True)
    ]
    loss = _loss(own, shares)
    losses = [rival.loss.loss_nats for rival in found if rival.name != "base"]
    return Check(
        name=one.merge.name(),
        expected=one.value,
        measured=one.measured,
        loss=loss,
        rivals=tuple(found),
        regret=max([0.0, *(sign * (loss.loss_nats - other) for other in losses)]),
        apart=all(
            hash and selecting.startswith(hash)
            for hash in _hashes(source, one.merge.n_params, target.metric)
        ),
    )


def _rivals(one: Contender, verdict: Verdict, selections: Selections) -> dict[str, Contender]:
    """All experts, the best single one, and the best subset of each k, the best first, by name;
    not what is checked itself."""
    selection = _selection_of(one.merge, selections)
    experts = selection.law.experts
    together = replace(one.merge, weights=dict.fromkeys(experts, 1 / len(experts)))
    found = {"all experts": replace(one, merge=together)}
    if verdict.expert is not None:
        found[verdict.expert.merge.name()] = verdict.expert
    sign = -1.0 if selection.law.higher else 1.0
    best = sorted(selection.by_size.values(), key=lambda choice: sign * choice.value)
    table = selection.table
    for choice in best[: RIVALS + 1]:
        merge = Merge(table.n_params, table.method, table.options, choice.weights)
        if 1 < choice.k < len(experts):
            found[_name(merge, one.merge)] = Contender(merge, choice.value, choice.low, choice.high)
    some = [(name, rival) for name, rival in found.items() if not _same(rival.merge, one.merge)]
    return dict(some[: RIVALS + 2])


def _selection_of(merge: Merge, selections: Selections) -> Selection:
    """That of the merge's own method, or else the best."""
    which = merge.n_params, merge.method, merge.options
    own = (s for s in selections if (s.table.n_params, s.table.method, s.table.options) == which)
    first: Selection = selections[0]
    return next(own, first)


def _name(merge: Merge, beside: Merge) -> str:
    """The experts, and how they are merged where that is not alike."""
    alike = (merge.method, merge.options) == (beside.method, beside.options)
    return "+".join(merge.subset) if alike else merge.name()


def _same(merge: Merge, other: Merge) -> bool:
    return replace(merge, seed="") == replace(other, seed="")


def _turned(gain: Estimate, sign: float) -> Estimate:
    """Better is positive."""
    return replace(gain, loss_nats=sign * gain.loss_nats)


def _loss(scores: Scores, shares: dict[str, float]) -> Estimate:
    if set(shares) == {MACRO}:
        return scores.macro()
    unknown = [name for name in shares if name not in scores.domains]
    if unknown:
        raise InputError(f"the pool has no texts of `{unknown[0]}`", "add it to `data`")
    return scores.mean(shares)


def _hashes(source: Path, n_params: float | None, metric: str) -> set[str]:
    """What a size's rows say of the texts that they were scored on; `calibrate` shortens it."""
    rows, _ = read_rows(source)
    own = (row for row in rows if row.n_params in (None, n_params) and row.metric == metric)
    return {row.data_hash for row in own if row.text_se is None}
