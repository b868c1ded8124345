"""How losses of many merges would come out on other texts of this kind: documents drawn anew.

The bootstrap of groups (Efron and Tibshirani, 1993, chapter 8): within each domain as many groups
are drawn with replacement as there are, one draw for all merges, so that what merges have in common
cancels in their differences. A bootstrap's variance is too small by (G - 1) / G over G groups;
deviations are stretched by the root of the inverse, which makes it that of `scores`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError, nearest
from mergeplan.evaluation.measured import SCORES, MeasuredMerge, read_scores, recorded_texts
from mergeplan.evaluation.partial import completed
from mergeplan.evaluation.scores import (
    DISCORDANT,
    DomainScores,
    Estimate,
    mean_estimate,
    ratio_estimate,
    right_or_wrong,
)
from mergeplan.measurements.metrics import rows_of_known_items
from mergeplan.measurements.rows import MACRO, Measurement, MergeKey, domain_name, target_name

Array = NDArray[np.float64]

# Of fewer groups in a domain the spread is hardly known: no chance is told from them.
LEAST_GROUPS = 5
# Weights held at a time: 32 MB.
_AT_ONCE = 4_000_000
_DIGITS = 16  # of a hash that a run records


@dataclass(frozen=True)
class _Domain:
    """A domain's sums by group.

    Attributes:
        nll: Shape (merges, groups).
        n_tokens: Shape (texts, groups): each base size has a tokenizer, and so tokens, of its own.
        n_documents: Of each text.
        discordant: Items that are added to a pair of merges, see `scores`; none of losses.
    """

    nll: Array
    n_tokens: Array
    n_documents: tuple[int, ...]
    discordant: float = 0.0

    @property
    def n_groups(self) -> int:
        return int(self.nll.shape[1])

    def deviations(
        self, merges: NDArray[np.int64], texts: NDArray[np.int64], draws: int, seed: list[int]
    ) -> Array:
        """Loss on a resampled text less that on this one: (draws, merges)."""
        n = self.n_groups
        if n < 2:
            return np.full((draws, len(merges)), math.nan)
        rng = np.random.default_rng(seed)
        nll = self.nll[merges].T  # (groups, merges)
        parts = []
        for start in range(0, draws, step := max(1, _AT_ONCE // n)):
            weights = _weights(rng, min(step, draws - start), n)
            n_tokens = (weights @ self.n_tokens.T)[:, texts]  # (some draws, merges)
            empty = np.full_like(n_tokens, math.nan)
            parts.append(np.divide(weights @ nll, n_tokens, out=empty, where=n_tokens > 0))
        here = nll.sum(0) / self.n_tokens.sum(1)[texts]  # (merges,)
        moved = math.sqrt(n / (n - 1)) * (np.concatenate(parts) - here)
        if self.discordant and len(merges):
            # Each merge's own part of them, whatever others are asked for; a pair's adds up.
            each = math.sqrt(self.discordant / 2) / self.n_tokens.sum(1)[texts]  # (merges,)
            own = {m: np.random.default_rng([*seed, m, 1]).normal(size=draws) for m in merges}
            moved += each * np.stack([own[m] for m in merges], 1)
        return np.asarray(moved)


def _weights(rng: np.random.Generator, draws: int, n_groups: int) -> Array:
    """How often each group is drawn: (draws, groups)."""
    drawn = rng.integers(0, n_groups, (draws, n_groups))
    drawn += n_groups * np.arange(draws)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=draws * n_groups)
    return counts.reshape(draws, n_groups).astype(np.float64)


@dataclass(frozen=True)
class Resampling:
    """Documents' losses of many merges, drawn anew by groups.

    Attributes:
        columns: Each merge's number.
        seconds_each: What a merge took with its evaluation, on average.
    """

    columns: Mapping[MergeKey, int]
    seconds_each: float
    _texts: NDArray[np.int64]  # (merges,): which text each was scored on
    _domains: Mapping[str, _Domain]
    _metric: str = ""

    @classmethod
    def of(cls, measured: Iterable[MeasuredMerge], metric: str = "") -> "Resampling":
        """From the merges of a run; those of one base size were scored on the same tokens, or on
        a part of them, see `partial`.

        Args:
            metric: What was measured; domains are then named as its targets are.

        Raises:
            InputError: They were not.
        """
        merges = {one.measured.merge.merge_key: one.measured for one in completed(list(measured))}
        sizes: dict[float, int] = {}
        firsts: list[MeasuredMerge] = []
        for one in merges.values():
            number = sizes.setdefault(one.merge.n_params, len(sizes))
            if number == len(firsts):
                firsts.append(one)
            _check_alike(firsts[number], one)
        texts = np.array([sizes[one.merge.n_params] for one in merges.values()], np.int64)
        scores = [one.scores.domains for one in merges.values()]
        domains = {
            target_name(metric, domain_name(name)): _domain(
                [each[name] for each in scores],
                texts,
                [one.scores.domains[name] for one in firsts],
            )
            for name in (sorted(firsts[0].scores.domains) if firsts else ())
        }
        seconds = sum(sum(one.seconds) for one in merges.values()) / max(len(merges), 1)
        columns = {key: number for number, key in enumerate(merges)}
        return cls(columns, seconds, texts, domains, metric)

    def groups(self) -> dict[str, int]:
        """Groups in each domain."""
        return {name: domain.n_groups for name, domain in self._domains.items()}

    def knows(self, shares: Mapping[str, float]) -> bool:
        """Whether what counts has scores by document, or by item."""
        return all(name in self._domains or self._is_macro(name) for name in shares)

    def _is_macro(self, name: str) -> bool:
        """Whether a name is that of the mean over the domains."""
        return name == target_name(self._metric, MACRO)

    def enough(self, shares: Mapping[str, float]) -> bool:
        """Whether a chance can be told: five groups or more in every domain that counts."""
        names = {
            one for name in shares for one in (self._domains if self._is_macro(name) else (name,))
        }
        found = self.groups()
        return bool(names) and all(found.get(name, 0) >= LEAST_GROUPS for name in names)

    def deviations(
        self,
        merges: Sequence[MergeKey],
        shares: Mapping[str, float],
        *,
        draws: int = 2000,
        seed: int = 0,
    ) -> Array:
        """Each merge's mean loss on a resampled text less that on this text.

        Args:
            shares: Of each domain, of any sum; `macro` for all alike.
            seed: With the domain it decides the draws, whatever merges are asked for.

        Returns:
            Shape (draws, merges); NaN for a merge that has no scores, and where a domain has one
            group only.

        Raises:
            InputError: No scores of a domain.
        """
        columns = np.array([self.columns.get(key, -1) for key in merges], np.int64)
        known = columns[columns >= 0]
        total = np.zeros((draws, len(known)))
        parts = self._shares(shares)
        for number, (name, domain) in enumerate(self._domains.items()):
            if share := parts.get(name, 0.0):
                found = domain.deviations(known, self._texts[known], draws, [seed, number])
                total += share * found
        deviations = np.full((draws, len(merges)), math.nan)
        deviations[:, columns >= 0] = total
        return deviations

    def difference(self, a: MergeKey, b: MergeKey, shares: Mapping[str, float]) -> Estimate:
        """a - b on this text, with its standard error paired by group; NaN without scores.

        Raises:
            InputError: No scores of a domain, or they are of different base sizes.
        """
        parts = self._shares(shares)
        if a not in self.columns or b not in self.columns:
            return Estimate(math.nan, math.nan, 0, 0)
        first, second = self.columns[a], self.columns[b]
        text = self._texts[first]
        if text != self._texts[second]:
            raise InputError("scores cannot be compared: the merges are of different base sizes")
        estimates = {}
        for name in parts:
            domain = self._domains[name]
            there = domain.n_tokens[text] > 0
            nll = domain.nll[first, there] - domain.nll[second, there]
            n_tokens = domain.n_tokens[text, there]
            more = 0.0 if a == b else domain.discordant
            estimates[name] = ratio_estimate(
                nll, n_tokens, domain.n_documents[text], discordant=more
            )
        return mean_estimate(estimates, parts)

    def _shares(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Each domain's share; that of the macro mean is all domains' alike."""
        total = sum(shares.values())
        found: dict[str, float] = {}
        for name, share in shares.items():
            names = list(self._domains) if self._is_macro(name) else [name]
            for one in names:
                if one not in self._domains:
                    hint = nearest(one, list(self._domains))
                    raise InputError(f"no document's loss of domain `{one}` is known", hint)
                found[one] = found.get(one, 0.0) + share / total / len(names)
        return found


