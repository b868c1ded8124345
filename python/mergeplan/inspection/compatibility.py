"""Whether checkpoints can be merged: every problem between them, not just the first."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mergeplan.checkpoints.checkpoint import Checkpoint, Key
from mergeplan.checkpoints.dtypes import WIDE
from mergeplan.checkpoints.heads import head_of
from mergeplan.checkpoints.opening import OpenOptions
from mergeplan.config.config import MergeConfig
from mergeplan.config.methods import METHODS
from mergeplan.errors import InputError, MergeplanError
from mergeplan.planning.architecture import architecture_differences
from mergeplan.planning.conversation import conversation_differences
from mergeplan.planning.faults import complaints, told
from mergeplan.planning.jobs import dtype_faults
from mergeplan.planning.lowering import sums_alone
from mergeplan.planning.opening import try_to_open
from mergeplan.planning.options import PlanOptions
from mergeplan.planning.outputs import Outputs, find_outputs
from mergeplan.planning.pairing import (
    Fault,
    Match,
    PairingOptions,
    left_out_warnings,
    pair_tensors,
    respelled,
)
from mergeplan.planning.planner import pairing_options
from mergeplan.planning.vocabularies import (
    Mismatch,
    compare_folders,
    compare_vocabularies,
    folders_of,
)
from mergeplan.system.excerpts import mark_lines


@dataclass(frozen=True)
class Refusal:
    """One reason why a merge is refused.

    Attributes:
        kind: `config`, `open`, `missing`, `extra`, `shape`, `vocabulary`, `dtype`, `layers`,
            `option`, `memory` or `output`.
        model: Whose it is, as it was given; `None` where it is nobody's own.
        tensor: The tensor, or the first of `tensors` alike.
        line, excerpt: Where the config says it, and that line with a caret below.
    """

    kind: str
    model: str | None
    tensor: str | None
    message: str
    hint: str | None
    tensors: int = 1
    line: int | None = None
    excerpt: str = ""

    def error(self) -> InputError:
        """The same as an error."""
        more = f" (and {self.tensors - 1} tensors more)" if self.tensors > 1 else ""
        error = InputError(self.message + more, self.hint)
        error.about, error.line, error.excerpt = self.model or "", self.line, self.excerpt
        return error


def problem_of(kind: str, error: MergeplanError, model: str | None = None) -> Refusal:
    """A caught error as a problem."""
    found = Refusal(kind, model or error.about or None, None, error.message, error.hint)
    if isinstance(error, InputError):
        return replace(found, line=error.line, excerpt=error.excerpt)
    return found


def with_lines(problems: Iterable[Refusal], config: MergeConfig) -> list[Refusal]:
    """Problems with the lines of the config's file that they are about."""
    problems = list(problems)
    if config.file is None:
        return problems
    errors = [one.error() for one in problems]
    mark_lines(errors, config.text)
    return [
        replace(one, line=error.line, excerpt=error.excerpt)
        for one, error in zip(problems, errors, strict=True)
    ]


def as_merge_tells(problems: Iterable[Refusal]) -> list[InputError]:
    """Problems as errors, those of a model's tensors as one for each kind."""
    problems = list(problems)
    tensors = [one for one in problems if _of_tensor(one)]
    folded = iter(
        told(Fault(one.kind, one.model or "", one.tensor or "", one.error()) for one in tensors)
    )
    found, seen = [], set()
    for one in problems:
        if not _of_tensor(one):
            found.append(one.error())
        elif (group := (one.model, one.kind)) not in seen:
            seen.add(group)
            found.append(next(folded))
    return found


def _of_tensor(problem: Refusal) -> bool:
    # Those of options are folded already.
    return problem.tensor is not None and problem.kind != "option"


def open_all(
    names: Iterable[str], opening: OpenOptions | None = None, *, shard_too: bool = False
) -> tuple[list[Checkpoint], list[Refusal]]:
    """Open what can be opened; the rest, and folders given twice, are problems."""
    every, errors = try_to_open(names, opening, shard_too=shard_too)
    problems = [problem_of("open", error) for error in errors]
    opened: list[Checkpoint] = []
    seen: dict[Key, str] = {}
    for checkpoint in every:
        name = checkpoint.name
        if checkpoint.key in seen:
            message = f"`{seen[checkpoint.key]}` and `{name}` are the same checkpoint"
            problems.append(Refusal("open", name, None, message, "give each once"))
            continue
        seen[checkpoint.key] = name
        opened.append(checkpoint)
    return opened, problems


