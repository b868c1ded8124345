"""What two checkpoints differ by, and what the deltas of a pool have in common."""

from collections.abc import Callable
from typing import final

@final
class TensorDistance:
    """How far two tensors are apart.

    NaN equals NaN, and 0 equals -0. An element is unmatched where it differs and one of the two is
    NaN or infinite; maxima and means are over all other elements. Tensors that are not float32,
    bfloat16 or float16 are compared by their bytes: their differences, ULPs and sums are `None`.
    Sums are in float64, over the elements that are finite on both sides.
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
    def finite(self) -> int | None:
        """Elements that are finite on both sides."""

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

    @property
    def sums(self) -> list[float] | None:
        """Sums of (a - b)², a², b² and a·b."""

def tensor_distances(
    a: str,
    b: str,
    tensors: list[str],
    *,
    threads: int,
    progress: Callable[[int], object] | None = None,
) -> list[TensorDistance]:
    """Compare tensors of two checkpoints.

    Args:
        a, b: Stored models in JSON, as plans list them.
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

def differing_copies(plan_json: str) -> list[tuple[int, int]]:
    """Compare the inputs of a plan's jobs that copy, byte by byte.

    Returns:
        For each job whose inputs differ its number, and that of the first input that is not as the
        first of all.

    Raises:
        MissingInputError, InputError: A model or a tensor is not there, or does not fit its job.
        SurroundingsError: Reading failed.
        KeyboardInterrupt: Or whatever a signal handler raised.
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
