"""The scopes of a config at which options stand, from the narrowest to the widest.

`models` and `slices` are short for `modules`: all three become modules of slices of sources.
"""

from dataclasses import dataclass

from mergeplan.config.values import Setting

Settings = dict[str, Setting]


@dataclass(frozen=True)
class ModelInput:
    """An entry of `models`, or of a slice's `sources`.

    Attributes:
        path: A folder, a hub id `org/name@revision`, or `base+adapter`.
        layers: First layer and the one after the last; `None` for the whole model.
    """

    path: str
    parameters: Settings
    layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Slice:
    """Layers of the output that come from the same sources.

    Attributes:
        sources: In order; with `models` and a base that is not listed, the base comes last.
        base: Path of the source that the others are compared with, if the method has one.
    """

    sources: tuple[ModelInput, ...]
    base: str | None
    parameters: Settings

    @property
    def n_layers(self) -> int | None:
        """Layers of the output; `None` for whole models."""
        layers = self.sources[0].layers
        return None if layers is None else layers[1] - layers[0]


@dataclass(frozen=True)
class Module:
    """A part of the model with layers of its own, such as an encoder.

    Attributes:
        name: mergekit's name of the part; `None` where the config gives no modules.
    """

    name: str | None
    slices: tuple[Slice, ...]
    parameters: Settings
