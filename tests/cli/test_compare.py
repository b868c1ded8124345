"""`mergeplan compare` as a user meets it, and what it may claim."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mergeplan
from mergeplan.evaluation.columns import columns_of
from mergeplan.evaluation.compare import short_names
from mergeplan.evaluation.comparison import Comparison
from mergeplan.evaluation.completions import Completion
from mergeplan.evaluation.evaluate import Evaluation
from mergeplan.evaluation.prompts import Prompt
from mergeplan.evaluation.scores import DomainScores, Scores, TaskScore
from tests.support.commands import cli
from tests.support.settings import DEMO_POOL, EVAL, ROOT

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCORER = ROOT / "examples" / "scorers" / "next_tokens.py"
BASE, HTML, MD = (DEMO_POOL / name for name in ("base", "html", "md"))


def with_template(folder: Path, template: str) -> Path:
    shutil.copytree(BASE, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_table_in_three_forms_with_marks_where_the_pairs_say_so(tmp_path):
    data = ["--data", EVAL / "html.jsonl", "--data", EVAL / "md.jsonl", "--max-tokens", 1500]
    run = cli("compare", BASE, HTML, MD, *data, "-q")
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[0].split() == ["model", "html", "md", "macro"]
    assert [line.split()[0] for line in lines[1:4]] == ["base", "html", "md"]
    # Each expert is best at its own, and the mean of both tells nobody apart.
    assert [line.count("*") for line in lines[1:4]] == [0, 1, 1]
    assert "lower is better: loss_nats" in run.stdout

    page = cli("compare", BASE, HTML, MD, *data, "--format", "markdown").stdout.splitlines()
    assert page[:2] == ["| model | html | md | macro |", "| --- | ---: | ---: | ---: |"]
    assert [line.count("**") for line in page[2:5]] == [0, 2, 2]
    assert page[3].split("|")[2].strip().startswith("**")


def test_the_table_has_what_evaluate_finds_of_each_pair():
    data = ["--data", EVAL / "html.jsonl", "--data", EVAL / "md.jsonl", "--max-tokens", 1000]
    run = cli("compare", BASE, HTML, *data, "--format", "csv")
    told = list(csv.DictReader(io.StringIO(run.stdout)))
    assert len(told) == 6
    alone = mergeplan.evaluate_fully(
        HTML,
        {"html": EVAL / "html.jsonl", "md": EVAL / "md.jsonl"},
        mergeplan.EvaluationOptions(max_tokens=1000),
        against=BASE,
    ).records()[0]
    row = next(one for one in told if (one["model"], one["domain"]) == ("html", "html"))
    assert (float(row["value"]), float(row["se"])) == (alone["value"], alone["se"])
    assert (row["best"], row["separated"], row["difference"]) == ("true", "true", "")
    row = next(one for one in told if (one["model"], one["domain"]) == ("base", "html"))
    assert float(row["difference"]) == -alone["difference"]
    reach = (float(row["difference_high"]) - float(row["difference_low"])) / 2
    assert 1.6448 * alone["difference_se"] < reach < 2.2 * alone["difference_se"]


def scored(*losses: list[float], tasks: tuple[TaskScore, ...] = (), groups=()) -> Evaluation:
    """A model's losses of documents of ten tokens, of each domain."""
    domains = {
        f"d{n}": DomainScores(
            np.arange(1, len(own) + 1), np.full(len(own), 10), np.array(own) * 10.0, groups
        )
        for n, own in enumerate(losses)
    }
    return Evaluation(Scores(domains), None, tasks, "", ())


