"""Merge methods of the user's own: the core's blocks, their rules, and what is refused."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import mergeplan
from mergeplan.calibration.config_file import merging
from mergeplan.calibration.options import CalibrateOptions, ChoiceGoal
from mergeplan.config.methods import KNOWN
from mergeplan.config.write import merge_config
from mergeplan.custom.declare import DECLARED
from mergeplan.errors import ContentError, InputError
from mergeplan.tuning.recipe import choose_method
from tests.support.checkpoints import load_tensors, save_checkpoint, weights_of
from tests.support.commands import cli, cli_process
from tests.support.pools import NAMES, write_pool
from tests.support.settings import DEMO_POOL

MINE = '''
"""Four methods, one of each kind."""
import numpy as np
import mergeplan


@mergeplan.method("strongest", options={"lambda": 1.0}, model_options={"weight": 1.0})
def strongest(block):
    changes = block.deltas * block.model_options["weight"]
    which = np.abs(changes).argmax(axis=0)
    return block.base + block.options["lambda"] * np.take_along_axis(changes, which[None], 0)[0]


@mergeplan.method("shares", statistics=("l1", "l2", "largest"))
def shares(block):
    told = sum(block.statistics[name] for name in ("l1", "l2", "largest"))
    return block.base + (block.deltas * (told / told.sum())).sum(axis=0)


@mergeplan.method("trimmed", statistics=("threshold",), model_options={"density": 0.2})
def trimmed(block):
    kept = np.abs(block.deltas) >= block.statistics["threshold"]
    return block.base + np.where(kept, block.deltas, 0).mean(axis=0)


squares = mergeplan.State(
    init=lambda: np.zeros(2),
    update=lambda state, values: state + [values.size, np.square(values, dtype=np.float64).sum()],
    merge=np.add,
)


@mergeplan.method("centred", by_rows=True, state=squares, model_options={"weight": 1.0})
def centred(block):
    scale = [[[total / n]] for n, total in block.states] * block.model_options["weight"]
    mixed = (block.deltas * (scale / np.sum(scale))).sum(axis=0)
    return block.base + mixed - mixed.mean(axis=-1, keepdims=True)
'''
# More than a block of 65,536, rows that blocks cut, a vector, a scalar, nothing, and one wide row.
SHAPES = {"a": (301, 701), "b": (7,), "c": (), "d": (0, 5), "e": (3, 70_000)}


pytestmark = pytest.mark.usefixtures("own_methods")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    draw = torch.Generator().manual_seed(0)
    for name in ("base", "x", "y", "z"):
        tensors = {n: torch.randn(shape, generator=draw) for n, shape in SHAPES.items()}
        save_checkpoint(folder / name, tensors)
    return folder


def allow(folder: Path, text: str = MINE, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(text)
    mergeplan.allow_methods(file)
    return file


def config(models: Path, method: str, each=({}, {}, {}), **top):
    names = "xyz"[: len(each)]
    return {
        "merge_method": method,
        "base_model": str(models / "base"),
        "models": [
            {"model": str(models / name), "parameters": options}
            for name, options in zip(names, each, strict=True)
        ],
        "dtype": "float32",
        **top,
    }


def expected(method: str, base: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """By the whole tensor, in float64."""
    flat = deltas.reshape(len(deltas), -1)
    wide = np.abs(flat)
    over = (slice(None), *[None] * base.ndim)
    if method == "strongest":
        return base + 0.5 * np.take_along_axis(deltas, np.abs(deltas).argmax(0)[None], 0)[0]
    if method == "shares":
        told = wide.sum(1) + np.sqrt((wide**2).sum(1)) + wide.max(1)
        return base + (deltas * (told / told.sum())[over]).sum(0)
    if method == "trimmed":
        n_kept = int(0.2 * flat.shape[1])
        least = -np.sort(-wide, axis=1)[:, n_kept - 1] if n_kept else np.full(3, np.inf)
        return base + np.where(np.abs(deltas) >= least[over], deltas, 0).mean(0)
    scale = (wide**2).mean(1)
    mixed = (deltas * (scale / scale.sum())[over]).sum(0)
    return base + mixed - mixed.mean(axis=-1, keepdims=True)


@pytest.mark.parametrize("method", ["strongest", "shares", "trimmed", "centred"])
def test_a_method_gives_what_it_gives_for_whole_tensors_with_any_threads(method, models, tmp_path):
    allow(tmp_path)
    top = {"parameters": {"lambda": 0.5}} if method == "strongest" else {}
    given = config(models, method, **top)
    found = []
    for threads in (1, 2, 7):
        out = tmp_path / f"out{threads}"
        options = mergeplan.MergeOptions(threads=threads)
        mergeplan.merge(given, out, options)
        found.append(weights_of(out))
    assert found[0] == found[1] == found[2]
    merged = load_tensors(tmp_path / "out1")
    inputs = [load_tensors(models / name) for name in ("base", "x", "y", "z")]
    for name in SHAPES:
        base, *others = [one[name].double().numpy() for one in inputs]
        if not base.size:
            continue
        base, others = np.atleast_1d(base), [np.atleast_1d(one) for one in others]
        want = expected(method, base, np.stack([one - base for one in others]))
        np.testing.assert_allclose(
            np.atleast_1d(merged[name].double().numpy()), want, rtol=1e-5, atol=1e-5, err_msg=name
        )


def test_a_sweep_finds_out_about_each_expert_once_and_gives_what_a_merge_gives(models, tmp_path):
    count = "\nupdates = []\n"
    text = MINE.replace("\nsquares", count + "squares").replace(
        "update=lambda state, values: state",
        "update=lambda state, values: updates.append(values.shape) or state",
    )
    allow(tmp_path, text)
    updates = DECLARED["centred"].function.__globals__["updates"]
    sweep = mergeplan.Sweep([config(models, "centred", ({},) * k) for k in (2, 3)])
    updates.clear()  # those of the trial
    found = []
    for number in (0, 1):
        tensors = {name: torch.empty(shape) for name, shape in sweep.shapes(number).items()}
        sweep.merge_into([(number, tensors)])
        found.append((len(updates), tensors))
    assert found[0][0] > 0
    assert found[1][0] == found[0][0] * 3 / 2
    streamed = dict(mergeplan.stream(config(models, "centred")))
    assert all(torch.equal(found[1][1][name], streamed[name]) for name in streamed)


def test_options_along_layers_and_sixteen_bits_are_rounded_once(models, tmp_path):
    allow(tmp_path)
    each = ({"weight": [{"filter": "a", "value": 0.25}, {"value": 2.0}]}, {})
    given = config(models, "strongest", each, out_dtype="bfloat16")
    merged = dict(mergeplan.stream(given))
    inputs = [load_tensors(models / name) for name in ("base", "x", "y")]
    for name, weight in (("a", 0.25), ("b", 2.0)):
        base, x, y = (one[name].numpy() for one in inputs)
        changes = np.stack([np.float32(weight) * (x - base), y - base])
        chosen = np.take_along_axis(changes, np.abs(changes).argmax(0)[None], 0)[0]
        assert torch.equal(merged[name], torch.from_numpy(base + chosen).bfloat16())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("block.base[:-1]", "expected an array of shape"),
        ("block.base > 0", "expected an array of floats, found bool"),
        ("None", "expected an array, found NoneType"),
        ("block.base - block.deltas.mean()", "changes with the elements beside it"),
        ("block.base + seen.append(1) if False else block.base * next(turns)", "for the same"),
        ("block.base / 0 if block.base is None else block.nothing", "line 8: AttributeError"),
        ("block.base.__iadd__(1)", "line 8: ValueError: output array is read-only"),
        ("block.base + np.float32(exit())", "line 8: SystemExit"),
        ("exec('raise GeneratorExit')", "line 8: GeneratorExit"),
        ("np.ma.masked_less(block.base, 0)", "expected an array, found MaskedArray"),
    ],
)
def test_what_a_function_may_not_do_is_told_before_a_merge_begins(body, told, models, tmp_path):
    text = f"""
