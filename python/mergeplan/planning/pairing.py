"""Which tensor of each model belongs to which output tensor."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.dtypes import BUFFERS
from mergeplan.checkpoints.head_names import has_row_per_token
from mergeplan.checkpoints.heads import stand_in
from mergeplan.checkpoints.passed_over import reason_to_pass_over
from mergeplan.checkpoints.spelling import by_spelling, same_tensor
from mergeplan.errors import InputError, MissingInputError


@dataclass(frozen=True, slots=True)
class Match:
    """One output tensor and the tensor that each checkpoint contributes to it.

    Attributes:
        inputs: Tensor names in the files, in the order of the checkpoints.
        tied: Whether some checkpoint contributes its embedding for a head that the output has.
    """

    name: str
    inputs: tuple[str, ...]
    tied: bool = False


@dataclass(frozen=True)
class Fault:
    """Why one tensor of one model cannot take part in a merge.

    Attributes:
        kind: `missing`, `extra`, `shape`, `vocabulary`, `dtype` or `layers`.
        model: As the config writes it.
    """

    kind: str
    model: str
    tensor: str
    error: InputError


@dataclass(frozen=True)
class Pairing:
    """What belongs together in some checkpoints, and what does not fit.

    Attributes:
        matches: Sorted as mergekit writes them; a tensor that some model lacks is not among them.
        left_out: Tensors of some model that the output has not, each with the reason.
        faults: All of them, by tensor; without any, the checkpoints can be merged.
    """

    matches: list[Match] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class PairingOptions:
    """What of tensors that do not fit may pass.

    Attributes:
        allow_left_out: Patterns of names, with `*` and `?`, that the output may lack where some
            model does.
        one_row_per_token: Names of tensors whose rows are brought together later: they may differ
            in number.
        base: Name of the model that the others are held against; `None` for what most have.
    """

    allow_left_out: tuple[str, ...] = ()
    one_row_per_token: Collection[str] = ()
    base: str | None = None


AS_ASKED = "as `--allow-left-out` asks"


def is_allowed(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of some patterns names a tensor."""
    # A name may hold brackets, which stand for something else in a pattern.
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def left_out_warnings(left_out: dict[str, str]) -> list[str]:
    """A line for each reason why tensors are not in the output."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        f"left out {len(names)} tensors ({reason}), the first `{names[0]}`"
        for reason, names in by_reason.items()
    ]


def unused_patterns(patterns: Iterable[str], left_out: Iterable[str]) -> list[str]:
    """A line for each pattern that left nothing out: perhaps it is misspelt."""
    names = list(left_out)
    return [
        f"`--allow-left-out {pattern}` leaves nothing out: every model has what it names, or none"
        for pattern in patterns
        if not any(is_allowed(name, (pattern,)) for name in names)
    ]


def respelled(checkpoint: Checkpoint, donor: Checkpoint) -> Checkpoint:
    """A checkpoint with its tensors under the donor's names, where one model has two spellings."""
    strangers = by_spelling(name for name in checkpoint.tensors if name not in donor.tensors)
    if not strangers:
        return checkpoint
    wanted = by_spelling(name for name in donor.tensors if name not in checkpoint.tensors)
    renamed = {
        name: wanted[key]
        for key, name in strangers.items()
        if key in wanted and same_tensor(name, wanted[key])
    }
    if not renamed:
        return checkpoint
    tensors = {renamed.get(name, name): tensor for name, tensor in checkpoint.tensors.items()}
    own = {new: checkpoint.own_name(old) for old, new in renamed.items()}
    return replace(checkpoint, tensors=tensors, own_names={**checkpoint.own_names, **own})


def pair_tensors(
    checkpoints: list[Checkpoint],
    donor: Checkpoint,
    options: PairingOptions | None = None,
    wanted: Callable[[str], bool] = lambda name: True,
    also: Collection[str] = (),
) -> Pairing:
    """Pair the checkpoints' tensors by name, and find everything that does not fit.

    The output has every tensor that any of them has: what some lack is a fault, but for what
    `checkpoints.passed_over` lists and what the options allow. A head that is tied is lacking
    nowhere: the embedding stands in, as in mergekit.

    Args:
        wanted: Which names the output has; others may only stand in for a head.
        also: Names that the output has although none of these checkpoints may store them.
    """
    options = options or PairingOptions()
    found = Pairing()
    if _are_alike(checkpoints):
        # What a large model's hundred thousand tensors need not be asked one by one.
        every = sorted(filter(wanted, {*also, *donor.tensors}))
        if all(name in donor.tensors for name in every):
            count = len(checkpoints)
            found.matches.extend(Match(name, (name,) * count) for name in every)
            return found
    names = set(also).union(*(c.tensors for c in checkpoints))
    for name in sorted(filter(wanted, names)):
        inputs = [_input_for(name, checkpoint) for checkpoint in checkpoints]
        having = {
            checkpoint.name: tensor
            for checkpoint, tensor in zip(checkpoints, inputs, strict=True)
            if tensor is not None
        }
        free_rows = name in options.one_row_per_token
        if len(having) < len(checkpoints) or _are_unlike(having, checkpoints, free_rows):
            reason = _reason_to_leave_out(name, checkpoints, options)
            if reason is not None:
                found.left_out[name] = reason
                continue
            found.faults.extend(_presence_faults(name, having, checkpoints, options.base))
            if not having:
                continue
            like = options.base if options.base in having else donor.name
            found.faults.extend(_shape_faults(name, having, checkpoints, like, options))
        if len(having) == len(checkpoints):
            tied = any(tensor != name for tensor in having.values())
            own = [c.own_name(having[c.name]) for c in checkpoints]
            found.matches.append(Match(name, tuple(own), tied))
    found.matches.sort(key=lambda match: (max(match.inputs), match.name))
    return found


