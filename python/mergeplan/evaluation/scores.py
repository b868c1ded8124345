"""Sums of losses by document, their means, and standard errors clustered by group.

Tokens of one document are alike, and so are documents of one group (a file, a conversation): the
groups are what varies. A document without one is a group of its own, and documents of the same
text are one (`repeated.py`). A domain's loss is the ratio r = sum(nll) / sum(tokens), and its
variance that of the ratio estimator,
G / (G - 1) * sum((nll - r * tokens)^2) / sum(tokens)^2 over the sums of G groups. Domains are
independent, and their shares of the tokens taken as given. A difference of two models is the same
arithmetic on the differences of each document's nll, which pairs them.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Lt
from numpy.typing import NDArray

from mergeplan.display.summary import Summarized
from mergeplan.display.table import align_columns
from mergeplan.errors import InputError
from mergeplan.measurements.rows import MACRO
from mergeplan.system.ranges import Number, within

# The first columns of the tables of documents, and those of the tables of items.
DOCUMENTS_HEAD = ("domain", "line", "n_tokens", "nll")
ITEMS_HEAD = ("task", "metric", "item", "value")
# Which way a metric is better; nothing where the harness does not say.
Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task.

    Attributes:
        se: Standard error from the items, or the harness's own; NaN where there is none.
        better: `higher` or `lower`; empty where the harness does not say.
        items: Each item's score, in the order of the task's documents, NaN where it is not finite;
            empty where the value is no mean of them.
    """

    task: str
    metric: str
    value: float
    se: float
    better: Better
    n_documents: int
    items: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Estimate:
    """A mean in nats per token, or a difference of two.

    Attributes:
        se: Standard error; NaN where there is one group only.
    """

    loss_nats: float
    se: float
    n_tokens: int
    n_documents: int


# Of two models that answer the same items: half an item that one alone has right, and half one that
# the other has, are added for the error of the difference (Agresti and Min, 2005), lest models that
# differ in no item, or in one, be told apart with certainty.
DISCORDANT = 1.0


def right_or_wrong(n_tokens: NDArray[Any], *some: NDArray[Any]) -> bool:
    """Whether some scores are of items that are each right or wrong, 1 or 0.

    Args:
        n_tokens: Of each document; one for an item.
    """
    return bool((n_tokens == 1).all()) and all(np.isin(one, (0, 1)).all() for one in some)


def ratio_estimate(
    nll: NDArray[np.float64],
    n_tokens: NDArray[np.float64],
    n_documents: int,
    *,
    discordant: float = 0.0,
) -> Estimate:
    """The token-weighted mean over groups.

    Args:
        nll, n_tokens: Sums of each group, both (groups,).
        discordant: Further items, as many on one side as on the other, that its error is with.
    """
    total, groups = float(n_tokens.sum()), len(nll)
    loss = float(nll.sum()) / total
    residuals = nll - loss * n_tokens  # (groups,)
    se = math.nan
    if groups > 1:
        squares = groups / (groups - 1) * float(residuals @ residuals) + discordant
        se = math.sqrt(squares) / total
    return Estimate(loss, se, int(total), n_documents)


def mean_estimate(estimates: Mapping[str, Estimate], shares: Mapping[str, float]) -> Estimate:
    """The mean over some domains.

    Args:
        shares: Of each domain, of any sum.
    """
    total = sum(shares.values())
    parts = [(share / total, estimates[name]) for name, share in shares.items()]
    return Estimate(
        sum(share * part.loss_nats for share, part in parts),
        math.sqrt(sum((share * part.se) ** 2 for share, part in parts)),
        sum(part.n_tokens for _, part in parts),
        sum(part.n_documents for _, part in parts),
    )


