"""The verdict's merge on the half of the documents that had no part in it."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mergeplan.calibration.closing import as_subset
from mergeplan.calibration.run_folder import HELD_BACK, RunFolder
from mergeplan.display.text import counted
from mergeplan.evaluation.measured import MeasuredMerge, parse_scores, scores_line
from mergeplan.evaluation.resampling import Resampling
from mergeplan.evaluation.scores import Estimate
from mergeplan.measurements.metrics import domains_of
from mergeplan.measurements.rows import MACRO, parse_shares, target_name
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.system.reading import SCORES as KIND
from mergeplan.system.reading import read_bytes
from mergeplan.verdict.verdict import Verdict

Measure = Callable[[Sequence[SubsetMerge]], Iterable[MeasuredMerge]]


@dataclass(frozen=True)
class HeldBackGain:
    """By how much the verdict's merge is better than something else, on the other half.

    Attributes:
        promised: The same on the half that it was chosen by.
        gain: With its standard error, paired by document or group; NaN where they are too few.
    """

    over: str
    promised: float
    gain: Estimate

    @property
    def low(self) -> float:
        return self.gain.loss_nats - NINE_IN_TEN * self.gain.se

    @property
    def high(self) -> float:
        return self.gain.loss_nats + NINE_IN_TEN * self.gain.se


@dataclass(frozen=True)
class HeldBack:
    """What the verdict's merge comes to on the other half.

    Attributes:
        name: Of the merge.
        loss: Its own, by what counts.
        gains: Over the base and the best single expert.
    """

    name: str
    loss: Estimate
    gains: tuple[HeldBackGain, ...]

    def text(self) -> str:
        """In a line for each thing that it is held against."""
        documents = counted(self.loss.n_documents, "documents")
        lines = [
            f"on the other half, {documents} that had no part in it:"
            f" {self.name} has {self.loss.loss_nats:.4f}"
        ]
        for one in self.gains:
            value = one.gain.loss_nats
            verb = "better" if value >= 0 else "worse"
            interval = ""
            if math.isfinite(one.gain.se):
                interval = (
                    f", {one.low:+.4f} to {one.high:+.4f} (90 % on texts of this kind, paired)"
                )
            lines.append(
                f"  {abs(value):.4f} {verb} than {one.over}{interval}; {one.promised:+.4f} where it"
                " was chosen"
            )
        return "\n".join(lines)

    def warnings(self) -> list[str]:
        """Where the other half contradicts the choice."""
        return [
            f"on documents that had no part in the choice, {self.name} is worse than {one.over}"
            for one in self.gains
            if one.gain.loss_nats < 0
        ]


def held_back(
    verdict: Verdict,
    measured: Sequence[MeasuredMerge],
    folder: RunFolder,
    texts: dict[int, str],
    measure: Callable[[int], Measure],
) -> HeldBack | None:
    """Score the verdict's merge, the base and the best single expert on the other half.

    What was scored there before is read from the run's folder.

    Args:
        texts: Hash of the other half's tokens, by base size.
        measure: For a base size, what scores merges there.

    Returns:
        `None` where the base is the answer, or nothing but it was measured.
    """
    chosen = verdict.chosen
    if chosen is None or not chosen.merge.k:
        return None
    rivals = [one for one in (verdict.base, verdict.expert) if one is not None and one != chosen]
    wanted = [(one, as_subset(one, measured)) for one in (chosen, *rivals)]
    pairs = [(one, merge) for one, merge in wanted if merge is not None]
    if not pairs or pairs[0][0] is not chosen:
        return None
    size = pairs[0][1].size
    scored = list(_scored(folder, texts[size], [merge for _, merge in pairs], measure(size)))
    metric = folder.identity.metric
    resampling = Resampling.of(scored, metric)
    aim = target_name(metric, MACRO) if verdict.aim == "loss" else verdict.aim
    shares = parse_shares(aim)
    own = next(one for one in scored if one.merge == pairs[0][1]).scores
    sign = -1.0 if verdict.higher else 1.0
    gains = []
    for one, merge in pairs[1:]:
        gain = resampling.difference(merge.merge_key, pairs[0][1].merge_key, shares)
        gain = replace(gain, loss_nats=sign * gain.loss_nats)
        if not resampling.enough(shares):
            gain = replace(gain, se=math.nan)
        gains.append(HeldBackGain(one.merge.name(), sign * (one.value - chosen.value), gain))
    domains = domains_of(aim, metric)
    value = own.macro() if MACRO in domains else own.mean(domains)
    return HeldBack(chosen.merge.name(), value, tuple(gains))


def _scored(
    folder: RunFolder, texts: str, merges: Sequence[SubsetMerge], measure: Measure
) -> Iterator[MeasuredMerge]:
    """Their scores on the other half: kept ones where the texts are the same, and new ones."""
    kept = _kept(folder.at(HELD_BACK), texts)
    missing = [merge for merge in merges if merge.key not in kept]
    if missing:
        kept |= {one.merge.key: one for one in measure(missing)}
        head = json.dumps({"texts": texts}).encode() + b"\n"
        folder.place(HELD_BACK, head + b"".join(map(scores_line, kept.values())))
    return (kept[merge.key] for merge in merges)


def _kept(path: Path, texts: str) -> dict[str, MeasuredMerge]:
    if not path.exists():
        return {}
    head, _, lines = read_bytes(path, KIND).partition(b"\n")
    if head != json.dumps({"texts": texts}).encode():
        return {}
    return parse_scores(lines, path)[0]
