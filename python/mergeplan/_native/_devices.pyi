"""Inputs and outputs of merges whose arithmetic runs in Python, on a GPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from mergeplan._native._merging import Bytes, PreparedFamily

@final
class InputReader:
    """The inputs of a family's merges as bytes, for arithmetic that happens elsewhere.

    Every method may be called from several threads at a time.

    Args:
        threads: That copy, for all calls together.
    """

    def __new__(cls, family: PreparedFamily, threads: int) -> InputReader: ...
    @property
    def read_bytes(self) -> int:
        """Bytes read so far, each as often as it was."""

    def inputs(self, merge: int, job: int) -> list[tuple[int, int, str]]:
        """The floating-point inputs of a merge's job, base first; none of a job that copies.

        Returns:
            Two numbers that tell each from all others, and its dtype's name in torch.
        """

    def stream_id(self, merge: int, job: int, input: int) -> int:
        """Which stream of its seed an input's random mask comes from; reads a sample of it."""

    def read(self, merge: int, job: int, input: int, start: int, into: Bytes) -> None:
        """Copy elements of an input, in its own dtype, from element `start` on.

        Args:
            into: Memory of the caller's, which it leaves alone meanwhile.

        Raises:
            InternalError: There are no such elements.
            InputError, SurroundingsError: Reading failed.
        """

    def release(self, merge: int, job: int) -> None:
        """The inputs of a job need not stay resident."""

@final
class OutputFiles:
    """Files of a family's merges that are being written, by whoever computes.

    Args:
        outputs: Number of the merge, folder, journal and whether to resume, as in
            `PreparedMerge.run`.
        threads: That hash and write, for all calls together.
        open_files: Of the outputs, how many may be open at a time.

    Raises:
        SurroundingsError: The disk has no room, or the files cannot be created.
    """

    def __new__(
        cls,
        family: PreparedFamily,
        outputs: list[tuple[int, Path | str, Path | str, bool]],
        threads: int,
        open_files: int = ...,
    ) -> OutputFiles: ...
    def is_written(self, output: int, job: int) -> bool:
        """Whether a job's tensor is there as a whole."""

    def write(self, output: int, job: int, start: int, from_: Bytes) -> None:
        """Write whole blocks of 65,536 elements of a job's tensor, its last one included.

        Args:
            start: Their first element. Blocks that are there already are left alone.
            from_: The bytes, in the output's dtype. The caller leaves them alone meanwhile.

        Raises:
            InternalError: These are no whole blocks.
            SurroundingsError: Writing failed.
        """

    def run(
        self,
        jobs: list[tuple[int, int]],
        *,
        threads: int,
        memory_bytes: int,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Let the core merge some jobs, each as output and number.

        Returns:
            Input bytes gone over, each as often as it was.

        Raises:
            InputError, SurroundingsError, KeyboardInterrupt: As for `PreparedMerge.run`.
        """

    def finish(self) -> list[dict[str, Any]]:
        """Sync the files, once every tensor is there.

        Returns:
            What `PreparedMerge.run` returns, but for `read_bytes`, for each output.

        Raises:
            InputError: An input has changed meanwhile.
            InternalError: A tensor is not there as a whole.
            SurroundingsError: Syncing failed.
        """