@dataclass(frozen=True)
class DomainScores:
    """What each document of a domain came to.

    Attributes:
        lines: Where the documents stand in their file.
        n_tokens: Tokens scored.
        nll: Sum over the tokens of -ln(probability), in nats; NaN where the model gives none.
        groups: What each belongs to, `None` for a group of its own; empty where none has any.
        discordant: As for `ratio_estimate`, of a difference.
    """

    lines: NDArray[np.int64]  # (documents,)
    n_tokens: NDArray[np.int64]  # (documents,)
    nll: NDArray[np.float64]  # (documents,)
    groups: tuple[str | None, ...] = ()
    discordant: float = 0.0

    def estimate(self) -> Estimate:
        """The token-weighted mean over the documents."""
        return ratio_estimate(
            np.bincount(self._numbers, self.nll).astype(np.float64),
            np.bincount(self._numbers, self.n_tokens).astype(np.float64),
            len(self.nll),
            discordant=self.discordant,
        )

    def of(self, which: NDArray[np.bool_]) -> "DomainScores":
        """Some of the documents."""
        groups = tuple(group for group, kept in zip(self.groups, which, strict=False) if kept)
        return DomainScores(self.lines[which], self.n_tokens[which], self.nll[which], groups)

    def and_more(self, other: "DomainScores") -> "DomainScores":
        """With further documents, in the order of their lines."""
        order = np.argsort(np.concatenate([self.lines, other.lines]), kind="stable")
        groups = (*self.groups, *other.groups)
        return DomainScores(
            np.concatenate([self.lines, other.lines])[order],
            np.concatenate([self.n_tokens, other.n_tokens])[order],
            np.concatenate([self.nll, other.nll])[order],
            tuple(groups[i] for i in order) if groups else (),
        )

    def group_keys(self) -> list[int | str]:
        """Each document's group; the line of one that has none."""
        lines: list[int] = self.lines.tolist()
        groups = self.groups or (None,) * len(lines)
        return [line if group is None else group for line, group in zip(lines, groups, strict=True)]

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        """The number of each document's group, in the order of their first documents."""
        found: dict[int | str, int] = {}
        return np.array([found.setdefault(key, len(found)) for key in self.group_keys()], np.int64)


Whole = Annotated[int, Ge(0), Lt(2**62)]


@dataclass(frozen=True)
class DocumentLosses:
    """`DomainScores` as a file holds them: `None` where the model gives no finite loss."""

    lines: tuple[Whole, ...]
    n_tokens: tuple[Whole, ...]
    nll: tuple[Number | None, ...]
    groups: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.lines) == len(self.n_tokens) == len(self.nll) or not sum(self.n_tokens):
            raise ValueError("a line, its tokens and their loss for each document")
        if len(self.groups) not in (0, len(self.lines)):
            raise ValueError("a group for each document, or none at all")


@dataclass(frozen=True, repr=False)
class Scores(Summarized):
    """A model's losses on every domain."""

    domains: dict[str, DomainScores]

    def estimates(self) -> dict[str, Estimate]:
        """The loss of each domain."""
        return {name: domain.estimate() for name, domain in self.domains.items()}

    def losses(self) -> dict[str, float]:
        """The same without errors."""
        return {name: one.loss_nats for name, one in self.estimates().items()}

    def macro(self) -> Estimate:
        """The mean over domains, each counting alike."""
        return self.mean(dict.fromkeys(self.domains, 1.0))

    def token_weighted(self) -> Estimate:
        """The mean over all tokens."""
        return self.mean({n: float(d.n_tokens.sum()) for n, d in self.domains.items()})

    def mean(self, shares: Mapping[str, float]) -> Estimate:
        """The mean over some domains, as `mean_estimate`."""
        return mean_estimate(self.estimates(), shares)

    def summary(self) -> str:
        """A row for each domain and both means."""
        return scores_table(self)

    def records(self) -> list[dict[str, Any]]:
        """A row for each domain and both means."""
        return [{"domain": name, **asdict(row)} for name, row in rows_of(self).items()]

    def faults(self) -> list[str]:
        """What a reader must know: documents to which the model gives no finite score."""
        found = []
        for name, domain in self.domains.items():
            bad = domain.lines[~np.isfinite(domain.nll)]
            if len(bad):
                found.append(
                    f"domain `{name}`: the score of {len(bad)} of {len(domain.nll)} documents is"
                    f" not finite, the first on line {bad[0]}"
                )
        return found

    def and_more(self, other: "Scores") -> "Scores":
        """With further documents of the same domains."""
        pairs = ((name, one, other.domains[name]) for name, one in self.domains.items())
        return Scores({name: one.and_more(more) for name, one, more in pairs})

    @property
    def n_tokens(self) -> int:
        """Tokens scored, of all domains."""
        return sum(int(domain.n_tokens.sum()) for domain in self.domains.values())

    def to_data(self) -> dict[str, DocumentLosses]:
        """Everything as files hold it."""
        return {
            name: DocumentLosses(
                tuple(domain.lines.tolist()),
                tuple(domain.n_tokens.tolist()),
                tuple(within(domain.nll.tolist())),
                domain.groups,
            )
            for name, domain in self.domains.items()
        }

    @classmethod
    def from_data(cls, data: Mapping[str, DocumentLosses]) -> "Scores":
        """What `to_data` gave; `None` becomes NaN."""
        return cls(
            {
                name: DomainScores(
                    np.array(domain.lines, np.int64),
                    np.array(domain.n_tokens, np.int64),
                    np.array(domain.nll, np.float64),
                    domain.groups,
                )
                for name, domain in data.items()
            }
        )


