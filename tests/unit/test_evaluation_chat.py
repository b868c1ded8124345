"""Of a conversation every answer is scored once, and nothing else."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from mergeplan.errors import InputError
from mergeplan.evaluation.chat import encode_chat
from tests.support.settings import DEMO_POOL

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }}."
    "{% endgeneration %}{% else %}Q: {{ m.content }}?{% endif %}\n{% endfor %}"
)
# The last answer is written with its reasoning, those before it without.
THINKING = CHATML.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('|')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}",
)
STRICT = (
    "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}" + CHATML
)


def tokenizer(template):
    made = AutoTokenizer.from_pretrained(DEMO_POOL / "base")
    made.chat_template = template
    return made


def talk(*turns: str) -> tuple[dict[str, str], ...]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return tuple({"role": roles[turn[0]], "content": turn[2:]} for turn in turns)


def parts(messages, template) -> list[tuple[str, list[str]]]:
    """The text of each sequence, and its runs of scored tokens."""
    own = tokenizer(template)
    found = []
    for ids, scored in encode_chat(messages, own):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], scored, [0]])))
        runs = [own.decode(ids[a:b]) for a, b in edges.reshape(-1, 2)]
        found.append((own.decode(ids), runs))
    return found


def test_every_answer_is_scored_with_its_end_of_turn_token():
    messages = talk("s brief", "u hi", "a hello", "u bye", "a so long", "u gone?")
    [(text, runs)] = parts(messages, CHATML)
    assert runs == ["hello<|im_end|>", "so long<|im_end|>"]
    assert text.startswith("<|im_start|>system\nbrief<|im_end|>\n<|im_start|>user\nhi")


def test_answers_of_several_bytes_a_character():
    [(_, runs)] = parts(talk("u é?", "a naïve 🙂"), CHATML)
    assert runs == ["naïve 🙂<|im_end|>"]


def test_a_template_that_marks_answers_is_believed():
    [(_, runs)] = parts(talk("u hi", "a hello", "u bye", "a ciao"), MARKED)
    assert runs == ["hello.", "ciao."]


def test_where_old_answers_are_rewritten_each_is_scored_as_it_was_given():
    messages = talk("u 1+1", "a think|2", "u 2+2", "a think|4")
    (first, first_runs), (second, second_runs) = parts(messages, THINKING)
    assert first_runs == ["think|2<|im_end|>"]
    assert second_runs == ["think|4<|im_end|>"]
    assert first.endswith("think|2<|im_end|>\n")
    assert "assistant\n2<|im_end|>" in second


@pytest.mark.parametrize(
    ("template", "messages", "words"),
    [
        (None, talk("u hi", "a hello"), "need a chat template"),
        (STRICT, talk("s brief", "u hi", "a hello"), "refuses the conversation: user first"),
        ("{{ messages", talk("u hi", "a hello"), "refuses the conversation"),
        (
            "{% if add_generation_prompt %}>{% endif %}{{ messages[-1].content }}",
            talk("u hi", "a hello"),
            r"does not write messages\[1\] after its generation prompt",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_told(template, messages, words):
    with pytest.raises(InputError, match=words) as caught:
        encode_chat(messages, tokenizer(template))
    assert caught.value.hint


def test_conversations_need_offsets():
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="needs? a tokenizer that knows offsets, found `Slow`"):
        encode_chat(talk("u hi", "a hello"), Slow())