def _are_alike(checkpoints: list[Checkpoint]) -> bool:
    """Whether the models have the same tensors, under the names that their files have."""
    first, *others = checkpoints
    if any(checkpoint.own_names for checkpoint in checkpoints):
        return False
    kinds = [(tensor.dtype, tensor.shape) for tensor in first.tensors.values()]
    return all(
        list(first.tensors) == list(other.tensors)
        and kinds == [(tensor.dtype, tensor.shape) for tensor in other.tensors.values()]
        for other in others
    )


def _are_unlike(found: dict[str, str], checkpoints: list[Checkpoint], free_rows: bool) -> bool:
    """Whether the models have a tensor in several shapes, or some as integers and some not."""
    tensors = [checkpoint.tensors[found[checkpoint.name]] for checkpoint in checkpoints]
    dtypes = {tensor.dtype for tensor in tensors}
    shapes = {tensor.shape[1:] if free_rows else tensor.shape for tensor in tensors}
    return len(shapes) > 1 or (len(dtypes) > 1 and not dtypes.isdisjoint(BUFFERS))


def _reason_to_leave_out(
    name: str, checkpoints: list[Checkpoint], options: PairingOptions
) -> str | None:
    """Why the output may lack a tensor that not every model has alike; `None` where it may not."""
    if is_allowed(name, options.allow_left_out):
        return AS_ASKED
    reasons = [
        reason_to_pass_over(name, checkpoint.tensors[name].shape, checkpoint.config)
        for checkpoint in checkpoints
        if name in checkpoint.tensors
    ]
    return reasons[0] if reasons and all(reasons) else None


def _input_for(name: str, checkpoint: Checkpoint) -> str | None:
    return name if name in checkpoint.tensors else stand_in(name, checkpoint)


def _presence_faults(
    name: str, having: Collection[str], checkpoints: list[Checkpoint], base: str | None
) -> list[Fault]:
    """Models that lack what the base has, or have what it lacks; without one, what most do."""
    lacking = [c.name for c in checkpoints if c.name not in having]
    if not lacking:
        return []
    few = 0 < len(having) < len(lacking) and base not in having
    is_extra = bool(having) and (base in lacking or few)
    odd, others = (having, lacking) if is_extra else (lacking, having)
    other = base if base in others else next(iter(others), "the output")
    faults = []
    for checkpoint in checkpoints:
        if checkpoint.name not in odd:
            continue
        own, kind = checkpoint.own_name(name), "extra" if is_extra else "missing"
        says = f"is one that `{other}` lacks" if is_extra else f"is missing, which `{other}` has"
        error = (InputError if is_extra else MissingInputError)(
            f"model `{checkpoint.name}`: tensor `{own}` {says}",
            f"all models of a merge must have the same architecture; `--allow-left-out '{own}'`"
            " (with `*` for any part of a name) leaves it out of the output",
        )
        faults.append(Fault(kind, checkpoint.name, own, error))
    return faults


def _shape_faults(
    name: str,
    found: dict[str, str],
    checkpoints: list[Checkpoint],
    like: str,
    options: PairingOptions,
) -> list[Fault]:
    """Tensors of another shape than the base's, or without one than most.

    Args:
        like: Whose shape counts where it is the base, or where no shape is that of most.
    """
    free_rows = name in options.one_row_per_token
    having = [checkpoint for checkpoint in checkpoints if checkpoint.name in found]
    shapes = {c.name: c.tensors[found[c.name]].shape for c in having}
    expected = shapes.get(like, shapes[having[0].name])
    if like != options.base:
        counts = Counter(shapes.values())
        most = max(counts.values())
        if counts[expected] < most:
            expected = next(shape for shape, count in counts.items() if count == most)
    like = next(model for model in (like, *shapes) if shapes.get(model) == expected)
    faults = []
    for checkpoint in having:
        tensor_name = found[checkpoint.name]
        tensor = checkpoint.tensors[tensor_name]
        if tensor.shape == expected:
            continue
        if free_rows and tensor.shape[1:] == expected[1:]:
            continue
        kind, hint = "shape", "all models of a merge must have the same shapes"
        if has_row_per_token(name):
            kind = "vocabulary"
            hint = "the vocabularies differ: `tokenizer_source: base` or `union` makes them one"
        error = InputError(
            f"`{checkpoint.path / tensor.file}`: tensor `{checkpoint.own_name(tensor_name)}`:"
            f" expected shape {list(expected)} as in `{like}`, found {list(tensor.shape)}",
            hint,
        )
        faults.append(Fault(kind, checkpoint.name, checkpoint.own_name(tensor_name), error))
    return faults
