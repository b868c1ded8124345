"""float64 and complex tensors: summed in float64, by the methods that do nothing but sums."""

import pytest
import torch

from mergeplan.errors import InputError
from mergeplan.inspection.inspect import inspect
from mergeplan.merging.streaming import stream
from tests.support.checkpoints import load_tensors, save_checkpoint, weights_of
from tests.support.commands import cli
from tests.support.merges import config_text, run_mergeplan

SHAPES = {"scalar": (), "empty": (0, 3), "row": (7,), "matrix": (129, 513), "blocks": (70_001,)}
WEIGHTS = (0.3, 0.9)
DTYPES = {"F64": torch.float64, "C64": torch.complex64}


def tensors_of(seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=generator, dtype=dtype) for n, s in SHAPES.items()}


def expected_of(method: str, base: torch.Tensor, experts: list[torch.Tensor]) -> torch.Tensor:
    """In float64 or complex128, rounded at the end."""
    wide = torch.complex128 if base.is_complex() else torch.float64
    x, *rest = (tensor.to(wide) for tensor in (base, *experts))
    if method == "passthrough":
        return (0.7 * rest[0]).to(base.dtype)
    if method == "linear":
        a, b = WEIGHTS
        return ((a * rest[0] + b * rest[1]) / (a + b)).to(base.dtype)
    deltas = [weight * (expert - x) for weight, expert in zip(WEIGHTS, rest, strict=True)]
    return (x + 0.5 * (deltas[0] + deltas[1])).to(base.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "passthrough"])
def test_sums_are_those_of_float64(method, dtype, tmp_path):
    models = [tensors_of(seed, DTYPES[dtype]) for seed in range(3)]
    folders = [save_checkpoint(tmp_path / f"m{i}", model) for i, model in enumerate(models)]
    has_base, several = method == "task_arithmetic", method != "passthrough"
    experts = folders[1:] if several else folders[1:2]
    text = config_text(
        method,
        experts,
        base=folders[0] if has_base else None,
        per_model=[{"weight": w} for w in WEIGHTS] if several else None,
        parameters={"lambda": 0.5} if has_base else None if several else {"scale": 0.7},
    )
    for threads in (1, 2):
        run_mergeplan(text, tmp_path / f"out{threads}", threads=threads)
    assert weights_of(tmp_path / "out1") == weights_of(tmp_path / "out2")
    found = load_tensors(tmp_path / "out1")
    for name in SHAPES:
        expected = expected_of(method, models[0][name], [m[name] for m in models[1:]])
        assert found[name].dtype == DTYPES[dtype]
        # A sum of terms that cancel is as exact as its largest term.
        error = (found[name] - expected).abs().max().item() if expected.numel() else 0.0
        assert error <= (4e-15 if dtype == "F64" else 5e-7)
    (tmp_path / "c.yml").write_text(text)
    streamed = dict(stream(tmp_path / "c.yml"))
    assert all(torch.equal(torch.as_tensor(streamed[name]), found[name]) for name in SHAPES)


def test_a_copy_and_an_output_of_fewer_bits(tmp_path):
    model = save_checkpoint(tmp_path / "m", tensors_of(0, torch.float64))
    run_mergeplan(config_text("passthrough", [model]), tmp_path / "copy")
    assert weights_of(tmp_path / "copy") == weights_of(model)
    text = config_text("linear", [model], parameters={"weight": 1}, out_dtype="bfloat16")
    run_mergeplan(text, tmp_path / "out")
    for name, tensor in load_tensors(tmp_path / "out").items():
        assert torch.equal(tensor, load_tensors(model)[name].bfloat16())


def test_beside_float32_it_is_float64_unless_a_dtype_is_asked_for(tmp_path):
    models = [tensors_of(0, torch.float64), tensors_of(1, torch.float32)]
    folders = [save_checkpoint(tmp_path / f"m{i}", model) for i, model in enumerate(models)]
    narrow = {name: tensor.float() for name, tensor in models[0].items()}
    twin = save_checkpoint(tmp_path / "twin", narrow)
    run_mergeplan(config_text("linear", folders, parameters={"weight": 1}), tmp_path / "out")
    for name, tensor in load_tensors(tmp_path / "out").items():
        assert torch.equal(tensor, (models[0][name] + models[1][name]) / 2)
    # Any method, in float32: what reads it sees what a cast copy holds.
    for where, first in (("wide", folders[0]), ("cast", twin)):
        text = config_text(
            "ties",
            [first, folders[1]],
            base=folders[1],
            parameters={"weight": 1, "density": 0.3},
            dtype="float32",
        )
        run_mergeplan(text, tmp_path / where)
    assert weights_of(tmp_path / "wide") == weights_of(tmp_path / "cast")


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_methods_refuse_it_with_a_way_out(dtype, tmp_path):
    folder = save_checkpoint(tmp_path / "m", tensors_of(0, DTYPES[dtype]))
    other = save_checkpoint(tmp_path / "n", tensors_of(1, DTYPES[dtype]))
    text = config_text("ties", [other], base=folder, parameters={"weight": 1, "density": 0.5})
    with pytest.raises(InputError, match=f"{dtype} is merged as it is by `linear`") as caught:
        run_mergeplan(text, tmp_path / "out")
    assert "merge_method: ties" in caught.value.message
    assert ("`dtype: float32`" in (caught.value.hint or "")) == (dtype == "F64")
    found = inspect([str(folder), str(other)])
    assert found.fits
    assert any(f"5 tensors are {dtype}: `linear`" in warning for warning in found.warnings)
    (tmp_path / "c.yml").write_text(text)
    assert f"{dtype} is merged as it is" in cli("inspect", "c.yml", cwd=tmp_path).stdout


def test_complex_and_real_tensors_do_not_meet(tmp_path):
    a = save_checkpoint(tmp_path / "a", tensors_of(0, torch.complex64))
    b = save_checkpoint(tmp_path / "b", tensors_of(0, torch.float32))
    with pytest.raises(InputError, match="expected dtype C64 as in .*, found F32"):
        run_mergeplan(config_text("linear", [a, b], parameters={"weight": 1}), tmp_path / "out")


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_named(dtype, tmp_path):
    tensors = {"x": torch.ones(4, dtype=DTYPES[dtype])}
    tensors["x"][2] = torch.inf
    folder = save_checkpoint(tmp_path / "m", tensors)
    text = config_text("linear", [folder], parameters={"weight": 1})
    with pytest.raises(InputError, match="tensor `x`: element 2 is"):
        run_mergeplan(text, tmp_path / "out")
    run_mergeplan(text, tmp_path / "all", allow_nonfinite=True)
    assert not load_tensors(tmp_path / "all")["x"].isfinite().all()


def test_counters_are_the_donors_with_a_note(tmp_path):
    for count, name in enumerate(("base", "a", "b")):
        tensors = {
            "bn.num_batches_tracked": torch.tensor(100 + count),
            "bn.weight": torch.ones(3) * count,
            "step": torch.tensor([count], dtype=torch.int32),
            "same": torch.arange(3),
        }
        save_checkpoint(tmp_path / name, tensors)
    text = config_text(
        "task_arithmetic",
        [tmp_path / "a", tmp_path / "b"],
        base=tmp_path / "base",
        parameters={"weight": 1},
    )
    report = run_mergeplan(text, tmp_path / "out")
    found = load_tensors(tmp_path / "out")
    assert (found["bn.num_batches_tracked"].item(), found["step"].tolist()) == (100, [0])
    said = [warning for warning in report.warnings if "counters differ" in warning]
    assert len(said) == 1
    assert f"the output has those of `{tmp_path / 'base'}`" in said[0]
