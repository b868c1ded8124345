"""Which layer a tensor belongs to, by its name."""

import re

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")


def layer_of(tensor: str) -> tuple[str, int] | None:
    """Stack and number of the layer that a tensor belongs to, from its name.

    >>> layer_of("model.layers.11.mlp.up_proj.weight")
    ('model.layers.', 11)
    """
    match = _LAYER.search(tensor)
    return (tensor[: match.start(1)], int(match[1])) if match else None


def depths_of(tensors: list[str]) -> dict[str, float]:
    """Position of each tensor of a model along a gradient, in [0, 1].

    In each stack of layers the first is at 0 and the last at 1; a stack of one layer is at 1.
    Tensors outside the layers, before and after them alike, are at 0.
    """
    places = {tensor: layer_of(tensor) for tensor in tensors}
    last: dict[str, int] = {}
    for place in places.values():
        if place is not None:
            last[place[0]] = max(last.get(place[0], 0), place[1])
    depths = {}
    for tensor, place in places.items():
        if place is None:
            depths[tensor] = 0.0
        else:
            stack, number = place
            depths[tensor] = number / last[stack] if last[stack] else 1.0
    return depths
