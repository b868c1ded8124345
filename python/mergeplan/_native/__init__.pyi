"""The Rust core. Plans go in as JSON text (`rust/core/src/plan`); weights never cross."""

from mergeplan._native._checkpoints import Headers, content_hash, content_hashes, read_checkpoint
from mergeplan._native._comparing import (
    TensorDistance,
    TensorSimilarity,
    differing_copies,
    tensor_distances,
    tensor_similarities,
)
from mergeplan._native._devices import InputReader, OutputFiles
from mergeplan._native._merging import PreparedFamily, PreparedMerge, merge_tensors
from mergeplan._native._randomness import fingerprint, philox4x32_10, stream_id
from mergeplan._native._system import (
    build_info,
    exchange,
    fault,
    rename_new,
    tell_bus_errors,
)

__all__ = [
    "Headers",
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
    "differing_copies",
    "exchange",
    "fault",
    "fingerprint",
    "merge_tensors",
    "philox4x32_10",
    "read_checkpoint",
    "rename_new",
    "stream_id",
    "tell_bus_errors",
    "tensor_distances",
    "tensor_similarities",
]

__version__: str