def _check_alike(first: MeasuredMerge, other: MeasuredMerge) -> None:
    ours, theirs = first.scores.domains, other.scores.domains
    alike = ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name].lines, theirs[name].lines)
        and np.array_equal(ours[name].n_tokens, theirs[name].n_tokens)
        for name in ours
    )
    if not alike:
        raise InputError(
            f"scores cannot be compared: `{first.merge.key}` and `{other.merge.key}` were scored on"
            " different tokens",
            "measure both in one run",
        )


def _domain(
    merges: list[DomainScores], texts: NDArray[np.int64], firsts: list[DomainScores]
) -> _Domain:
    """Sums by group, of which every text has some.

    Args:
        texts: Number of each merge's text.
        firsts: Scores on each text.
    """
    numbers: dict[int | str, int] = {}
    places = [
        np.array([numbers.setdefault(key, len(numbers)) for key in first.group_keys()], np.int64)
        for first in firsts
    ]
    n = len(numbers)

    def sums(values: NDArray[Any], text: int) -> Array:
        return np.asarray(np.bincount(places[text], values, n), np.float64)

    nll = np.stack([sums(one.nll, text) for one, text in zip(merges, texts, strict=True)])
    nll[~np.isfinite(nll)] = math.nan
    n_tokens = np.stack([sums(first.n_tokens, text) for text, first in enumerate(firsts)])
    counts = tuple(len(first.lines) for first in firsts)
    # What a part of the items says of all is no longer 0 or 1: one merge that has all tells.
    shares = any(right_or_wrong(one.n_tokens, one.nll) for one in merges)
    return _Domain(nll, n_tokens, counts, DISCORDANT if shares else 0.0)


