"""Documents that belong together: their halves, and what counts as one."""

import hashlib
import json

import pytest

from mergeplan.evaluation.documents import Document, read_documents
from mergeplan.evaluation.halves import short_domains


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def test_documents_without_a_group_keep_the_halves_that_they_had():
    for number in range(50):
        text = f"document {number}"
        digest = hashlib.sha256(json.dumps([0, text, None, None]).encode()).hexdigest()
        expected = "check" if int(digest[-1], 16) % 2 else "selection"
        assert Document(1, text).half == Document(7, text).half == expected


@pytest.mark.parametrize("kind", ["text", "response", "messages"])
def test_a_group_falls_into_one_half_of_every_file(kind, tmp_path):
    def line(number: int, text: str) -> dict[str, object]:
        group = {"group": f"file {number}"}
        if kind == "messages":
            return {"messages": [{"role": "assistant", "content": text}], **group}
        return {kind: text, **({"prompt": ""} if kind == "response" else {}), **group}

    files = [
        write(tmp_path / f"{name}.jsonl", [line(n // 5, f"{name} {n}") for n in range(100)])
        for name in ("code", "math")
    ]
    halves: dict[str | None, set[str]] = {}
    for file in files:
        for document in read_documents(file).documents:
            halves.setdefault(document.group, set()).add(document.half)
    assert len(halves) == 20
    assert all(len(found) == 1 for found in halves.values())
    assert len(set.union(*halves.values())) == 2


@pytest.mark.parametrize(
    ("value", "group"),
    [("a", "a"), (3, "3"), (3.0, "3"), ("3", "3"), (2.5, "2.5"), (-1, "-1"), (None, None)],
)
def test_a_group_is_a_string_or_a_number(value, group, tmp_path):
    file = read_documents(write(tmp_path / "a.jsonl", [{"text": "a", "group": value}]))
    assert file.documents[0].group == group
    assert file.grouped == (group is not None)


def test_short_halves_are_counted_by_group(tmp_path):
    texts = [{"text": f"document {n}"} for n in range(40)]
    data = {
        "apart": write(tmp_path / "apart.jsonl", texts),
        "together": write(
            tmp_path / "together.jsonl",
            [{**text, "group": n % 20} for n, text in enumerate(texts)],
        ),
        "two": write(tmp_path / "two.jsonl", texts[:2]),
    }
    halves = [document.half for document in read_documents(data["apart"]).documents]
    counts = halves.count("selection"), halves.count("check")
    assert min(counts) >= 12
    found = short_domains(data)
    assert list(found) == ["together", "two"]
    assert sum(found["together"]) == 20
    assert sum(found["two"]) == 2
    assert short_domains(data, least=min(counts) + 1)["apart"] == counts
