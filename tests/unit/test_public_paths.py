"""Paths of this machine in the files that go up: cut in settings, refused elsewhere."""

import json
from pathlib import Path

import pytest

from mergeplan.errors import InputError
from mergeplan.hub.paths import refuse_paths, without_paths


def public(name: str, **data: object) -> dict:
    return json.loads(without_paths(name, json.dumps(data).encode()))


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/home/me/base", "base"),
        ("/home/me/My Models (new)/base+lora/", "base+lora"),
        ("/base", "base"),
        ("../../secret/python", "python"),
        ("runs/../../secret/base", "base"),
        ("~/x", "x"),
        ("~me/models/x", "x"),
        ("C:\\Users\\me\\base", "base"),
        ("c:/Users/me/base", "base"),
        ("\\\\server\\share\\base\\", "base"),
        ("file:///home/me/base", "base"),
    ],
)
@pytest.mark.parametrize("key", ["_name_or_path", "special_tokens_map_file", "tokenizer_dir"])
def test_what_stands_under_a_key_of_paths_is_cut_to_its_last_name(key, path, last):
    found = public("tokenizer_config.json", **{key: path, "more": [{key: path}]})
    assert found == {key: last, "more": [{key: last}]}


@pytest.mark.parametrize(
    "path",
    [
        *("/home/me/base", "/data/été/base", "../base", "runs/../../base", "~/base"),
        *("~me/x/base/", "C:\\Users\\me\\base", "C:/Users/base", "file:///home/me/base"),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "1_Pooling/config.json"])
def test_what_is_clearly_a_path_is_cut_under_any_key(file, path):
    assert public(file, trained=[path], inner={"on": path}) == {
        "trained": ["base"],
        "inner": {"on": "base"},
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name_or_path", "org/base"),
        ("name_or_path", "models/base"),
        ("name_or_path", "/"),
        ("name_or_path", "~"),
        ("name_or_path", ".."),
        ("path", "1_Pooling"),
        ("license_link", "https://example.org/a/b"),
        ("eos_token", "</s>"),
        ("eos_token", "/home/me"),
        ("pad_token", {"content": "/a/b", "lstrip": False}),
        ("additional_special_tokens", ["/", "//", "/a/b", "../x"]),
        ("added_tokens_decoder", {"0": {"content": "/usr/bin"}}),
        ("chat_template", "/system/prompt"),
        ("stop_strings", ["/end/turn"]),
        ("id2label", {"0": "/m/b"}),
        ("separators", ["/", "//", "\\", "</s>", "/n", "..", "~"]),
        ("split", "\\s+/\\d+"),
        ("split", "\\\\n\\\\t"),
        ("split", "/\\w+/(a|b)"),
        ("said", "/a/b\nand/or"),
        pytest.param("said", "a/../" * 30_000 + "<", id="long"),
    ],
)
def test_what_is_no_path_is_left_as_it_was_written(key, value):
    content = json.dumps({key: value}).encode()
    assert without_paths("tokenizer_config.json", content) == content


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "added_tokens.json", "a.jinja"])
def test_lists_of_tokens_and_templates_are_left_alone(name):
    content = json.dumps({"name_or_path": "/home/me/base"}).encode()
    assert without_paths(name, content) == content


def test_what_is_no_json_is_left_alone():
    assert without_paths("config.json", b"{'/home/me/base'") == b"{'/home/me/base'"


def refused(content: str | bytes, *folders: Path) -> str | None:
    content = content if isinstance(content, bytes) else content.encode()
    try:
        refuse_paths({"a.py": b"", "b.py": content}, folders)
    except InputError as error:
        return error.message
    return None


def test_a_folder_that_a_file_names_is_told(tmp_path, monkeypatch):
    folder = tmp_path / "été"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    told = f"`b.py` would be published with the path `{folder}` in it"
    for given in (folder, Path("link"), Path("été"), Path("link", "..", "été")):
        for content in (f"x = '{folder}'", f"file://{folder}/x", json.dumps(f"{folder}")):
            assert refused(content, given) == told
    assert refused(b"\xff" + f"{tmp_path / 'link'}".encode(), Path("link")) is not None


def test_what_only_resembles_a_folder_is_no_path():
    folder = Path("/home/me/base")
    for content in ("/home/me/base2", "/home/me/base-x", "http://x/home/me/base", "./home/me/base"):
        assert refused(content, folder) is None
    assert refused("'/out' '/'", Path("/out"), Path("/")) is None