def resampling_beside(table: Path, rows: Iterable[Measurement]) -> Resampling | None:
    """The scores that a table's rows are means of.

    Args:
        table: Where the rows were read from; the run's other files are looked for beside it.

    Returns:
        With the merges that have a row of these texts, by `data_hash`; `None` for a bare table,
        whose rows name no texts or which no scores lie beside.

    Raises:
        InputError: The scores are damaged, or of other texts than the rows.
    """
    folder = table.parent
    if not (folder / SCORES).is_file() or (run := recorded_texts(folder)) is None:
        return None
    named = [row for row in rows if row.data_hash and row.metric == run.metric]
    if not named:
        return None
    measured = read_scores(folder)
    hashes = {
        one.merge.n_params: run.texts.get(f"the text of size {one.merge.size + 1}")
        for one in measured
    }
    bound = set()
    for row in named:
        expected = hashes.get(row.n_params or 0.0)
        if expected is None:
            continue
        if row.data_hash[:_DIGITS] != expected[:_DIGITS]:
            raise InputError(
                f"`{table}`, row {row.row}, column `data_hash`: expected `{expected}`, the texts"
                f" that `{folder / SCORES}` was scored on, found `{row.data_hash}`",
                "put the table of that run back, or move this one to a folder without the run's"
                " files",
            )
        bound.add(row.merge_key)
    found = [one for one in measured if one.merge.merge_key in bound]
    return Resampling.of(found, run.metric) if found else None


def of_known_items(
    rows: tuple[Measurement, ...], resampling: Resampling | None
) -> tuple[Measurement, ...]:
    """Rows without errors of their own where each item's score is known, see
    `rows_of_known_items`."""
    if resampling is None:
        return rows
    return tuple(
        own
        for row in rows
        for own in (rows_of_known_items([row]) if resampling.knows({row.target: 1.0}) else (row,))
    )
