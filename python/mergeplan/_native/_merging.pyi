"""Plans with their inputs open, and merging them into files or memory."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, final

import numpy as np

from mergeplan._native._checkpoints import Headers

# Memory of the caller's, one byte behind the other.
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

@final
class PreparedMerge:
    """A plan whose inputs are open and agree with it.

    Args:
        plan_json: The plan.
        headers: Of its models, as far as they were read before.

    Raises:
        InternalError: The plan is not valid.
        InputError, MissingInputError: An input does not fit the plan.
    """

    def __new__(cls, plan_json: str, headers: list[Headers] = ...) -> PreparedMerge: ...
    @property
    def files(self) -> list[tuple[str, int, list[str]]]:
        """Name, length in bytes and tensors of each output file, in order."""

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all output tensors, without headers."""

    @property
    def given(self) -> list[tuple[str, str, int, int]]:
        """Tensor, file, first byte and length of what the caller writes once the run is over."""

    def journal_is_whole(self, journal: Path | str) -> bool:
        """Whether a journal lists every block that the core writes."""

    def recorded_inputs(self, journal: Path | str) -> dict[str, str]:
        """For each tensor that an earlier run finished: a hash of all that its job read."""

    def input_hashes(self, tensors: list[str], threads: int) -> dict[str, str]:
        """The same of the inputs as they are now; they are read where they were not yet.

        Raises:
            MergeplanError, KeyboardInterrupt: Reading failed, or was stopped.
        """

    def keep_in_journal(self, journal: Path | str, tensors: list[str]) -> None:
        """Leave only some tensors' blocks in a journal, as if the others had not begun.

        Raises:
            SurroundingsError: It cannot be written.
        """

    @property
    def identities(self) -> list[list[tuple[Path, int, int, int, int, int]]]:
        """For each model path, bytes, mtime and ctime (ns), inode and device of its files when they
        were opened; 0 what the system does not say.

        One that is derived has none.
        """

    def forecast(self, threads: int) -> dict[str, int]:
        """What a run reads and needs, from headers alone.

        Returns:
            `work_bytes`: input bytes that the passes go over, each as often as it is read;
            `input_bytes`: each once; `least_memory_bytes`: anonymous memory without which the core
            cannot run; `most_memory_bytes`: beyond which it gets no faster.
        """

    def run(
        self,
        out_dir: Path | str,
        *,
        journal: Path | str,
        threads: int,
        memory_bytes: int,
        resume: bool = False,
        chunk: int = ...,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, Any]:
        """Merge into new files in `out_dir`, and sync them.

        Args:
            journal: File to create, or with `resume` to go on with: the blocks that are written.
            threads: Worker threads, at least 1.
            memory_bytes: Anonymous memory that the core may take.
            resume: Go on in the files that are there, after checking every journalled block.
            chunk: Elements that a kernel works on at a time, a power of two from 64 to 65,536;
                4,096 by default. Like `threads`, it changes no byte of the output.
            progress: Called about ten times a second with the bytes done, of the forecast's
                `work_bytes`.

        Returns:
            `hashes`: the content hash of each output tensor, as 16 hexadecimal digits;
            `read_bytes`: input bytes gone over, each as often as it was; `table_tensors`,
            `table_elements`: experts' tensors whose magnitudes were counted in tables, since no
            sample told where their threshold lies, and their elements; `resumed_blocks`: blocks
            found whole; `sync_seconds`: time until the files were durable.

        Raises:
            InputError: An input value is NaN or infinite, or integer buffers differ.
            SurroundingsError: Reading or writing failed, or the disk has no room.
            KeyboardInterrupt: Or whatever a signal handler or `progress` raised, after the workers
                have stopped.
        """