def test_a_best_is_told_apart_only_from_every_other_model():
    spread = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    wobble = np.array([0.3, -0.3, 0.3, -0.3, 0.3, -0.3])
    ours = scored(list(spread))
    behind, near = scored(list(spread + 1 + wobble)), scored(list(spread + 0.01 + wobble))
    [column, macro] = columns_of([ours, behind])
    # The documents differ by far more than the models, which their pairs do not.
    assert (column.best, column.separated, column.values[0].se > 0.6) == (0, True, True)
    assert macro.separated
    assert column.interval(1)[0] > 0
    [column, _] = columns_of([behind, ours, near])
    assert (column.best, column.separated) == (1, False)
    assert column.interval(0)[0] > 0 > column.interval(2)[0]
    [column, _] = columns_of([ours, ours])
    assert column.separated is False
    [column, _] = columns_of([scored([math.nan, *spread[1:]]), ours])
    assert (column.best, column.separated) == (1, False)


def test_few_groups_tell_nothing_apart_and_that_is_said():
    ours, theirs = [1.0] * 6, [2.0, 2.1] * 3
    few = tuple("aabbcd")
    found = [scored(ours, groups=few), scored(theirs, groups=few)]
    columns = columns_of(found)
    assert [column.n_groups for column in columns] == [4, 4]
    assert not any(column.separated for column in columns)
    five = [scored(ours, groups=tuple("aabcde")), scored(theirs, groups=tuple("aabcde"))]
    assert all(column.separated for column in columns_of(five))
    # A mean is no surer than the domain of which least is known.
    mixed = [scored(ours, one[:4]) for one in (ours, theirs)]
    assert [column.n_groups for column in columns_of(mixed)] == [6, 4, 4]
    text = Comparison(("a", "b"), tuple(columns), (), (), "", (), ()).summary()
    assert "of fewer than 5 documents or groups, which tell nothing apart: `d0`, `macro`" in text
    assert "no model is told apart" in text


def test_tasks_are_columns_with_their_own_direction():
    def task(*items: float, better="higher") -> tuple[TaskScore, ...]:
        return (TaskScore("quiz", "acc", float(np.mean(items)), 0.1, better, len(items), items),)

    losses = [1.0, 2.0] * 3
    good, bad = task(*[1.0] * 19, 0.0), task(*[0.0] * 10, *[1.0] * 9, 0.0)
    [*_, quiz] = columns_of([scored(losses, tasks=bad), scored(losses, tasks=good)])
    assert (quiz.name, quiz.best, quiz.separated) == ("quiz", 1, True)
    # One item more is no proof, though no other differs.
    near = task(*[1.0] * 18, 0.0, 0.0)
    assert not columns_of([scored(losses, tasks=near), scored(losses, tasks=good)])[-1].separated
    unknown = [scored(losses, tasks=task(*items, better="")) for items in ([1.0] * 6, [0.0] * 6)]
    assert (columns_of(unknown)[-1].best, columns_of(unknown)[-1].separated) == (None, False)
    text = Comparison(("a", "b"), tuple(columns_of(unknown)), (), (), "", (), ()).summary()
    assert "without items' scores or a direction to compare by: `quiz acc`" in text


