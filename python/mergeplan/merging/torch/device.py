"""Which devices merge, and how much of their memory may be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mergeplan.errors import InputError, MissingInputError
from mergeplan.system.devices import check_gpu, parse_device

# Of a GPU's free memory, what a merge may take where no limit is given: what runs beside it, and
# the allocator's own loss, have the rest.
_FREE_SHARE = 0.8
# Where a CPU stands in for a GPU, and says nothing of its memory.
_CPU_BYTES = 1 << 30
# Below this nothing but the smallest pieces would fit: a GPU's allocator takes 20 MiB at a time.
LEAST_BYTES = 64 << 20


@dataclass(frozen=True)
class Device:
    """A torch device, and the bytes of its memory that merging may take.

    Attributes:
        name: `cpu`, `cuda:0`.
    """

    name: str
    limit_bytes: int

    @property
    def is_gpu(self) -> bool:
        return self.name != "cpu"


def import_torch() -> Any:
    """The package, or an error that says how to get it.

    Raises:
        MissingInputError: It is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingInputError(
            f"`--device` needs torch: {error}", "install it: `pip install torch`"
        ) from error
    return torch


def find_devices(name: str, vram_limit: int | None = None) -> list[Device]:
    """The devices that a name stands for.

    Args:
        name: `cpu`; `cuda` for every GPU that torch sees, `cuda:1` for one of them; `auto` for
            `cuda` where there is one, else none.
        vram_limit: Bytes of each device; `None` for most of what is free.

    Returns:
        None for `auto` without a GPU: the Rust core is faster than torch on a CPU.

    Raises:
        InputError: There is no such device, or the limit is too low.
        MissingInputError: torch is not installed.
    """
    if vram_limit is not None and vram_limit < LEAST_BYTES:
        raise InputError(
            f"the VRAM limit is too low: expected {LEAST_BYTES >> 20} MiB or more, found"
            f" {vram_limit >> 20} MiB",
            "raise it, or leave it out: then it is most of what is free",
        )
    kind, number = parse_device(name)
    if kind == "cpu":
        import_torch()
        return [Device("cpu", vram_limit or _CPU_BYTES)]
    if kind == "auto":
        try:
            torch = import_torch()
        except MissingInputError:
            return []
        if not torch.cuda.is_available():
            return []
    torch = import_torch()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    check_gpu(name, number, count, "leave `--device` out")
    numbers: Sequence[int] = range(count) if number is None else [number]
    return [Device(f"cuda:{i}", _limit(torch, i, vram_limit)) for i in numbers]


def memory_fraction(device: Any) -> float:
    """Of a GPU's memory, what the process allows itself; all of it where torch does not say."""
    known = getattr(import_torch().cuda, "get_per_process_memory_fraction", None)
    return float(known(device)) if known else 1.0


def _limit(torch: Any, number: int, wished: int | None) -> int:
    torch.cuda.empty_cache()  # what earlier merges left there is free
    free, total = torch.cuda.mem_get_info(number)
    own = int(memory_fraction(number) * total) - torch.cuda.memory_reserved(number)
    free = max(0, min(free, own))
    if wished is None:
        return max(int(free * _FREE_SHARE), LEAST_BYTES)
    if wished > free:
        raise InputError(
            f"device `cuda:{number}`: the VRAM limit is {wished >> 20} MiB, and {free >> 20} MiB"
            " are free",
            "lower `--vram-limit`, or leave it out",
        )
    return wished
