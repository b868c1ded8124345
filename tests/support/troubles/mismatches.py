"""Models that do not fit each other, and values that are no numbers."""

import json

import torch

from tests.support.commands import Done
from tests.support.troubles.bench import CONFIG, Bench, produces

NORM, HEAD = "model.norm.weight", "lm_head.weight"


@produces("`FILE`: tensor `TENSOR`: expected shape […] as in `NAME`, found […]")
def longer_vocabulary(bench: Bench) -> Done:
    bench.tensors(lambda t: t.update({HEAD: torch.cat([t[HEAD], t[HEAD][:8]])}))
    return bench.merge()


@produces("model `NAME`: tensor `TENSOR` is missing, which `NAME` has")
def fewer_tensors(bench: Bench) -> Done:
    bench.tensors(lambda t: t.pop(NORM))
    return bench.merge()


@produces("model `NAME`: tensor `TENSOR` is one that `NAME` lacks")
def more_tensors(bench: Bench) -> Done:
    bench.tensors(lambda t: t.update({"value_head": torch.ones(3)}))
    return bench.merge()


@produces("the vocabularies of `NAME` and `NAME` give one token two ids: …")
def other_ids(bench: Bench) -> Done:
    path = bench.folder / "b" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    ids = tokenizer["model"]["vocab"]
    one, other = list(ids)[:2]
    ids[one], ids[other] = ids[other], ids[one]
    path.write_text(json.dumps(tokenizer))
    return bench.merge()


@produces("`FILE`: tensor `TENSOR`: element N is NaN, not a finite `DTYPE`")
def no_number(bench: Bench) -> Done:
    bench.tensors(lambda t: t[NORM].fill_(float("nan")))
    return bench.merge()


@produces("output tensor `TENSOR`: element N is not finite in `DTYPE`")
def too_large(bench: Bench) -> Done:
    bench.tensors(lambda t: t[NORM].fill_(1e20))
    return bench.merge(text=f"{CONFIG}dtype: float32\nout_dtype: float16\n")


@produces("`FOLDER` and `FOLDER` have different tokenizers")
def other_tokens(bench: Bench) -> Done:
    other_ids(bench)
    (bench.folder / "texts.jsonl").write_text('{"text": "a few words"}\n')
    return bench.run("compare", "a", "b", "--data", "texts.jsonl")


def evaluate(bench: Bench) -> Done:
    """Score `b` on a few words."""
    (bench.folder / "texts.jsonl").write_text('{"text": "a few words"}\n')
    return bench.run("evaluate", "b", "--data", "texts.jsonl")


@produces("model `NAME` has no tokenizer: expected a `tokenizer.json` or another vocabulary")
def no_tokenizer(bench: Bench) -> Done:
    for path in (bench.folder / "b").glob("tokenizer*"):
        path.unlink()
    return evaluate(bench)


@produces(
    "model `NAME`: `config.json` asks for tensors that are … in the checkpoint, N in all, such as …"
)
def other_settings(bench: Bench) -> Done:
    bench.settings("config.json", intermediate_size=64)
    return evaluate(bench)
