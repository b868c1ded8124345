"""Slopes along the experts' weights by backward passes, against central differences in float64."""

import copy
import re

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from mergeplan.errors import InputError, SurroundingsError
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.texts import Texts
from mergeplan.gradients.backward import Backward
from mergeplan.gradients.memory import Needs, holding
from mergeplan.gradients.meter import Meter
from mergeplan.merging.copies import give_weights
from mergeplan.merging.slopes import Slopes
from mergeplan.merging.streaming import Sweep
from tests.conformance.test_lora import KINDS, make_adapter, make_base
from tests.support.settings import EVAL
from tests.unit.test_streaming import SIZES, models_of

DOMAINS = ("html", "python")
WEIGHTS = (0.6, 0.3)


def sum_of(base, experts, weights=WEIGHTS, **parameters):
    models = [
        {"model": str(one), "parameters": {"weight": weight}}
        for one, weight in zip(experts, weights, strict=True)
    ]
    return {
        "merge_method": "task_arithmetic",
        "base_model": str(base),
        "models": models,
        "parameters": {"normalize": False, **parameters},
        "dtype": "float32",
        "out_dtype": "float32",
    }


def dense(tied):
    return lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))


def mixture():
    # All experts take part: which of them do is no smooth function.
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=3, num_experts_per_tok=3))


def pool_of(kind, folder):
    """A loaded base, and the config of a merge with two experts."""
    if kind == "adapters":
        base = make_base(folder / "base")
        experts = [make_adapter(base, folder / n, s, **KINDS["plain"]) for s, n in enumerate("ab")]
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return model, sum_of(base, [f"{base}+{expert}" for expert in experts])
    make = {"tied": dense(True), "untied": dense(False), "packed": mixture}[kind]
    model = models_of(folder, make)
    return model, sum_of(folder / "base", [folder / "a", folder / "b"])


def batches(n=3):
    torch.manual_seed(3)
    return [torch.randint(0, 40, (2, 7)) for _ in range(n)]


def loss(model, ids):
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def merged(model, config):
    """A copy of a model with the weights of a merge, in float64."""
    found = copy.deepcopy(model)
    give_weights(Sweep([config]), [(0, found)])
    found.set_experts_implementation("eager")  # the other one takes no float64
    return found.double()


def moved(model, towards, away, step):
    """`model` moved along what two others differ by."""
    found = copy.deepcopy(model)
    with torch.no_grad():
        parts = (dict(one.named_parameters()) for one in (towards, away))
        there, here = parts
        for name, parameter in found.named_parameters():
            parameter += step * (there[name] - here[name])
    return found


@pytest.mark.parametrize("kind", ["tied", "untied", "packed", "adapters"])
def test_slopes_are_what_central_differences_give(kind, tmp_path):
    model, config = pool_of(kind, tmp_path)
    here = merged(model, config)
    give_weights(Sweep([config]), [(0, model)])
    before = {name: one.clone() for name, one in model.named_parameters()}
    backward = Backward(model, Slopes(config))
    aims = {
        "one": [lambda ids=ids: loss(model, ids) for ids in batches()],
        "two": [lambda: loss(model, 39 - batches(1)[0])],
    }
    found = backward.run(aims, at_once=2)
    assert backward.n_reads == 1
    for expert in range(2):
        weights = np.add(WEIGHTS, np.eye(2)[expert]).tolist()
        names = [one["model"] for one in config["models"]]
        further = merged(model, sum_of(config["base_model"], names, weights))
        for name in aims:
            texts = batches() if name == "one" else [39 - batches(1)[0]]
            # Norms are computed in float32 whatever the model's dtype: no smaller steps.
            for step in (5e-3, 1e-3):
                up, down = (moved(here, further, here, s) for s in (step, -step))
                with torch.no_grad():
                    difference = sum(float(loss(up, t) - loss(down, t)) for t in texts)
                slope = found[name].sum(0)
                error = abs(slope[expert] - difference / (2 * step))
                assert error < 1e-3 * np.abs(slope).max(), (name, step, error, slope)
    for at_once, each_batch, reads in ((1, False, 2), (1, True, 4)):
        backward.n_reads = 0
        again = backward.run(aims, at_once=at_once, each_batch=each_batch)
        assert backward.n_reads == reads
        for name, slopes in found.items():
            assert np.allclose(again[name], slopes, rtol=1e-5, atol=1e-6 * np.abs(slopes).max())
    for name, one in model.named_parameters():
        assert torch.equal(one, before[name])
        assert one.grad is None


