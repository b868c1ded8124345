"""The masks of `philox` as one kernel, in Triton: a GPU is told once, not hundreds of times.

```text
for each expert, and each tile of _GROUPS groups of 8 · 64 elements, at once:
    w = philox(block), v = philox(block with the lower halves' bit)      (256 lanes)
    for each of 8 rows:                                                  (unrolled)
        word = half(w, row) << 16 | half(v, row)
        kept[element] = word < limit[element, or that of the expert]
```

1. Eight elements share two blocks, so that an element costs some 25 operations, and memory is only
   written; that of experts' own limits is read once.
2. Both halves are always drawn. To ask first whether any word needs its lower half, as the core
   does, costs a GPU more than the halves: threads of a warp wait for each other.
3. Numbers that differ from call to call or merge to merge, as a piece's start and the key, are
   neither constants nor specialised for: there are two kernels, and both are tried at the start.
4. All counters are 32 bits wide, and products of them are taken in parts: int64 is slow on a GPU.

Tried and dropped: a shift with a name in the unrolled loop, and `Any` as a type; the interpreter of
Triton takes both, its compiler neither.

Import it late: Triton is there for GPUs alone, and not on every system.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor

# Elements of a group, which share 64 lanes of blocks; groups of a tile.
_GROUP = 512
_GROUPS = 4


@triton.jit
def _philox(a, b, c, d, k0, k1):
    """Ten rounds on 32-bit words; as `tl.philox_impl`, which is not documented."""
    for _ in tl.static_range(10):
        left, right = a, c
        a = tl.umulhi(right, 0xCD9E8D57) ^ b ^ k0
        b = right * 0xCD9E8D57
        c = tl.umulhi(left, 0xD2511F53) ^ d ^ k1
        d = left * 0xD2511F53
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return a, b, c, d


@triton.jit(do_not_specialize=["group", "skip", "count"])
def keep_kernel(
    kept, limits, counters, group, skip, count, HAS_EACH: tl.constexpr, GROUPS: tl.constexpr
):
    """Program (tile, expert) of the grid.

    Args:
        kept: int8, shape (k, count).
        limits: int64, shape (k, count) if HAS_EACH, else (k,).
        counters: The streams' ids and the key, int64: lower halves of k + 1, then upper halves.
        group: In which the piece begins, behind `skip` elements.
    """
    expert = tl.program_id(1)
    experts = tl.num_programs(1)
    lanes = tl.arange(0, GROUPS * 64)
    own = tl.program_id(0) * GROUPS + lanes // 64
    block = (group + own).to(tl.int64) * 64 + lanes % 64
    a = block.to(tl.uint32)
    b = (block >> 32).to(tl.uint32)
    c = tl.load(counters + expert).to(tl.uint32)
    d = tl.load(counters + experts + 1 + expert).to(tl.uint32)
    k0 = tl.load(counters + experts).to(tl.uint32)
    k1 = tl.load(counters + 2 * experts + 1).to(tl.uint32)
    upper = _philox(a, b, c, d, k0, k1)
    lower = _philox(a, b | 0x80000000, c, d, k0, k1)
    first = own * 512 + lanes % 64 - skip
    row_of_all = expert.to(tl.int64) * count
    for row in tl.static_range(8):
        high = (upper[row % 4] >> (16 * (row // 4))) & 0xFFFF
        low = (lower[row % 4] >> (16 * (row // 4))) & 0xFFFF
        word = ((high << 16) | low).to(tl.int64)
        place = first + row * 64
        is_inside = (place >= 0) & (place < count)
        if HAS_EACH:
            limit = tl.load(limits + row_of_all + place, mask=is_inside, other=0)
        else:
            limit = tl.load(limits + expert)
        tl.store(kept + row_of_all + place, (word < limit).to(tl.int8), mask=is_inside)


def below(table: Tensor, start: int, count: int, limits: Tensor) -> Tensor:
    """A `philox.Draw` from the table of its counters."""
    group, skip = divmod(start, _GROUP)
    kept = torch.empty((len(limits), count), dtype=torch.bool, device=limits.device)
    tiles = triton.cdiv(skip + count, _GROUP * _GROUPS)
    has_each = limits.shape[1] > 1
    keep_kernel[tiles, len(limits)](
        kept.view(torch.int8),
        limits.contiguous(),
        table,
        group,
        skip,
        count,
        HAS_EACH=has_each,
        GROUPS=_GROUPS,
        enable_fp_fusion=False,  # there is nothing to fuse, and a default would warn
    )
    return kept
