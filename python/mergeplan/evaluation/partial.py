"""Merges that were scored on some of the documents only, set against merges scored on all of them.

Such a merge is compared with a combination of merges that were scored on everything (anchors): the
difference on the documents that it has been scored on, which are a random sample drawn without
replacement within domains (see `parts`), stands for that on all of them. This is the difference
estimator of survey sampling (Särndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992,
sections 6.3 and 7.3): of a sample's errors only what the anchors do not share is left, and they
vanish as the sample becomes the whole. The combination follows from the merges' weights alone,
never from losses, so that the difference is no worse for having been looked for.

On 284 documents of nine domains (80 k-parameter pool, all 501 averages of two and more experts, an
eighth scored) the error is 0.0076 nats against the base alone, 0.0049 against the base and all
experts together, 0.0037 with four more anchors and 0.0017 with nine; the predicted standard errors
are 0.91 to 1.02 times as large.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.pool.subsets import SubsetMerge

Array = NDArray[np.float64]

# Prior variances of the linear, quadratic and cubic part of a document's loss, and of what they
# leave open: 1, 1, 1 or the linear part alone are worse by a tenth to a half.
_DEGREES, _OPEN = (1.0, 0.3, 0.1), 1e-3


@dataclass(frozen=True)
class Part:
    """A domain's documents of one merge.

    Attributes:
        expected: Losses by the anchors; of a merge that was scored on everything its own, (n,).
        scored: Whether it was scored on each, (n,).
        residuals: Losses less what is expected, 0 where it was not scored, (n,).
        n_tokens: Of each document, (n,).
        groups: Number of each document's group, (n,).
    """

    expected: Array
    scored: NDArray[np.bool_]
    residuals: Array
    n_tokens: Array
    groups: NDArray[np.int64]

    def mean(self, scored: NDArray[np.bool_], residuals: Array) -> tuple[float, float, int]:
        """Mean over all documents of residuals that are known of some, its variance, and how many
        groups these are of."""
        n_groups = int(self.groups.max()) + 1
        there = np.unique(self.groups[scored])
        n_tokens = np.bincount(self.groups[scored], self.n_tokens[scored], n_groups)[there]
        sums = np.bincount(self.groups[scored], residuals[scored], n_groups)[there]
        mean, n = sums.sum() / n_tokens.sum(), len(there)
        if n == n_groups:
            return float(mean), 0.0, n
        return float(mean), (1 - n / n_groups) * self.spread(scored, residuals) / n, n

    def spread(self, scored: NDArray[np.bool_], residuals: Array) -> float:
        """Variance of groups' sums around their mean by tokens, in units of a group's tokens."""
        n_groups = int(self.groups.max()) + 1
        there = np.unique(self.groups[scored])
        n_tokens = np.bincount(self.groups[scored], self.n_tokens[scored], n_groups)[there]
        sums = np.bincount(self.groups[scored], residuals[scored], n_groups)[there]
        left, n = sums - sums.sum() / n_tokens.sum() * n_tokens, len(there)
        return float(n**2 / (n - 1) * (left @ left) / n_tokens.sum() ** 2) if n > 1 else np.inf

    def covariance(self, other: "Part") -> float:
        """Of the means over all documents of two merges, one of which was scored on all that the
        other was."""
        n_groups = int(self.groups.max()) + 1
        fewer, more = sorted((self, other), key=lambda part: int(part.scored.sum()))
        there = np.unique(fewer.groups[fewer.scored])
        n_more = len(np.unique(more.groups[more.scored]))
        if n_more == n_groups or len(there) < 2:
            return 0.0
        left = [part.deviations(fewer.scored)[there] for part in (self, other)]
        within = float(left[0] @ left[1]) / (len(there) - 1) * n_groups**2 / self.total**2
        return (1 / n_more - 1 / n_groups) * within

    def deviations(self, scored: NDArray[np.bool_]) -> Array:
        """Sums of residuals by group, less what their mean makes of so many tokens, (groups,)."""
        n_groups = int(self.groups.max()) + 1
        n_tokens = np.bincount(self.groups[scored], self.n_tokens[scored], n_groups)
        sums = np.bincount(self.groups[scored], self.residuals[scored], n_groups)
        return np.asarray(sums - sums.sum() / n_tokens.sum() * n_tokens)

    @property
    def total(self) -> float:
        return float(self.n_tokens.sum())


@dataclass(frozen=True)
class Completed:
    """A merge with a loss for every document.

    Attributes:
        measured: Where documents were not scored, with what is expected of them.
        errors: Standard error of each domain's loss on this text; 0 where all was scored.
        n_tokens: Tokens that were scored in each domain.
    """

    measured: MeasuredMerge
    errors: Mapping[str, float]
    n_tokens: Mapping[str, int]
    parts: Mapping[str, Part]

    @property
    def whole(self) -> bool:
        return self.measured.parts is None


def completed(measured: Sequence[MeasuredMerge]) -> list[Completed]:
    """Each merge with a loss for every document; without those that nothing whole of their base
    size stands beside.

    Raises:
        InputError: Scores of a part are not of the same tokens.
    """
    whole: dict[float, list[MeasuredMerge]] = {}
    for one in measured:
        if one.parts is None and not one.scores.faults():
            whole.setdefault(one.merge.n_params, []).append(one)
    some = [one for one in measured if one.parts is None or one.merge.n_params in whole]
    return [_completed(one, whole.get(one.merge.n_params, [])) for one in some]


def difference(
    a: Completed,
    b: Completed,
    shares: Mapping[str, float],
    whole: Sequence[Completed] = (),
) -> tuple[float, float, float]:
    """a - b on all documents, as far as those tell that both were scored on.

    Args:
        shares: Of each domain, which sum to 1.
        whole: Merges that were scored on everything; see `missed`.

    Returns:
        The difference, its standard error, and degrees of freedom (Welch and Satterthwaite's, over
        domains; infinite where nothing is left open); both of one base size.
    """
    value, variances, freedoms = 0.0, [], []
    for name, share in shares.items():
        one, other = a.parts[name], b.parts[name]
        both = one.scored & other.scored
        mean, own, n = one.mean(both, one.residuals - other.residuals)
        value += share * (float((one.expected - other.expected).sum()) / one.total + mean)
        if own > 0:
            losses = [anchor.parts[name].expected for anchor in whole]
            variances.append(share**2 * own * missed(one, both, losses))
            freedoms.append(n - 1)
    total = sum(variances)
    if not 0 < total < inf:
        return value, sqrt(total), inf
    left = sum(v**2 / n for v, n in zip(variances, freedoms, strict=True))
    return value, sqrt(total), total**2 / left


def missed(part: Part, scored: NDArray[np.bool_], losses: Sequence[Array]) -> float:
    """How many times more some merges' losses differ on all documents than on a part, at least 1.

    A kind of document that a part has missed is seen in what other merges lose on it: what they
    have in common is left out, and the merge that varies most beyond the part counts.

    Args:
        part: Says which documents belong together.
        scored: The part.
        losses: Of merges that were scored on everything, each (n,).
    """
    if len(losses) < 2:
        return 1.0
    mean = np.mean(losses, axis=0)
    every = np.ones_like(scored)
    found = 1.0
    for own in losses:
        seen, all_ = (part.spread(some, own - mean) for some in (scored, every))
        if all_ > found * seen:
            found = all_ / seen if seen > 0 else inf
    return found


def covariance(measured: Sequence[Completed], shares: Mapping[str, float]) -> Array:
    """Of some merges' losses on all documents, as far as these were not scored, shape (n, n).

    Args:
        shares: Of each domain, which sum to 1.
    """
    some = [number for number, one in enumerate(measured) if not one.whole]
    found = np.zeros((len(some), len(some)))
    for i, one in enumerate(some):
        for j, other in enumerate(some[: i + 1]):
            found[i, j] = found[j, i] = sum(
                share**2 * measured[one].parts[name].covariance(measured[other].parts[name])
                for name, share in shares.items()
            )
    # Of different numbers of documents they may contradict each other a little.
    values, axes = np.linalg.eigh(found)
    whole = np.zeros((len(measured), len(measured)))
    whole[np.ix_(some, some)] = (axes * np.maximum(values, 0)) @ axes.T
    return whole


def _completed(one: MeasuredMerge, whole: Sequence[MeasuredMerge]) -> Completed:
    scores = one.scores.domains
    n_tokens = {name: int(domain.n_tokens.sum()) for name, domain in scores.items()}
    if one.parts is None:
        parts = {
            name: _part(domain, domain, _finite(domain.nll)) for name, domain in scores.items()
        }
        return Completed(one, dict.fromkeys(scores, 0.0), n_tokens, parts)
    anchors = [other for other in whole if _alike(other.merge, one.merge)] or whole
    shares = _combination([other.merge for other in anchors], one.merge)
    parts, errors, domains = {}, {}, {}
    for name, domain in scores.items():
        every = anchors[0].scores.domains[name]
        nll = np.stack([anchor.scores.domains[name].nll for anchor in anchors])
        parts[name] = part = _part(domain, every, shares @ nll)
        mean, variance, _ = part.mean(part.scored, part.residuals)
        errors[name] = sqrt(variance)
        domains[name] = replace(every, nll=_filled(part, mean))
    return Completed(replace(one, scores=Scores(domains)), errors, n_tokens, parts)


def _alike(anchor: SubsetMerge, merge: SubsetMerge) -> bool:
    """Whether both are of one method and its options; every base is."""
    same = (anchor.method, anchor.options) == (merge.method, merge.options)
    return same or not anchor.k


def _combination(anchors: Sequence[SubsetMerge], merge: SubsetMerge) -> Array:
    """Shares of the anchors, which sum to 1: what a Gaussian process on the weights, with an
    unknown mean, predicts a loss from."""
    names = sorted({name for one in (*anchors, merge) for name in one.subset})
    points = np.array(
        [[(name in one.subset) / max(one.k, 1) for name in names] for one in (*anchors, merge)]
    )
    products = points @ points.T
    kernel = np.sum([v * products ** (d + 1) for d, v in enumerate(_DEGREES)], axis=0)
    n = len(anchors)
    bordered = np.zeros((n + 1, n + 1))
    bordered[:n, :n] = kernel[:n, :n] + _OPEN * np.eye(n)
    bordered[n, :n] = bordered[:n, n] = 1
    return np.asarray(np.linalg.solve(bordered, np.append(kernel[n, :n], 1))[:n])


def _part(domain: DomainScores, every: DomainScores, expected: Array) -> Part:
    scored = np.isin(every.lines, domain.lines)
    alike = np.array_equal(every.lines[scored], domain.lines)
    if not alike or not np.array_equal(every.n_tokens[scored], domain.n_tokens):
        raise InputError(
            "scores cannot be compared: merges were scored on parts of different texts",
            "measure them in one run",
        )
    residuals = np.zeros(len(expected))
    residuals[scored] = _finite(domain.nll) - expected[scored]
    numbers = {key: n for n, key in enumerate(dict.fromkeys(every.group_keys()))}
    groups = np.array([numbers[key] for key in every.group_keys()], np.int64)
    return Part(expected, scored, residuals, every.n_tokens.astype(np.float64), groups)


def _finite(nll: Array) -> Array:
    """NaN for what is not finite, of which nothing can be taken."""
    return np.where(np.isfinite(nll), nll, np.nan)


def _filled(part: Part, mean: float) -> Array:
    """A loss for every document: where it was not scored, what is expected of it.

    What varies between groups varies between those that were not scored too: they take the
    deviations of scored ones in turn, or documents drawn anew would say that the merge is known
    better than it is.
    """
    n_groups = int(part.groups.max()) + 1
    there = np.unique(part.groups[part.scored])
    n_tokens = np.bincount(part.groups[part.scored], part.n_tokens[part.scored], n_groups)[there]
    sums = np.bincount(part.groups[part.scored], part.residuals[part.scored], n_groups)[there]
    around = np.resize(sums / n_tokens - mean, n_groups)[part.groups]
    left = ~part.scored
    if left.any():
        around -= around[left] @ part.n_tokens[left] / part.n_tokens[left].sum()
    unseen = mean * part.n_tokens + around * part.n_tokens
    return np.asarray(part.expected + np.where(part.scored, part.residuals, unseen))
