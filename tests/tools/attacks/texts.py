"""Hostile tokenizers, configs and texts, scored by `evaluate`.

Allowed is a number, or a refusal in our words: no traceback, no panic of a library, no hang.
"""

import json
import resource
import shutil
from pathlib import Path
from random import Random
from typing import Any

from tests.support.settings import DEMO_POOL, EVAL
from tests.tools.attacks.children import preload
from tests.tools.attacks.ground import Ground
from tests.tools.attacks.judge import Fault, spoke_properly
from tests.tools.attacks.rounds import Limits, Tally, run_rounds

_MOST_MEMORY = 12 << 30  # bytes of address space; torch alone takes several
_SLOWEST = 40.0
_FILES = ("tokenizer.json", "tokenizer.json", "tokenizer_config.json", "config.json")
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 255, 2**31, 2**63, 2**64, 10**30, 1e308, float("nan"), -0.5),
    *(
        "",
        "x",
        "\ud800",
        "\0",
        "Ġ" * 1000,
        "(a+)+$",
        "<|endoftext|>",
        "../../etc/passwd",
        "Sequence",
    ),
    *([], {}, [[]], {"": ""}, ["x"] * 100, {"type": "Replace", "pattern": {"Regex": "(a|a)*b"}}),
)
# None that never ends: a template is the model's code, and may take as long as it likes.
_TEMPLATES = (
    "{{ messages }}",
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ 'a' * 10**7 }}",
    "{{ raise_exception('no') }}",
    "{% for %}",
    "{{ undefined.thing }}",
    "",
)
_ROLES = ("user", "assistant", "system", "tool", "", "\0")


class Texts:
    """One ground, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        site = ground.site()
        words = ["evaluate", str(DEMO_POOL / "base"), "--data", str(EVAL / "html.jsonl")]
        preload([*words, "--max-tokens", "50", "--quiet"], site, ground.notes(site), every=True)
        ground.leave(site)

    def play(self, chance: Random) -> str:
        """A model and texts, one of them hostile, or both."""
        site = self.ground.site()
        what = chance.choice(("model", "model", "template", "texts", "both"))
        done = ["texts"] if what == "texts" else []
        try:
            model = shutil.copytree(DEMO_POOL / "base", site / "model")
            if what in ("model", "both"):
                done = [_change(model / chance.choice(_FILES), chance)]
            elif what == "template":
                done = [_set_template(model / "tokenizer_config.json", chance)]
            data = site / "data.jsonl"
            texts = {"model": _plain, "template": _chat}.get(what)
            data.write_bytes(texts() if texts else _texts(chance))
            words = ["evaluate", "model", "--data", "data.jsonl", "--max-tokens", "200", "--quiet"]
            ended = self.ground.run(site, words, first=_limit_memory, slowest=_SLOWEST)
            spoke_properly(ended, (0, 1))
        except (Fault, TimeoutError) as fault:
            raise Fault(f"[{', '.join(done)}] {fault}") from fault
        finally:
            self.ground.leave(site)
        return f"{what}: exit code {ended.code}"


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


def _change(path: Path, chance: Random) -> str:
    """Other values in a JSON file, or other bytes."""
    if chance.random() < 0.15:
        raw = bytearray(path.read_bytes())
        for _ in range(3):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        path.write_bytes(raw)
        return f"bytes of {path.name}"
    try:
        data = json.loads(path.read_bytes())
    except ValueError:
        return f"{path.name} stays"  # it is none any more
    where = _set_somewhere(data, chance)
    path.write_text(json.dumps(data))
    return f"{path.name}: {where}"


def _set_template(path: Path, chance: Random) -> str:
    """A chat template, which is code."""
    data = json.loads(path.read_text())
    data["chat_template"] = chance.choice(_TEMPLATES)
    path.write_text(json.dumps(data))
    return f"chat_template: {data['chat_template']!r}"


def _set_somewhere(data: Any, chance: Random) -> str:
    """Replace, remove or add a value; says which."""
    inner, place = data, ""
    while True:
        key = chance.choice([*inner] if isinstance(inner, dict) else range(len(inner)))
        place += f"[{key!r}]"
        deeper = inner[key]
        if not (isinstance(deeper, dict | list) and deeper and chance.random() < 0.8):
            break
        inner = deeper
    if chance.random() < 0.1:
        del inner[key]
        return f"{place} removed"
    alike = [value for value in _VALUES if type(value) is type(deeper)]
    value = chance.choice(alike if alike and chance.random() < 0.7 else _VALUES)
    inner[key] = value
    return f"{place} = {str(value)[:40]!r}"


def _plain() -> bytes:
    return b"\n".join((EVAL / "html.jsonl").read_bytes().splitlines()[:2])


def _chat() -> bytes:
    """A conversation, for which a chat template is run."""
    messages = [{"role": role, "content": "text"} for role in ("user", "assistant")]
    return json.dumps({"messages": messages}).encode()


def _texts(chance: Random) -> bytes:
    """Lines of JSON, some of which no evaluation expects."""
    lines = [_line(chance) for _ in range(chance.choice((1, 2, 5)))]
    raw = b"\n".join(lines)
    if chance.random() < 0.2 and raw:
        cut = chance.randrange(len(raw))
        raw = raw[:cut] + chance.randbytes(3) + raw[cut:]
    return chance.choice((raw, raw, raw, b"\xef\xbb\xbf" + raw, raw.replace(b"\n", b"\r\n")))


def _line(chance: Random) -> bytes:
    text = chance.choice(
        (
            "a",
            "",
            "\0" * 100,
            "\ud800",
            "é" * 500,
            "<|endoftext|>" * 50,
            "a" * 30_000,
            "\u202e\u0000",
        )
    )
    shapes: tuple[Any, ...] = (
        {"text": text},
        {"text": text},
        {"prompt": text, "response": chance.choice(("b", text))},
        {"messages": [{"role": r, "content": text} for r in chance.choices(_ROLES, k=3)]},
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "b"}]},
        {"text": chance.choice(_VALUES)},
        chance.choice(_VALUES),
    )
    return json.dumps(chance.choice(shapes)).encode()


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play rounds of hostile models and texts."""
    return run_rounds("texts", Texts(ground).play, limits)
