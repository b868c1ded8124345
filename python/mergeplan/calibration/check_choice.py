"""The choice, merged and measured on documents that had no part in it."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from mergeplan.calibration.setup import Setup, hash_texts, prepare_texts
from mergeplan.calibration.worker import give_weights, load_for
from mergeplan.config.write import base_config
from mergeplan.errors import InputError
from mergeplan.evaluation.halves import check_cut
from mergeplan.evaluation.measured import recorded_texts
from mergeplan.evaluation.scores import Estimate, Scores, difference
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import MACRO, parse_shares
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.pool import Pool, size_in
from mergeplan.selection.choices import Choice
from mergeplan.selection.fit import NINE_IN_TEN
from mergeplan.selection.selection import Selection
from mergeplan.selection.write import config_of

# Best subsets of other k that are measured beside the choice.
RIVALS = 4
# Value and interval of what is measured and not predicted.
_UNKNOWN = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Rival:
    """What the choice is held against.

    Attributes:
        name: `base`, `all experts`, or a subset.
        loss: Its own.
        gain: Its loss less the choice's, paired by document.
    """

    name: str
    loss: Estimate
    gain: Estimate


@dataclass(frozen=True)
class Check:
    """What a choice comes to on the check half.

    Attributes:
        predicted: From the measurements.
        loss: On the check half; its texts are others, so that it differs from the prediction by
            more than the misfit.
        rivals: Base, all experts, and the best subsets of other k.
        regret: The loss less that of the best subset that was measured here.
        apart: Whether the measurements were made on the selection half.
    """

    predicted: float
    loss: Estimate
    rivals: tuple[Rival, ...]
    regret: float
    apart: bool


def check_choice(
    selection: Selection, choice: Choice, pool: Pool, source: Path, setup: Setup
) -> Check:
    """Merge the choice and its rivals in memory, and score them on the check half.

    Args:
        source: The measurements.
        setup: How they were scored; its half does not count.

    Raises:
        InputError: A metric was predicted and no loss, the pool or its texts are at fault, or the
            run's halves were cut otherwise.
    """
    shares = parse_shares(selection.law.name)
    if selection.table.target(selection.law.name).metric:
        raise InputError(
            f"`{selection.law.name}` is no loss: only losses can be checked",
            "run the benchmark on the merge yourself",
        )
    size = size_in(selection.table.n_params, pool)
    number = pool.sizes.index(size)
    texts = prepare_texts(pool, number, replace(setup.evaluation, half="check"))
    if (run := recorded_texts(source.parent)) is not None:
        check_cut(source.parent, run.halves, texts.cut)
    selecting = hash_texts(pool, number, replace(setup.evaluation, half="selection"))
    rivals = _rivals(selection, choice)
    configs = [config_of(selection, one, pool) for one in (choice, *rivals.values())]
    configs.append(base_config(size.base, size.out_dtype))
    model = load_for(size.base, setup)
    # One seed for masks and texts, as in `calibrate`.
    sweep = Sweep(configs, replace(setup.merging(model), seed=setup.evaluation.seed))
    scores = []
    for merge in range(len(configs)):
        give_weights(sweep, [(merge, model)])
        scores.append(texts.score(model))
    own = scores[0]
    found = [
        Rival(name, _loss(one, shares), _loss(difference(one, own), shares))
        for name, one in zip([*rivals, "base"], scores[1:], strict=True)
    ]
    subsets = [rival.loss.loss_nats for rival in found if rival.name != "base"]
    loss = _loss(own, shares)
    return Check(
        predicted=choice.value,
        loss=loss,
        rivals=tuple(found),
        regret=max(0.0, loss.loss_nats - min(subsets, default=loss.loss_nats)),
        apart=all(
            hash and selecting.startswith(hash)
            for hash in _hashes(source, selection.table.n_params)
        ),
    )


def check_text(check: Check) -> str:
    """The check in a few lines, for people."""
    lines = [
        f"checked on {check.loss.n_documents} other documents: {check.loss.loss_nats:.4f}"
        f" (predicted {check.predicted:.4f} on those it was chosen by)"
    ]
    for rival in check.rivals:
        gain, se = rival.gain.loss_nats, rival.gain.se
        verb = "better" if gain >= 0 else "worse"
        lines.append(
            f"  {abs(gain):.4f} {verb} than {rival.name}, paired 90 % interval of the difference"
            f" {gain - NINE_IN_TEN * se:+.4f} to {gain + NINE_IN_TEN * se:+.4f}"
        )
    lines.append(f"  regret beside these subsets: {check.regret:.4f}")
    return "\n".join(lines)


def _rivals(selection: Selection, choice: Choice) -> dict[str, Choice]:
    """All experts, and the best subset of each k, the best first; not what the choice is itself."""
    experts = selection.law.experts
    found = {}
    itself = choice.subset if choice.equal else None
    if itself != experts:
        found["all experts"] = Choice(dict.fromkeys(experts, 1 / len(experts)), *_UNKNOWN)
    sign = -1.0 if selection.law.higher else 1.0
    others = sorted(selection.by_size.values(), key=lambda one: sign * one.value)
    for other in others:
        if len(other.subset) < len(experts) and other.subset != itself:
            found["+".join(other.subset)] = other
        if len(found) > RIVALS:
            break
    return found


def _loss(scores: Scores, shares: dict[str, float]) -> Estimate:
    if set(shares) == {MACRO}:
        return scores.macro()
    unknown = [name for name in shares if name not in scores.domains]
    if unknown:
        raise InputError(f"the pool has no texts of `{unknown[0]}`", "add it to `data`")
    return scores.mean(shares)


def _hashes(source: Path, n_params: float | None) -> set[str]:
    """What a size's rows say of the texts that they were scored on; `calibrate` shortens it."""
    rows, _ = read_rows(source)
    return {row.data_hash for row in rows if row.n_params in (None, n_params)}
