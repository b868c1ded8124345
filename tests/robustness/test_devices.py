"""Merges on devices: what they give beside the core, and what becomes of them when devices fail."""

import json
import signal
import threading
from functools import partial

import pytest
import torch

from mergeplan.calibration.calibrate import calibrate
from mergeplan.calibration.options import CalibrateOptions
from mergeplan.calibration.setup import Setup
from mergeplan.config.config import parse_config
from mergeplan.errors import ContentError, InputError
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.merging.merge import MergeReport, merge, merge_many
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.streaming import Sweep
from mergeplan.merging.torch import into_memory, philox
from mergeplan.merging.torch.device import Device, find_devices
from mergeplan.merging.torch.device_runner import DeviceRunner
from mergeplan.merging.torch.into_memory import IntoMemory
from mergeplan.merging.torch.loading import PieceLoader
from mergeplan.merging.torch.place import Place
from tests.support.checkpoints import load_tensors, save_checkpoint, weights_of
from tests.support.commands import cli, cli_process
from tests.support.merges import config_text
from tests.support.pools import copied_pool, write_pool
from tests.support.shares import paired, spread

# Two tensors for devices, one of which takes several pieces, and two for the core.
SHAPES = {"embed": (4001, 701), "w": (300, 301), "norm": (64,), "empty": (0, 5)}
DELTA = {"weight": 1.0, "density": 0.3}
TIES = ("ties", DELTA, {})
METHODS = [TIES, ("dare_linear", DELTA, {"rescale": True}), ("linear", {"weight": 0.5}, {})]
LIMIT = 16 << 20


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    generator = torch.Generator().manual_seed(1)
    base = {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in SHAPES.items()}
    for number, model in enumerate(("base", "a", "b", "c")):
        moved = {
            name: value + 0.004 * number * torch.randn(value.shape, generator=generator)
            for name, value in base.items()
        }
        tensors = {name: value.to(torch.bfloat16) for name, value in moved.items()}
        save_checkpoint(folder / model, {**tensors, "ids": torch.arange(7)})
    return folder


def text_of(pool, method="ties", options=DELTA, parameters=None, experts="abc"):
    base = None if method == "linear" else pool / "base"
    models = [pool / name for name in experts]
    per_model = [options] * len(models)
    return config_text(method, models, base=base, per_model=per_model, parameters=parameters or {})


def on(devices, text, out, **options) -> MergeReport:
    """Merge on devices."""
    found = [Device(name, LIMIT) for name in devices]
    return merge_many(
        [MergeRequest(parse_config(text), out)], MergeOptions(**options), runner=DeviceRunner(found)
    )[0]


@pytest.fixture
def expected(pool, tmp_path):
    merge(parse_config(text_of(pool)), tmp_path / "core")
    return weights_of(tmp_path / "core")


LARGE_BYTES = 2 * (4001 * 701 + 300 * 301)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[0])
def test_devices_give_the_cores_folder(pool, tmp_path, method):
    text = text_of(pool, *method)
    # A card has the name of its folder.
    core = merge(parse_config(text), tmp_path / "core", MergeOptions(write_model_card=False))
    report = on(["cpu", "cpu"], text, tmp_path / "out", write_model_card=False)
    assert report.device_bytes == LARGE_BYTES
    assert (core.device_bytes, core.devices) == (0, ())
    assert report.tensors == core.tensors
    for path in (tmp_path / "core").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_an_input_is_read_again_only_where_it_has_no_room(pool, tmp_path):
    once = sum(file.stat().st_size for file in pool.glob("*/*.safetensors"))
    text = text_of(pool)
    assert on(["cpu"], text, tmp_path / "little").read_bytes > 1.5 * once
    runner = DeviceRunner([Device("cpu", 1 << 30)])
    report = merge_many([MergeRequest(parse_config(text), tmp_path / "much")], runner=runner)[0]
    assert report.read_bytes < once


