"""Vocabularies, chat templates and generation settings that differ between merged models."""

import json
from pathlib import Path

import pytest

from mergeplan.checkpoints.vocabulary import read_ids, token_files
from mergeplan.config.config import parse_config
from mergeplan.config.write import to_yaml
from mergeplan.errors import InputError
from mergeplan.merging.merge import merge
from mergeplan.merging.options import MergeOptions
from mergeplan.onboarding.check import check
from mergeplan.planning.vocabularies import compare_folders
from tests.support.checkpoints import save_checkpoint
from tests.support.commands import cli
from tests.support.merges import config_text, run_mergeplan

WORDS = {f"w{number}": number for number in range(8)}
CHATML = ["<|im_start|>", "<|im_end|>"]


def write_tokenizer(folder: Path, vocabulary: dict[str, int], added: dict[str, int] | None = None):
    """A tokenizer.json as the hub's; `added` are its added tokens."""
    folder.mkdir(exist_ok=True)
    tokens = [{"id": number, "content": token} for token, number in (added or {}).items()]
    data = {"added_tokens": tokens, "model": {"type": "WordLevel", "vocab": vocabulary}}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


def write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data))


def linear(folder: Path, *models: str, **top: object) -> str:
    paths = [folder / model for model in models or ("base", "a")]
    return config_text("linear", paths, base=paths[0], parameters={"weight": 1}, **top)


@pytest.fixture
def moved(small_models) -> Path:
    """`small_models`, of which `a` has the ChatML tokens of `base` in the other order."""
    write_tokenizer(small_models / "base", WORDS, dict(zip(CHATML, (8, 9), strict=True)))
    write_tokenizer(small_models / "a", WORDS, dict(zip(CHATML, (9, 8), strict=True)))
    write_tokenizer(small_models / "b", WORDS, dict(zip(CHATML, (8, 9), strict=True)))
    (small_models / "c.yml").write_text(linear(small_models))
    return small_models


# What files say, beside what transformers and sentencepiece make of them.


