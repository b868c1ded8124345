"""The Rust core. Plans go in as JSON text (`rust/core/src/plan.rs`); weights never cross."""

from collections.abc import Callable
from pathlib import Path
from typing import final

__all__ = [
    "PreparedMerge",
    "__version__",
    "build_info",
    "content_hash",
    "exchange",
    "philox4x32_10",
    "read_checkpoint",
    "stream_id",
]

__version__: str

def read_checkpoint(path: Path | str) -> list[tuple[str, str, list[int], str, int]]:
    """Read the headers of a checkpoint's folder.

    Returns:
        Name, dtype as safetensors spells it, shape, file name and bytes of each tensor, by name.

    Raises:
        MissingInputError: No such folder, shard or checkpoint.
        InputError: A header or index that is damaged, truncated or contradicts itself.
    """

@final
class PreparedMerge:
    """A plan whose inputs are open and agree with it.

    Args:
        plan_json: The plan.

    Raises:
        InternalError: The plan is not valid.
        InputError, MissingInputError: An input does not fit the plan.
    """

    def __new__(cls, plan_json: str) -> PreparedMerge: ...
    @property
    def files(self) -> list[tuple[str, int, list[str]]]:
        """Name, length in bytes and tensors of each output file, in order."""

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all output tensors, without headers."""

    @property
    def work_bytes(self) -> int:
        """Input bytes that a run goes over, each as often as it is read."""

    def run(
        self,
        out_dir: Path | str,
        *,
        threads: int,
        chunk: int = ...,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, str]:
        """Merge into new files in `out_dir`, and sync them.

        Args:
            threads: Worker threads, at least 1.
            chunk: Elements that a kernel works on at a time, a power of two from 16 to 65,536;
                4,096 by default. Like `threads`, it changes no byte of the output.
            progress: Called about ten times a second with the bytes done, of `work_bytes`.

        Returns:
            The content hash of each output tensor, as 16 hexadecimal digits.

        Raises:
            InputError: An input value is NaN or infinite, or integer buffers differ.
            SurroundingsError: Reading or writing failed, or the disk has no room.
            KeyboardInterrupt: Or whatever a signal handler or `progress` raised, after the workers
                have stopped.
        """

def exchange(a: Path | str, b: Path | str) -> None:
    """Swap two names of the file system.

    Raises:
        MissingInputError, SurroundingsError: The system refused.
    """

def philox4x32_10(counter: list[int], key: list[int]) -> list[int]:
    """One block of the generator behind random masks: four 32-bit words from a counter of four and
    a key of two."""

def stream_id(tensor: str, content_hash: int) -> int:
    """Upper half of the generator's counter for a tensor of an expert with this content."""

def content_hash(data: bytes, element_bytes: int) -> int:
    """The hash of a tensor's stored bytes that keys its random masks, and that manifests hold."""

def build_info() -> dict[str, object]:
    """What was compiled: `debug` (bool) and `target` (the processor's family)."""
