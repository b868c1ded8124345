"""Merges into memory: the same bytes as files, in loaded models, whatever runs beside."""

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, Qwen2Config
from transformers.models.qwen2 import Qwen2ForCausalLM

import mergeplan
from mergeplan.config.config import parse_config
from mergeplan.errors import InputError
from mergeplan.merging import copies
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.parameters import places_in
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.merges import config_text, run_mergeplan

METHODS = {
    "linear": {"weight": 1.0},
    "task_arithmetic": {"weight": 1.0, "normalize": True, "lambda": 0.7},
    "ties": {"weight": 1.0, "density": 0.3},
    "dare_linear": {"weight": 0.5, "density": 0.6},
    "dare_ties": {"weight": 1.0, "density": 0.4},
    "breadcrumbs": {"weight": 1.0, "density": 0.6, "gamma": 0.05},
    "della": {"weight": 1.0, "density": 0.5, "epsilon": 0.2},
    "model_stock": {},
    "sce": {"select_topk": 0.5},
    "karcher": {},
}


def text(pool, names, method="ties", **top):
    base = None if method in ("linear", "karcher") else pool / "base"
    top = {"dtype": "float32", "out_dtype": "bfloat16", **top}
    return config_text(
        method, [pool / n for n in names], base=base, parameters=METHODS[method], **top
    )


def config(*args, **top):
    return parse_config(text(*args, **top))


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_yields_what_a_merge_writes(demo_pool, tmp_path, method, monkeypatch):
    monkeypatch.setattr("mergeplan.merging.streaming.BATCH_BYTES", 50_000)
    run_mergeplan(text(demo_pool, ["python", "json", "md"], method), tmp_path / "out", seed=4)
    written = load_tensors(tmp_path / "out")
    streamed = dict(
        mergeplan.stream(config(demo_pool, ["python", "json", "md"], method), MergeOptions(seed=4))
    )
    assert streamed.keys() == written.keys()
    for name, tensor in streamed.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, written[name]), name