def test_many_merges_share_what_is_read(pool, tmp_path):
    texts = {name: text_of(pool, experts=name) for name in ("ab", "bc", "abc")}
    wanted = [MergeRequest(parse_config(text), tmp_path / name) for name, text in texts.items()]
    reports = merge_many(wanted, runner=DeviceRunner([Device("cpu", 1 << 30)]))
    once = sum(file.stat().st_size for file in pool.glob("*/*.safetensors"))
    # The buffer and the small tensors, which the core reads, are read for each.
    assert reports[0].read_bytes < once + 10_000
    for name, text in texts.items():
        merge(parse_config(text), tmp_path / f"{name}-core")
        assert weights_of(tmp_path / name) == weights_of(tmp_path / f"{name}-core")


SHORT = torch.OutOfMemoryError("CUDA out of memory")
LOST = RuntimeError("CUDA error: unspecified launch failure\nmore of it")


class Failing:
    """Lets some loads of pieces fail."""

    def __init__(self, monkeypatch, error, fails):
        self.calls = 0
        self._lock = threading.Lock()
        load = PieceLoader.start

        def failing(loader, *arguments):
            with self._lock:
                self.calls += 1
                number = self.calls
            if fails(number):
                raise error
            return load(loader, *arguments)

        monkeypatch.setattr(PieceLoader, "start", failing)


@pytest.mark.parametrize("error", [SHORT, RuntimeError("CUDA error: out of memory")], ids=str)
def test_short_of_memory_pieces_become_smaller(pool, tmp_path, expected, monkeypatch, error):
    failing = Failing(monkeypatch, error, {3, 4}.__contains__)
    report = on(["cpu"], text_of(pool), tmp_path / "out")
    assert weights_of(tmp_path / "out") == expected
    assert any("made smaller" in warning for warning in report.warnings)
    assert report.device_bytes == LARGE_BYTES
    assert failing.calls > 4


def test_a_kernel_that_does_not_run_is_told_and_the_masks_are_the_same(pool, tmp_path, monkeypatch):
    fault = "CompilationError: no compiler"
    monkeypatch.setattr(philox, "find_draw", lambda _: (philox.plain_below, fault))
    text = text_of(pool, *METHODS[1])
    merge(parse_config(text), tmp_path / "core")
    report = on(["cpu"], text, tmp_path / "out")
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "core")
    assert sum(fault in warning for warning in report.warnings) == 1


def test_without_any_memory_the_core_merges(pool, tmp_path, expected, monkeypatch):
    Failing(monkeypatch, SHORT, lambda _: True)
    report = on(["cpu"], text_of(pool), tmp_path / "out")
    assert weights_of(tmp_path / "out") == expected
    assert any("too little memory" in warning for warning in report.warnings)
    assert report.device_bytes == 0


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_lost_device_leaves_its_work_to_the_others(pool, tmp_path, expected, monkeypatch, after):
    Failing(monkeypatch, LOST, after.__eq__)
    report = on(["cpu", "cpu"], text_of(pool), tmp_path / "out")
    assert weights_of(tmp_path / "out") == expected
    assert any("unspecified launch failure" in warning for warning in report.warnings)


def test_when_all_devices_are_lost_the_core_goes_on(pool, tmp_path, expected, monkeypatch):
    Failing(monkeypatch, LOST, lambda number: number > 4)
    report = on(["cpu", "cpu"], text_of(pool), tmp_path / "out")
    assert weights_of(tmp_path / "out") == expected
    assert report.warnings[-1].startswith("device `cpu` failed")


def test_a_fault_of_ours_stops_all_workers_and_is_raised(pool, tmp_path, monkeypatch):
    Failing(monkeypatch, ZeroDivisionError("ours"), {5}.__contains__)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        on(["cpu", "cpu"], text_of(pool), tmp_path / "out")
    assert threading.active_count() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "place"),
    paired(METHODS, [("a", "embed", 1_400_000), ("base", "w", 5)]),
    ids=str,
)
def test_values_that_are_not_finite_are_named_as_by_the_core(pool, tmp_path, method, place):
    model, name, index = place
    if method[0] == "linear" and model == "base":
        model = "b"
    for folder in ("base", "a", "b", "c"):
        tensors = load_tensors(pool / folder)
        if folder == model:
            tensors[name].view(-1)[index] = float("nan")
        save_checkpoint(tmp_path / "pool" / folder, tensors)
    text = text_of(tmp_path / "pool", *method)
    with pytest.raises(ContentError) as core:
        merge(parse_config(text), tmp_path / "core")
    with pytest.raises(ContentError) as device:
        on(["cpu"], text, tmp_path / "out")
    assert str(device.value) == str(core.value)
    assert name in str(core.value)
    assert not list(tmp_path.glob("out*"))
    merge(parse_config(text), tmp_path / "core", MergeOptions(allow_nonfinite=True))
    on(["cpu"], text, tmp_path / "out", allow_nonfinite=True)
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "core")