def test_ids_are_those_that_transformers_loads(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kinds = {
        "bpe": (models.BPE(), trainers.BpeTrainer),
        "unigram": (models.Unigram(), trainers.UnigramTrainer),
        "wordpiece": (models.WordPiece(), trainers.WordPieceTrainer),
    }
    for name, (model, trainer) in kinds.items():
        made = Tokenizer(model)
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.train_from_iterator(
            ["the cat sat on the mat"] * 4, trainer(vocab_size=40, special_tokens=["<s>"])
        )
        fast = PreTrainedTokenizerFast(tokenizer_object=made)
        fast.add_tokens(CHATML, special_tokens=True)
        fast.save_pretrained(tmp_path / name)
        files = token_files(tmp_path / name)
        loaded = AutoTokenizer.from_pretrained(tmp_path / name).get_vocab()
        assert read_ids(files, "tokenizer.json") == loaded


def test_ids_without_a_tokenizer_json_are_those_of_the_lists_and_what_was_added(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\nthe\u2028\ncat\n", "utf-8")
    write_json(tmp_path / "added_tokens.json", {"<a>": 3})
    decoder = {"4": {"content": "<b>"}, "5": "no token"}
    write_json(tmp_path / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    expected = {"[UNK]": 0, "the\u2028": 1, "cat": 2, "<a>": 3, "<b>": 4}
    assert read_ids(token_files(tmp_path), "vocab.txt") == expected
    write_json(tmp_path / "vocab.json", {"x": 0, "y": 1})
    assert read_ids(token_files(tmp_path), "vocab.json") == {"x": 0, "y": 1, "<a>": 3, "<b>": 4}
    (tmp_path / "qwen.tiktoken").write_text("IQ== 0\nIg== 1\n")
    assert read_ids(token_files(tmp_path), "qwen.tiktoken") == {"!": 0, '"': 1, "<a>": 3, "<b>": 4}


@pytest.mark.parametrize("name", ["tiktoken.model", "tokenizer.model"])
def test_ranks_of_tiktoken_may_be_called_a_model(name, tmp_path):
    (tmp_path / name).write_text("IQ== 0\nIg== 1\n")
    assert read_ids(token_files(tmp_path), name) == {"!": 0, '"': 1}


def test_pieces_are_those_of_sentencepiece(tmp_path):
    import sentencepiece

    lines = iter(["the cat sat on the mat ä€"] * 9)
    with (tmp_path / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=file, vocab_size=15, minloglevel=2
        )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    pieces = {theirs.id_to_piece(number): number for number in range(theirs.get_piece_size())}
    assert read_ids(token_files(tmp_path), "tokenizer.model") == pieces
    for name in ("spm.model", "sentencepiece.model", "source.spm", "prophetnet.tokenizer"):
        (tmp_path / name).write_bytes((tmp_path / "tokenizer.model").read_bytes())
        assert read_ids(token_files(tmp_path), name) == pieces


@pytest.mark.parametrize("content", [b"", b"no message", b"\x0a\xff\xff\xff\xff\x7f", b"\x0a"])
def test_a_model_that_is_no_sentencepiece_is_named(content, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read the vocabulary of `.*tokenizer\.model`"):
        read_ids(token_files(tmp_path), "tokenizer.model")


# One token with two ids.


def test_a_token_with_two_ids_is_refused_by_merge_and_dry_run_before_anything_is_written(moved):
    for more in ((), ("--dry-run",)):
        done = cli("merge", moved / "c.yml", moved / "out", *more)
        assert done.returncode == 1
        base, a = moved / "base", moved / "a"
        assert f"`{base}` and `{a}` give one token two ids: `<|im_start|>` 8 and 9, " in done.stderr
        assert "`<|im_end|>` 9 and 8" in done.stderr
        assert "hint: `tokenizer_source: base`" in done.stderr
        assert "--allow-vocabulary-mismatch" in done.stderr
    assert not (moved / "out").exists()
    assert not (moved / "out.partial").exists()


def test_inspect_lists_it_for_a_config_and_for_checkpoints(moved):
    for paths in ([moved / "c.yml"], [moved / "base", moved / "a"]):
        done = cli("inspect", *paths)
        assert (done.returncode, "give one token two ids" in done.stdout) == (1, True)
        done = cli("inspect", *paths, "--allow-vocabulary-mismatch")
        assert (done.returncode, "give one token two ids" in done.stderr) == (0, True)


def test_the_flag_merges_rows_as_they_stand_and_says_so(moved):
    done = cli("merge", moved / "c.yml", moved / "out", "--allow-vocabulary-mismatch")
    assert done.returncode == 0
    assert "warning: the vocabularies of" in done.stderr
    assert "merged row by row" in done.stderr
    report = merge(moved / "c.yml", moved / "two", MergeOptions(allow_vocabulary_mismatch=True))
    assert any("merged row by row" in warning for warning in report.warnings)


def test_every_file_that_lists_a_vocabulary_is_compared(tmp_path):
    for name, rows in (("base", "IQ== 0\nIg== 1\n"), ("a", "IQ== 1\nIg== 0\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tiktoken.model").write_text(rows)
    found = compare_folders({name: tmp_path / name for name in ("base", "a")})
    assert "give one token two ids: `!` 0 and 1" in found.faults[0][1].message


def test_the_first_five_are_named_by_their_ids(small_models):
    swapped = {token: 7 - number for token, number in WORDS.items()}
    write_tokenizer(small_models / "base", WORDS)
    write_tokenizer(small_models / "a", swapped)
    with pytest.raises(InputError) as caught:
        run_mergeplan(linear(small_models), small_models / "out")
    found = "`w0` 0 and 7, `w1` 1 and 6, `w2` 2 and 5, `w3` 3 and 4, `w4` 4 and 3, and 3 more"
    assert found in caught.value.message


def test_two_experts_that_give_a_token_two_ids_are_refused_where_the_base_lacks_it(small_models):
    write_tokenizer(small_models / "base", WORDS)
    write_tokenizer(small_models / "a", WORDS, {"<think>": 8, "</think>": 9})
    write_tokenizer(small_models / "b", WORDS, {"</think>": 8, "<think>": 9})
    with pytest.raises(InputError, match="`<think>` 8 and 9") as caught:
        run_mergeplan(linear(small_models, "base", "a", "b"), small_models / "out")
    assert f"`{small_models / 'a'}` and `{small_models / 'b'}`" in caught.value.message


def test_reserved_names_with_two_ids_are_a_warning(tmp_path):
    names = ("<|reserved_special_token_2|>", "[unused7]", "<|extra_0|>")
    one = {token: number for number, token in enumerate(names, 8)}
    two = {token: number + 1 for token, number in one.items()}
    write_tokenizer(tmp_path / "base", WORDS, one)
    write_tokenizer(tmp_path / "a", WORDS, {"<|finetune_right_pad_id|>": 8} | two)
    write_tokenizer(tmp_path / "b", WORDS, {"<extra_id_0>": 7} | two)
    write_tokenizer(tmp_path / "c", {**WORDS, "<extra_id_0>": 11}, one)
    found = compare_folders({name: tmp_path / name for name in ("base", "a")})
    assert not found.faults
    assert "`<|reserved_special_token_2|>` 8 and 9, " in found.warnings[0]
    assert "reserved names alone" in found.warnings[0]
    assert "`<|finetune_right_pad_id|>` and not `<|reserved" in found.warnings[1]
    found = compare_folders({name: tmp_path / name for name in ("c", "b")})
    assert "two ids: `<extra_id_0>` 11 and 7, `<|reserved" in found.faults[0][1].message


def test_vocabularies_without_common_tokens_are_refused(small_models):
    write_tokenizer(small_models / "base", WORDS)
    write_tokenizer(small_models / "a", {f"v{number}": number for number in range(8)})
    with pytest.raises(InputError, match="have 0 of 8 tokens in common"):
        run_mergeplan(linear(small_models), small_models / "out")


def test_an_adapters_own_tokenizer_is_compared_with_its_base(small_models):
    import torch
    from safetensors.torch import save_file

    base = save_checkpoint(small_models / "lora-base", {"x.weight": torch.ones(4, 3)})
    adapter = write_tokenizer(small_models / "adapter", WORDS, {"<think>": 9})
    write_tokenizer(base, WORDS, {"<think>": 8})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": str(base)}
    write_json(adapter / "adapter_config.json", config)
    factors = {"A": torch.ones(2, 3), "B": torch.ones(4, 2)}
    keys = {f"base_model.model.x.lora_{name}.weight": value for name, value in factors.items()}
    save_file(keys, adapter / "adapter_model.safetensors")
    config = {"merge_method": "passthrough", "models": [{"model": f"{base}+{adapter}"}]}
    with pytest.raises(InputError, match="`<think>` 8 and 9"):
        merge(config, small_models / "out")


def test_check_tells_each_expert_with_two_ids_beside_the_other_faults(moved):
    sizes = [{"base": "base", "experts": {"a": "a", "b": "b"}}]
    write_json(moved / "pool.yml", {"sizes": sizes, "data": {"t": "gone.jsonl"}, "zzz": 1})
    said = [(one.line, one.message) for one in check(moved / "pool.yml").faults]
    for words in ("`zzz`", "`sizes[0].experts.a`: the vocabularies of", "`data.t`"):
        assert any(words in message for _, message in said), words
    assert all(line == 1 for line, _ in said)


@pytest.mark.parametrize("command", ["sample", "calibrate"])
def test_a_pool_with_two_ids_is_refused(command, moved):
    experts = {"a": "a", "b": "b"}
    pool = {"sizes": [{"base": "base", "experts": experts}], "data": {"t": "t.jsonl"}}
    write_json(moved / "t.jsonl", {"text": "w1 w2"})
    write_json(moved / "pool.yml", pool)
    done = cli(command, moved / "pool.yml", "-o", moved / "out")
    assert done.returncode == 1
    assert "`base` and `a` give one token two ids: `<|im_start|>` 8 and 9" in done.stderr
    assert "--allow-vocabulary-mismatch" in done.stderr
    assert not (moved / "out").exists()
    if command == "sample":
        done = cli(command, moved / "pool.yml", "-o", moved / "out", "--allow-vocabulary-mismatch")
        assert (done.returncode, "merged row by row" in done.stderr) == (0, True)


# What is no mismatch.


def test_with_a_tokenizer_of_the_config_nothing_is_compared(moved):
    from mergeplan.checkpoints.opening import open_checkpoint
    from mergeplan.planning.vocabularies import compare_vocabularies

    models = [open_checkpoint(str(moved / name)) for name in ("base", "a")]
    for option in ({"tokenizer_source": "base"}, {"tokenizer": {"pad_to_multiple_of": 8}}):
        config = parse_config(linear(moved, **option))
        assert not compare_vocabularies(config, models, models[0].name).faults
    config = parse_config(linear(moved, chat_template="auto"))
    assert compare_vocabularies(config, models, models[0].name).faults


def test_layers_in_between_may_come_from_a_model_with_other_tokens(tmp_path):
    import torch

    layers = {f"model.layers.{i}.mlp.up_proj.weight": torch.ones(2, 2) for i in range(3)}
    ends = {"model.embed_tokens.weight": torch.ones(8, 2), "lm_head.weight": torch.ones(8, 2)}
    for name, first in (("base", 0), ("a", 1)):
        model = {"model_type": "llama", "num_hidden_layers": 3}
        save_checkpoint(tmp_path / name, {**layers, **ends}, model)
        numbers = {word: (number + first) % 8 for word, number in WORDS.items()}
        write_tokenizer(tmp_path / name, numbers)

    def merged(*order: str) -> None:
        slices = [
            {"sources": [{"model": str(tmp_path / name), "layer_range": [i, i + 1]}]}
            for i, name in enumerate(order)
        ]
        text = to_yaml({"merge_method": "passthrough", "slices": slices})
        run_mergeplan(text, tmp_path / "-".join(order))

    merged("base", "a", "base")
    with pytest.raises(InputError, match="give one token two ids"):
        merged("base", "base", "a")


def test_tokens_that_not_all_have_and_renamed_ones_are_warnings(small_models):
    write_tokenizer(small_models / "base", {**WORDS, "<|reserved|>": 8}, {"<pad>": 9})
    write_tokenizer(small_models / "a", {**WORDS, "<|im_end|>": 8}, {"<think>": 10})
    report = run_mergeplan(linear(small_models), small_models / "out")
    base, a = small_models / "base", small_models / "a"
    gets = f"the output gets the tokenizer of `{base}`"
    assert report.warnings[:3] == (
        f"`{a}` has other tokens than `{base}` at 1 ids, the first 8, which is `<|im_end|>` and not"
        f" `<|reserved|>`: {gets}",
        f"`{a}` has 1 tokens that `{base}` lacks, the first `<think>`: {gets}, without them",
        f"`{a}` lacks 1 tokens of `{base}`, the first `<pad>`: their rows are merged with rows that"
        f" mean nothing in `{a}`",
    )


def test_one_vocabulary_in_two_forms_is_no_difference(tmp_path):
    write_tokenizer(tmp_path / "base", WORDS, {"<think>": 8})
    write_json(write_tokenizer(tmp_path / "a", WORDS) / "added_tokens.json", {"<think>": 8})
    (tmp_path / "b").mkdir()
    write_json(tmp_path / "b" / "vocab.json", WORDS)
    decoder = {"added_tokens_decoder": {"8": {"content": "<think>"}}}
    write_json(tmp_path / "b" / "tokenizer_config.json", decoder)
    (tmp_path / "none").mkdir()
    found = compare_folders({name: tmp_path / name for name in ("base", "a", "b", "none")})
    assert not found.faults
    assert not found.warnings


def test_what_cannot_be_compared_is_a_warning_unless_the_bytes_are_equal(tmp_path):
    for name, content in (("base", "{"), ("a", "{"), ("b", '{"model": {}}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(content)
    (tmp_path / "c").mkdir()
    write_json(tmp_path / "c" / "vocab.json", WORDS)
    found = compare_folders({name: tmp_path / name for name in ("base", "a", "b", "c")})
    assert not found.faults
    assert "`base` and `b`" in found.warnings[0]
    assert "`base` and `c`" in found.warnings[1]
    (tmp_path / "e").mkdir()
    write_json(tmp_path / "e" / "tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer"})
    found = compare_folders({name: tmp_path / name for name in ("e", "c")})
    assert "`e` has `tokenizer_config.json`, and no file that is known" in found.warnings[0]
    moved = {word: number + 1 for word, number in WORDS.items()}
    write_tokenizer(tmp_path / "d", moved)
    found = compare_folders({"c": tmp_path / "c", "d": tmp_path / "d"})
    assert "one is in `vocab.json`, the other in `tokenizer.json`" in found.warnings[0]


# What the output takes from the donor.


def test_templates_ends_and_settings_that_differ_from_the_donors_are_said(small_models):
    base, a, b = (small_models / name for name in ("base", "a", "b"))
    write_json(base / "tokenizer_config.json", {"eos_token": "<|endoftext|>"})
    end = {"eos_token": {"content": "<|im_end|>"}, "chat_template": "{{ x }}"}
    write_json(a / "tokenizer_config.json", end)
    (b / "chat_template.jinja").write_text("{{ x }}")
    for folder, number in ((base, 2), (a, 5), (b, [2])):
        write_json(folder / "config.json", {"eos_token_id": number})
    write_json(base / "generation_config.json", {"top_p": 0.9, "transformers_version": "4"})
    write_json(a / "generation_config.json", {"top_p": 0.8, "transformers_version": "5"})
    write_json(b / "generation_config.json", {"top_p": 0.9, "transformers_version": "6"})
    text = linear(small_models, "base", "a", "b")
    expected = [
        f"`{base}` has no chat template, unlike `{a}`, `{b}`: the output gets none either;"
        " `chat_template: auto` in the config takes the most common one",
        f"tokenizer_config.json: `eos_token` is <|endoftext|> in `{base}` and <|im_end|> in `{a}`:"
        f" the output gets that of `{base}`",
        f"config.json: `eos_token_id` is 2 in `{base}` and 5 in `{a}`: the output gets that of"
        f" `{base}`",
        f"generation_config.json of `{a}` is not that of `{base}`, in `top_p`: the output gets that"
        f" of `{base}`",
    ]
    report = run_mergeplan(text, small_models / "out")
    assert list(report.warnings[:4]) == expected
    (small_models / "c.yml").write_text(text)
    for command in (
        ("inspect", "c.yml"),
        ("inspect", base, a, b),
        ("merge", "c.yml", "x", "--dry-run"),
    ):
        done = cli(*command, cwd=small_models)
        assert all(f"warning: {line}\n" in done.stderr for line in expected)
    (base / "chat_template.jinja").write_text("{{ y }}")
    report = run_mergeplan(text, small_models / "two")
    assert report.warnings[0].startswith(f"`{a}`, `{b}`: another chat template: the output gets")
