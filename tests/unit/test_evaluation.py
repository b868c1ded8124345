"""Losses against plain loops in transformers, which share no code with the package."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from mergeplan.errors import InputError
from mergeplan.evaluation.documents import read_documents
from mergeplan.evaluation.evaluate import evaluate_fully
from mergeplan.evaluation.hashes import texts_sha256
from mergeplan.evaluation.options import BY_DOCUMENT, EvaluationOptions
from mergeplan.evaluation.scores import Scores, documents_csv
from mergeplan.evaluation.texts import Texts
from tests.support.settings import DEMO_POOL, EVAL
from tests.support.shares import spread


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DEMO_POOL / "base")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(DEMO_POOL / "base", dtype=torch.float32).eval()


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


@torch.no_grad()
def oracle_nll(model, ids: list[int], places: list[int], context: int | None = None) -> float:
    """Sum of -ln p over some tokens, each with all before it, or only `context` of them."""
    total = 0.0
    for place in places:
        start = 0 if context is None else max(0, place - context)
        logits = model(input_ids=torch.tensor([ids[start:place]])).logits[0, -1].double()
        total -= torch.log_softmax(logits, 0)[ids[place]].item()
    return total


def test_domains_and_means_agree_with_a_plain_loop(model, tokenizer):
    data = {path.stem: path for path in sorted(EVAL.glob("*.jsonl"))}
    losses, sums, counts = [], 0.0, 0
    for path in data.values():
        nll, n_tokens = 0.0, 0
        for line in path.read_text("utf-8").splitlines():
            ids = torch.tensor([tokenizer(json.loads(line)["text"])["input_ids"]])
            with torch.no_grad():
                loss = model(input_ids=ids, labels=ids).loss.item()
            nll += loss * (ids.shape[1] - 1)
            n_tokens += ids.shape[1] - 1
        losses.append(nll / n_tokens)
        sums, counts = sums + nll, counts + n_tokens
    texts = Texts.prepare(data, tokenizer)
    scores = texts.score(model)
    found = [estimate.loss_nats for estimate in scores.estimates().values()]
    assert np.allclose(found, losses, rtol=0, atol=1e-6)
    assert scores.macro().loss_nats == pytest.approx(np.mean(losses), abs=1e-6)
    assert scores.token_weighted().loss_nats == pytest.approx(sums / counts, abs=1e-6)
    assert texts.n_tokens == scores.macro().n_tokens == counts


def test_the_bundled_measurements_are_reproduced(model, tokenizer):
    data = {path.stem: path for path in EVAL.glob("*.jsonl")}
    rows = (DEMO_POOL / "measurements.csv").read_text().splitlines()
    base = next(row for row in rows if row.startswith("average,{},80592,0,,macro,"))
    macro = Texts.prepare(data, tokenizer).score(model).macro().loss_nats
    assert macro == pytest.approx(float(base.split(",")[-1]), abs=2e-6)


@pytest.mark.parametrize(("max_length", "stride"), [(16, 8), (16, 1), (16, 15), (50, 20), (2, 1)])
def test_windows_of_a_long_text_agree_with_a_loop_over_tokens(
    max_length, stride, model, tokenizer, tmp_path
):
    text = "def merge(base, experts):\n    return base + sum(experts)\n"
    path = write(tmp_path / "a.jsonl", [{"text": text}, {"text": "short"}])
    options = EvaluationOptions(max_length=max_length, stride=stride)
    texts = Texts.prepare({"a": path}, tokenizer, options)
    found = texts.score(model).domains["a"].nll
    for nll, line in zip(found, [text, "short"], strict=True):
        ids = tokenizer(line)["input_ids"]
        expected = 0.0
        for place in range(1, len(ids)):
            # The first window begins with the text; each one after it begins `stride` tokens
            # before its first scored one, and scores max_length - stride of them.
            context = place
            if place >= max_length:
                context = stride + (place - max_length) % (max_length - stride)
            expected += oracle_nll(model, ids, [place], context)
        assert nll == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_tokens", spread([1, 40, 129, 1000, 10**6], 2))
def test_losses_do_not_depend_on_the_batch(batch_tokens, model, tokenizer, tmp_path):
    texts = [{"text": "x = " + "1 + " * n + "1"} for n in (0, 1, 2, 5, 9, 20, 40, 41)]
    records = [texts[n] for n in (3, 0, 7, 1, 6, 2, 5, 4)]
    path = write(tmp_path / "a.jsonl", records)
    alone = []
    for record in records:
        ids = tokenizer(record["text"])["input_ids"]
        alone.append(oracle_nll(model, ids, list(range(1, len(ids)))))
    options = EvaluationOptions(batch_tokens=batch_tokens)
    found = Texts.prepare({"a": path}, tokenizer, options).score(model).domains["a"].nll
    assert np.allclose(found, alone, rtol=1e-5)


def test_logits_in_pieces_give_the_same_losses(model, tokenizer, monkeypatch):
    from mergeplan.evaluation import scoring

    texts = Texts.prepare({"json": EVAL / "json.jsonl"}, tokenizer)
    whole = texts.score(model).domains["json"].nll
    monkeypatch.setattr(scoring, "_FLOAT32_AT_ONCE", 258 * 7)
    assert np.allclose(texts.score(model).domains["json"].nll, whole, rtol=1e-6)


def test_only_the_response_is_scored(model, tokenizer, tmp_path):
    records = [
        {"prompt": "Q: what is 1 + 1?\nA:", "response": " 2"},
        {"prompt": "é", "response": "ééé"},
        {"prompt": "", "response": "alone"},
        {"prompt": "long " * 30, "response": "end"},
    ]
    path = write(tmp_path / "a.jsonl", records)
    texts = Texts.prepare({"a": path}, tokenizer)
    expected, counts = [], []
    for record in records:
        before = len(record["prompt"].encode())  # one token is one byte here
        ids = tokenizer(record["prompt"] + record["response"])["input_ids"]
        places = list(range(max(1, before), len(ids)))
        counts.append(len(places))
        expected.append(oracle_nll(model, ids, places))
    scores = texts.score(model).domains["a"]
    assert scores.n_tokens.tolist() == counts == [2, 6, 4, 3]
    assert np.allclose(scores.nll, expected, rtol=1e-5)


def test_a_response_far_behind_its_prompt_is_scored_after_the_end_of_the_prompt(
    model, tokenizer, tmp_path
):
    record = {"prompt": "a long prompt " * 5, "response": "yes"}
    path = write(tmp_path / "a.jsonl", [record])
    options = EvaluationOptions(max_length=20, stride=10)
    scores = Texts.prepare({"a": path}, tokenizer, options).score(model).domains["a"]
    ids = tokenizer(record["prompt"] + record["response"])["input_ids"]
    # 70 tokens before it: windows score up to 20, 30, ..., the last one is [60, 73).
    expected = sum(oracle_nll(model, ids, [place], place - 60) for place in (70, 71, 72))
    assert scores.n_tokens.tolist() == [3]
    assert scores.nll[0] == pytest.approx(expected, rel=1e-5)


def bpe(*, begins: bool = False, ends: bool = False) -> PreTrainedTokenizerFast:
    """Letters, and one merge: `b` with `c`; with special tokens around a text, if wished."""
    from tokenizers import Tokenizer, models, processors

    vocabulary = {word: i for i, word in enumerate(["<s>", "</s>", *"abcd", "bc"])}
    own = Tokenizer(models.BPE(vocab=vocabulary, merges=[("b", "c")]))
    template = ("<s> " if begins else "") + "$A" + (" </s>" if ends else "")
    specials = [("<s>", 0), ("</s>", 1)]
    own.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    return PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>", eos_token="</s>")


def scored_tokens(record, tokenizer, tmp_path) -> list[str]:
    from mergeplan.evaluation.documents import read_documents
    from mergeplan.evaluation.encoding import encode

    file = read_documents(write(tmp_path / "b.jsonl", [record]))
    [[sequence]] = encode(file.documents, file.kind, tokenizer)
    return tokenizer.convert_ids_to_tokens(sequence.ids[sequence.scored].tolist())


@pytest.mark.parametrize(
    ("record", "options", "scored"),
    [
        ({"text": "abcd"}, {}, ["bc", "d"]),
        ({"text": "abcd"}, {"begins": True, "ends": True}, ["a", "bc", "d", "</s>"]),
        # The token that spans the boundary holds a character of the response.
        ({"prompt": "ab", "response": "cd"}, {}, ["bc", "d"]),
        ({"prompt": "ab", "response": "d"}, {"begins": True, "ends": True}, ["d"]),
        ({"prompt": "", "response": "da"}, {"begins": True}, ["d", "a"]),
    ],
)
def test_which_tokens_are_scored(record, options, scored, tmp_path):
    assert scored_tokens(record, bpe(**options), tmp_path) == scored


def test_a_tokenizer_without_offsets_tokenises_prompt_and_response_apart(tmp_path):
    class Slow:
        """What `encode` asks of a tokenizer written in Python."""

        is_fast = False
        fast = bpe(begins=True)

        def __call__(self, text, **options):
            assert "return_offsets_mapping" not in options
            return self.fast(text, **options)

        def convert_ids_to_tokens(self, ids):
            return self.fast.convert_ids_to_tokens(ids)

    record = {"prompt": "ab", "response": "cd"}
    assert scored_tokens(record, Slow(), tmp_path) == ["c", "d"]


def test_a_model_with_nan_is_told_and_stays_nan(model, tokenizer, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "plain"}, {"text": "with ~ in it"}])
    broken = AutoModelForCausalLM.from_pretrained(DEMO_POOL / "base", dtype=torch.float32)
    with torch.no_grad():
        broken.get_input_embeddings().weight[ord("~")] = float("nan")
    scores = Texts.prepare({"a": path}, tokenizer).score(broken)
    assert np.isfinite(scores.domains["a"].nll).tolist() == [True, False]
    assert np.isnan(scores.macro().loss_nats)
    assert scores.faults() == [
        "domain `a`: the score of 1 of 2 documents is not finite, the first on line 2"
    ]


def test_padding_brings_no_token_that_a_text_does_not_have(tokenizer, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "a" * n} for n in (3, 9, 4, 7)])
    texts = Texts.prepare({"a": path}, tokenizer)
    broken = AutoModelForCausalLM.from_pretrained(DEMO_POOL / "base", dtype=torch.float32)
    whole = texts.score(broken)
    with torch.no_grad():
        weight = broken.get_input_embeddings().weight
        weight[[i for i in range(len(weight)) if i != ord("a")]] = float("nan")
    assert texts.score(broken).domains["a"].nll.tolist() == whole.domains["a"].nll.tolist()


def test_bfloat16_is_near_float32(model, tokenizer):
    texts = Texts.prepare({"json": EVAL / "json.jsonl"}, tokenizer)
    half = AutoModelForCausalLM.from_pretrained(DEMO_POOL / "base", dtype=torch.bfloat16)
    near, exact = texts.score(half).macro().loss_nats, texts.score(model).macro().loss_nats
    assert near != exact
    assert near == pytest.approx(exact, rel=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(model, tokenizer):
    texts = Texts.prepare({"json": EVAL / "json.jsonl"}, tokenizer)
    on_cpu = texts.score(model).domains["json"].nll
    there = AutoModelForCausalLM.from_pretrained(DEMO_POOL / "base", dtype=torch.float32)
    assert np.allclose(texts.score(there.to("cuda")).domains["json"].nll, on_cpu, rtol=1e-4)


def test_a_model_in_training_is_scored_without_dropout_and_left_in_training(model, tokenizer):
    texts = Texts.prepare({"json": EVAL / "json.jsonl"}, tokenizer)
    training = AutoModelForCausalLM.from_pretrained(
        DEMO_POOL / "base", dtype=torch.float32, attention_dropout=0.5
    ).train()
    assert texts.score(training).macro() == texts.score(model).macro()
    assert training.training


def test_texts_refuse_a_model_that_they_were_not_made_for(model, tokenizer, tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    path = write(tmp_path / "a.jsonl", [{"text": "letters " * 10}])
    texts = Texts.prepare({"a": path}, tokenizer)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    small = Qwen2ForCausalLM(Qwen2Config(vocab_size=100, **shape))
    with pytest.raises(InputError, match=r"token 116, the model's vocabulary has 100"):
        texts.score(small)
    narrow = Qwen2ForCausalLM(Qwen2Config(vocab_size=258, max_position_embeddings=64, **shape))
    with pytest.raises(InputError, match=r"up to 80 tokens, the model takes 64"):
        texts.score(narrow)


def test_progress_ends_with_every_token(model, tokenizer):
    texts = Texts.prepare({"json": EVAL / "json.jsonl"}, tokenizer)
    seen = []
    texts.score(model, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (texts.n_tokens, texts.n_tokens)
    assert seen == sorted(seen)


# Choosing documents, and noticing changes.


def chosen_texts(path, tokenizer, **options) -> set[str]:
    texts = Texts.prepare({"a": path}, tokenizer, EvaluationOptions(**options))
    lines = path.read_text().splitlines()
    return {json.loads(lines[line - 1])["text"] for line in texts.domains["a"].lines}


def test_max_tokens_chooses_whole_documents_by_content(tokenizer, tmp_path):
    records = [{"text": f"document {n:03}"} for n in range(100)]  # 11 scored tokens each
    path = write(tmp_path / "a.jsonl", records)
    first = chosen_texts(path, tokenizer, max_tokens=200)
    assert len(first) == 18
    assert chosen_texts(path, tokenizer, max_tokens=200, seed=1) != first
    assert chosen_texts(path, tokenizer, max_tokens=400) > first
    write(path, records[::-1])
    assert chosen_texts(path, tokenizer, max_tokens=200) == first
    # A tenth more documents: most of the choice stays.
    write(path, [*records, *({"text": f"addition {n:03}"} for n in range(10))])
    assert len(chosen_texts(path, tokenizer, max_tokens=200) & first) >= 12


def test_one_document_is_chosen_even_where_it_is_too_long(tokenizer, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "far too long"}])
    assert len(chosen_texts(path, tokenizer, max_tokens=1)) == 1


def test_scores_know_the_groups_of_their_documents(model, tokenizer, tmp_path):
    texts = [{"text": f"document {n}"} for n in range(4)]
    grouped = [{**text, "group": group} for text, group in zip(texts, "aab", strict=False)]
    data = {
        "some": write(tmp_path / "some.jsonl", [*grouped, texts[3]]),
        "none": write(tmp_path / "none.jsonl", texts),
    }
    scores = Texts.prepare(data, tokenizer).score(model)
    some = scores.domains["some"]
    assert some.groups == ("a", "a", "b", None)
    assert scores.domains["none"].groups == ()
    assert documents_csv(scores).splitlines()[0] == "domain,line,n_tokens,nll,group"
    assert [row.split(",")[-1] for row in documents_csv(scores).splitlines()[1:]] == [
        *("a", "a", "b", ""),
        *("", "", "", ""),
    ]
    assert Scores.from_data(scores.to_data()).domains["some"].groups == some.groups
    # Three groups: by hand.
    nll, n_tokens = ([array[:2].sum(), array[2], array[3]] for array in (some.nll, some.n_tokens))
    residuals = np.array(nll) - sum(nll) / sum(n_tokens) * np.array(n_tokens)
    expected = np.sqrt(3 / 2 * (residuals**2).sum()) / sum(n_tokens)
    assert some.estimate().se == pytest.approx(expected)


def test_halves_by_group_have_another_hash_and_whole_texts_have_not(tokenizer, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": f"document {n}", "group": n} for n in range(40)])
    read = read_documents(path)
    by_group = [one.line for one in read.documents if one.half == "check"]
    texts = Texts.prepare({"a": path}, tokenizer, EvaluationOptions(half="check"))
    assert texts.domains["a"].lines.tolist() == by_group
    for half, changes in (("all", False), ("check", True)):
        options = EvaluationOptions(half=half)
        by_document = texts_sha256({"a": read}, tokenizer, options.deciding(128, BY_DOCUMENT))
        found = Texts.prepare({"a": path}, tokenizer, options, context=128).sha256
        assert (found != by_document) == changes


def test_one_half_is_scored_with_a_word_on_what_ties_it_to_the_other(tmp_path):
    words = "a text of some length that stands in the file twice"
    records = [{"text": f"{words}, {n} {'.' * n}"} for n in range(12)]
    data = {"a": write(tmp_path / "a.jsonl", records)}
    found = evaluate_fully(DEMO_POOL / "base", data, EvaluationOptions(half="check"))
    assert len(found.warnings) == 2
    assert "nearly the same: `" in found.warnings[0]
    assert "no document has a `group`" in found.warnings[1]
    assert found.data()["warnings"] == list(found.warnings)
    assert evaluate_fully(DEMO_POOL / "base", data).warnings == ()
    one_group = [{**record, "group": 1} for record in records]
    half = read_documents(write(tmp_path / "a.jsonl", one_group)).documents[0].half
    found = evaluate_fully(DEMO_POOL / "base", data, EvaluationOptions(half=half))
    assert found.warnings == ()


def test_the_hash_tells_what_was_scored(tokenizer, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "two"}])

    def sha256(tokenizer=tokenizer, name="a", **options):
        return Texts.prepare({name: path}, tokenizer, EvaluationOptions(**options)).sha256

    first = sha256()
    assert sha256() == first
    assert sha256(batch_tokens=7) == first  # rounding only
    others = [sha256(seed=1), sha256(max_tokens=3), sha256(max_length=99), sha256(stride=7)]
    other = AutoTokenizer.from_pretrained(DEMO_POOL / "base")
    other.add_tokens(["tw"])
    others += [sha256(other), sha256(name="b")]
    write(path, [{"text": "one"}, {"text": "twO"}])
    others.append(sha256())
    assert len({first, *others}) == 8


def test_evaluate_loads_scores_and_names_no_torch_type(tmp_path):
    import mergeplan

    scores = mergeplan.evaluate(DEMO_POOL / "html", {"html": EVAL / "html.jsonl"}, device="cpu")
    base = mergeplan.evaluate(DEMO_POOL / "base", {"html": EVAL / "html.jsonl"}, device="cpu")
    assert scores.macro().loss_nats < base.macro().loss_nats
