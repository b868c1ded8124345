"""The losses of single merges on one domain, from the rows of a table."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from mergeplan.errors import InputError, nearest
from mergeplan.law.correction import Merge
from mergeplan.measurements.gaps import gap_text
from mergeplan.measurements.rows import MACRO, Measurement, domain_name


@dataclass(frozen=True)
class Single:
    """One measured merge; its experts where the table names them."""

    k: int
    subset: tuple[str, ...]
    loss: float


def singles_of(
    rows: Iterable[Measurement], method: str, options: str, n_params: float | None, domain: str
) -> list[Single]:
    """The merges that a series is the means of.

    Args:
        rows: Of a table, all of losses or of one metric.
        method, options, n_params, domain: Of the series.

    Returns:
        Each named subset once, as the mean over its seeds, and every row without names.
    """
    key = (method, options, n_params)
    own = [row for row in rows if row.k and (row.method, row.options, row.n_params) == key]
    if not own:
        return []
    _, losses, _ = by_merge(own, domain)
    found = []
    for (k, subset), values in losses.items():
        found += [Single(k, subset, loss) for loss in ([fmean(values)] if subset else values)]
    return found


def by_merge(
    rows: list[Measurement], domain: str | None
) -> tuple[str, dict[Merge, list[float]], list[str]]:
    """The domain, its losses by merge, and a word on merges that lack it.

    Args:
        rows: Of one method, its options and base size, and its base.
        domain: As for `series_of`.

    Returns:
        Several values of a merge are its seeds, or subsets without names.

    Raises:
        InputError: No row is of the domain, or no merge was measured on every one.
    """
    names = {row.domain for row in rows}
    domains = sorted(names - {MACRO})
    if domain is not None:
        domain = domain_name(domain)
    elif MACRO in names or len(domains) > 1:
        domain = MACRO
    else:
        domain = domains[0]
    if domain not in names and domain != MACRO:
        hint = nearest(domain, sorted(names)) or f"domains: {', '.join(sorted(names))}"
        raise InputError(f"no rows of domain `{domain}`", hint)
    cells: dict[Merge, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[row.k, row.subset][row.domain].append(row.loss_nats)
    losses: dict[Merge, list[float]] = {}
    missing: Counter[str] = Counter()
    for merge, by_domain in cells.items():
        lacking = [one for one in domains if one not in by_domain]
        if domain in by_domain:
            losses[merge] = by_domain[domain]
        elif domain == MACRO and domains and not lacking:
            # The macro mean is formed where every domain is present.
            losses[merge] = [fmean(fmean(by_domain[one]) for one in domains)]
        else:
            missing.update(lacking if domain == MACRO and lacking else [domain])
    if not losses:
        raise InputError("no merge was measured on every domain", "choose one with `--domain`")
    left_out = len(cells) - len(losses)
    gaps = [gap_text(missing, left_out, len(cells), "--domain")] if left_out else []
    return domain, losses, gaps
