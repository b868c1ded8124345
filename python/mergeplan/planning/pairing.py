"""Which tensor of each model belongs to which output tensor."""

from collections.abc import Callable
from dataclasses import dataclass

from mergeplan.checkpoints.checkpoint import IGNORED_ENDINGS, Checkpoint
from mergeplan.checkpoints.heads import is_head, stand_in
from mergeplan.errors import InputError, MissingInputError


@dataclass(frozen=True)
class Match:
    """One output tensor and the tensor that each checkpoint contributes to it.

    Attributes:
        inputs: Tensor names in the files, in the order of the checkpoints.
        tied: Whether some checkpoint contributes its embedding for a head that others have.
    """

    name: str
    inputs: tuple[str, ...]
    tied: bool = False


@dataclass(frozen=True)
class Fault:
    """Why one tensor of one model cannot take part in a merge.

    Attributes:
        kind: `missing`, `shape`, `vocabulary`, `dtype` or `layers`.
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
        extra: For each model the tensors that are left out, because the donor lacks them.
        faults: All of them, by tensor; without any, the checkpoints can be merged.
    """

    matches: list[Match]
    extra: dict[str, list[str]]
    faults: list[Fault]


def left_out(extra: dict[str, list[str]], donor: Checkpoint) -> list[str]:
    """Warnings about tensors that the output will not have.

    Args:
        extra: For each model the tensors that the donor lacks.
    """
    return [
        f"`{model}`: left out {len(found)} tensors that `{donor.name}` does not have,"
        f" the first `{found[0]}`"
        for model, found in extra.items()
    ]


def pair_tensors(
    checkpoints: list[Checkpoint],
    donor: Checkpoint,
    wanted: Callable[[str], bool] = lambda name: True,
) -> Pairing:
    """Pair the checkpoints' tensors by name, and find everything that does not fit.

    The donor's tensors make the output, and a head that any of them has: where it is tied, the
    embedding stands in, as in mergekit.

    Args:
        wanted: Which names the output has; others may only stand in for a head.
    """
    others = [set(c.tensors) for c in checkpoints if c is not donor]
    everywhere = set.intersection(*others) if others else set()
    names = set(donor.tensors) | everywhere
    extra: dict[str, list[str]] = {}
    for checkpoint in checkpoints:
        for name in sorted(set(checkpoint.tensors) - names):
            if is_head(name):
                names.add(name)
            elif not name.endswith(IGNORED_ENDINGS):
                extra.setdefault(checkpoint.name, []).append(name)
    matches = []
    faults = []
    for name in sorted(filter(wanted, names)):
        if name.endswith(IGNORED_ENDINGS):
            continue
        inputs = [_input_for(name, checkpoint) for checkpoint in checkpoints]
        found = {
            checkpoint.name: tensor
            for checkpoint, tensor in zip(checkpoints, inputs, strict=True)
            if tensor is not None
        }
        faults += [_missing(c.own_name(name), c.name) for c in checkpoints if c.name not in found]
        faults += _shape_faults(name, found, checkpoints, donor)
        if len(found) == len(checkpoints):
            tied = len(set(found.values())) > 1
            own = [c.own_name(found[c.name]) for c in checkpoints]
            matches.append(Match(name, tuple(own), tied))
    matches.sort(key=lambda match: (max(match.inputs), match.name))
    return Pairing(matches, extra, faults)


def _input_for(name: str, checkpoint: Checkpoint) -> str | None:
    return name if name in checkpoint.tensors else stand_in(name, checkpoint)


def _missing(name: str, model: str) -> Fault:
    error = MissingInputError(
        f"model `{model}`: tensor `{name}` is missing, which the other models have",
        "all models of a merge must have the same architecture",
    )
    return Fault("missing", model, name, error)


def _shape_faults(
    name: str, found: dict[str, str], checkpoints: list[Checkpoint], donor: Checkpoint
) -> list[Fault]:
    """Tensors of another shape than the donor's, or than the first one's where it has none."""
    having = [checkpoint for checkpoint in checkpoints if checkpoint.name in found]
    like = donor if donor.name in found else having[0]
    expected = like.tensors[found[like.name]].shape
    faults = []
    for checkpoint in having:
        tensor_name = found[checkpoint.name]
        tensor = checkpoint.tensors[tensor_name]
        if tensor.shape == expected:
            continue
        kind, hint = "shape", "all models of a merge must have the same shapes"
        if "embed" in name or is_head(name):
            kind = "vocabulary"
            hint = "the vocabularies differ: `tokenizer_source: base` or `union` makes them one"
        error = InputError(
            f"`{checkpoint.path / tensor.file}`: tensor `{checkpoint.own_name(tensor_name)}`:"
            f" expected shape {list(expected)} as in `{like.name}`, found {list(tensor.shape)}",
            hint,
        )
        faults.append(Fault(kind, checkpoint.name, checkpoint.own_name(tensor_name), error))
    return faults