def test_a_result_beyond_float16_is_named_as_by_the_core(tmp_path):
    large = {"w": torch.full((300, 300), 6e4)}
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, large)
    models = [tmp_path / "a", tmp_path / "b"]
    options = [{"weight": 1.0}] * 2
    text = config_text(
        "linear", models, per_model=options, parameters={"normalize": False}, out_dtype="float16"
    )
    with pytest.raises(ContentError) as core:
        merge(parse_config(text), tmp_path / "core")
    with pytest.raises(ContentError) as device:
        on(["cpu"], text, tmp_path / "out")
    assert str(device.value) == str(core.value)


class Stopped(Exception):
    """Whatever comes from outside."""


@pytest.mark.parametrize(
    ("first", "then"),
    spread([("core", "device"), ("core", "core"), ("device", "core"), ("device", "device")], 2),
)
def test_either_goes_on_where_the_other_was_stopped(pool, tmp_path, expected, first, then):
    text = text_of(pool)
    config = tmp_path / "c.yml"
    config.write_text(text)
    flags = {"core": (), "device": ("--device", "cpu", "--vram-limit", "64MiB")}
    out = tmp_path / "out"
    fault = {"MERGEPLAN_FAULT": "journal:12:kill"}
    killed = cli_process("merge", config, out, "--threads", 1, *flags[first], env=fault)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    done = cli("merge", config, out, "--json", "--resume", *flags[then])
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["resumed_blocks"] >= 11
    assert (report["device_bytes"] > 0) == (then == "device")
    assert weights_of(out) == expected
    assert cli("verify", out).returncode == 0


def test_an_interrupt_stops_the_workers_and_leaves_what_is_done(pool, tmp_path, expected):
    def stop(done: int, _total: int) -> None:
        if done:
            raise Stopped

    text = text_of(pool)
    runner = DeviceRunner([Device("cpu", LIMIT)])
    wanted = [MergeRequest(parse_config(text), tmp_path / "out")]
    before = threading.active_count()
    with pytest.raises(Stopped):
        merge_many(wanted, None, stop, runner=runner)
    assert threading.active_count() == before
    assert not (tmp_path / "out").exists()
    report = merge_many(wanted, MergeOptions(resume=True), runner=runner)[0]
    assert report.resumed_blocks > 0
    assert weights_of(tmp_path / "out") == expected


def test_merges_go_into_memory_of_any_layout_and_dtype(pool, tmp_path, expected):
    config = parse_config(text_of(pool))
    sweep = Sweep([config, parse_config(text_of(pool, experts="ab"))], MergeOptions(device="cpu"))
    merge(parse_config(text_of(pool, experts="ab")), tmp_path / "ab")
    wholes = [load_tensors(tmp_path / name) for name in ("core", "ab")]
    places = [
        {"embed": torch.zeros(701, 4001).T, "w": torch.zeros(300, 301, dtype=torch.bfloat16)},
        {"embed": torch.zeros(4001, 701), "norm": torch.zeros(64)},
    ]
    assert sweep.merge_into(list(enumerate(places))) > 0
    for whole, into in zip(wholes, places, strict=True):
        for name, tensor in into.items():
            assert torch.equal(tensor, whole[name].to(tensor.dtype)), name
    with pytest.raises(InputError, match="`w`: expected shape"):
        sweep.merge_into([(0, {"w": torch.zeros(301, 300)})])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--device", "tpu"), 2, "device `tpu`: expected `auto`, `cpu`, `cuda` or `cuda:0`"),
        (("--device", "cpu", "--vram-limit", "1MiB"), 1, "expected 64 MiB or more, found 1 MiB"),
        (("--vram-limit", "1GiB"), 2, "`--vram-limit` says nothing without `--device`"),
        (("--device", "cpu", "--ray", "local"), 2, "leave `--device` out"),
        (("--device", "auto"), 0, ""),
        (("--device", "cpu"), 0, ""),
    ],
    ids=str,
)
def test_the_command_takes_devices_or_says_why_not(pool, tmp_path, arguments, code, message):
    config = tmp_path / "c.yml"
    config.write_text(text_of(pool))
    ended = cli("merge", config, tmp_path / "out", *arguments)
    assert ended.returncode == code
    assert message in ended.stderr
    assert ("\nhint: " in ended.stderr) == (code != 0)
    assert "--vram-limit" not in arguments or "--help" not in ended.stderr
    assert (" of it by cpu in " in ended.stdout) == (arguments == ("--device", "cpu"))
    assert (tmp_path / "out").exists() == (code == 0)
    assert not (tmp_path / "out.partial").exists()


