"""From measurements to a choice: fit the law of single subsets, and take what serves best."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergeplan.config.transfer import AUTO, REQUIRED, check_transfer
from mergeplan.errors import InputError
from mergeplan.evaluation.item_scores import with_item_scores
from mergeplan.evaluation.resampling import Resampling, of_known_items, resampling_beside
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.metrics import rows_about, several_metrics, target_among
from mergeplan.measurements.rows import MACRO, Measurement, named_among, target_name
from mergeplan.pool.geometry.file import Gram, load_grams
from mergeplan.selection.active import Confidence, confidence_of, confidence_on_items
from mergeplan.selection.choices import Choice
from mergeplan.selection.draws import Draws, settle_weights
from mergeplan.selection.fitting import Fits, fit_each, fit_table, why_alone
from mergeplan.selection.geometry import grams_beside
from mergeplan.selection.insight import (
    droppable,
    experts_of,
    implied_law,
    measured_law,
    sizes_of,
)
from mergeplan.selection.problem import Constraint, Problem
from mergeplan.selection.selection import Selection, Selections, Wish, name_of_table
from mergeplan.selection.settled import is_loss, settled_of, within_ends
from mergeplan.selection.sizes import link_sizes, refuse_one_size
from mergeplan.selection.slopes import rows_with_slopes
from mergeplan.selection.table import Table, tables_of
from mergeplan.selection.texts import texts_of
from mergeplan.selection.weights import best_weights
from mergeplan.subset_law.expected_rows import expected_rows
from mergeplan.subset_law.law import SubsetLaw
from mergeplan.subset_law.outlier import aside_text
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.system.blas import on_one_thread
from mergeplan.system.files import expanded

Array = NDArray[np.float64]

# Below this share of explained variance a prediction is a guess.
POOR_R2 = 0.8
# Different k above one that a method which is not linear should be measured at. On the real pool
# singles, pairs and all merged predict TIES with an R² between -8 and 0.97, by its options.
ENOUGH_SIZES = 3


@on_one_thread
def select(
    source: str | Path,
    *,
    wish: Wish | None = None,
    method: str | None = None,
    metric: str | None = None,
    geometry: str | Path | Sequence[Gram] | None = None,
    transfer: str = AUTO,
) -> Selections:
    """The best subset and weights of each measured method and base size, the best of them first.

    Args:
        source: A CSV of measurements with a column `subset`.
        method: Only this label.
        metric: What is to be as good as can be, instead of `wish.domains`; `perplexity` is made of
            losses where no row is of it.
        geometry: How the experts lie to each other, which helps where merges are few: a file of
            `mergeplan similarity -o`, or `grams_of` what `similarity` found. By default what the
            table's run left beside it; an empty sequence for nothing.
        transfer: Whether a larger base size leans on a smaller one of the same experts: `auto`,
            where merges that are left out are then predicted better, `off`, or `required`.

    Returns:
        One selection for each method and base size that could be fitted.

    Raises:
        MissingInputError: There is no such file.
        InputError: The file is at fault, too few merges were measured, or `transfer` is required
            and there is one size only, sizes whose experts differ, or one that cannot be fitted.

    Example:
        >>> import mergeplan
        >>> found = mergeplan.select("pool/measurements.csv", method="task_arithmetic")
        >>> found[0].best.subset
        ('cheader', 'html', 'js', 'json', 'mande', 'manfr')
    """
    check_transfer(transfer)
    table_file = expanded(source)
    rows, _ = read_rows(table_file)
    if not rows:
        raise InputError(
            f"`{table_file}` has no rows", "measure some merges: `mergeplan calibrate`"
        )
    rows = rows_with_slopes(table_file, with_item_scores(table_file, rows))
    resampling = resampling_beside(table_file, rows)
    rows = of_known_items(rows, resampling)
    wish = wish or Wish()
    rows, wish = asked_of(rows, wish, metric)
    asked = isinstance(geometry, (str, Path))
    if isinstance(geometry, (str, Path)):
        geometry = load_grams(expanded(geometry))
    grams = grams_beside(table_file, rows) if geometry is None else geometry
    tables = link_sizes(tables_of(rows, method), transfer)
    if transfer == REQUIRED:
        refuse_one_size(tables)
    fits = select_each(tables, wish, resampling, grams, asked=asked, transfer=transfer)
    if not fits.found:
        raise fits.faults[0]
    return Selections(sorted(fits.found, key=_order), fits.unfitted)


def asked_of(
    rows: tuple[Measurement, ...], wish: Wish, metric: str | None
) -> tuple[tuple[Measurement, ...], Wish]:
    """Rows and wish where a metric is named, or is the only one: it is what counts, its domains go
    by their own names, and the other rows stay.

    Raises:
        InputError: It is not there, or domains are named too; or its values are at fault; or there
            are several and none is named.
    """
    metrics = [row.metric for row in rows]
    if metric is None and len(set(metrics)) > 1:
        if wish.domains is None and "" not in metrics:
            raise several_metrics(metrics)
        return rows, wish
    some = rows_about(rows, metric)
    metric, named = some[0].metric, metric is not None
    if named and wish.domains is not None:
        raise InputError("both a metric and domains are named", "`--domains` takes metrics too")
    others = tuple(row for row in rows if row.metric != metric)
    rows = (*some, *others)
    targets = {row.target for row in rows}
    domains = wish.domains
    if metric:
        domains = named_among(domains, targets, metric) if domains else target_among(some)
    keep = tuple(replace(one, name=named_among(one.name, targets, metric)) for one in wish.keep)
    return rows, replace(wish, domains=domains, keep=keep)


def select_each(
    tables: Iterable[Table],
    wish: Wish,
    resampling: Resampling | None,
    grams: Sequence[Gram],
    *,
    asked: bool = False,
    transfer: str = AUTO,
) -> Fits[Selection]:
    """A selection of every table that can be fitted, see `fit_each`.

    Args:
        tables: As `sizes.link_sizes` gives them.
        wish: What is asked for.
        resampling: Documents' scores of the measured merges, where they are known.
        grams: How the experts lie to each other.
        asked: Whether a table whose experts are not among them cannot be fitted.
        transfer: As for `select`.

    Returns:
        Selections in the order of the tables, and why others could not be fitted.

    Raises:
        InputError: Transfer is required, and a table with a smaller size cannot be fitted, or
            that size cannot.
    """
    required = transfer == REQUIRED
    fits = fit_each(
        tables,
        lambda one: select_from(one, wish, resampling),
        grams,
        asked=asked,
        required=required,
    )
    for one in fits.found if required else ():
        if one.table.smaller and one.law.transfer is None:
            why = f"{name_of_table(one.table)} cannot lean on it: {why_alone(one.table, one.law)}"
            raise InputError(f"a smaller size was asked for, and {why}")
    return fits


def chosen_of(selection: Selection, kind: str) -> Choice:
    """The choice to write.

    Args:
        kind: `equal`, `simplex` or `free`.

    Returns:
        The best subset (`equal`), or weights that sum to 1 (`simplex`) or to anything (`free`).

    Raises:
        InputError: There is none of the kind; the message says why.
    """
    found = {"equal": selection.best, "simplex": selection.weighted, "free": selection.free}[kind]
    if found is not None:
        return found
    if selection.best is None:
        raise InputError("nothing keeps the bounds")
    if selection.weighted is None and not selection.table.weighted:
        raise InputError(
            f"weighted merges by `{selection.table.method}` are not known to follow the form",
            "measure some, with a column `weights`",
        )
    raise InputError(
        "no weights of another sum are predicted: only merges whose weights sum to 1 were measured",
        "measure single experts, and all together, at half strength: `calibrate --for select"
        " --free-sum`",
    )


def select_from(table: Table, wish: Wish, resampling: Resampling | None = None) -> Selection:
    """The same for one method at one base size.

    Args:
        resampling: Documents' scores of the measured merges, where they are known.

    Raises:
        InputError: Too few merges were measured, or a domain that is asked for was not.
    """
    name = wish.domains or table.default_target()
    law = fit_table(table, name)
    bounds = tuple((constraint, fit_table(table, constraint.name)) for constraint in wish.keep)
    problem = Problem(law, bounds, wish.max_experts)
    if wish.max_loss is not None:
        limit = Constraint(name, wish.max_loss, below=not law.higher)
        problem = replace(problem, bounds=(*bounds, (limit, law)))
    by_size, draws = settled_of(table, problem)
    if wish.max_loss is not None:
        by_size = {
            k: choice
            for k, choice in by_size.items()
            if problem.sign * choice.value <= problem.sign * wish.max_loss
        }
    ranked = sorted(by_size.values(), key=lambda choice: problem.sign * choice.value)
    best = ranked[0] if ranked else None
    if best is not None and wish.max_loss is not None:
        best = by_size[min(by_size)]
    weighted = free = None
    if table.weighted and ranked:
        weighted = settle_weights(problem, best_weights(problem, ranked[:3]))
        if table.largest_sum is not None:
            free = best_weights(problem, ranked[:3], table.largest_sum)
            free = settle_weights(problem, free)
        if is_loss(table, name):
            weighted, free = (
                one if one is not None and one.value > 0 else None for one in (weighted, free)
            )
        ends = table.target(name).ends
        weighted, free = (one and within_ends(one, ends) for one in (weighted, free))
    laws = _domain_laws(table, table.target(name).metric)
    sizes = sizes_of(law)
    experts = experts_of(law, best, laws) if best is not None else []
    base = table.value(name, {})
    if base is not None and law.noisy and (own := law.weights.sum(1) == 0).any():
        base = float(np.clip(expected_rows(law)[0][own][0], *table.target(name).ends))
    return Selection(
        table=table,
        law=law,
        laws=laws,
        wish=wish,
        best=best,
        by_size=by_size,
        weighted=weighted,
        free=free,
        base=base,
        confidence=how_sure(table, draws, best, resampling) if best is not None else None,
        experts=tuple(experts),
        drop=droppable(experts, law),
        sizes=tuple(sizes),
        implied=implied_law(sizes) if not law.higher else None,
        fitted=measured_law(law) if not law.higher else None,
        warnings=(
            *table.gaps(name),
            *_unlike(table, law),
            *aside_text(law),
            *_few_sizes(table, law),
            *_warnings(law, best, problem, base),
        ),
    )


def how_sure(
    table: Table, draws: Draws, best: Choice, resampling: Resampling | None, count: int = 5
) -> Confidence:
    """On this text, and on texts of this kind where their scores are known."""
    law = draws.problem.law
    target = table.target(law.name)
    if target.metric and law.noisy:
        return confidence_on_items(draws, best, count, unpaired=not target.paired)
    texts = texts_of(table, law, resampling, len(draws.costs))
    return confidence_of(draws, best, texts=texts, count=count)


def _domain_laws(table: Table, metric: str) -> dict[str, SubsetLaw]:
    """Of the domains of what decides: a change of another metric has another unit."""
    names = [name for name, one in table.targets.items() if one.metric == metric]
    laws = {}
    for name in names:
        if name == target_name(metric, MACRO) and len(names) > 1:
            continue
        try:
            laws[name] = fit_table(table, name)
        except InputError:
            # A domain of which too little was measured is no fault of the others.
            continue
    return laws


def _order(selection: Selection) -> tuple[bool, float]:
    sign = -1.0 if selection.law.higher else 1.0
    best = selection.best
    return best is None, 0.0 if best is None else sign * best.value


def _unlike(table: Table, law: SubsetLaw) -> list[str]:
    """A word on a smaller size that nothing can be taken from."""
    why = why_alone(table, law)
    return [f"no smaller size helps to predict this one: {why}"] if why else []


def _few_sizes(table: Table, law: SubsetLaw) -> list[str]:
    """How the deltas of a method that is not linear shrink with k is found from several k alone."""
    if table.linear or sum(k > 1 for k in law.sizes) >= ENOUGH_SIZES:
        return []
    return [
        f"merges by `{table.method or 'an unnamed method'}` are no plain means: measure at three or"
        " more k above one, or do not rely on the predictions"
    ]


def _warnings(
    law: SubsetLaw, best: Choice | None, problem: Problem, base: float | None
) -> list[str]:
    found = []
    largest, pool = law.sizes[-1], len(law.experts)
    if largest < pool:
        found.append(
            f"no merge of more than {largest} experts was measured: predictions for {largest + 1}"
            f" to {pool} are extrapolated, and their intervals do not hold; measure all merged"
        )
    if law.r2 < POOR_R2:
        found.append(
            f"the form explains {max(law.r2, 0):.0%} of the variance of merges that were left out:"
            " measure more, or do not rely on it"
        )
    if best is None:
        return found
    if base is not None and problem.sign * base <= problem.sign * best.value:
        found.append(f"the base itself has {base:.4f}, no worse than the best subset")
    if best.gap > 0:
        found.append(f"the pool is too large to list: a better subset by {best.gap:.4g} may exist")
    weights = np.array([[best.weights.get(name, 0.0) for name in law.experts]])
    for constraint, other in problem.bounds:
        if other is law or best.measured:
            continue
        around = NINE_IN_TEN * float(other.deviations(weights)[0])
        value = float(other.predict(weights)[0])
        worst = value + around if constraint.below else value - around
        if worst > constraint.limit if constraint.below else worst < constraint.limit:
            found.append(
                f"`{constraint}` is not sure: {constraint.name} is predicted to be {value:.4f}"
                f" ± {around:.4f}"
            )
    return found
