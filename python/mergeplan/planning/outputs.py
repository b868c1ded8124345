"""Which tensors a merge writes, and which tensor of each source goes into each of them."""

from dataclasses import dataclass

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.layers import depths_of
from mergeplan.config.config import MergeConfig
from mergeplan.config.scopes import Settings, Slice
from mergeplan.planning.pairing import Fault, Match, Pairing, pair_tensors
from mergeplan.planning.slicing import BEFORE, BEHIND, depth_within, layer_views, range_faults


@dataclass(frozen=True)
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
    """

    match: Match
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    depth: float
    piece: Slice
    scopes: tuple[Settings, ...]

    def sources(self, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
        return [checkpoints[number] for number in self.numbers]


@dataclass(frozen=True)
class Outputs:
    """All tensors of the output; sorted as mergekit writes them.

    Attributes:
        extra: For each model the tensors that are left out, because others lack them.
        faults: What does not fit; without any, the models can be merged.
    """

    tensors: list[OutputTensor]
    extra: dict[str, list[str]]
    faults: list[Fault]


def find_outputs(config: MergeConfig, checkpoints: list[Checkpoint]) -> Outputs:
    """Pair the tensors of all sources by their names.

    Args:
        config: One that can be planned by names.
        checkpoints: Those of `config.models`, in that order.
    """
    places = {model.path: number for number, model in enumerate(config.models)}
    module = config.modules[0]
    found = Outputs([], {}, [])
    first = 0
    for piece in module.slices:
        numbers = tuple(places[source.path] for source in piece.sources)
        sources = [checkpoints[number] for number in numbers]
        # The output has the donor's tensors, or the first source's where it is not among them.
        donor = next((c for c in sources if c.name == config.donor), sources[0])
        if piece.n_layers is None:
            views, pairing = sources, pair_tensors(sources, donor)
            depths = depths_of([match.name for match in pairing.matches])
        else:
            faults = range_faults(piece.sources, sources)
            found.faults.extend(faults)
            if faults:
                continue
            ends = (piece is module.slices[0], piece is module.slices[-1])
            views, pairing = _pair_layers(piece, sources, sources.index(donor), first, ends)
            depths = {m.name: depth_within(m.name, first, piece.n_layers) for m in pairing.matches}
            first += piece.n_layers
        scopes = (piece.parameters, module.parameters, config.parameters)
        for match in pairing.matches:
            names = tuple(view.own_name(match.name) for view in views)
            depth = depths[match.name]
            found.tensors.append(OutputTensor(match, numbers, names, depth, piece, scopes))
        found.faults.extend(pairing.faults)
        for model, extra in pairing.extra.items():
            found.extra.setdefault(model, []).extend(extra)
    found.tensors.sort(key=lambda tensor: (max(tensor.match.inputs), tensor.match.name))
    return found


def _pair_layers(
    piece: Slice, sources: list[Checkpoint], donor: int, first: int, ends: tuple[bool, bool]
) -> tuple[list[Checkpoint], Pairing]:
    """Pair the layers of a slice, and what stands before and behind all layers.

    Args:
        donor: Whose tensors the output has, by its place among the sources.
        first: Number of the slice's first layer in the output.
        ends: Whether it is the first slice, and whether it is the last.
    """
    is_first, is_last = ends
    # At the end an embedding may stand in for a head.
    outside = (*BEFORE, *BEHIND) if is_last else BEFORE if is_first else ()
    views = layer_views(sources, piece.sources, first, outside)
    unwanted = () if is_first else BEFORE
    pairing = pair_tensors(views, views[donor], lambda name: not name.startswith(unwanted))
    return views, pairing