import itertools
import numpy as np
import mergeplan
turns = itertools.count(1)
@mergeplan.method("odd")
def odd(block):
    return {body}
"""
    allow(tmp_path, text)
    with pytest.raises(InputError, match="method `odd`") as caught:
        mergeplan.merge(config(models, "odd"), tmp_path / "out")
    assert told in caught.value.message
    assert not list(tmp_path.glob("out*"))


def test_a_state_that_depends_on_the_pieces_is_refused(models, tmp_path):
    text = """
import mergeplan
last = mergeplan.State(lambda: 0.0, lambda s, v: float(v.mean()), lambda a, b: b)
@mergeplan.method("odd", state=last)
def odd(block):
    return block.base + block.states[0]
"""
    allow(tmp_path, text)
    with pytest.raises(InputError, match="`odd`: its state is not the same for a tensor as"):
        mergeplan.merge(config(models, "odd"), tmp_path / "out")


def test_what_is_raised_in_the_middle_names_the_line_and_leaves_nothing(models, tmp_path):
    text = """
import mergeplan
@mergeplan.method("odd")
def odd(block):
    if block.shape == (301, 701) and block.start:
        raise RuntimeError("not this one")
    return block.base
"""
    file = allow(tmp_path, text)
    with pytest.raises(ContentError) as caught:
        mergeplan.merge(config(models, "odd"), tmp_path / "out")
    assert str(caught.value.message) == (
        f"method `odd`: tensor `a`: in `{file}`, line 6: RuntimeError: not this one"
    )
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "none are declared"),
        ("1 +", "line 1: invalid syntax"),
        ("import mergeplan\nraise KeyError('no')", "line 2: KeyError: 'no'"),
        ("import mergeplan\nmergeplan.method('ties')", "`ties` is a method of mergeplan's own"),
        ("import mergeplan\nmergeplan.method('a b')", "cannot be named `a b`"),
        ("import mergeplan\nmergeplan.method('a', statistics=('l3',))", "no statistic `l3`"),
        ("import mergeplan\nmergeplan.method('a', statistics=('threshold',))", "needs a model"),
        ("import mergeplan\nmergeplan.method('a', options={'b': 'c'})", "a number or a bool"),
        ("import mergeplan\nmergeplan.method('a', options={'b': 1e999})", "a finite number"),
        (
            "import mergeplan\nmergeplan.method('a', options={3: 1.0})",
            "option `3`: expected a name",
        ),
        ("import mergeplan\nmergeplan.method('a', base='maybe')", "`base`: expected `required`"),
        ("import mergeplan\nmergeplan.method('a', models=(5, 2))", "`models`: expected the fewest"),
        ("import mergeplan\nmergeplan.method('a', models=3)", "`models`: expected the fewest"),
        ("import mergeplan\nmergeplan.method('a', by_rows='yes')", "`by_rows`: expected a bool"),
        ("import mergeplan\nmergeplan.method('a', statistics='l2')", "`statistics`: expected a tu"),
        ("import mergeplan\nmergeplan.method('a', state=(1, 2, 3))", "`state`: expected a `merge"),
        (
            "import mergeplan\n"
            "mergeplan.method('a', options={'b': mergeplan.Option(int, 3, maximum=2)})",
            "its default 3 is out of its bounds",
        ),
        (
            "import mergeplan\nfor one in (abs, all):\n    mergeplan.method('a')(one)",
            "declares method `a` twice",
        ),
        ("import mergeplan\n\0", "null bytes"),
    ],
)
def test_files_that_declare_no_method_are_refused(text, told, tmp_path):
    with pytest.raises(InputError) as caught:
        allow(tmp_path, text)
    assert told in caught.value.message


def test_the_share_that_a_threshold_keeps_has_bounds(models, tmp_path):
    allow(tmp_path)
    for density in (20, -1):
        given = config(models, "trimmed", parameters={"density": density})
        with pytest.raises(InputError, match="`parameters.density`: expected a number from 0 to 1"):
            mergeplan.merge(given, tmp_path / "out")


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "GeneratorExit", "SystemExit(0)"])
def test_what_a_function_raises_in_a_worker_is_its_own_fault(raised, models, tmp_path):
    text = f"""