def test_in_python_a_limit_without_a_device_has_its_python_name(pool, tmp_path):
    config = tmp_path / "c.yml"
    config.write_text(text_of(pool))
    with pytest.raises(InputError, match="`vram_limit` says nothing without a `device`") as caught:
        merge(config, tmp_path / "out", MergeOptions(vram_limit=1 << 30))
    assert "`memory_limit`" in caught.value.hint
    assert not list(tmp_path.glob("out*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("flag", ["--cuda", "--gpu-rich", "--device=cuda", "--device=cuda:1"])
def test_without_a_gpu_that_is_said_before_anything_is_written(pool, tmp_path, flag):
    config = tmp_path / "c.yml"
    config.write_text(text_of(pool))
    ended = cli("merge", config, tmp_path / "out", flag)
    assert ended.returncode == 1
    assert "torch finds no GPU" in ended.stderr
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_no_run_is_begun(tmp_path):
    copied_pool(tmp_path)
    ended = cli("calibrate", tmp_path / "pool.yml", "-o", tmp_path / "run", "--device", "cuda")
    assert ended.returncode == 1
    assert "device `cuda`: torch finds no GPU" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_auto_without_a_gpu_is_the_core():
    if torch.cuda.is_available():
        assert find_devices("auto")[0].is_gpu
    else:
        assert find_devices("auto") == []


def test_a_result_beyond_float16_in_an_early_piece_is_noticed_in_memory_too(tmp_path):
    large = torch.ones(2_000_000)
    large[7] = 60_000
    for name in "ab":
        save_checkpoint(tmp_path / name, {"w": large})
    # Each is finite in float16; their sum is not, in the first of several pieces.
    models = [tmp_path / "a", tmp_path / "b"]
    per_model = [{"weight": 1.0}] * 2
    text = config_text(
        "linear",
        models,
        per_model=per_model,
        parameters={"normalize": False},
        dtype="float32",
        out_dtype="float16",
    )
    into = {"w": torch.zeros(2_000_000, dtype=torch.float16)}
    messages = []
    for device in (None, "cpu"):
        limit = 64 << 20 if device else None
        sweep = Sweep([parse_config(text)], MergeOptions(device=device, vram_limit=limit))
        if device:
            workers = sweep._on_devices._engine
            workers._places = [Place(p.device, 4 << 20) for p in workers._places]
        with pytest.raises(InputError) as error:
            sweep.merge_into([(0, into)])
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_calibrate_measures_the_same_through_a_device(tmp_path, monkeypatch):
    """A model on a GPU is merged into where it is; torch on the CPU stands for that here."""
    read = []

    class Watched(IntoMemory):
        def merge(self, targets):
            n_bytes, core = super().merge(targets)
            read.append(n_bytes)
            return n_bytes, core

    monkeypatch.setattr(into_memory, "IntoMemory", partial(Watched, least_elements=1))
    setup = Setup(EvaluationOptions(max_tokens=100))
    options = CalibrateOptions(methods=("dare",), ks=(1, 2, 5), setup=setup)
    pool_file = write_pool(tmp_path)
    calibrate(pool_file, tmp_path / "core", options)
    assert not read
    monkeypatch.setattr(Setup, "merging", lambda *_: MergeOptions(device="cpu"))
    calibrate(pool_file, tmp_path / "device", options)
    assert min(read) > 0
    tables = [(tmp_path / run / "measurements.csv").read_bytes() for run in ("core", "device")]
    assert tables[0] == tables[1]
