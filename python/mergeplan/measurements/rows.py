"""One measured value of one merge, and a set of them."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from mergeplan.display.summary import Summarized
from mergeplan.errors import InputError

MACRO = "macro"
# Of losses in nats, which have a column of their own: of a metric these would be taken for them.
LOSS_NAMES = ("loss", "losses", "loss_nats")

# n_params, method (empty for the base), options ("{}" for the base), subset, seed (empty for it).
MergeKey = tuple[float | None, str, str, tuple[str, ...], str]
# In a `data_hash`, between the hash of the whole text and which part of it was scored.
PARTLY = ", part "
_ALIASES = {"overall": MACRO}


@dataclass(frozen=True)
class Measurement:
    """One row: a mean token cross-entropy of one merge on one domain, or another metric of it.

    Attributes:
        row: Line in the file, for messages.
        k: Experts merged; 0 is the base.
        loss_nats: The loss in nats per token, or the value of `metric`.
        method: Label; empty where the file does not say.
        options: Canonical JSON.
        n_params: Parameters of the base, or `None` where the file does not say.
        subset: Names of the experts, sorted; empty where the file does not say.
        loss_se: Standard error of the loss, from the evaluation text.
        text_se: Standard error of the loss on this very text, of a merge that was scored on a part
            of it and set against others; `None` where all was scored.
        seed: Tells merges of one subset apart.
        weights: Of the experts in the order of `subset`, where they differ or do not sum to 1.
        metric: Name of what was measured instead of a loss; `loss_nats` holds its value then.
        higher: Whether higher values of the metric are better.
        value_se: Standard error of the metric's value, from its items.
        n_items: Items, such as questions, that the metric is a mean over.
        n_tokens: Tokens scored.
        pool_hash: Which models were merged, by their content.
        data_hash: Which tokens were scored.
        own_se: What of a metric's error is this merge's own, where the scores of the items tell; no
            column of a table.
        slopes: By how much the loss rises for one more of an expert's weight, by its name, see
            `measurements.slopes`; no column of a table either.
    """

    row: int
    k: int
    loss_nats: float
    method: str = ""
    options: str = "{}"
    n_params: float | None = None
    domain: str = ""
    subset: tuple[str, ...] = ()
    pool_size: int | None = None
    loss_se: float | None = None
    seed: str = ""
    weights: tuple[float, ...] = ()
    metric: str = ""
    higher: bool = False
    value_se: float | None = None
    n_items: int | None = None
    n_tokens: int | None = None
    pool_hash: str = ""
    data_hash: str = ""
    own_se: float | None = None
    text_se: float | None = None
    slopes: tuple[tuple[str, float], ...] = ()

    @property
    def target(self) -> str:
        """What its value is of, as `select` names it.

        >>> Measurement(2, 1, 0.9, metric="acc", higher=True, domain="arc").target
        'acc:arc'
        """
        return target_name(self.metric, self.domain)

    @property
    def merge_key(self) -> MergeKey:
        """Which merge it is of, the same for every domain and metric.

        What tells merges of one subset apart stands in its last part: the seed, and weights that
        are not equal. Rows of one k that name no experts have one key.

        >>> Measurement(2, 1, 0.9, "ties", domain="md", subset=("code",), seed="0").merge_key
        (None, 'ties', '{}', ('code',), '0')
        >>> Measurement(3, 0, 1.1, "ties", n_params=1e9).merge_key
        (1000000000.0, '', '{}', (), '')
        """
        if self.k == 0:
            return self.n_params, "", "{}", (), ""
        weights = "+".join(map(repr, self.weights))
        subset = self.subset or (f"any {self.k}",)
        seed = " ".join(part for part in (self.seed, weights) if part)
        return self.n_params, self.method, self.options, subset, seed


@dataclass(frozen=True, repr=False)
class Measurements(Summarized):
    """The rows of a file that the law is about, and the file's hash.

    Attributes:
        unequal: Rows left out because their experts have different weights, or weights that do
            not sum to 1: the law is about equal ones.
        partial: Rows left out because the merge was scored on a part of the text: the others were
            chosen for being good, so that no mean of them is fitted.
    """

    rows: tuple[Measurement, ...]
    sha256: str
    unequal: int = 0
    partial: int = 0

    def summary(self) -> str:
        """How many rows there are of each method, domain and k."""
        counts = Counter((row.method or "-", row.domain or "-") for row in self.rows)
        lines = [f"{len(self.rows)} rows of equally weighted merges"]
        for (method, domain), count in sorted(counts.items()):
            ks = {
                row.k
                for row in self.rows
                if (row.method or "-", row.domain or "-") == (method, domain)
            }
            lines.append(f"  {method}, {domain}: {count} of k = {', '.join(map(str, sorted(ks)))}")
        return "\n".join(lines)

    def records(self) -> list[dict[str, Any]]:
        """The rows, with the columns of the file."""
        return [
            {
                name: "+".join(map(str, value)) if isinstance(value, tuple) else value
                for name, value in vars(row).items()
                if name != "slopes"
            }
            for row in self.rows
        ]


def target_name(metric: str, domain: str) -> str:
    """What a value of a metric on a domain is called where several are told apart.

    >>> target_name("", "code"), target_name("acc", "code")
    ('code', 'acc:code')
    """
    return ":".join(part for part in (metric, domain) if part) or "loss"


def domain_name(text: str) -> str:
    """A domain as rows call it: the macro mean has an alias.

    >>> domain_name("Overall"), domain_name("Code")
    ('macro', 'Code')
    """
    return _ALIASES.get(text.lower(), text)


def named_among(text: str, targets: Collection[str], metric: str) -> str:
    """`code=2,math` in a table of one metric: domains by the names that its values have there.

    Args:
        targets: Names of all values.

    >>> named_among("code=2,math", {"acc:code", "acc:math"}, "acc")
    'acc:code=2,acc:math=1'
    >>> named_among("acc:code", {"acc:code"}, "acc"), named_among("code", {"code"}, "")
    ('acc:code', 'code')
    """
    if text in targets or not metric:
        return text
    shares = parse_shares(text)
    own = {name: target_name(metric, name) for name in shares}
    if not any(own[name] in targets and name not in targets for name in shares):
        return text
    parts = {own[name] if own[name] in targets else name: share for name, share in shares.items()}
    if len(parts) == 1:
        return next(iter(parts))
    return ",".join(f"{name}={share:g}" for name, share in parts.items())


def parse_shares(text: str) -> dict[str, float]:
    """`code=2,math` as a share for each name, an alias by its own name.

    Raises:
        InputError: A share is no positive number, or a name is there twice.

    >>> parse_shares("code=2,math")
    {'code': 2.0, 'math': 1.0}
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            value = float(share or 1)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise InputError(f"expected a positive share in `{part}`", "write code=2,math=1")
        name = domain_name(name.strip())
        if name in shares:
            raise InputError(f"domain `{name}` is named twice in `{text}`")
        shares[name] = value
    return shares