import mergeplan
@mergeplan.method("odd")
def odd(block):
    if block.tensor == "a":
        raise {raised}
    return block.base
"""
    allow(tmp_path, text)
    with pytest.raises(ContentError, match="line 6: " + raised.partition("(")[0]):
        mergeplan.merge(config(models, "odd"), tmp_path / "out")


@pytest.mark.parametrize("text", ["\ufeff" + MINE, MINE.replace("\n", "\r\n"), MINE])
def test_the_hash_is_that_of_the_file_s_bytes(text, tmp_path):
    file = tmp_path / "mine.py"
    file.write_bytes(text.encode())
    mergeplan.allow_methods(file)
    assert DECLARED["centred"].code.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_method_of_one_s_own_has_no_float64(demo_pool, tmp_path):
    allow(tmp_path)
    base, x = (str(demo_pool / name) for name in ("base", "js"))
    given = {"merge_method": "trimmed", "base_model": base, "models": [{"model": x}]}
    given["dtype"] = "float64"
    with pytest.raises(InputError, match="`trimmed` merges in float32 at most"):
        mergeplan.merge(given, tmp_path / "out")


@pytest.mark.skipif(os.name != "posix", reason="a pipe")
def test_a_file_may_come_through_a_pipe():
    reading, writing = os.pipe()
    os.write(writing, MINE.encode())
    os.close(writing)
    assert "centred" in mergeplan.allow_methods(f"/dev/fd/{reading}")
    os.close(reading)


def test_a_merge_by_one_s_own_method_is_replayed_where_it_is_allowed(models, tmp_path):
    allow(tmp_path)
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(config(models, "centred")))
    mergeplan.merge(tmp_path / "merge.yml", tmp_path / "out")
    replayed = cli(
        "verify", "out", "--config", "merge.yml", "--allow-methods", "mine.py", cwd=tmp_path
    )
    assert replayed.returncode == 0, replayed.stderr
    by_manifest = cli("verify", "out", "--allow-methods", "mine.py", cwd=tmp_path)
    assert "--allow-methods goes with --config" in by_manifest.stderr


def test_two_files_cannot_have_one_name_and_an_edited_one_takes_its_own_place(tmp_path):
    file = allow(tmp_path)
    with pytest.raises(InputError, match="both have a method `strongest`"):
        allow(tmp_path, MINE, "other.py")
    before = DECLARED["strongest"].code.sha256
    allow(tmp_path, MINE + "# edited\n")
    assert DECLARED["strongest"].code.file == file
    assert DECLARED["strongest"].code.sha256 != before


def test_nothing_runs_unless_it_is_allowed_and_a_changed_file_refuses_to_resume(models, tmp_path):
    (tmp_path / "mine.py").write_text("print('ran')\n" + MINE)
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(config(models, "trimmed")))
    refused = cli("merge", "merge.yml", "out", cwd=tmp_path)
    assert refused.returncode == 1
    assert "unknown method `trimmed`" in refused.stderr
    assert "--allow-methods FILE" in refused.stderr
    assert "ran" not in refused.stderr
    allowed = ("--allow-methods", "mine.py")
    killed = cli_process(
        "merge", "merge.yml", "out", *allowed, cwd=tmp_path, env={"MERGEPLAN_FAULT": "write:3:kill"}
    )
    assert killed.returncode < 0
    text = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(text + "# changed")
    changed = cli("merge", "merge.yml", "out", "--resume", *allowed, cwd=tmp_path)
    assert changed.returncode == 1
    assert "sha256` has changed since" in changed.stderr
    (tmp_path / "mine.py").write_text(text)
    done = cli_process("merge", "merge.yml", "out", "--resume", "--json", *allowed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # what a method prints is no data
    assert report["resumed_blocks"] > 0
    mergeplan.merge(tmp_path / "merge.yml", tmp_path / "at_once")
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "at_once")
    manifest = json.loads((tmp_path / "out/mergeplan_manifest.json").read_text())
    assert manifest["methods"] == {"trimmed": hashlib.sha256(text.encode()).hexdigest()}


KINDS = """
import mergeplan
@mergeplan.method("kinds", options={"lambda": 1.0, "signed": True, "least": 2, "must":
    mergeplan.Option(float, None)})
