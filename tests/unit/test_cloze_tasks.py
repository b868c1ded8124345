"""The tool that makes cloze tasks: what its items ask for, and from where."""

import json
import random
import sys
from itertools import chain

import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.tools import cloze_tasks

WORDS = [a + b + c for a in "bdfg" for b in "aeiou" for c in "lmnrst"]


def documents(seed, count=8):
    """Texts of two hundred words, each of which is one token behind a space."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=200)) for _ in range(count)]


@pytest.fixture
def made(tmp_path, monkeypatch):
    texts = {name: documents(name) for name in ("one", "two")}
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet)
    own.train_from_iterator(chain(*texts.values()), trainer)
    PreTrainedTokenizerFast(tokenizer_object=own).save_pretrained(tmp_path / "model")
    asked = []
    for name, some in texts.items():
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": t}) + "\n" for t in some)
        )
        asked.append(f"{name}={tmp_path / name}.jsonl")
    places = [str(tmp_path / "model"), str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["cloze_tasks", *places, *asked, "--items", "20"])
    cloze_tasks.main()
    return tmp_path, texts


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_item_is_a_later_document_s_own_text_and_choices_of_one_token(made):
    folder, texts = made
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    for name, some in texts.items():
        items = lines(folder / "out" / f"{name}.jsonl")
        assert len(items) == 20
        assert {item["document"] for item in items} == {0, 1, 2, 3}
        for item in items:
            right = item["choices"][item["answer"]]
            assert item["context"] + right in some[4 + item["document"]]
            assert len(set(item["choices"])) == 10
            start = tokenizer(item["context"]).input_ids
            assert len(start) == 36
            for choice in item["choices"]:
                assert tokenizer(item["context"] + choice).input_ids[:-1] == start


def test_losses_are_of_the_earlier_documents(made):
    folder, texts = made
    for name, some in texts.items():
        found = [line["text"] for line in lines(folder / "out" / "texts" / f"{name}.jsonl")]
        assert found == [text[:200] for text in some[:4]]


def test_the_seed_alone_says_which_items(made):
    folder, _ = made
    first = (folder / "out" / "one.jsonl").read_bytes()
    cloze_tasks.main()
    assert (folder / "out" / "one.jsonl").read_bytes() == first
    sys.argv += ["--seed", "1"]
    cloze_tasks.main()
    assert (folder / "out" / "one.jsonl").read_bytes() != first


def test_the_harness_knows_the_tasks(made):
    pytest.importorskip("lm_eval")
    from mergeplan.evaluation.harness import check_tasks

    folder, _ = made
    file = folder / "out" / "two.yaml"
    assert yaml.safe_load(file.read_text())["output_type"] == "multiple_choice"
    tasks = check_tasks((str(file),))
    assert tasks.counts == {"cloze_two": 20}
    assert tasks.better == {"cloze_two": {"acc": True}}
