"""What the commands that end with a verdict do with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mergeplan.errors import UnreachableError

if TYPE_CHECKING:
    from mergeplan.law.recommendation import Candidate
    from mergeplan.verdict.contenders import Contender
    from mergeplan.verdict.verdict import Verdict


@dataclass(frozen=True)
class Written:
    """What was written, or why nothing was."""

    path: Path | None
    subset: tuple[str, ...] | None
    text: str


def refuse_pool_alone(pool_file: Path | None, out: Path | None) -> None:
    """`--pool` and `-o` belong together.

    Raises:
        click.UsageError: One is given without the other.
    """
    if (pool_file is None) != (out is None):
        raise click.UsageError("--pool and -o belong together")


def written(
    verdict: "Verdict",
    source: Path,
    pool_file: Path,
    out: Path,
    *,
    by: str,
    anyway: bool,
    replace: bool,
    drawn: "Candidate | None" = None,
    wanted: "Contender | None" = None,
    seed: int | None = None,
) -> Written:
    """Write the YAML of a verdict's merge.

    Args:
        source: The measurements; beside them, a run says which models they are of.
        by: The command, for the comment.
        drawn: Of how many experts to draw some at random, where no measured merge has a name.
        wanted: Weights that were asked for, in the place of the verdict's merge.
        seed: Of the draw, and of a merge's masks.

    Raises:
        InputError: The pool lacks what the merge needs, or has other models than were measured.
    """
    from mergeplan.calibration.config_file import merging
    from mergeplan.calibration.same_models import refuse_other_models
    from mergeplan.law.write import choose_merge
    from mergeplan.pool.pool import load_pool
    from mergeplan.system.writing import write_durably
    from mergeplan.verdict.write import contender_yaml, merge_to_write

    pool = load_pool(pool_file)
    one = merge_to_write(verdict, anyway=anyway, wanted=wanted)
    next_command = f"wrote {out}; next: {merging(out)}"
    if one is not None:
        refuse_other_models(source, pool, one.merge.n_params, one.merge.subset)
        text = contender_yaml(one, verdict, pool, by=by, seed=seed)
        write_durably(out, text, replace=replace)
        return Written(out, one.merge.subset, next_command)
    if drawn is not None and drawn.k is not None and verdict.kind == "k":
        chosen = choose_merge(drawn, pool, seed=seed)
        refuse_other_models(source, pool, drawn.fit.series.n_params, chosen.subset)
        write_durably(out, chosen.text, replace=replace)
        return Written(out, chosen.subset, f"{chosen.reason}\n{next_command}")
    why = "the target is not reached" if not verdict.reached else "merging does not pay"
    named = "the best merge"
    if wanted is not None:
        why = f"{wanted.value:.4f} of the weights asked for is no better than what is known"
        named = "them"
    more = f"; --anyway writes {named} all the same" if verdict.best_merge else ""
    return Written(None, None, f"no YAML is written: {why}{more}")


def fail_by(verdict: "Verdict") -> None:
    """Exit code 4 where nothing beats the base or reaches the target.

    Raises:
        UnreachableError: Nothing does.
    """
    if not verdict.fails:
        return
    ease = "lower" if verdict.higher else "raise"
    hint = f"{ease} the target, add experts to the pool, or measure a larger base"
    if verdict.reached and verdict.target is not None:
        hint = "keep the base, or ask without a target for the best there is"
    if verdict.target is None:
        hint = "try a smaller lambda or other experts, or keep the base"
        if verdict.within:
            hint = "loosen the bound, or keep the base"
    if verdict.kind == "nothing":
        hint = "loosen a bound, allow more experts, or add experts to the pool"
    if verdict.to_measure is not None and verdict.to_measure.command:
        hint = f"measure more: {verdict.to_measure.command}"
    raise UnreachableError(verdict.failure(), hint)
