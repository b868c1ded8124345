"""Tensors that the core only keeps a place for: computed one by one, and put there."""

import os
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from mergeplan.errors import InternalError
from mergeplan.planning.plan import MergePlan
from mergeplan.system.writing import open_own, saying

if TYPE_CHECKING:
    from mergeplan._native import PreparedMerge


def write_given(folder: Path, plan: MergePlan, prepared: "PreparedMerge") -> dict[str, str]:
    """Compute every such tensor of a plan, and write it into the core's files, durably.

    They are computed anew when a merge is resumed: only blocks of the core are journalled.

    Args:
        folder: Where the files lie, whole but for these tensors.

    Returns:
        The content hash of each tensor, as 16 hexadecimal digits.

    Raises:
        InputError: Its inputs cannot be merged.
        SurroundingsError: It cannot be written.
    """
    from mergeplan._native import content_hash

    if plan.fallback is None:
        return {}
    hashes = {}
    jobs = {job.tensor: job for job in plan.data.jobs}
    for tensor, name, offset, length in prepared.given:
        content = plan.fallback.compute(tensor)
        if len(content) != length:
            raise InternalError(f"tensor `{tensor}`: expected {length} bytes, found {len(content)}")
        path = folder / name
        with saying(path), open_own(path) as file:
            file.seek(offset)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        element_bytes = plan.fallback.element_bytes(tensor)
        begin = 0
        for stored, shape in jobs[tensor].stored.items():
            end = begin + prod(shape) * element_bytes
            hashes[stored] = f"{content_hash(bytes(content[begin:end]), element_bytes):016x}"
            begin = end
    return hashes
