"""Configs that cannot be run."""

from tests.support.commands import Done
from tests.support.troubles.bench import CONFIG, Bench, produces


@produces("unknown key `KEY`")
def misspelled(bench: Bench) -> Done:
    return bench.edit("models:", "modles:")


@produces("`merge_method`: unknown method `NAME`")
def no_method(bench: Bench) -> Done:
    return bench.edit("ties", "tise")


@produces("invalid YAML: line N, column N: …")
def tab(bench: Bench) -> Done:
    return bench.merge(text=CONFIG + "\tdtype: float32\n")


@produces("`METHOD` needs a `base_model`")
def no_base(bench: Bench) -> Done:
    return bench.edit("base_model: base\n", "")


@produces("`OPTION` is missing for model `NAME`, tensor `TENSOR`…")
def no_weight(bench: Bench) -> Done:
    return bench.edit("weight: 1, ", "")


@produces("`parameters.density`: expected a number from 0 to 1, found …")
def per_cent(bench: Bench) -> Done:
    return bench.edit("0.5", "20")


@produces("`dtype`: cannot merge in `NAME`")
def no_dtype(bench: Bench) -> Done:
    return bench.merge(text=f"{CONFIG}dtype: bf16\n")


@produces("the config is one of a mixture of experts: it has `experts`")
def mixture(bench: Bench) -> Done:
    return bench.merge(text="base_model: a\nexperts: [{source_model: b, positive_prompts: [x]}]\n")
