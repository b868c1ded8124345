"""From measurements, or a law, to a recommendation in one step."""

from pathlib import Path

from mergeplan.errors import InputError
from mergeplan.law.costs import CostModel, load_costs
from mergeplan.law.fit_result import FitResult
from mergeplan.law.loading import fits_of
from mergeplan.law.recommend import recommend
from mergeplan.law.recommendation import Goal, Recommendation
from mergeplan.measurements.rows import Measurements


def suggest(
    source: FitResult | Measurements | str | Path,
    target_loss: float | None = None,
    *,
    goal: Goal | None = None,
    costs: CostModel | str | Path | None = None,
    sizes: tuple[float, ...] = (),
) -> Recommendation:
    """How many experts to merge, at which base size, by which method (the paper's Section 4).

    An unreachable goal is a result with reasons, not an exception: `reached` says which.

    Args:
        source: What `fit` returned, or a file of measurements (`.csv`) or of a law (`.json`).
        target_loss: In nats per token; short for `goal=Goal(target_loss=…)`. Without a goal, 90 %
            of the improvement from one expert to all of them.
        costs: A model, or a cost file; by default GPU hours as in the paper.
        sizes: Further base sizes, in parameters, that the law over sizes is asked about.

    Returns:
        Every method and base size as a candidate, the one to take first.

    Raises:
        MissingInputError: There is no such file.
        InputError: A file is at fault, or a budget is given and the bases' sizes are not known.

    Example:
        >>> import mergeplan
        >>> best = mergeplan.suggest("pool/measurements.csv", 1.9055).best
        >>> best.k, best.fit.series.method
        (6, 'task_arithmetic')
    """
    if target_loss is not None and goal is not None:
        raise InputError("`target_loss` and `goal` are both given", "name the loss in the goal")
    if isinstance(costs, str | Path):
        costs = load_costs(Path(costs))
    return recommend(fits_of(source), target_loss, goal=goal, costs=costs, sizes=sizes)
