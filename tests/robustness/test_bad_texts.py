"""Every fault of texts, models and options gives one clear error that says where."""

import json
import shutil
from pathlib import Path

import pytest

from mergeplan.errors import InputError, MissingInputError
from mergeplan.evaluation.documents import read_documents
from mergeplan.evaluation.loading import load_model, load_tokenizer
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.sources import find_data
from mergeplan.evaluation.texts import Texts
from tests.support.checkpoints import load_tensors
from tests.support.commands import cli
from tests.support.settings import DEMO_POOL

ANSWER = '{"role": "assistant", "content": "x"}'


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("", None, "is empty: expected JSON lines with `text`"),
        ("\n \n", None, "is empty"),
        ('{"text": "a"}\n{"text": ', 2, "not JSON: "),
        ('["a"]', 1, "expected a JSON object, found a list"),
        ("3", 1, "expected a JSON object, found a number"),
        ("[" * 10**5, 1, "not JSON"),
        ("{}", 1, "found no keys"),
        ('{"txet": "a", "id": 3}', 1, "found `txet`, `id`|did you mean `text`"),
        ('{"prompt": "a"}', 1, "key `response` is missing beside `prompt`"),
        ('{"prompt": "a", "respones": "b"}', 1, "`response` is missing|did you mean `respones`"),
        ('{"response": "a"}', 1, "key `prompt` is missing beside `response`"),
        ('{"text": "a", "messages": []}', 1, "keys `text`, `messages` do not go together"),
        ('{"text": "a"}\n\n{"prompt": "a", "response": "b"}', 3, "expected `text` as on the lines"),
        ('{"text": ""}', 1, "key `text` is empty"),
        ('{"text": null}', 1, "key `text`: expected a string, found null"),
        ('{"text": true}', 1, "expected a string, found a boolean"),
        ('{"text": "\\ud800"}', 1, "half a surrogate pair at character 0"),
        (
            '{"text": "a", "group": ["b"]}',
            1,
            "`group`: expected a string or a number, found a list",
        ),
        ('{"text": "a", "group": true}', 1, "expected a string or a number, found a boolean"),
        ('{"text": "a", "group": " "}', 1, "expected a string or a number, found an empty string"),
        ('{"text": "a", "group": NaN}', 1, "expected a string or a number, found nan"),
        ('{"text": "a", "group": "\\udc00"}', 1, "key `group`: expected text, found half"),
        ('{"prompt": "a", "response": ""}', 1, "key `response` is empty"),
        ('{"prompt": ["a"], "response": "b"}', 1, "key `prompt`: expected a string, found a list"),
        ('{"messages": []}', 1, "expected a list of messages, found an empty list"),
        ('{"messages": "a"}', 1, "expected a list of messages, found a string"),
        ('{"messages": ["a"]}', 1, "key `messages[0]`: expected a JSON object, found a string"),
        ('{"messages": [{"role": "user"}]}', 1, "key `messages[0].content` is missing"),
        (f'{{"messages": [{ANSWER}, {{"content": "x"}}]}}', 1, "`messages[1].role` is missing"),
        (
            '{"messages": [{"role": "assistant", "content": ""}]}',
            1,
            "key `messages[0].content` is empty",
        ),
        (
            '{"messages": [{"role": "user", "content": "x"}]}',
            1,
            "no message of role `assistant`, found `user`",
        ),
    ],
)
def test_a_line_at_fault_is_named(content, line, words, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_documents(path)
    assert str(path) in caught.value.message
    if line is not None:
        assert f"`{path}`, line {line}: " in caught.value.message
    for word in words.split("|"):
        assert word in f"{caught.value.message} {caught.value.hint}"


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(InputError, match="line 2: expected UTF-8, found byte 0xff"):
        read_documents(path)


def test_a_mark_blank_lines_crlf_and_other_keys_are_tolerated(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"text": "é\u2028", "id": 1}\r\n\r\n{"text": " "}'.encode())
    documents = read_documents(path).documents
    assert [(document.line, document.text) for document in documents] == [(1, "é\u2028"), (3, " ")]


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(MissingInputError, match="no such file"):
        read_documents(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        read_documents(tmp_path)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DEMO_POOL / "base")


def prepare(tmp_path, tokenizer, *records, options=None, context=512):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return Texts.prepare({"a": path}, tokenizer, options, context=context)


def test_texts_of_one_token_are_reported_and_left_out(tokenizer, tmp_path):
    texts = prepare(tmp_path, tokenizer, {"text": "a"}, {"text": "ab"}, {"text": "c"})
    assert texts.domains["a"].lines.tolist() == [2]
    assert [message.split(", ")[1][:6] for message in texts.left_out] == ["line 1", "line 3"]
    with pytest.raises(InputError, match="expected two tokens or more in a text"):
        prepare(tmp_path, tokenizer, {"text": "a"})


def test_conversations_without_a_template_name_file_and_line(tokenizer, tmp_path):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with pytest.raises(InputError, match=r"a\.jsonl`, line 1: `messages` need a chat template"):
        prepare(tmp_path, tokenizer, {"messages": messages})


def test_a_response_that_becomes_no_token_is_named(tmp_path):
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    own.normalizer = normalizers.Strip()
    with pytest.raises(InputError, match="line 1: the response has no tokens, 1 in all"):
        prepare(
            tmp_path,
            PreTrainedTokenizerFast(tokenizer_object=own),
            {"prompt": "a", "response": " "},
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": 513}, "`max_length`: expected at most the model's context, 512, found 513"),
        ({"max_length": 1}, "`max_length`: expected 2 or more, found 1"),
        ({"max_length": 16, "stride": 16}, "`stride`: expected 1 to 15, .* found 16"),
        ({"stride": 512}, "`stride`: expected 1 to 511, .* found 512"),
        ({"stride": 0}, "`stride`: expected 1 or more, found 0"),
        ({"max_tokens": 0}, "`max_tokens`: expected 1 or more, found 0"),
        ({"batch_tokens": -1}, "`batch_tokens`: expected 1 or more, found -1"),
    ],
)
def test_options_that_cannot_be(options, words, tokenizer, tmp_path):
    with pytest.raises(InputError, match=words):
        prepare(tmp_path, tokenizer, {"text": "ab"}, options=EvaluationOptions(**options))


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(DEMO_POOL / "base", tmp_path / "model")
    return tmp_path / "model"