def kinds(block):
    return block.base
"""


def test_a_pool_s_options_keep_their_kinds(tmp_path):
    allow(tmp_path, KINDS)
    given = {"signed": False, "least": 3.0, "must": 1}
    written = merge_config("kinds", given, Path("base"), [Path("x")], "float32")["parameters"]
    assert written == {"lambda": 1.0, "signed": False, "least": 3, "must": 1.0}
    assert [type(written[key]) for key in given] == [bool, int, float]
    for wrong, told in (
        ({"signed": 1}, "expected true or false as `signed`"),
        ({"least": 1.5}, "expected a whole number as `least`"),
        ({"must": True}, "expected a number as `must`"),
    ):
        with pytest.raises(InputError, match=told):
            merge_config("kinds", given | wrong, Path("base"), [Path("x")], "float32")
    for wrong, told in (
        ("base='none'", "has no base"),
        ("models=(2, None)", "any number of models"),
    ):
        allow(tmp_path, KINDS.replace("options=", f"{wrong}, options="))
        with pytest.raises(InputError, match=told):
            merge_config("kinds", given, Path("base"), [Path("x")], "float32")
    allow(tmp_path, KINDS)
    with pytest.raises(InputError, match="method `kinds` needs `must`"):
        merge_config("kinds", {}, Path("base"), [Path("x")], "float32")


def test_a_method_goes_to_other_processes_by_its_text(tmp_path):
    file = allow(tmp_path)
    sent = tmp_path / "sent"
    sent.write_bytes(pickle.dumps(KNOWN["centred"]))
    file.unlink()
    read = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).code.sha256)"
    code = f"import mergeplan.custom.loading\n{read}"
    found = subprocess.run(
        [sys.executable, "-c", code, sent], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == KNOWN["centred"].code.sha256


def test_a_package_s_method_is_imported_once_a_config_names_it(
    models, tmp_path, monkeypatch, capfd
):
    (tmp_path / "a_package.py").write_text("print('imported')\n" + MINE)
    info = tmp_path / "a_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
    points = "[mergeplan.methods]\ntrimmed = a_package:trimmed\nabsent = a_package:squares\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    mergeplan.merge(config(models, "ties", ({"density": 0.5, "weight": 1},)), tmp_path / "ours")
    assert "a_package" not in sys.modules
    mergeplan.merge(config(models, "trimmed"), tmp_path / "out")
    assert "a_package" in sys.modules
    printed = capfd.readouterr()
    assert ("imported" in printed.out, "imported" in printed.err) == (False, True)
    with pytest.raises(InputError, match="`a_package:squares` declares no method"):
        mergeplan.merge(config(models, "absent"), tmp_path / "other")
    monkeypatch.delitem(sys.modules, "a_package")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    given = {**os.environ, "PYTHONPATH": path}
    send = "import pickle, sys; from mergeplan.config.known import find_method as find"
    send += "; sys.stdout.buffer.write(pickle.dumps(find('trimmed')))"
    receive = "import pickle, sys; pickle.load(sys.stdin.buffer)"
    sent = subprocess.run([sys.executable, "-c", send], stdout=-1, check=True, env=given)
    subprocess.run([sys.executable, "-c", receive], input=sent.stdout, check=True, env=given)


def test_a_method_without_slopes_is_refused_where_they_are_asked_for_and_else_passed_over(tmp_path):
    experts = {name: str(DEMO_POOL / name) for name in (*NAMES, "json")}
    sizes = [{"base": str(DEMO_POOL / "base"), "experts": experts}]
    methods = {"strongest": {}, "ties": {}, "average": {}}
    pool = write_pool(tmp_path, sizes=sizes, methods=methods)
    run, own = tmp_path / "run", ("--allow-methods", tmp_path / "mine.py", "-o", tmp_path / "run")
    allow(tmp_path)
    asked = ("--for", "select", "--gradients", "--method", "strongest")
    for args in (("calibrate", pool, *own, *asked), ("tune", pool, *own, "--method", "strongest")):
        done = cli(*args)
        assert done.returncode == 1
        assert "`strongest` is a method of your own: it has no slopes" in done.stderr
        assert not run.exists()
    # Unasked, and by default, another one of the pool is taken.
    loaded, unasked = mergeplan.load_pool(pool), CalibrateOptions(choosing=ChoiceGoal())
    slopes = [unasked.gradients_of(loaded, 0, label) for label in methods]
    assert slopes == [False, False, None]
    assert choose_method(loaded, None)[0] == "task_arithmetic"  # which an average is, tuned
    assert choose_method(replace(loaded, methods={"strongest": {}}), None)[0] == "task_arithmetic"


def test_a_command_that_comes_next_allows_the_same_methods(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    mergeplan.allow_methods("mine.py")
    assert merging(Path("run/merge.yml")) == (
        "mergeplan merge run/merge.yml OUT_DIR --allow-methods mine.py"
    )
