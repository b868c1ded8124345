"""Which rows are asked about, losses or one metric, and how far its items may move a value."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mergeplan.display.text import listed
from mergeplan.errors import InputError, SeveralMetricsError, nearest
from mergeplan.measurements.rows import MACRO, Measurement, domain_name, parse_shares, target_name

# Made of losses where it is asked for and no row is of it.
PERPLEXITY = "perplexity"
NO_SHARE = re.compile("perplexity|bits", re.IGNORECASE)
# Beyond this its perplexity is no number.
_LARGEST_LOSS = 700.0


def rows_about(rows: Sequence[Measurement], metric: str | None = None) -> tuple[Measurement, ...]:
    """The rows of losses, or those of one metric.

    Args:
        rows: Of a table.
        metric: Its name; `perplexity` is made of losses where no row is of it, as e to their power.
            `None` for the losses, or for the only metric of a table without any.

    Raises:
        InputError: There is no such metric, or there are several and none is named; its rows do not
            agree which way is better; or they say how many items a value is a share of, and one is
            no share.
    """
    names = list(dict.fromkeys(row.metric for row in rows))
    if metric is None:
        if len(names) > 1 and "" not in names:
            raise several_metrics([row.metric for row in rows])
        metric = "" if "" in names or not names else names[0]
    elif metric not in names:
        if metric == PERPLEXITY and "" in names:
            return tuple(_perplexity(row) for row in rows if not row.metric)
        known = [name for name in names if name]
        beside = ["losses, the default", *known] if "" in names else known
        raise InputError(
            f"no rows of metric `{metric}`",
            nearest(metric, known) or f"measured: {', '.join(beside)}",
        )
    found = tuple(row for row in rows if row.metric == metric)
    for row in found if metric else ():
        _check(row, found[0])
    return found


def several_metrics(metrics: Iterable[str]) -> SeveralMetricsError:
    """The error where one has to be named, with the one that most values are of.

    Args:
        metrics: Of each value.
    """
    counts = Counter(metrics)
    return SeveralMetricsError(listed(counts, len(counts)), max(counts, key=counts.__getitem__))


def target_among(rows: Sequence[Measurement], domain: str | None = None) -> str | None:
    """What `select` calls a domain of some rows, all of one metric.

    Args:
        rows: As `rows_about` gives them.
        domain: `None` for the mean over the metric's domains.

    Returns:
        A name, or several for their mean; `None` where the rows decide.

    >>> target_among([Measurement(2, 1, 0.9, metric="acc", domain=name) for name in "ab"])
    'acc:a,acc:b'
    """
    names = sorted({row.target for row in rows})
    metric = rows[0].metric
    if not metric or domain in names:
        return domain
    if domain is not None:
        return target_name(metric, domain_name(domain))
    macro = target_name(metric, MACRO)
    return macro if macro in names else ",".join(names)


def targets_of(domains: str | None, metric: str) -> str | None:
    """`code=2,math` as `select` calls it: of a metric by the names of its values.

    >>> targets_of("code=2,math", "acc"), targets_of("code", ""), targets_of(None, "acc")
    ('acc:code=2,acc:math=1', 'code', None)
    """
    if domains is None or not metric:
        return domains
    shares = parse_shares(domains)
    return ",".join(f"{target_name(metric, name)}={share:g}" for name, share in shares.items())


def domains_of(targets: str, metric: str) -> dict[str, float]:
    """Shares of domains, of what `targets_of` gives.

    >>> domains_of("acc:code=2,acc:math", "acc"), domains_of("code", "")
    ({'code': 2.0, 'math': 1.0}, {'code': 1.0})
    """
    shares = parse_shares(targets)
    return {name.removeprefix(f"{metric}:"): share for name, share in shares.items()}


def rows_of_known_items(rows: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Rows of a metric each item of which has a score beside, by which merges are paired: a row
    has then no error of its own, and is exact on these items as a loss is on its text."""
    return tuple(
        replace(row, value_se=None, n_items=None, own_se=None) if row.metric else row
        for row in rows
    )


def item_error(row: Measurement) -> float:
    """Standard error of a metric's value from its items, if no two merges had one in common.

    As the file says, else √(p(1 − p)/n) of a share p of n items. Of shares both are at least what
    one more item makes of them, half of it wrong and half right, lest 0 of 50, or as many items
    that all score alike, be taken for certain. NaN of losses, and where neither is said.

    >>> row = Measurement(2, 1, 0.0, metric="acc", higher=True, n_items=50, value_se=0.0)
    >>> round(item_error(row), 4)
    0.0139
    """
    value, n = row.loss_nats, row.n_items
    given = row.value_se if row.metric else None
    if not may_be_share(row) or not n or not 0 <= value <= 1:
        return math.nan if given is None else given
    # The items' mean square; of items that are 0 or 1 their mean.
    square = value if given is None else min(value, value**2 + given**2 * (n - 1))
    mean = (n * value + 0.5) / (n + 1)
    drawn = math.sqrt(((n * square + 0.5) / (n + 1) - mean**2) / n)
    return drawn if given is None else max(given, drawn)


def own_error(row: Measurement) -> float:
    """What of that error is the merge's own, by the items' scores; without these all of it."""
    return item_error(row) if row.own_se is None else row.own_se


def may_be_share(row: Measurement) -> bool:
    """Whether its value is of items, and none of which it is known that it is no share of them."""
    return bool(row.metric and row.n_items) and not NO_SHARE.search(row.metric)


def _check(row: Measurement, first: Measurement) -> None:
    if row.higher != first.higher:
        raise InputError(
            f"row {row.row}, column `better`: `{row.metric}` is better both ways, see row"
            f" {first.row}"
        )
    if may_be_share(row) and row.value_se is None and not 0 <= row.loss_nats <= 1:
        raise InputError(
            f"row {row.row}, column `value`: expected a share from 0 to 1, since `n_items` is given"
            f" and `value_se` is not, found {row.loss_nats:g}",
            "write 54.2 % as 0.542; give a score that is no share its `value_se`",
        )


def _perplexity(row: Measurement) -> Measurement:
    if row.loss_nats > _LARGEST_LOSS:
        raise InputError(f"row {row.row}, column `loss_nats`: no perplexity of {row.loss_nats:g}")
    # Its error moves all merges alike, as that of the loss does.
    return replace(row, metric=PERPLEXITY, loss_nats=math.exp(row.loss_nats), loss_se=None)
