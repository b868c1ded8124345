"""What limits a verdict, in sentences."""

import math
from collections.abc import Iterable, Sequence

from mergeplan.display.text import listed
from mergeplan.evaluation.resampling import Resampling
from mergeplan.selection.select import POOR_R2
from mergeplan.subset_law.outlier import aside_text
from mergeplan.verdict.contenders import Bounds, Contender, Predictions, is_complete
from mergeplan.verdict.harms import unpaired
from mergeplan.verdict.known import Aim, KnownMerge
from mergeplan.verdict.unmeasured import Open
from mergeplan.verdict.words import base_size

# So many merges that have one value are a sign, and fewer a matter of course.
_FEWEST_TIES = 3


def within(bounds: Bounds) -> str:
    """The bounds, for a sentence on what keeps them."""
    words = [str(constraint) for constraint in bounds.keep]
    if bounds.max_experts is not None:
        words.append(f"at most {bounds.max_experts} experts")
    if bounds.budget is not None:
        words.append(f"no more than the budget of {bounds.budget:g}")
    return f" within `{', '.join(words)}`"


def on_nothing_compared(*, alone: bool, no_merges: bool) -> list[str]:
    """Where the measurements cannot tell whether merging pays.

    Args:
        alone: One merge is all that was measured.
        no_merges: No merge of several experts was.
    """
    found = []
    if alone:
        found.append(
            "it is all that was measured and is compared with nothing: measure the base, single"
            " experts and other merges"
        )
    if no_merges:
        found.append("no merge of several experts was measured: nothing says whether merging pays")
    return found


def on_open(some: Open | None) -> list[str]:
    """Where a merge may lose more to others than it gains."""
    if some is None:
        return []
    return [
        f"the best of those that were not measured is expected to be better by {some.loss:.2g} on"
        " this text, more than this one is better than its base and single experts"
    ]


def on_predictions(chosen: Contender, predictions: Sequence[Predictions]) -> list[str]:
    """Where the law of its method and base explains little, others may be better, unseen."""
    if not chosen.measured or not chosen.merge.k:
        return []
    open_ = [one for one in predictions if not is_complete(one.table)]
    # Of another size or method nothing follows for this one, unless its own law is not there.
    some = [one.r2 for one in open_ if one.of(chosen.merge)] or [one.r2 for one in open_]
    poor = [r2 for r2 in some if r2 < POOR_R2]
    if not poor or len(poor) < len(some):
        return []
    return [
        f"merges that were not measured are hardly predicted here ({max(*poor, 0.0):.0%} of the"
        " variance of those left out is explained): others may be better, and this one may be"
        " the best by chance"
    ]


def on_outliers(predictions: Sequence[Predictions]) -> list[str]:
    """Rows that no law of the others comes near, of what decides."""
    laws = [one.laws[one.name] for one in predictions if one.name in one.laws]
    return list(dict.fromkeys(text for law in laws for text in aside_text(law)))


def on_ties(known: Sequence[Contender]) -> list[str]:
    """A word where all that was measured has one value."""
    values = {one.on_this_text for one in known}
    if len(known) < _FEWEST_TIES or len(values) > 1:
        return []
    return [f"all {len(known)} that were measured score alike, {values.pop():.4f}"]


def on_another_size(kind: str, merge: Contender | None) -> list[str]:
    """Where a base or an expert is taken, and merging pays at another size all the same.

    Args:
        merge: The best of such a size.
    """
    if merge is None or kind not in ("base", "expert"):
        return []
    return [
        f"merging pays{base_size(merge)}, where {merge.merge.name()} has {merge.value:.4f}, better"
        " than that base and its single experts, and worse than what is taken"
    ]


def on_lacking(every: Sequence[KnownMerge], aim: Aim) -> list[str]:
    """How many merges lack a part of what counts, which parts, and what to do."""
    lacking = [one for one in every if aim.of(one.values) is None]
    parts = sorted({name for one in lacking for name in aim.shares if name not in one.values})
    if not lacking:
        return []
    return [
        f"{len(lacking)} of {len(every)} merges were not measured on {listed(parts)} and are not"
        " compared: measure them on it, or ask for another domain"
    ]


def on_experts(
    singles: Sequence[Contender],
    chosen: Contender,
    n_experts: int,
    partly: Iterable[str] = (),
) -> list[str]:
    """Where few experts were measured alone, or none as it is, another may be better.

    Args:
        n_experts: Of that base, as far as is known.
        partly: Names of those that were scored alone, on a part of the text.
    """
    if not singles or not chosen.merge.k:
        return []
    found = []
    alone = sorted({one.merge.subset[0] for one in singles})
    if len(alone) < n_experts:
        some = sorted({*partly} - {*alone})
        also = f" on all documents, {len(some)} on a part of them" if some else ""
        found.append(
            f"of {n_experts} experts {len(alone)} {'was' if len(alone) == 1 else 'were'} measured"
            f" alone, {listed(alone)}{also}: the best one, and domains' own, are of"
            f" {'the first' if some else 'those'}"
        )
    if not any(one.merge.is_expert for one in singles):
        found.append("no expert was measured as it is: one alone may be better than this merge")
    return found


def on_base_and_texts(
    chosen: Contender,
    base: Contender | None,
    base_counts: bool,
    aim: Aim,
    resampling: Resampling | None,
    known: Sequence[Contender],
) -> list[str]:
    """Whether the base counts, and why nothing is said of other texts.

    Args:
        base_counts: Whether it keeps the bounds.
        known: All that was measured.
    """
    found = []
    if base is None:
        found.append("the base was not measured: whether merging pays at all is not known")
    elif not base_counts:
        found.append("the base does not keep the bounds, and does not count")
    if not chosen.merge.k:
        return found
    by_errors = unpaired(aim, resampling)
    if by_errors and chosen.deviation and not aim.paired:
        found.append(
            "on items of this kind as if no two merges had an item in common: had items scores of"
            " their own here, merges that answer the same ones would be told apart more surely"
        )
    elif by_errors and not chosen.deviation:
        lacking = sum(math.isnan(aim.error_of(one.errors)) for one in known)
        none = "neither `value_se` nor `n_items` says how far its items may move it"
        if 0 < lacking < len(known):
            none = (
                f"{lacking} of {len(known)} values have neither `value_se` nor `n_items`, which say"
                " how far items may move them"
            )
        found.append(f"no chance on items of this kind is told: {none}")
    elif not by_errors and resampling is None:
        found.append(
            "on this text only: no losses of single documents stand beside the table, so that"
            " nothing is said of other texts"
        )
    elif not by_errors and resampling is not None and not resampling.enough(aim.shares):
        few = min(resampling.groups().items(), key=lambda item: item[1])
        found.append(
            f"on this text only: domain `{few[0]}` has {few[1]} documents or groups of them, and"
            " what holds on other texts is said from five on"
        )
    return found