@final
class PreparedFamily:
    """Plans that share inputs, with these open: one pass over a tensor serves all of them.

    Each merge is what it is alone. What does not depend on the other experts of a merge
    (thresholds, norms, streams of masks) is found once and kept.

    Args:
        plans_json: The plans, each taken once the one before is read. All treat values that are not
            finite alike.
        headers: Of their models, as far as they were read before.

    Raises:
        InternalError: A plan is not valid.
        InputError, MissingInputError: An input does not fit its plan.
    """

    def __new__(cls, plans_json: Iterable[str], headers: list[Headers] = ...) -> PreparedFamily: ...
    @property
    def merges(self) -> list[PreparedMerge]:
        """Each plan by itself, with the inputs of all."""

    def forecast(self, threads: int) -> dict[str, int]:
        """What a run of all plans together reads and needs; see `PreparedMerge.forecast`."""

    def run(
        self,
        outputs: list[tuple[int, Path | str, Path | str, bool]],
        *,
        threads: int,
        memory_bytes: int,
        open_files: int = ...,
        progress: Callable[[int], object] | None = None,
    ) -> list[dict[str, Any]]:
        """Merge into new files, and sync them.

        Args:
            outputs: Number of the plan, folder, journal and whether to resume, as in
                `PreparedMerge.run`.
            open_files: So many of the new files may be open at a time, journals apart; the others
                are opened as their blocks come.

        Returns:
            What `PreparedMerge.run` returns, for each output; `read_bytes` and `sync_seconds` are
            those of all together.

        Raises:
            InputError, SurroundingsError, KeyboardInterrupt: As for `PreparedMerge.run`.
        """

    def check_writable(self, places: list[tuple[str, int, int]]) -> None:
        """Check that the system lets memory be written to; on Linux, elsewhere nothing is known.

        Args:
            places: Name of a tensor, address, and length in bytes.

        Raises:
            InputError: Memory is read-only, or a map of an input's file.
        """

    def run_into(
        self,
        memory: list[tuple[int, int, list[tuple[Bytes, str]]]],
        *,
        threads: int,
        memory_bytes: int,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Merge into memory.

        Args:
            memory: Number of the plan, number of its first job, and for each tensor from there on
                the memory that takes it, in row-major order, and its dtype (as safetensors spells
                it). The caller leaves it alone while the call lasts. Where the dtype is not that of
                the merge's output, values are rounded to the output's first.

        Returns:
            Input bytes gone over, each as often as it was.

        Raises:
            InternalError: Memory does not fit its tensor.
            InputError: Memory is read-only or overlaps that of another tensor; and as for
                `PreparedMerge.run`.
            SurroundingsError, KeyboardInterrupt: As for `PreparedMerge.run`.
        """

    def products(
        self,
        vectors: list[tuple[int, int, list[list[tuple[Bytes, str]]]]],
        *,
        threads: int,
        memory_bytes: int,
        progress: Callable[[int], object] | None = None,
    ) -> list[list[list[float]]]:
        """Inner products of merged tensors with vectors, in place of the tensors.

        Products and sums are in float64, in an order that no number of threads changes.

        Args:
            vectors: Number of the plan, number of its first job, and for each tensor from there on
                vectors of as many elements, in row-major order, with their dtypes (as safetensors
                spells them: `F64`, `F32`, `BF16` or `F16`). The caller lets nobody write to them
                while the call lasts. A tensor without any is merged and dropped.

        Returns:
            For each entry of `vectors`, each tensor and each of its vectors the product.

        Raises:
            InternalError: A vector does not fit its tensor, or either holds no floats.
            InputError, SurroundingsError, KeyboardInterrupt: As for `PreparedMerge.run`.
        """

def merge_tensors(
    plan_json: str,
    inputs: list[tuple[str, Bytes, str, list[int]]],
    output: tuple[Bytes, str],
    *,
    threads: int,
) -> None:
    """Merge one tensor from memory into memory.

    Args:
        plan_json: A plan of one job and one model, whose path is only a word for messages.
        inputs: The model's tensors: name, memory, dtype (as safetensors spells it) and shape, in
            row-major order. The caller lets nobody write to them while the call lasts.
        output: Memory that takes the result, and its dtype, as for `PreparedFamily.run_into`.
        threads: Worker threads, at least 1; they change nothing of the result. Tensors of less
            than 16.8 million elements take one.

    Raises:
        InternalError: The plan is not valid, or memory does not fit its tensor.
        InputError: The output's memory is read-only, or overlaps an input's.
        ContentError: Values are not finite, and the plan does not allow that.
        KeyboardInterrupt: As for `PreparedMerge.run`.
    """