def difference(a: Scores, b: Scores) -> Scores:
    """a - b, document by document; its estimates are differences with paired standard errors.

    Raises:
        InputError: They were not scored on the same tokens.
    """
    if a.domains.keys() != b.domains.keys():
        raise InputError(
            f"scores cannot be compared: domains {', '.join(sorted(a.domains))} and"
            f" {', '.join(sorted(b.domains))}",
            "score both models on the same data",
        )
    paired = {}
    for name, first in a.domains.items():
        second = b.domains[name]
        for name_of in ("lines", "n_tokens"):
            if not np.array_equal(getattr(first, name_of), getattr(second, name_of)):
                raise InputError(
                    f"scores cannot be compared: domain `{name}` differs in its {name_of}",
                    "score both models on the same data, with the same options and tokenizer",
                )
        paired[name] = DomainScores(
            first.lines,
            first.n_tokens,
            first.nll - second.nll,
            first.groups or second.groups,
            DISCORDANT if right_or_wrong(first.n_tokens, first.nll, second.nll) else 0.0,
        )
    return Scores(paired)


def rows_of(scores: Scores, counted: str = "token") -> dict[str, Estimate]:
    """Each domain, then both means.

    Args:
        counted: What a document's count is of.
    """
    return {
        **scores.estimates(),
        MACRO: scores.macro(),
        f"{counted}-weighted": scores.token_weighted(),
    }


def scores_table(
    scores: Scores,
    tasks: Sequence[TaskScore] = (),
    *,
    value: str = "loss_nats",
    counted: str = "token",
) -> str:
    """For people. With tasks, a column says what each row's value is.

    Args:
        value: What the scores are.
        counted: What a document's count is of.
    """
    rows = [
        (
            name,
            value,
            f"{row.loss_nats:.6f}",
            _short(row.se),
            f"{row.n_tokens}",
            f"{row.n_documents}",
        )
        for name, row in rows_of(scores, counted).items()
    ]
    rows += [
        (task.task, task.metric, f"{task.value:.6f}", _short(task.se), "", f"{task.n_documents}")
        for task in tasks
    ]
    cells: list[tuple[str, ...]] = [
        ("domain", "metric", "value", "se", f"{counted}s", "documents"),
        *rows,
    ]
    if not tasks:
        cells = [(row[0], *row[2:]) for row in cells]
        cells[0] = ("domain", value, *cells[0][2:])
    return "\n".join(align_columns(cells, left=2 if tasks else 1))


def documents_csv(scores: Scores) -> str:
    """A row for each document: where it stands, its tokens, their summed loss in nats, and its
    group, where any has one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    grouped = any(domain.groups for domain in scores.domains.values())
    writer.writerow([*DOCUMENTS_HEAD, *(["group"] if grouped else [])])
    for name, domain in scores.domains.items():
        groups = domain.groups or (None,) * len(domain.nll)
        columns = domain.lines.tolist(), domain.n_tokens.tolist(), domain.nll.tolist(), groups
        for row in zip(*columns, strict=True):
            writer.writerow([name, *(row if grouped else row[:-1])])
    return text.getvalue()


def items_csv(tasks: Sequence[TaskScore]) -> str:
    """A row for each item of each task: its score by each metric that is a mean of items."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ITEMS_HEAD)
    for task in tasks:
        for number, value in enumerate(task.items, 1):
            writer.writerow([task.task, task.metric, number, value])
    return text.getvalue()


def _short(se: float) -> str:
    """A standard error; `-` where there is none."""
    return f"{se:.6f}" if math.isfinite(se) else "-"
