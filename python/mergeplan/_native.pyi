"""The Rust core. Plans go in as JSON text (`rust/core/src/plan`); weights never cross."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

__all__ = [
    "InputReader",
    "OutputFiles",
    "PreparedFamily",
    "PreparedMerge",
    "TensorDistance",
    "TensorSimilarity",
    "__version__",
    "build_info",
    "content_hash",
    "content_hashes",
    "exchange",
    "fault",
    "fingerprint",
    "merge_tensors",
    "philox4x32_10",
    "read_checkpoint",
    "stream_id",
    "tensor_distances",
    "tensor_similarities",
]

__version__: str

def read_checkpoint(path: Path | str) -> list[tuple[str, str, list[int], str, int]]:
    """Read the headers of a checkpoint's folder, or of one safetensors file.

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
    def given(self) -> list[tuple[str, str, int, int]]:
        """Tensor, file, first byte and length of what the caller writes once the run is over."""

    @property
    def identities(self) -> list[list[tuple[Path, int, int]]]:
        """For each model path, bytes and mtime (ns) of its files when they were opened.

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
            `read_bytes`: input bytes gone over, each as often as it was; `resumed_blocks`: blocks
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
        plans_json: The plans. All treat values that are not finite alike.

    Raises:
        InternalError: A plan is not valid.
        InputError, MissingInputError: An input does not fit its plan.
    """

    def __new__(cls, plans_json: list[str]) -> PreparedFamily: ...
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
        progress: Callable[[int], object] | None = None,
    ) -> list[dict[str, Any]]:
        """Merge into new files, and sync them.

        Args:
            outputs: Number of the plan, folder, journal and whether to resume, as in
                `PreparedMerge.run`.

        Returns:
            What `PreparedMerge.run` returns, for each output; `read_bytes` and `sync_seconds` are
            those of all together.

        Raises:
            InputError, SurroundingsError, KeyboardInterrupt: As for `PreparedMerge.run`.
        """

    def run_into(
        self,
        memory: list[tuple[int, int, list[tuple[int, int, str]]]],
        *,
        threads: int,
        memory_bytes: int,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Merge into memory.

        Args:
            memory: Number of the plan, number of its first job, and for each tensor from there on
                address, bytes and dtype (as safetensors spells it) of the memory that takes it, in
                row-major order. The caller owns it, keeps it while the call lasts, and gives no
                byte twice. Where the dtype is not that of the merge's output, values are rounded to
                the output's first.

        Returns:
            Input bytes gone over, each as often as it was.

        Raises:
            InternalError: A region does not fit its tensor.
            InputError, SurroundingsError, KeyboardInterrupt: As for `PreparedMerge.run`.
        """

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

    def read(
        self, merge: int, job: int, input: int, start: int, address: int, n_bytes: int
    ) -> None:
        """Copy elements of an input, in its own dtype, from element `start` on.

        Args:
            address: Memory of the caller's, which it keeps and leaves alone meanwhile.

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

    Raises:
        SurroundingsError: The disk has no room, or the files cannot be created.
    """

    def __new__(
        cls, family: PreparedFamily, outputs: list[tuple[int, Path | str, Path | str, bool]]
    ) -> OutputFiles: ...
    def is_written(self, output: int, job: int) -> bool:
        """Whether a job's tensor is there as a whole."""

    def write(self, output: int, job: int, start: int, address: int, n_bytes: int) -> None:
        """Write whole blocks of 65,536 elements of a job's tensor, its last one included.

        Args:
            start: Their first element. Blocks that are there already are left alone.
            address: The bytes, in the output's dtype. The caller keeps them meanwhile.

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

def merge_tensors(
    plan_json: str,
    inputs: list[tuple[str, int, int, str, list[int]]],
    output: tuple[int, int, str],
    *,
    threads: int,
) -> None:
    """Merge one tensor from memory into memory.

    Args:
        plan_json: A plan of one job and one model, whose path is only a word for messages.
        inputs: The model's tensors: name, address, bytes, dtype (as safetensors spells it) and
            shape, in row-major order. The caller owns them, keeps them while the call lasts, and
            lets nobody write to them.
        output: Address, bytes and dtype of the memory that takes the result, as for
            `PreparedFamily.run_into`.
        threads: Worker threads, at least 1; they change nothing of the result. Tensors of less
            than 16.8 million elements take one.

    Raises:
        InternalError: The plan is not valid, or memory does not fit its tensor.
        ContentError: Values are not finite, and the plan does not allow that.
        InputError, KeyboardInterrupt: As for `PreparedMerge.run`.
    """

def content_hashes(
    path: Path | str,
    *,
    threads: int,
    progress: Callable[[int], object] | None = None,
) -> dict[str, str]:
    """Hash every tensor of a checkpoint's folder, or of one safetensors file.

    Args:
        threads: Worker threads, at least 1; they change nothing of the result.
        progress: Called about ten times a second with the bytes hashed so far.

    Returns:
        `content_hash` of each tensor as 16 hexadecimal digits, as manifests hold it.

    Raises:
        MissingInputError, InputError: As for `read_checkpoint`.
        SurroundingsError: Reading failed.
        KeyboardInterrupt: Or whatever a signal handler or `progress` raised.
    """

@final
class TensorDistance:
    """How far two tensors are apart.

    NaN equals NaN, and 0 equals -0. An element is unmatched where it differs and one of the two is
    NaN or infinite; maxima and means are over all other elements. Tensors that are not float32,
    bfloat16 or float16 are compared by their bytes: their differences and ULPs are `None`.
    """

    @property
    def elements(self) -> int:
        """Elements compared; bytes, where an element is smaller than a byte."""

    @property
    def differing(self) -> int:
        """Elements that differ, the unmatched ones among them."""

    @property
    def ulp_dtype(self) -> str | None:
        """Torch name of the dtype in which ULPs are counted: the coarser of the two."""

    @property
    def unmatched(self) -> int:
        """Differing elements of which one is NaN or infinite."""

    @property
    def nan_a(self) -> int:
        """Elements that are NaN in the first tensor."""

    @property
    def nan_b(self) -> int:
        """Elements that are NaN in the second tensor."""

    @property
    def max_difference(self) -> float | None:
        """Largest |a - b|."""

    @property
    def mean_difference(self) -> float | None:
        """Mean |a - b|."""

    @property
    def max_ulp(self) -> int | None:
        """Largest number of steps from one value to the other in `ulp_dtype`."""

    @property
    def mean_ulp(self) -> float | None:
        """Mean number of steps."""

def tensor_distances(
    a: Path | str,
    b: Path | str,
    tensors: list[str],
    *,
    threads: int,
    progress: Callable[[int], object] | None = None,
) -> list[TensorDistance]:
    """Compare tensors of two checkpoints, each a folder or one safetensors file.

    Args:
        tensors: Names of tensors that have the same shape on both sides, and the same dtype or two
            of float32, bfloat16 and float16.
        threads: Worker threads, at least 1; they change nothing of the result.
        progress: Called about ten times a second with the bytes read so far, of both sides.

    Returns:
        One distance for each name, in order.

    Raises:
        MissingInputError, InputError: As for `read_checkpoint`, or tensors that cannot be compared.
        SurroundingsError: Reading failed.
        KeyboardInterrupt: Or whatever a signal handler or `progress` raised.
    """

@final
class TensorSimilarity:
    """What the deltas of one tensor have in common. Matrices are row-major, (experts, experts)."""

    @property
    def elements(self) -> int:
        """Elements of the tensor."""

    @property
    def gram(self) -> list[float]:
        """Inner products of the deltas."""

    @property
    def agreeing(self) -> list[int]:
        """Elements at which both deltas have the same sign."""

    @property
    def nonzero(self) -> list[int]:
        """Elements at which neither delta is zero."""

    @property
    def kept(self) -> list[float]:
        """Share of a delta's squared norm that its largest elements hold, (experts, densities)."""

def tensor_similarities(
    models_json: str,
    experts: int,
    tensors: list[str],
    *,
    densities: list[float],
    threads: int,
    progress: Callable[[int], object] | None = None,
) -> list[TensorSimilarity]:
    """Compare the deltas of some tensors, in one pass over base and experts.

    Args:
        models_json: Models as plans list them: the base, the experts, and what they are made of.
        experts: How many there are.
        tensors: Names that all of them have, as float32, bfloat16 or float16 of one shape.
        densities: Shares of elements, from 0 to 1, for `TensorSimilarity.kept`.
        threads: Worker threads, at least 1; they change nothing of the result.
        progress: Called about ten times a second with the bytes read so far, of all models.

    Returns:
        One for each name, in order.

    Raises:
        MissingInputError, InputError: As for `read_checkpoint`, or tensors that cannot be compared.
        ContentError: A value is NaN or infinite.
        SurroundingsError: Reading failed.
        KeyboardInterrupt: Or whatever a signal handler or `progress` raised.
    """

def fault(point: str) -> None:
    """Pass a point at which `MERGEPLAN_FAULT` may ask for a fault; see `rust/core/src/fault.rs`.

    Raises:
        OSError: The fault that was asked for.
    """

def exchange(a: Path | str, b: Path | str) -> None:
    """Swap two names of the file system.

    Raises:
        MissingInputError, SurroundingsError: The system refused.
    """

def philox4x32_10(counter: list[int], key: list[int]) -> list[int]:
    """One block of the generator behind random masks: four 32-bit words from a counter of four and
    a key of two."""

def stream_id(tensor: str, fingerprint: int) -> int:
    """Upper half of the generator's counter for a tensor of an expert with this fingerprint."""

def fingerprint(data: bytes) -> int:
    """What keys the random masks of a tensor with these stored bytes.

    A hash of all of them up to 1 MiB; above, of the first 1,024 of every 16,384 bytes and of the
    last 1,024. Tensors that agree there share a mask.
    """

def content_hash(data: bytes, element_bytes: int) -> int:
    """The hash of all of a tensor's stored bytes that manifests hold."""

def build_info() -> dict[str, object]:
    """What was compiled: `debug` (bool) and `target` (the processor's family)."""
