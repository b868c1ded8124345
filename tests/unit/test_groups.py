"""Documents that belong together: their halves, and what counts as one."""

import hashlib
import json
import random
import re
from pathlib import Path

import pytest

from mergeplan.calibration.going_on import go_on
from mergeplan.calibration.identity import RunIdentity
from mergeplan.errors import InputError
from mergeplan.evaluation.documents import Document, TextFile, read_documents
from mergeplan.evaluation.halves import faults_across, short_domains
from mergeplan.evaluation.near_duplicates import NEARLY, near_duplicates
from mergeplan.evaluation.options import BY_GROUP
from mergeplan.system.strict import parse_strictly


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
    [
        ("a", "a"),
        (3, "3"),
        (3.0, "3"),
        ("3", "3"),
        (2.5, "2.5"),
        (-1, "-1"),
        (10**400, "1" + 400 * "0"),
        (None, None),
    ],
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
    files = {name: read_documents(path) for name, path in data.items()}
    found = short_domains(files)
    assert list(found) == ["together", "two"]
    assert sum(found["together"]) == 20
    assert sum(found["two"]) == 2
    assert short_domains(files, least=min(counts) + 1)["apart"] == counts


def shared(one: str, other: str) -> float:
    """The share of both texts' shingles that they have in common: all of them, in sets."""

    def shingles(text: str) -> set[str]:
        plain = re.sub(r"[^a-z0-9]", "", text.lower())
        return {plain[start : start + 16] for start in range(len(plain) - 15)}

    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


def in_half(half: str, text: str) -> Document:
    """A document of that half, by its group."""
    return next(
        document
        for number in range(99)
        if (document := Document(1, text, group=str(number))).half == half
    )


def test_near_duplicates_are_those_of_whole_sets():
    rng = random.Random(0)
    words = [f"word{n}" for n in range(2000)]
    originals = [rng.choices(words, k=rng.randint(40, 600)) for _ in range(60)]
    copies = [
        # From none to most of the words are others.
        [rng.choice(words) if rng.random() < n / 120 else word for word in original]
        for n, original in enumerate(originals)
    ]
    pairs = [(" ".join(a), " ".join(b).upper()) for a, b in zip(originals, copies, strict=True)]
    files = {
        "a": TextFile(Path("a"), "text", tuple(in_half("selection", a) for a, _ in pairs), ""),
        "b": TextFile(Path("b"), "text", tuple(in_half("check", b) for _, b in pairs), ""),
    }
    found = {pair.selection[1].text: pair.check[1].text for pair in near_duplicates(files)}
    for one, other in pairs:
        # What 64 hashes cannot tell from the bound may fall on either side of it.
        if abs(alike := shared(one, other) - NEARLY) > 0.2:
            assert (found.get(one) == other) == (alike > 0)
    assert 8 <= len(found) <= 40


@pytest.mark.parametrize("text", ["yes", "", "?!", "the very same text of some length"])
def test_equal_texts_of_two_groups_are_found_however_short(text):
    pair = in_half("selection", text), in_half("check", text + "!")
    file = TextFile(Path("a"), "text", (*pair, in_half("check", "another text altogether")), "")
    found = near_duplicates({"a": file})
    expected = [pair] if text.strip("?!") else []
    assert [(one.selection[1], one.check[1]) for one in found] == expected
    alike = TextFile(Path("a"), "text", (pair[0], pair[0]), "")
    assert near_duplicates({"a": alike}) == []


def test_documents_without_any_have_no_near_duplicates():
    assert near_duplicates({}) == []


def test_near_duplicates_are_named_with_both_lines(tmp_path):
    text = "one text that stands twice"
    groups = [in_half(half, text).group for half in ("selection", "check")]
    one = write(tmp_path / "one.jsonl", [{"text": "x"}, {"text": text, "group": groups[1]}])
    two = write(tmp_path / "two.jsonl", [{"text": text.title(), "group": groups[0]}])
    files = {path.stem: read_documents(path) for path in (one, two)}
    (fault,) = faults_across(files)
    assert f"nearly the same: `{two}`, line 1 and `{one}`, line 2: give both" in fault
    assert faults_across({"two": files["two"]}) == []


@pytest.mark.parametrize("grouped_now", [True, False])
def test_a_run_goes_on_only_with_the_halves_that_it_was_cut_into(grouped_now):
    # A record of earlier runs says nothing of halves.
    old = '{"models": {}, "texts": {"the text of size 1": "a"}, "arithmetic": {}, "version": 2}'
    by_document = parse_strictly(old, RunIdentity, "run.json")
    by_group = RunIdentity({}, {"the text of size 1": "b"}, {}, halves=BY_GROUP)
    before, now = (by_document, by_group) if grouped_now else (by_group, by_document)
    word = "now carries `group`" if grouped_now else "no longer carries `group`"
    with pytest.raises(InputError, match=f"{word}.*`RUN` were cut {before.halves}") as told:
        go_on(Path("RUN"), before, now)
    assert "or calibrate anew in another folder" in told.value.hint
    assert go_on(Path("RUN"), before, before) == before
    assert parse_strictly(by_group.json(), RunIdentity, "run.json") == by_group