def compare(
    checkpoints: list[Checkpoint],
    donor: Checkpoint,
    options: PlanOptions,
    base: str | None = None,
) -> tuple[list[Refusal], list[str]]:
    """Check some checkpoints against each other.

    Args:
        donor: The one whose names and config the output has.
        base: Name of the one that the others are held against; `None` for what most have.

    Returns:
        Every problem, and warnings about what fits but differs.
    """
    views = [respelled(checkpoint, donor) for checkpoint in checkpoints]
    allowed = PairingOptions(options.allow_left_out, base=base)
    pairing = pair_tensors(views, views[checkpoints.index(donor)], allowed)
    matches = [(match, checkpoints) for match in pairing.matches]
    problems, warnings = _judge(matches, pairing.faults)
    folders = folders_of(checkpoints, donor.name)
    any_vocabulary = options.allow_vocabulary_mismatch
    more, differences = _of_vocabularies(compare_folders(folders), any_vocabulary)
    warnings = [*left_out_warnings(pairing.left_out), *warnings, *differences]
    warnings += conversation_differences(folders)
    return [*problems, *more], [*warnings, *_differences(checkpoints, donor)]


def compare_sources(
    config: MergeConfig, checkpoints: list[Checkpoint], options: PlanOptions
) -> tuple[Outputs, list[Refusal], list[str]]:
    """Check the models of a config against each other, each where it is a source.

    Args:
        config: One that is planned by names.
        checkpoints: Those of `config.models`.
        any_vocabulary: Whether one token may have two ids.

    Returns:
        What belongs together, every problem, and warnings about what fits but differs.
    """
    pairing = pairing_options(config, checkpoints, options)
    outputs = find_outputs(config, checkpoints, pairing)
    donor = next(c for c in checkpoints if c.name == config.donor)
    matches = [(tensor.match, tensor.sources(checkpoints)) for tensor in outputs.tensors]
    problems, warnings = _judge(matches, outputs.faults)
    vocabularies = compare_vocabularies(config, checkpoints, donor.name)
    more, differences = _of_vocabularies(vocabularies, options.allow_vocabulary_mismatch)
    warnings = [*left_out_warnings(outputs.left_out), *warnings, *differences]
    return outputs, [*problems, *more], [*warnings, *_differences(checkpoints, donor)]


def _of_vocabularies(found: Mismatch, allowed: bool) -> tuple[list[Refusal], list[str]]:
    """Problems and warnings."""
    if allowed:
        return [], found.allowed()
    return [problem_of("vocabulary", error, model) for model, error in found.faults], found.warnings


def _judge(
    matches: list[tuple[Match, list[Checkpoint]]], faults: list[Fault]
) -> tuple[list[Refusal], list[str]]:
    """Problems of what does not match, and of dtypes; warnings about dtypes that differ."""
    problems = [_problem(fault) for fault in faults]
    for match, sources in matches:
        problems += [_problem(fault) for fault in dtype_faults(match, sources)]
    return problems, _dtype_differences(matches)


def _differences(checkpoints: list[Checkpoint], donor: Checkpoint) -> list[str]:
    return [*_heads(checkpoints), *architecture_differences(checkpoints, donor)]


def option_problems(
    config: MergeConfig, outputs: Outputs, checkpoints: list[Checkpoint]
) -> list[Refusal]:
    """Options that are missing or do not fit, tensors with the same complaint together."""
    return [
        replace(problem_of("option", one.error), tensor=one.tensor, tensors=one.tensors)
        for one in complaints(config, outputs.tensors, checkpoints)
    ]


def lone_warnings(checkpoint: Checkpoint) -> list[str]:
    """What one checkpoint would bring into any merge."""
    dtypes = Counter(tensor.dtype for tensor in checkpoint.tensors.values())
    sums = " and ".join(f"`{method.name}`" for method in METHODS.values() if sums_alone(method))
    warnings = [
        *checkpoint.warnings,
        *(
            f"`{checkpoint.name}`: {count} tensors are {dtype}: {sums} merge them as they are"
            + (", every method with `dtype: float32`" if dtype == "F64" else "")
            for dtype, count in dtypes.items()
            if dtype in WIDE
        ),
    ]
    if head_of(checkpoint) == "stored though tied":
        warnings.append(
            f"`{checkpoint.name}`: the head is tied to the embedding, but the files hold a head of"
            " its own: what loads the model may ignore it, while a merge reads and writes it"
        )
    return warnings


def _problem(fault: Fault) -> Refusal:
    error = fault.error
    return Refusal(fault.kind, fault.model, fault.tensor, error.message, error.hint)


def _dtype_differences(matches: list[tuple[Match, list[Checkpoint]]]) -> list[str]:
    counts: dict[str, int] = {}
    for match, sources in matches:
        dtypes = [c.tensors[name].dtype for c, name in zip(sources, match.inputs, strict=True)]
        if len(set(dtypes)) > 1:
            each = ", ".join(f"`{c.name}` {d}" for c, d in zip(sources, dtypes, strict=True))
            counts[each] = counts.get(each, 0) + 1
    return [f"{count} tensors differ in dtype: {each}" for each, count in counts.items()]


def _heads(checkpoints: list[Checkpoint]) -> list[str]:
    tied = [c.name for c in checkpoints if head_of(c) == "tied"]
    own = [c.name for c in checkpoints if head_of(c) in ("own", "stored though tied")]
    if not tied or not own:
        return []
    names = ", ".join(f"`{name}`" for name in tied)
    return [f"{names}: no head is stored, while `{own[0]}` has one: the embedding stands in for it"]
