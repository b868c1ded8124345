"""The kernel that draws masks on a GPU, as far as it goes without one, and its stand-in."""

import importlib.util
import sys

import pytest
import torch

from mergeplan.merging.torch import philox

# Not imported here: what is there when tests begin is frozen, and Triton complains in the end.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="it comes with torch on Linux"
)
CPU = torch.device("cpu")


@pytest.fixture
def interpreted(monkeypatch):
    """The kernel's file, run statement by statement, by numpy."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    known = importlib.util.find_spec("mergeplan.merging.torch.philox_fused")
    spec = importlib.util.spec_from_file_location("philox_interpreted", known.origin)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_kernel_draws_what_the_plain_form_draws(interpreted):
    def draw(counters, start, count, limits, _):
        return interpreted.below(counters.table, start, count, limits)

    assert philox.draws_alike(draw, CPU)
    assert philox.draws_alike(philox.plain_below, CPU)


def test_a_form_that_draws_other_bits_is_noticed():
    def wrong(counters, start, count, limits, has_low_bits):
        kept = philox.plain_below(counters, start, count, limits, has_low_bits)
        kept[-1, -1] ^= start > 1 << 32
        return kept

    assert not philox.draws_alike(wrong, CPU)


@pytest.mark.parametrize("has_each", [False, True])
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernel_compiles_to_code_for_a_gpu(monkeypatch, tmp_path, capability, has_each):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mergeplan.merging.torch.philox_fused import keep_kernel

    constants = {"HAS_EACH": has_each, "GROUPS": 4}
    signature = {"kept": "*i8", "limits": "*i64", "counters": "*i64"}
    signature |= dict.fromkeys(("group", "skip", "count"), "i32")
    source = ASTSource(keep_kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
    compiled = compile(
        source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": False}
    )
    assert compiled.asm["cubin"]
    # Words of 32 bits all the way: products in 64 would be several times as slow.
    assert compiled.asm["ptx"].count("mul.hi.u32") >= 40
    assert "mul.hi.u64" not in compiled.asm["ptx"]


def test_where_the_kernel_does_not_run_the_plain_form_draws():
    draw, fault = philox.try_fused(CPU)
    assert draw is philox.plain_below
    assert fault