def test_what_has_no_part_in_a_loss_has_no_slope(tmp_path):
    model, config = pool_of("untied", tmp_path)
    slopes = Slopes(config)
    embedding = model.get_input_embeddings()
    steps = [lambda: embedding(torch.tensor([1, 2])).sum(), lambda: model.lm_head.weight.sum()]
    for each_batch, at_once in ((False, 1), (False, 2), (True, 1)):
        found = Backward(model, slopes).run(
            {"both": steps, "first": steps[:1]}, at_once=at_once, each_batch=each_batch
        )
        moved_by = [
            job.tensor for job, row in zip(slopes.jobs, found["both"], strict=True) if row.any()
        ]
        assert moved_by == ["lm_head.weight", "model.embed_tokens.weight"]
        assert not found["first"][0].any()
        assert np.array_equal(found["first"][1:], found["both"][1:])


def meter_of(pool, config, **options):
    model = AutoModelForCausalLM.from_pretrained(pool / "base", dtype=torch.float32)
    give_weights(Sweep([config]), [(0, model)])
    texts = Texts.prepare(
        {name: EVAL / f"{name}.jsonl" for name in DOMAINS},
        AutoTokenizer.from_pretrained(pool / "base"),
        EvaluationOptions(max_tokens=600),
    )
    return Meter(model, texts, Slopes(config), **options), model, texts


def test_a_merge_is_scored_as_it_is_without_and_its_slopes_say_how_it_moves(demo_pool):
    config = sum_of(demo_pool / "base", [demo_pool / "html", demo_pool / "python"])
    meter, model, texts = meter_of(demo_pool, config)
    assert meter.holding.n_reads == 1
    assert meter.holding.at_once == 2
    found = meter.measure()
    alone = texts.score(model)
    for name, one in alone.domains.items():
        assert np.allclose(found.scores.domains[name].nll, one.nll, rtol=1e-5)
    step = 0.05
    for expert, weights in enumerate(((0.6 + step, 0.3), (0.6, 0.3 + step))):
        names = [demo_pool / "html", demo_pool / "python"]
        further = sum_of(demo_pool / "base", names, weights)
        give_weights(Sweep([further]), [(0, model)])
        for name, estimate in texts.score(model).estimates().items():
            gain = estimate.loss_nats - alone.estimates()[name].loss_nats
            slopes = found.whole()[name]
            assert abs(gain / step - slopes[expert]) < 0.1 * np.abs(slopes).max()


def test_memory_decides_how_often_experts_are_read():
    needs = Needs(gradient=1000, largest=100, token=1, core=50, experts=10_000)
    tokens = {"a": 5000, "b": 3000, "c": 1000}
    assert holding(needs, tokens, 100, 10_000).n_reads == 1
    two = holding(needs, tokens, 100, 350 + 256 + 2000)
    assert (two.at_once, two.n_reads, two.batch_tokens) == (2, 2, 256)
    assert two.memory_bytes <= 350 + 256 + 2000
    assert two.read_bytes == 20_000
    none = holding(needs, tokens, 100, 350 + 300)
    assert none.each_batch
    assert none.batch_tokens == 300
    assert none.n_reads == 17 + 10 + 4
    with pytest.raises(SurroundingsError, match=re.escape("gradients take")):
        holding(needs, tokens, 100, 350 + 255)


def test_what_cannot_run_backward_is_refused(demo_pool):
    config = sum_of(demo_pool / "base", [demo_pool / "html", demo_pool / "python"])
    with pytest.raises(SurroundingsError, match="gradients take"):
        meter_of(demo_pool, config, memory_limit=1 << 20)
    meter, model, texts = meter_of(demo_pool, config)
    cut = model.lm_head.register_forward_hook(lambda *given: given[-1].detach())
    with pytest.raises(InputError, match="the model cannot run backward: "):
        Meter(model, texts, Slopes(config))
    cut.remove()
    model.register_parameter(
        "packed", torch.nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
    )
    with pytest.raises(InputError, match="parameter `packed` is uint8"):
        Meter(model, texts, Slopes(config))
    assert meter.holding.memory_bytes > 0
