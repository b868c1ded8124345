"""What each of an adapter's tensors is: a factor of an update, or in place of the base's own."""

import re
from dataclasses import dataclass

from mergeplan.checkpoints.adapters.settings import BY_PEFT
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.content import same_content
from mergeplan.errors import InputError

_PREFIX = "base_model.model."
# An adapter's name may stand behind its factors, at times twice.
_FACTOR = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<plain>[AB])(?:\.[^.]+){0,2}\.weight"
    r"|lora_embedding_(?P<embedding>[AB])(?:\.[^.]+){0,2}?(?:\.weight)?)"
)
# What FSDP, activation checkpointing and `torch.compile` leave anywhere in a name.
_TRAINERS = re.compile(
    r"(?:^|(?<=\.))(?:_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module|_orig_mod"
    r"|_orig_module|_forward_module)\."
)
# What peft puts between a module and its weight.
_PEFTS = re.compile(r"\.(?:modules_to_save(?:\.default)?|base_layer)(?=\.|$)")


@dataclass
class Change:
    """What an adapter does to one tensor of its base.

    Attributes:
        name: The tensor, as the adapter's files call it.
        a, b: Keys of the update's factors.
        whole: Key of a tensor that replaces the base's, which the update is then added to.
        is_saved: Whether its key says that the module is one of `modules_to_save`.
    """

    name: str
    a: str | None = None
    b: str | None = None
    whole: str | None = None
    is_embedding: bool = False
    is_saved: bool = False

    @property
    def module(self) -> str:
        return self.name.removesuffix(".weight")

    @property
    def factors(self) -> tuple[str | None, str | None] | None:
        return None if self.a is None and self.b is None else (self.a, self.b)


def read_changes(adapter: Checkpoint) -> list[Change]:
    """What an adapter changes, by the names of its tensors.

    `original_module` is the base's own, untrained: peft does not merge it, and neither do we.

    Raises:
        InputError: Two keys stand for one tensor, or a kind of LoRA is not supported.
    """
    changes: dict[str, Change] = {}
    for key in adapter.tensors:
        own = _TRAINERS.sub("", key).removeprefix("module.").removeprefix(_PREFIX)
        if "original_module" in own.split("."):
            continue
        match = _FACTOR.fullmatch(own)
        if match is None and ".lora_" in own:
            raise InputError(
                f"`{adapter.path}`: tensor `{key}` belongs to a kind of LoRA that is not"
                " computed while streaming",
                BY_PEFT,
            )
        name = _PEFTS.sub("", own if match is None else match["module"] + ".weight")
        change = changes.setdefault(name, Change(name))
        which = "whole"
        change.is_saved |= "modules_to_save" in own.split(".")
        if match is not None:
            change.is_embedding = match["embedding"] is not None
            which = "a" if (match["plain"] or match["embedding"]) == "A" else "b"
        other = getattr(change, which)
        _refuse_twice(adapter, key, other)
        # Of two keys alike the shorter would do as well.
        setattr(change, which, key if other is None else min(key, other, key=len))
    return list(changes.values())


def _refuse_twice(adapter: Checkpoint, key: str, other: str | None) -> None:
    """Which of two keys holds what was trained is not to be guessed from their order.

    peft itself writes two where `save_embedding_layers` and `modules_to_save` meet: they are equal.
    """
    if other is None:
        return
    n_bytes = adapter.tensors[key].n_bytes
    if not same_content((adapter, key), (adapter, other), n_bytes):
        raise InputError(
            f"`{adapter.path}`: `{other}` and `{key}` stand for one tensor of the base, and differ",
            "keep the one that was trained: save the adapter again by peft's `save_pretrained`",
        )