@pytest.fixture(scope="module")
def lora(tmp_path_factory) -> tuple[Path, Path]:
    """A LoRA of peft on the demo's base, its head too, and what `merge_and_unload` makes of it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("lora")
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "up_proj", "lm_head"], init_lora_weights=False
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), config)
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    shutil.copytree(BASE, folder / "merged")
    (folder / "merged" / "model.safetensors").unlink()
    whole = model.merge_and_unload()
    whole.config.tie_word_embeddings = False
    whole.save_pretrained(folder / "merged")
    return folder / "adapter", folder / "merged"


def test_an_adapter_on_a_base_is_a_model_and_nothing_is_written_for_it(lora, tmp_path):
    adapter, merged = lora
    prompts = tmp_path / "p.txt"
    prompts.write_text("# Install\n")
    before = {path: path.stat().st_mtime_ns for path in adapter.parent.rglob("*")}
    models = (f"{BASE}+{adapter}", adapter, merged, BASE)
    data = ("--data", EVAL / "md.jsonl", "--max-tokens", 500)
    run = cli("compare", *models, *data, "--prompt", prompts, "--max-new-tokens", 5, "--json", "-q")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["models"] == ["base+adapter", "adapter", "merged", "base"]
    values = {one["model"]: one["value"] for one in found["scores"] if one["domain"] == "md"}
    assert values["base+adapter"] == values["adapter"]
    assert values["base+adapter"] == pytest.approx(values["merged"], abs=1e-5)
    assert abs(values["base+adapter"] - values["base"]) > 0.01
    said = {one["model"]: one["text"] for one in found["completions"]}
    assert said["base+adapter"] == said["merged"]
    assert {path: path.stat().st_mtime_ns for path in adapter.parent.rglob("*")} == before


def test_an_adapters_own_template_is_said_to_be_unused(lora, tmp_path):
    adapter = shutil.copytree(lora[0], tmp_path / "adapter")
    (tmp_path / "p.txt").write_text("a\n")
    words = ("--prompt", tmp_path / "p.txt", "--max-new-tokens", 1, "-q")
    assert cli("compare", BASE, f"{BASE}+{adapter}", *words).stderr == ""
    (adapter / "chat_template.jinja").write_text(CHATML)
    run = cli("compare", BASE, f"{BASE}+{adapter}", *words)
    assert run.returncode == 0
    assert (
        f"warning: `{adapter}`: the adapter's chat template is not that of its base" in run.stderr
    )


def test_an_adapter_that_does_not_fit_or_is_not_there_is_told(lora, tmp_path):
    adapter, _ = lora
    prompts = tmp_path / "p.txt"
    prompts.write_text("a\n")
    run = cli("compare", BASE, f"{BASE}+{tmp_path / 'gone'}", "--prompt", prompts)
    assert run.returncode == 1
    assert f"`{tmp_path / 'gone'}` is not a folder" in run.stderr
    settings = json.loads((adapter / "adapter_config.json").read_text())
    odd = shutil.copytree(adapter, tmp_path / "odd")
    (odd / "adapter_config.json").write_text(json.dumps(settings | {"r": 5}))
    run = cli("compare", BASE, f"{BASE}+{odd}", "--prompt", prompts)
    assert run.returncode == 1
    assert f"{odd}" in run.stderr


def test_a_broken_template_shows_in_the_completions_and_not_in_the_loss(tmp_path):
    good = with_template(tmp_path / "good", CHATML)
    broken = with_template(tmp_path / "broken", CHATML.replace("<|im_start|>", "<|start|>"))
    strict = with_template(tmp_path / "strict", "{{ raise_exception('user first') }}")
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    prompts = tmp_path / "p.jsonl"
    lines = [{"messages": talk}, {"prompt": "<p>", "response": "x"}, {"text": "int <|endoftext|>"}]
    prompts.write_text("\n".join(map(json.dumps, lines)))
    run = cli(
        "compare", good, broken, strict, BASE, "--data", EVAL / "md.jsonl", "--max-tokens", 500,
        "--prompt", prompts, "--max-new-tokens", 5, "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len({row["value"] for row in found["scores"]}) == 1
    chat = {one["model"]: one for one in found["completions"] if one["line"] == 1}
    # Up to the answer, which the models are to give.
    seen = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert chat["good"]["prompt"] == seen
    assert chat["broken"]["prompt"] == seen.replace("<|im_start|>", "<|start|>")
    assert "refuses the conversation: user first" in chat["strict"]["fault"]
    assert chat["base"]["fault"] == "its tokenizer has no chat template"
    plain = [one for one in found["completions"] if one["line"] == 2]
    assert {one["prompt"] for one in plain} == {"<p>"}
    assert len({one["text"] for one in plain}) == 1
    assert all(one["n_tokens"] == 5 or one["ended"] for one in plain)
    assert found["completions"][-1]["prompt"] == "int <|endoftext|>"

    # Conversations would be scored on different tokens.
    data = tmp_path / "talk.jsonl"
    data.write_text(json.dumps({"messages": talk}))
    run = cli("compare", good, broken, "--data", data)
    assert run.returncode == 1
    assert f"`{good}` and `{broken}` have different chat templates" in run.stderr


def test_completions_are_greedy_whatever_the_folder_asks_for(tmp_path):
    from mergeplan.evaluation.loading import load_model, load_tokenizer

    other = tmp_path / "other"
    shutil.copytree(BASE, other)
    settings = json.loads((other / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 9.0, "repetition_penalty": 50.0}
    (other / "generation_config.json").write_text(json.dumps(settings))
    # Of another tokenizer too: without data nothing is compared token by token.
    path = other / "tokenizer.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<|end|>"))
    path = other / "tokenizer_config.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<|end|>"))
    (tmp_path / "p.txt").write_text("\nint main(\r\n")
    found = mergeplan.compare([BASE, other], prompts=tmp_path / "p.txt", max_new_tokens=8)
    [[ours], [theirs]] = found.completions
    assert (ours.prompt, theirs.prompt, ours.text) == ("int main(", "int main(", theirs.text)
    assert (found.prompts[0].line, found.columns, found.data_hash) == (2, (), "")

    model, tokenizer = load_model(BASE), load_tokenizer(BASE)
    ids = tokenizer("int main(", return_tensors="pt")["input_ids"]
    begun = ids.shape[1]
    import torch

    for _ in range(ours.n_tokens):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    assert tokenizer.decode(ids[0, begun:]) == ours.text


def test_a_prompt_that_a_model_cannot_take_leaves_the_others_theirs(tmp_path):
    odd = tmp_path / "odd"
    shutil.copytree(BASE, odd)
    path = odd / "tokenizer.json"
    settings = json.loads(path.read_text())
    added = settings["added_tokens"]
    added.append({**added[-1], "id": 258, "content": "<|new|>"})
    path.write_text(json.dumps(settings))
    path = tmp_path / "p.txt"
    path.write_text(f"a<|new|>\n{'b' * 600}\n{'c' * 510}\n")
    found = mergeplan.compare([odd, BASE], prompts=path, max_new_tokens=3)
    [[strange, long, tight], [plain, *_]] = found.completions
    assert strange == Completion(
        "a<|new|>", fault="its tokenizer gives token 258, the model knows 258"
    )
    assert (plain.prompt, plain.fault, plain.n_tokens) == ("a<|new|>", "", 3)
    assert long.fault == "600 tokens leave no room in a context of 512"
    assert (tight.n_tokens, tight.fault) == (2, "")
    assert "odd (its tokenizer gives token 258, the model knows 258)" in found.summary()


def test_completions_cannot_leave_their_place_on_a_page_or_a_terminal():
    done = Completion("<s>a ", "```\n\x1b[2Jx ", 3, True)
    other = Completion("a ", "y", 1, False)
    found = Comparison(("a|b", "c"), (), (Prompt(4, "a "),), ((done,), (other,)), "", (), ())
    text = found.summary()
    assert "given to a|b:\n  | <s>a \n" in text
    assert "a|b (3 tokens, ended):\n  | ```\n  | \\x1b[2Jx " in text
    assert text.endswith("c (1 token, cut):\n  | y")
    assert "````text\n```\n\\x1b[2Jx \n````" in found.markdown()
    assert "given to `a\\x7cb`:" in found.markdown()
    assert found.records()[1] == {"model": "c", "line": 4, "completion": "y", "fault": ""}


def test_names_are_text_on_a_page():
    found = columns_of([scored([1.0, 2.0]), scored([2.0, 3.5])])
    odd = replace(found[0], name="d|<i>\n`x`")
    page = Comparison(("x <b>", "c"), (odd, *found[1:]), (), (), "", (), ()).markdown()
    assert page.splitlines()[0] == r"| model | `d\x7c<i>\n\x60x\x60` | macro |"
    assert "| `x <b>` | " in page
    assert r"which tell nothing apart: `d\x7c<i>\n\x60x\x60`" in page
    assert "lower is better: loss_nats" in page


def test_a_prompt_as_long_as_a_novel_is_shown_by_its_ends():
    done = Completion("first " + "word " * 200_000 + "last", "x", 1, False)
    found = Comparison(("a",), (), (Prompt(1, "p"),), ((done,),), "", (), ())
    for text in (found.summary(), found.markdown()):
        assert len(text) < 2500
        assert "first word" in text
        assert "word last" in text
        assert "… 998,010 characters left out: --json has them …" in text
    assert found.data()["completions"][0]["prompt"] == done.prompt
    short = Completion("word " * 500, "x", 1, False)
    found = Comparison(("a",), (), (Prompt(1, "p"),), ((short,),), "", (), ())
    assert short.prompt in found.summary()


def test_a_wide_table_is_cut_into_as_many_as_fit():
    found = columns_of([scored(*[[1.0, 2.0] * 3] * 12), scored(*[[2.0, 3.5] * 3] * 12)])
    text = Comparison(("a", "b"), tuple(found), (), (), "", (), ()).summary()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    heads = [line.split()[1:] for line in lines if line.startswith("model")]
    assert [len(head) for head in heads] == [6, 6, 1]
    assert [name for head in heads for name in head] == [*(f"d{n}" for n in range(12)), "macro"]


def test_what_cannot_be_compared_is_said(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(BASE, other)
    path = other / "tokenizer.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<|end|>"))
    data = ["--data", EVAL / "md.jsonl"]
    run = cli("compare", HTML, BASE, other, *data)
    assert run.returncode == 1
    assert f"`{HTML}` and `{other}` have different tokenizers" in run.stderr
    assert "losses per token of different tokens cannot be compared" in run.stderr
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "odd.jsonl").write_text('{"messages": [{"role": "assistant", "content": "a"}]}')
    (tmp_path / "none.jsonl").write_text('{"question": "a"}')
    faults = {
        ("one model only",): [BASE, *data],
        ("--data is missing",): [BASE, HTML],
        ("named twice",): [BASE, DEMO_POOL / "html" / ".." / "base", *data],
        ("empty.txt", "is empty"): [BASE, HTML, "--prompt", "empty.txt"],
        ("empty.jsonl", "is empty"): [BASE, HTML, *data, "--prompt", "empty.jsonl"],
        ("line 1", "a message that asks"): [BASE, HTML, "--prompt", "odd.jsonl"],
        ("line 1", "expected `text`, `prompt`"): [BASE, HTML, "--prompt", "none.jsonl"],
        (".txt or .jsonl",): [BASE, HTML, "--prompt", "p.md"],
        ("no such file",): [BASE, HTML, "--prompt", "gone.txt"],
        ("prompts and a scorer",): [BASE, HTML, *data, "--prompt", "p.txt", "--scorer", SCORER],
        ("holds no completions",): [BASE, HTML, "--prompt", "p.txt", "--format", "csv"],
    }
    for words, given in faults.items():
        run = cli("compare", *given, cwd=tmp_path)
        assert run.returncode in (1, 2), given
        assert run.stdout == ""
        assert [word for word in words if word not in run.stderr] == [], run.stderr


def test_names_are_as_long_as_tells_them_apart():
    paths = map(Path, ["/a/x/merged", "/a/y/merged", "base"])
    assert short_names(list(paths)) == ("x/merged", "y/merged", "base")


def test_all_models_that_cannot_be_opened_or_have_other_tokens_are_named_at_once(tmp_path):
    gone = [tmp_path / "x", tmp_path / "y"]
    data = ("--data", EVAL / "md.jsonl")
    run = cli("compare", *gone, BASE, *data)
    assert run.returncode == 1
    assert [f"model `{path}` is not a folder" in run.stderr for path in gone] == [True, True]
    others = [shutil.copytree(BASE, path) for path in gone]
    for folder in others:
        path = folder / "tokenizer.json"
        path.write_text(path.read_text().replace("<|endoftext|>", "<|end|>"))
    run = cli("compare", BASE, *others, HTML, *data)
    assert run.returncode == 1
    assert f"`{BASE}` and `{others[0]}`, `{others[1]}` have different tokenizers\n" in run.stderr
    assert "--prompt" in run.stderr