@pytest.mark.parametrize("method", ["ties", "dare_linear", "linear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_model_gets_what_loading_the_written_merge_gives(
    demo_pool, tmp_path, method, dtype
):
    out = tmp_path / "out"
    run_mergeplan(text(demo_pool, ["python", "html"], method), out)
    expected = AutoModelForCausalLM.from_pretrained(out, dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(demo_pool / "base", dtype=dtype)
    addresses = [p.data_ptr() for p in model.parameters()]
    mergeplan.merge_into(model, config(demo_pool, ["python", "html"], method))
    assert [p.data_ptr() for p in model.parameters()] == addresses
    state = expected.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_sweep_gives_each_subset_what_it_gets_alone(demo_pool):
    names = ["python", "json", "md", "perl"]
    subsets = [names[:k] for k in (1, 2, 3, 4)] + [names[::2], names[1:3]]
    for method in ("ties", "dare_linear"):
        sweep = mergeplan.Sweep(
            [config(demo_pool, s, method) for s in subsets], MergeOptions(seed=9)
        )
        for order in ([0, 1, 2, 3, 4, 5], [5, 0, 3], [2]):
            targets = [
                (n, {name: torch.empty(s) for name, s in sweep.shapes(n).items()}) for n in order
            ]
            sweep.merge_into(targets)
            for number, merged in targets:
                alone = mergeplan.stream(
                    config(demo_pool, subsets[number], method), MergeOptions(seed=9)
                )
                for name, tensor in alone:
                    assert torch.equal(merged[name], tensor.float()), (method, number, name)


def test_where_tensors_lie_is_looked_up_once_for_each_copy_of_a_model(demo_pool, monkeypatch):
    looked: list[object] = []

    def look(model, shapes):
        looked.append(model)
        return places_in(model, shapes)

    monkeypatch.setattr(copies, "places_in", look)
    subsets = [["python"], ["html", "python"], ["md"], ["html", "json", "md"]]
    sweep = mergeplan.Sweep([config(demo_pool, names, "ties") for names in subsets])
    load = AutoModelForCausalLM.from_pretrained
    models = [load(demo_pool / "base", dtype=torch.float32) for _ in range(2)]
    taken = copies.Copies()

    def check(number, model):
        expected = dict(sweep.stream(number))
        for name, place in places_in(model, sweep.shapes(number)).items():
            assert torch.equal(place, expected[name].float()), name

    for numbers in ((0, 1), (2, 3), (3, 0)):
        taken.give(sweep, list(zip(numbers, models, strict=True)))
        for number, model in zip(numbers, models, strict=True):
            check(number, model)
    assert looked == models
    # Parameters that lie elsewhere now are found there.
    weight = models[0].get_input_embeddings().weight
    weight.data = weight.data.clone()
    taken.give(sweep, [(1, models[0])])
    check(1, models[0])
    assert looked == [*models, models[0]]
    with pytest.raises(InputError, match="same memory"):
        taken.give(sweep, [(0, models[0]), (1, models[0])])


def test_memory_that_is_not_row_major_is_filled_all_the_same(demo_pool):
    sweep = mergeplan.Sweep([config(demo_pool, ["python", "json"])])
    places = {
        name: torch.empty(shape[::-1]).T if len(shape) == 2 else torch.empty(shape)
        for name, shape in sweep.shapes(0).items()
    }
    sweep.merge_into([(0, places)])
    for name, tensor in sweep.stream(0):
        assert torch.equal(places[name], tensor.float())


SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def models_of(folder, make):
    """A base and two experts, saved; returns the base as it loads."""
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(seed)
        make().save_pretrained(folder / name)
    return AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_packed_parameters_are_found(tmp_path, tied):
    configs = {
        "moe": lambda: MixtralForCausalLM(
            MixtralConfig(**SIZES, num_local_experts=3, tie_word_embeddings=tied)
        ),
        "dense": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied)),
    }
    for name, make in configs.items():
        folder = tmp_path / name
        model = models_of(folder, make)
        merged = text(folder, ["a", "b"], "ties", out_dtype="float32")
        run_mergeplan(merged, folder / "out")
        expected = AutoModelForCausalLM.from_pretrained(folder / "out").state_dict()
        mergeplan.merge_into(model, parse_config(merged))
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, expected[key]), key


def test_a_head_that_the_files_hold_and_the_model_ties_follows_the_embedding(tmp_path):
    make = lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))  # noqa: E731
    model = models_of(tmp_path, make)
    for name in ("base", "a", "b"):
        tensors = load_tensors(tmp_path / name)
        tensors["lm_head.weight"] = torch.randn(40, 16)
        save_checkpoint(tmp_path / "with_head" / name, tensors, model.config.to_dict())
    merged = config(tmp_path / "with_head", ["a", "b"], out_dtype="float32")
    mergeplan.merge_into(model, merged)
    embedding = dict(mergeplan.stream(merged))["model.embed_tokens.weight"]
    assert torch.equal(model.lm_head.weight, embedding)


def test_what_has_no_place_is_refused_and_the_model_stays_as_it_was(tmp_path):
    model = models_of(
        tmp_path, lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    base = load_tensors(tmp_path / "base")
    changes = {
        "has no place": lambda t: t | {"model.layers.7.mlp.up_proj.weight": torch.ones(2, 2)},
        "gets nothing": lambda t: {k: v for k, v in t.items() if "layers.1" not in k},
        "shape": lambda t: t | {"model.norm.weight": torch.ones(5)},
    }
    for number, (message, change) in enumerate(changes.items()):
        folder = tmp_path / str(number)
        for name in ("base", "a", "b"):
            save_checkpoint(folder / name, change(base), model.config.to_dict())
        with pytest.raises(InputError, match=message):
            mergeplan.merge_into(model, config(folder, ["a", "b"]))
    meta = Qwen2ForCausalLM(Qwen2Config(**SIZES)).to("meta")
    with pytest.raises(InputError, match="meta device"):
        mergeplan.merge_into(meta, config(tmp_path, ["a", "b"]))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
