"""Which tensors a merge writes, and which tensor of each source goes into each of them."""

from dataclasses import dataclass

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.layers import depths_of
from mergeplan.checkpoints.plan_models import TensorRef
from mergeplan.config.config import MergeConfig
from mergeplan.config.scopes import Settings, Slice
from mergeplan.planning.document import Part
from mergeplan.planning.pairing import (
    Fault,
    Match,
    Pairing,
    PairingOptions,
    pair_tensors,
    respelled,
)
from mergeplan.planning.slicing import (
    BEFORE,
    BEHIND,
    depth_within,
    layer_views,
    own_heads,
    passed_over,
    range_faults,
)


@dataclass(frozen=True, slots=True)
class Operand:
    """What goes into a merge: a stored tensor, or one that is computed first.

    Attributes:
        dtype: safetensors' name.
        plain_dtype: As of `checkpoint.Tensor`.
    """

    reference: TensorRef
    dtype: str
    shape: tuple[int, ...]
    plain_dtype: str | None = None


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One tensor of the output.

    Attributes:
        match: Its name, and its input in each source.
        numbers: The sources, as places in `MergeConfig.models`.
        names: What each source calls it, whether it has it or lets another stand in: what the
            filters of a model's options look at.
        depth: Its place along gradients, in [0, 1].
        piece: Where its sources stand.
        scopes: The settings around them: of the slice, the module and the merge.
        computed: What goes in from each source, where that is not the tensor that it stores.
        parts: As of `document.Job`.
    """

    match: Match
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    depth: float
    piece: Slice
    scopes: tuple[Settings, ...]
    computed: tuple[Operand, ...] | None = None
    parts: tuple[Part, ...] = ()

    def sources(self, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
        return [checkpoints[number] for number in self.numbers]

    def operands(self, checkpoints: list[Checkpoint]) -> tuple[Operand, ...]:
        """What goes in from each source, in their order."""
        if self.computed is not None:
            return self.computed
        found = []
        for number, name in zip(self.numbers, self.match.inputs, strict=True):
            stored = checkpoints[number].tensors[name]
            reference = TensorRef(number, name)
            found.append(Operand(reference, stored.dtype, stored.shape, stored.plain_dtype))
        return tuple(found)


@dataclass(frozen=True)
class Outputs:
    """All tensors of the output; sorted as mergekit writes them.

    Attributes:
        left_out: As of `pairing.Pairing`.
        faults: What does not fit; without any, the models can be merged.
    """

    tensors: list[OutputTensor]
    left_out: dict[str, str]
    faults: list[Fault]


def find_outputs(
    config: MergeConfig, checkpoints: list[Checkpoint], options: PairingOptions | None = None
) -> Outputs:
    """Pair the tensors of all sources by their names.

    Args:
        config: One that can be planned by names.
        checkpoints: Those of `config.models`, in that order.
    """
    options = options or PairingOptions()
    places = {model.path: number for number, model in enumerate(config.models)}
    module = config.modules[0]
    found = Outputs([], {}, [])
    first = 0
    heads: set[str] = set()
    for piece in module.slices:
        numbers = tuple(places[source.path] for source in piece.sources)
        sources = [checkpoints[number] for number in numbers]
        # The output has the donor's tensors, or the first source's where it is not among them.
        donor = next((c for c in sources if c.name == config.donor), sources[0])
        if piece.n_layers is None:
            views = [respelled(source, donor) for source in sources]
            pairing = pair_tensors(views, views[sources.index(donor)], options)
            depths = depths_of([match.name for match in pairing.matches])
        else:
            faults = range_faults(piece.sources, sources)
            found.faults.extend(faults)
            if faults:
                continue
            ends = (piece is module.slices[0], piece is module.slices[-1])
            if ends[0]:
                heads = own_heads(sources)
            views = [respelled(source, donor) for source in sources]
            place = sources.index(donor)
            views, pairing = _pair_layers(piece, views, place, first, ends, heads, options)
            depths = {m.name: depth_within(m.name, first, piece.n_layers) for m in pairing.matches}
            first += piece.n_layers
        scopes = (piece.parameters, module.parameters, config.parameters)
        renamed = any(view.own_names for view in views)
        for match in pairing.matches:
            names = (match.name,) * len(views)
            if renamed:
                names = tuple(view.own_name(match.name) for view in views)
            depth = depths[match.name]
            found.tensors.append(OutputTensor(match, numbers, names, depth, piece, scopes))
        found.faults.extend(pairing.faults)
        found.left_out.update(pairing.left_out)
    if config.is_sliced:
        found.left_out.update(_beside_the_slices(found.tensors, checkpoints))
    found.tensors.sort(key=lambda tensor: (max(tensor.match.inputs), tensor.match.name))
    return found


def _beside_the_slices(
    tensors: list[OutputTensor], checkpoints: list[Checkpoint]
) -> dict[str, str]:
    """What no slice takes although it is of no layer that could be chosen: with reasons."""
    used = {
        (number, name)
        for t in tensors
        for number, name in zip(t.numbers, t.match.inputs, strict=True)
    }
    written = {tensor.match.name for tensor in tensors}
    return {
        name: reason
        for number, checkpoint in enumerate(checkpoints)
        for name, reason in passed_over(checkpoint).items()
        if (number, name) not in used and name not in written
    }


def _pair_layers(
    piece: Slice,
    sources: list[Checkpoint],
    donor: int,
    first: int,
    ends: tuple[bool, bool],
    heads: set[str],
    options: PairingOptions,
) -> tuple[list[Checkpoint], Pairing]:
    """Pair the layers of a slice, and what stands before and behind all layers.

    Args:
        donor: Whose tensors the output has, by its place among the sources.
        first: Number of the slice's first layer in the output.
        ends: Whether it is the first slice, and whether it is the last.
        heads: Of the first slice's models, where their embeddings do not serve as heads: nor does
            the output's, and a tied model behind it brings its own embedding as a head.
    """
    is_first, is_last = ends
    # At the end an embedding may stand in for a head.
    outside = (*BEFORE, *BEHIND) if is_last else BEFORE if is_first else ()
    views = layer_views(sources, piece.sources, first, outside)
    unwanted = () if is_first else BEFORE
    pairing = pair_tensors(
        views,
        views[donor],
        options,
        lambda name: not name.startswith(unwanted),
        heads if is_last else (),
    )
    return views, pairing
