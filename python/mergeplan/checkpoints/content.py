"""What a tensor's file holds: few bytes, for questions that headers do not answer."""

import json

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.header_bytes import read_header
from mergeplan.system.reading import open_plain

# Of a tensor's bytes, where not all are asked for.
SAMPLE_BYTES = 4096
_CHUNK = 16 << 20


def same_content(one: tuple[Checkpoint, str], other: tuple[Checkpoint, str], most: int) -> bool:
    """Whether two stored tensors of one dtype and shape hold the same bytes.

    Args:
        one, other: A checkpoint that is stored, and the tensor's name in it.
        most: Bytes to compare: the first of them are what is read.
    """
    tensors = [checkpoint.tensors[name] for checkpoint, name in (one, other)]
    first, second = tensors
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    files = [
        checkpoint.path / t.file for (checkpoint, _), t in zip((one, other), tensors, strict=True)
    ]
    places = [_offset(checkpoint, name) for checkpoint, name in (one, other)]
    left = min(first.n_bytes, most)
    with open_plain(files[0]) as a, open_plain(files[1]) as b:
        a.seek(places[0])
        b.seek(places[1])
        while left:
            count = min(left, _CHUNK)
            if a.read(count) != b.read(count):
                return False
            left -= count
    return True


def _offset(checkpoint: Checkpoint, name: str) -> int:
    """A tensor's first byte in its file."""
    tensor = checkpoint.tensors[name]
    if tensor.offset is not None:
        return tensor.offset
    raw = read_header(checkpoint.path / tensor.file)
    begin: int = json.loads(raw[8:])[checkpoint.own_name(name)]["data_offsets"][0]
    return len(raw) + begin
