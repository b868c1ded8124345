"""The best subset of each size as it may be said to be: possible, and on items of this kind."""

from dataclasses import replace

import numpy as np

from mergeplan.errors import InputError
from mergeplan.selection.choices import Choice, best_by_size, choice_of
from mergeplan.selection.draws import Draws, settle
from mergeplan.selection.problem import Problem
from mergeplan.selection.table import Table
from mergeplan.subset_law.law import SubsetLaw
from mergeplan.subset_law.spread import NINE_IN_TEN


def settled_of(table: Table, problem: Problem) -> tuple[dict[int, Choice], Draws]:
    """The best of each size, with what was measured of it where its value is that of other items.

    Args:
        problem: Of a law of the table.
    """
    by_size, draws = settle(problem, best_by_size(problem))
    if is_loss(table, problem.law.name):
        by_size = _possible(problem, by_size)
    ends = table.target(problem.law.name).ends
    return {
        k: within_ends(_on_items(table, problem.law, one), ends) for k, one in by_size.items()
    }, draws


def within_ends(choice: Choice, ends: tuple[float, float]) -> Choice:
    """A choice of no value that none can have."""
    value, low, high = np.clip((choice.value, choice.low, choice.high), *ends).tolist()
    return replace(choice, value=value, low=low, high=high)


def is_loss(table: Table, name: str) -> bool:
    """Whether what counts is a loss, which is never negative."""
    return not table.target(name).metric


def _possible(problem: Problem, by_size: dict[int, Choice]) -> dict[int, Choice]:
    """Choices without predictions below 0: the best that was measured takes their place."""
    law, found = problem.law, {}
    members = law.weights > 0
    k_of = members.sum(1)
    shares = members / np.maximum(k_of, 1)[:, None]
    plain = np.abs(law.weights - shares).max(1) < 1e-9
    for k, one in by_size.items():
        if one.measured or one.value > 0:
            found[k] = replace(one, low=max(one.low, 0.0))
            continue
        some = law.weights[plain & (k_of == k)]
        some = some[problem.excess(some) <= 0]
        if len(some):
            found[k] = choice_of(problem, some[int(np.argmin(problem.costs(some)))])
    if by_size and not found:
        raise InputError(
            f"`{law.name}`: every loss that is predicted is below 0",
            "look for rows that are far from the others, or measure more",
        )
    return found


def _on_items(table: Table, law: SubsetLaw, choice: Choice) -> Choice:
    """A choice by a law of values on other items, with an interval at least as wide as if merges
    had all of their items' error in common."""
    target = table.target(law.name)
    if law.noise is None or target.errors is None:
        return choice
    errors = target.errors
    own = np.array([choice.weights.get(name, 0.0) for name in table.experts])
    if (row := np.abs(table.weights - own).max(1) < 1e-9).any() and np.isfinite(errors[row]).all():
        errors = errors[row]
    half = NINE_IN_TEN * float(np.sqrt(np.nanmean(errors**2)))
    return replace(
        choice,
        low=min(choice.low, choice.value - half),
        high=max(choice.high, choice.value + half),
        here=table.value(law.name, choice.weights),
    )