def change_config(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_without_a_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(MissingInputError, match="has no tokenizer: expected a `tokenizer.json`"):
        load_tokenizer(folder)


def test_a_tokenizer_that_cannot_be_read(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="cannot read the tokenizer of"):
        load_tokenizer(folder)


def test_a_folder_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(MissingInputError, match=r"has no `config\.json`"):
        load_model(folder)


def test_an_unknown_architecture(folder):
    change_config(folder, model_type="qwen99", architectures=["Qwen99ForCausalLM"])
    with pytest.raises(InputError, match="knows no `model_type` `qwen99`") as caught:
        load_model(folder)
    assert "pip install -U transformers" in caught.value.hint


def test_code_in_a_folder_is_not_run(folder):
    (folder / "own.py").write_text("raise SystemExit('it ran')")
    auto = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    change_config(folder, model_type="own", auto_map=auto)
    with pytest.raises(InputError, match="`own`"):
        load_model(folder)


def test_a_dtype_that_is_none():
    with pytest.raises(InputError, match="`dtype`: expected auto, .* found `int8`"):
        load_model(DEMO_POOL / "base", dtype="int8")


def test_a_model_that_is_no_language_model(folder):
    change_config(folder, model_type="vit", architectures=["ViTModel"])
    with pytest.raises(InputError, match="`vit` is no causal language model"):
        load_model(folder)


def test_weights_that_are_missing_are_never_drawn_at_random(folder):
    from safetensors.torch import save_file

    tensors = load_tensors(folder)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"missing .* 1 in all, .*`model.layers.1.mlp.up_proj"):
        load_model(folder)


def test_weights_of_another_shape(folder):
    change_config(folder, intermediate_size=64)
    with pytest.raises(InputError, match=r"of another shape .* 6 in all, such as `model\.layers"):
        load_model(folder)


def test_settings_that_a_known_architecture_refuses(folder):
    change_config(folder, num_hidden_layers=5)
    with pytest.raises(InputError, match=r"refuses it: .*`num_hidden_layers` \(5\)") as caught:
        load_model(folder)
    assert caught.value.hint is None


def test_a_hub_id_and_a_missing_folder():
    with pytest.raises(MissingInputError, match="is not a folder") as caught:
        load_model(Path("someone/model"))
    assert "hf download someone/model" in caught.value.hint


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["no.jsonl.gz"], "data `.*no.jsonl.gz` is not there"),
        (["a.txt"], "expected a file ending in .jsonl"),
        (["empty"], "holds no .jsonl files"),
        (["x=", "a.txt"], "expected `name=file`"),
        (["one.jsonl", "again=one.jsonl", "one=one.jsonl"], "domain `one` is both"),
        (["macro=one.jsonl"], "the name is that of the mean over domains"),
        (["pool.yml"], "has no `data`"),
        (["none.yml"], "no such file"),
    ],
)
def test_data_that_cannot_be_found(sources, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "one.jsonl").write_text('{"text": "ab"}')
    (tmp_path / "pool.yml").write_text("sizes: [{base: b, experts: {x: x}}]")
    with pytest.raises(InputError, match=words):
        find_data(tuple(sources))


def test_a_user_sees_one_error_and_no_traceback(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "ab"}\n{"txt": "ab"}\n')
    run = cli("evaluate", DEMO_POOL / "base", "--data", tmp_path / "a.jsonl")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.splitlines() == [
        f"error: `{tmp_path}/a.jsonl`, line 2: expected `text`, `prompt` and `response`, or"
        " `messages`, found `txt`",
        "",
        "hint: did you mean `text`?",
    ]
