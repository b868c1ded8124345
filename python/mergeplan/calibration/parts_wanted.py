"""Up to which part of the texts merges are scored."""

from collections.abc import Mapping

from mergeplan.calibration.curve_rounds import Round
from mergeplan.calibration.preflight import CheckedCalibration
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.parts import N_PARTS
from mergeplan.evaluation.texts import tokens_of
from mergeplan.pool.subsets import SubsetMerge


def parts_wanted(
    checked: CheckedCalibration,
    found: Round,
    seen: Mapping[str, MeasuredMerge],
    *,
    partly: bool,
) -> dict[SubsetMerge, int]:
    """Up to which part each merge of a round is to be scored.

    Args:
        seen: What is measured, by the merges' keys.
        partly: Whether merges are scored on parts of the documents.
    """
    wanted = {}
    for merge in found.merges:
        domains = checked.texts[merge.size].domains.values()
        now = reached(seen.get(merge.key))
        wanted[merge] = N_PARTS
        if partly and merge not in found.whole:
            # Parts that add nothing, of domains with few documents, are passed over.
            more = [n for n in range(now + 1, N_PARTS) if tokens_of(domains, range(now, n))]
            upto = min(more, default=N_PARTS)
            if tokens_of(domains, range(upto, N_PARTS)):
                wanted[merge] = upto
    return wanted


def reached(measured: MeasuredMerge | None) -> int:
    """Up to which part a merge was scored."""
    return 0 if measured is None else measured.parts or N_PARTS


def upto_part(parts: int) -> int | None:
    """The same as `MeasuredMerge.parts` has it."""
    return parts if parts < N_PARTS else None
