"""Damage to the text of a file: its bytes, or the data that it says."""

import copy
import json
import pickle
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

import yaml

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

# Values that parsers, arithmetic and messages stumble over.
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**9, 10**18, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.5, -0.0, 1e-320, 1e38, 1e39, 1e300, 1.7e308, float("inf"), float("nan")),
    *("", " ", "\0", "a\nb", "\ud800", "é", "\u202e", "x" * 5000, "9" * 5000, "1e5", "NaN", "null"),
    *("~", "~nosuchuser/x", "/", "..", "../../etc/passwd", "a+b", "+" * 50, "*", "%s", "{}"),
    *("base", "lambda", "weight", "model", "base_model.model.x", "LORA", "1.5GB", "0x10", "1_000"),
    *("(a+)+$", "(?:a|aa)+x", "((a{100}){100}){100}", "("),
    *([], {}, [[]], {"": {}}, [None], {"a": 1}, [1, 2], ["a"], {"value": 1}),
)
_TOKENS = (
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n", b",", b'"', b"'"),
    *(b"\\", b"\\ud800", b"{", b"}", b"[", b"]", b"[" * 300, b'{"a":' * 300, b":", b"-", b"- "),
    *(
        b"? ",
        b"#",
        b"---\n",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!int ",
        b"!!bool ",
        b"!!set ",
        b"!!binary ",
    ),
    *(b"!x ", b"|\n", b"1e999", b"-1", b"9" * 5000, b"0" * 50, b"NaN", b"Infinity", b"nan", b"inf"),
    *(
        b"null",
        b"1e-400",
        b"true",
        b"0x" + b"f" * 5000,
        b"1:" * 30,
        b"2001-99-99",
        b"=",
        b"+",
        b"++",
    ),
    *(b"a" * 200_000, b"\t", "é".encode(), "\u2028".encode(), "\u0085".encode(), b"%YAML 1.1\n"),
    *(b"__proto__", b"\x1b[2J"),
)


def of_bytes(seed: bytes, chance: Random) -> bytes:
    """One to four small damages."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        place = chance.randrange(len(data) + 1)
        end = min(len(data), place + chance.choice((1, 1, 2, 8, 64)))
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[place:place] = chance.choice(_TOKENS)
        elif kind == 2:
            data[place:end] = chance.choice(_TOKENS)
        elif kind == 3:
            del data[place:end]
        elif kind == 4:
            data[place:place] = data[place:end] * chance.choice((1, 2, 40))
        elif kind == 5:
            del data[place:]
        else:
            data[place:place] = chance.randbytes(chance.choice((1, 4, 8)))
    return bytes(data)


@lru_cache(maxsize=1000)
def _parsed(seed: bytes, read: Callable[[bytes], Any]) -> bytes:
    """The data of a seed, to be unpickled: that is the quickest copy."""
    return pickle.dumps(read(seed))


def of_data(seed: bytes, read: Callable[[bytes], Any], chance: Random) -> Any:
    """What a seed says, with one to three places of it changed."""
    data = [pickle.loads(_parsed(seed, read))]
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = _places(data)
        holder, key = chance.choice(places)
        kind = chance.randrange(6)
        if kind < 3:
            holder[key] = copy.deepcopy(chance.choice(_VALUES))
        elif kind == 3 and holder is not data:
            del holder[key]
        elif kind == 4:
            other, there = chance.choice(places)
            holder[key] = copy.deepcopy(other[there])
        elif isinstance(holder, dict):
            name = chance.choice([v for v in _VALUES if isinstance(v, str)])
            holder[name] = holder.pop(key) if chance.random() < 0.5 else holder[key]
        elif holder is not data:
            holder[key:key] = [copy.deepcopy(holder[key])] * chance.choice((1, 3, 30))
    return data[0]


def _places(data: list[Any]) -> list[tuple[Any, Any]]:
    found, queue = [], [data]
    for outer in queue:
        for key in list(outer) if isinstance(outer, dict) else range(len(outer)):
            found.append((outer, key))
            if isinstance(outer[key], dict | list):
                queue.append(outer[key])
    return found


def of_json(seed: bytes, chance: Random) -> bytes:
    """JSON whose data is damaged, or its text, or both."""
    kind = chance.randrange(4)
    if kind:
        seed = _dumped(of_data(seed, json.loads, chance), chance)
    return of_bytes(seed, chance) if kind in (0, 3) else seed


def of_yaml(seed: bytes, chance: Random) -> bytes:
    """The same of YAML, which is at times written as JSON."""
    kind = chance.randrange(4)
    if kind:
        data = of_data(seed, yaml.safe_load, chance)
        try:
            seed = yaml.safe_dump(data, allow_unicode=chance.random() < 0.5).encode(
                "utf-8", "replace"
            )
        except (yaml.YAMLError, ValueError):
            seed = _dumped(data, chance)
    return of_bytes(seed, chance) if kind in (0, 3) else seed


def of_lines(seed: bytes, chance: Random) -> bytes:
    """JSON lines, of which one is damaged, moved or repeated."""
    lines = seed.splitlines()
    place = chance.randrange(len(lines))
    kind = chance.randrange(5)
    if kind < 3:
        lines[place] = of_json(lines[place], chance)
    elif kind == 3:
        lines.insert(chance.randrange(len(lines)), lines[place])
    else:
        return of_bytes(seed, chance)
    return b"\n".join(lines) + chance.choice((b"", b"\n"))


def of_table(seed: bytes, chance: Random) -> bytes:
    """CSV, of which cells, rows or columns are damaged."""
    rows = [line.split(b",") for line in seed.splitlines()]
    for _ in range(chance.choice((1, 1, 2, 4))):
        row = chance.choice(rows)
        cell = chance.randrange(len(row))
        kind = chance.randrange(6)
        if kind < 3:
            value = chance.choice(_VALUES)
            row[cell] = _digits(value).encode("utf-8", "replace")
        elif kind == 3:
            row[cell] = chance.choice(_TOKENS)
        elif kind == 4:
            rows.insert(chance.randrange(len(rows)), list(row))
        else:
            row[cell:cell] = [chance.choice(_TOKENS)]
    made = b"\n".join(b",".join(row) for row in rows)
    return of_bytes(made, chance) if chance.random() < 0.2 else made


def of_safetensors(seed: bytes, chance: Random) -> bytes:
    """A header whose data or length is damaged; what lies behind it is of no matter."""
    length = int.from_bytes(seed[:8], "little")
    header, rest = seed[8 : 8 + length], seed[8 + length :]
    kind = chance.randrange(6)
    if kind == 0:
        return of_bytes(seed, chance)
    header = of_json(header, chance)
    told = len(header)
    if kind == 1:
        told = chance.choice((0, 1, told - 1, told + 1, 2**31, 2**63, 2**64 - 1))
    return told.to_bytes(8, "little", signed=False) + header + rest


def _dumped(data: Any, chance: Random) -> bytes:
    text = json.dumps(
        data, indent=chance.choice((None, None, 1)), ensure_ascii=chance.random() < 0.7
    )
    return text.encode("utf-8", "surrogatepass")


def _digits(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
