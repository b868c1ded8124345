"""Whether checkpoints can be merged: every problem between them, not just the first."""

from collections.abc import Iterable
from dataclasses import dataclass

from mergeplan.checkpoints import (
    Checkpoint,
    Fault,
    Match,
    Pairing,
    left_out,
    open_checkpoint,
    pair_tensors,
)
from mergeplan.config import MergeConfig
from mergeplan.errors import MergeplanError
from mergeplan.facts import head_of, unmergeable
from mergeplan.plan import dtype_faults, make_job
from mergeplan.settings import depths_of

# What a model computes beside its tensors, and no shape tells.
ARCHITECTURE_KEYS = (
    "model_type",
    "hidden_act",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
    "rope_scaling",
    "sliding_window",
)


@dataclass(frozen=True)
class Problem:
    """One reason why a merge is refused.

    Attributes:
        kind: `open`, `missing`, `shape`, `vocabulary`, `dtype`, `option`, `memory` or `output`.
        model: Whose it is, as it was given; `None` where it is nobody's own.
        tensor: The tensor, or the first of `tensors` alike.
    """

    kind: str
    model: str | None
    tensor: str | None
    message: str
    hint: str | None
    tensors: int = 1


def problem_of(kind: str, error: MergeplanError, model: str | None = None) -> Problem:
    """A caught error as a problem."""
    return Problem(kind, model, None, error.message, error.hint)


def open_all(
    names: Iterable[str], *, file_too: bool = False
) -> tuple[list[Checkpoint], list[Problem]]:
    """Open what can be opened; the rest, and folders given twice, are problems."""
    opened: list[Checkpoint] = []
    problems = []
    seen: dict[tuple[str, frozenset[str]], str] = {}
    for name in names:
        try:
            checkpoint = open_checkpoint(name, file_too=file_too)
        except MergeplanError as error:
            problems.append(problem_of("open", error, name))
            continue
        place = (str(checkpoint.path), frozenset(t.file for t in checkpoint.tensors.values()))
        if place in seen:
            message = f"`{seen[place]}` and `{name}` are the same checkpoint"
            problems.append(Problem("open", name, None, message, "give each once"))
            continue
        seen[place] = name
        opened.append(checkpoint)
    return opened, problems


def compare(
    checkpoints: list[Checkpoint], donor: Checkpoint
) -> tuple[Pairing, list[Problem], list[str]]:
    """Check some checkpoints against each other.

    Args:
        donor: The one whose tensors the output has.

    Returns:
        What belongs together, every problem, and warnings about what fits but differs.
    """
    pairing = pair_tensors(checkpoints, donor)
    problems = [_problem(fault) for fault in pairing.faults]
    for match in pairing.matches:
        problems += [_problem(fault) for fault in dtype_faults(match, checkpoints)]
    warnings = left_out(pairing, donor)
    warnings += _dtype_differences(pairing.matches, checkpoints)
    warnings += _heads(checkpoints)
    warnings += _config_differences(checkpoints, donor)
    return pairing, problems, warnings


def option_problems(
    config: MergeConfig, pairing: Pairing, checkpoints: list[Checkpoint]
) -> list[Problem]:
    """Options that are missing or do not fit, tensors with the same complaint together."""
    depths = depths_of([match.name for match in pairing.matches])
    found: dict[str, Problem] = {}
    for match in pairing.matches:
        if dtype_faults(match, checkpoints):
            continue
        try:
            make_job(config, match, checkpoints, depths[match.name])
        except MergeplanError as error:
            complaint = error.message.replace(match.name, "")
            tensors = found[complaint].tensors + 1 if complaint in found else 1
            first = found.get(complaint)
            found[complaint] = Problem(
                "option",
                None,
                first.tensor if first else match.name,
                first.message if first else error.message,
                error.hint,
                tensors,
            )
    return list(found.values())


def lone_warnings(checkpoint: Checkpoint) -> list[str]:
    """What one checkpoint would bring into any merge."""
    warnings = [
        f"`{checkpoint.name}`: {count} tensors are {dtype}, which cannot be merged: convert them to"
        " bfloat16 first"
        for dtype, count in unmergeable(checkpoint).items()
    ]
    if head_of(checkpoint) == "stored though tied":
        warnings.append(
            f"`{checkpoint.name}`: config.json ties the head to the embedding, but the files hold"
            " a head of its own: what loads the model ignores it, while a merge reads and writes it"
        )
    return warnings


def _problem(fault: Fault) -> Problem:
    error = fault.error
    return Problem(fault.kind, fault.model, fault.tensor, error.message, error.hint)


def _dtype_differences(matches: list[Match], checkpoints: list[Checkpoint]) -> list[str]:
    counts: dict[tuple[str, ...], int] = {}
    for match in matches:
        dtypes = tuple(
            c.tensors[name].dtype for c, name in zip(checkpoints, match.inputs, strict=True)
        )
        if len(set(dtypes)) > 1:
            counts[dtypes] = counts.get(dtypes, 0) + 1
    return [
        f"{count} tensors differ in dtype: "
        + ", ".join(f"`{c.name}` {d}" for c, d in zip(checkpoints, dtypes, strict=True))
        for dtypes, count in counts.items()
    ]


def _heads(checkpoints: list[Checkpoint]) -> list[str]:
    tied = [c.name for c in checkpoints if head_of(c) == "tied"]
    own = [c.name for c in checkpoints if head_of(c) in ("own", "stored though tied")]
    if not tied or not own:
        return []
    names = ", ".join(f"`{name}`" for name in tied)
    return [f"{names}: no head is stored, while `{own[0]}` has one: the embedding stands in for it"]


def _config_differences(checkpoints: list[Checkpoint], donor: Checkpoint) -> list[str]:
    found = []
    for key in ARCHITECTURE_KEYS:
        for other in checkpoints:
            ours, theirs = donor.config.get(key), other.config.get(key)
            if ours is not None and theirs is not None and ours != theirs:
                found.append(
                    f"config.json: `{key}` is {ours} in `{donor.name}` and {theirs} in"
                    f" `{other.name}`: the output gets that of `{donor.name}`"
                )
    return found
