"""`mergeplan merge --push-to-hub`: the real client against a stand-in of the hub."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mergeplan.inspection.verify import verify
from tests.support.checkpoints import load_tensors
from tests.support.commands import Done, cli
from tests.support.documents import check_document
from tests.support.forked import Forked
from tests.support.hub import TOKEN, Hub, Repository, hub_on_this_machine


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_on_this_machine() as hub:
        yield hub


@pytest.fixture
def mit(config: Path) -> Path:
    """The config `config`, of models under the MIT licence."""
    for name in ("base", "a", "b"):
        give_licence(config.parent / name, "mit")
    return config


def give_licence(folder: Path, licence: str) -> None:
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")


def push(hub: Hub, config: Path, *more: object, repository: str = "org/name") -> Done:
    words = ("merge", config, config.parent / "out", "--push-to-hub", repository, *more)
    environment = {**os.environ, **hub.environment, "HF_HOME": str(config.parent / "hf")}
    forked = Forked([str(word) for word in words], Path.cwd(), environment)
    out, err = forked.communicate(timeout=100)
    run = Done(words, forked.returncode, out, err)
    for text in (run.stdout, run.stderr):
        assert TOKEN not in text
        assert "Traceback" not in text
        assert "secret" not in text  # what signs an address
    return run


def refused(run: Done, message: str, code: int = 1) -> None:
    """One clear answer."""
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, run.stderr
    assert message in errors[0]
    assert run.returncode == code


def test_a_merge_is_pushed_whole_private_and_without_paths(hub, mit, tmp_path):
    said = {"model_type": "llama", "_name_or_path": f"{mit.parent}/base"}
    tokens = {"eos_token": "</s>", "special_tokens_map_file": "/home/me/base/tokens.json"}
    for name in ("base", "a", "b"):
        (mit.parent / name / "config.json").write_text(json.dumps(said))
        (mit.parent / name / "tokenizer_config.json").write_text(json.dumps(tokens))
    run = push(hub, mit, "--out-shard-size", 100)
    assert run.returncode == 0, run.stderr
    assert f"{hub.endpoint}/org/name: pushed, private, commit " in run.stdout
    there = hub.repositories["org/name"]
    assert there.private
    assert len(there.commits) == 2
    home = str(mit.parent).encode()
    assert [name for name, content in there.files.items() if home in content] == []
    # Whoever downloads it can verify it.
    for name, content in there.files.items():
        (tmp_path / "down").mkdir(exist_ok=True)
        (tmp_path / "down" / name).write_bytes(content)
    assert verify(tmp_path / "down").matches
    assert load_tensors(tmp_path / "down").keys() == {"x", "y"}
    assert {"model.safetensors.index.json", "model-00002-of-00002.safetensors"} <= {*there.files}
    assert json.loads(there.files["config.json"])["_name_or_path"] == "base"
    tokens["special_tokens_map_file"] = "tokens.json"
    assert json.loads(there.files["tokenizer_config.json"]) == tokens
    card = there.files["README.md"].decode()
    assert "license: mit" in card
    assert "\n# name\n" in card
    manifest = json.loads(there.files["mergeplan_manifest.json"])
    assert manifest["inputs"][0]["files"][0].items() >= {
        ("path", "model.safetensors"),
        ("mtime_ns", 0),
        ("inode", 0),
    }


def test_a_path_that_cannot_be_cut_is_told_before_anything_is_merged(hub, mit):
    for name in ("base", "a", "b"):
        (mit.parent / name / "chat_template.jinja").write_text(f"{{# {mit.parent}/a #}}")
    refused(push(hub, mit), "`chat_template.jinja` would be published with the path `")
    assert not hub.asked
    assert not (mit.parent / "out").exists()


def test_a_merge_that_is_there_already_is_pushed_without_merging_again(hub, mit):
    assert cli("merge", mit, mit.parent / "out", "-q").returncode == 0
    (mit.parent / "out" / "notes.txt").write_text("mine")
    run = push(hub, mit, "--resume", "--public", "--json")
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["read_bytes"] == 0
    assert report["hub"]["repository"] == "org/name"
    assert not report["hub"]["private"]
    there = hub.repositories["org/name"]
    assert not there.private
    assert "notes.txt" not in there.files
    # Again: a licence that is set, say.
    run = push(hub, mit, "--resume", "--public", "--license", "apache-2.0")
    assert run.returncode == 0, run.stderr
    assert b"license: apache-2.0" in there.files["README.md"]
    there.files["README.md"] += b"What I found."
    run = push(hub, mit, "--resume", "--public")
    refused(run, "`README.md` in the repository `org/name` was changed there")


EARLY = {
    "token": ({"GET /api/whoami-v2": (401, "Invalid")}, "the hub refuses the token"),
    "rights": ({"POST /api/repos/create": (403, "You don't have the rights")}, "403: You don't"),
    "taken": ({"POST /api/repos/create": (409, "You already created it")}, "409: You already"),
}


@pytest.mark.parametrize("what", EARLY)
def test_what_the_hub_refuses_is_told_before_anything_is_merged(what, hub, mit):
    hub.faults, message = EARLY[what]
    refused(push(hub, mit), message)
    assert not (mit.parent / "out").exists()
    assert not (mit.parent / "out.partial").exists()


LATE = {
    "upload": ({"PUT /lfs/": (410, "")}, "uploading 'model.safetensors'"),
    "commit": ({"POST .*/commit/main": (500, "Internal")}, "the hub answers 500: Internal"),
    "cut": ({"POST .*/commit/main": None}, "cannot push"),
}


@pytest.mark.parametrize("what", LATE)
def test_a_push_that_fails_keeps_the_merge_and_says_what_pushes_it(what, hub, mit):
    hub.faults, message = LATE[what]
    run = push(hub, mit)
    refused(run, message)
    assert verify(mit.parent / "out").matches
    (line,) = (line for line in run.stderr.splitlines() if line.endswith("pushes it"))
    command = f"`mergeplan merge {mit} {mit.parent / 'out'} --push-to-hub org/name --resume`"
    assert command in line
    assert set(hub.repositories["org/name"].files) == {".gitattributes"}
    if what == "upload":
        hub.faults = {}
        assert push(hub, mit, "--resume").returncode == 0
        assert "model.safetensors" in hub.repositories["org/name"].files


def test_what_came_into_the_repository_meanwhile_is_not_replaced(hub, mit):
    hub.meanwhile = lambda there: there.files.setdefault("README.md", b"mine")
    refused(push(hub, mit), "the hub answers 412: A commit has happened since")
    assert hub.repositories["org/name"].files["README.md"] == b"mine"


THERE = {
    "other": (Repository(True, {"model.safetensors": b""}), (), "holds something else (`model.saf"),
    "public": (Repository(False), (), "is there already, and is public"),
    "private": (Repository(True), ("--public",), "is there already, and is private"),
}


@pytest.mark.parametrize("what", THERE)
def test_a_repository_that_is_there_is_not_replaced_nor_shown_to_others(what, hub, mit):
    found, words, message = THERE[what]
    hub.repositories["org/name"] = found
    before = dict(found.files)
    refused(push(hub, mit, *words), message)
    assert not (mit.parent / "out").exists()
    assert found.files == before


def test_a_repository_that_is_empty_is_filled_where_the_token_may(hub, mit):
    hub.repositories["org/name"] = Repository(True)
    hub.faults = {"GET .*/auth-check/write": (403, "Forbidden")}
    refused(push(hub, mit), "cannot write to the repository `org/name`")
    assert not (mit.parent / "out").exists()
    hub.faults = {}
    assert push(hub, mit).returncode == 0
    assert "model.safetensors" in hub.repositories["org/name"].files


def test_a_token_that_may_only_read_is_refused_and_a_dry_run_makes_nothing(hub, mit):
    run = push(hub, mit, "--dry-run")
    assert run.returncode == 0
    url = f"{hub.endpoint}/org/name"
    assert f"{url}: private, not there yet, would be made; nothing forbids the push" in run.stdout
    assert not hub.repositories
    hub.repositories["org/name"] = Repository(False)
    run = push(hub, mit, "--dry-run", "--public", "--json")
    assert check_document(run.stdout)["hub"] == {"url": url, "private": False, "found": "empty"}
    hub.role = "read"
    refused(push(hub, mit, "--dry-run"), "may only read")


def test_what_is_no_longer_the_merge_is_not_pushed(hub, mit):
    assert cli("merge", mit, mit.parent / "out", "-q").returncode == 0
    card = mit.parent / "out" / "README.md"
    card.write_text(card.read_text() + "mine")
    run = push(hub, mit, "--resume")
    refused(run, "is not what was merged, and is not pushed: `README.md`")
    assert "pushes it" not in run.stderr
    assert set(hub.repositories["org/name"].files) == {".gitattributes"}


def test_what_other_inputs_gave_is_not_pushed_over_a_merge(hub, mit):
    assert push(hub, mit).returncode == 0
    before = dict(hub.repositories["org/name"].files)
    shutil.copy(mit.parent / "b" / "model.safetensors", mit.parent / "a")
    run = push(hub, mit, "--overwrite")
    refused(run, "holds what this config made of other inputs, which is not replaced")
    assert "pushes it" not in run.stderr
    assert hub.repositories["org/name"].files == before


def test_where_the_hub_must_not_be_asked_that_is_said(config):
    # These tests run with HF_HUB_OFFLINE.
    run = cli("merge", config, config.parent / "out", "--push-to-hub", "org/name")
    refused(run, "HF_HUB_OFFLINE is set: nothing can be pushed")
    assert not (config.parent / "out").exists()


def test_without_the_client_the_extra_is_named(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    run = cli("merge", config, config.parent / "out", "--push-to-hub", "org/name")
    refused(run, "needs huggingface_hub")
    assert "mergeplan[hub]" in run.stderr


def test_without_a_token_nothing_is_asked_and_nothing_merged(hub, mit):
    hub.token = ""
    refused(push(hub, mit), "there is no token for the hub")
    assert not hub.asked
    assert not (mit.parent / "out").exists()


def test_a_licence_that_forbids_is_told_before_the_hub_is_asked(hub, mit):
    give_licence(mit.parent / "a", "cc-by-nc-nd-4.0")
    refused(push(hub, mit, "--license", "mit"), "`a`, cc-by-nc-nd-4.0, forbids to publish")
    assert not hub.asked
    # Merged it may be.
    assert cli("merge", mit, mit.parent / "out", "-q").returncode == 0


def test_a_licence_that_the_hub_does_not_know_is_told_before_the_merge(hub, mit):
    run = push(hub, mit, "--license", "our-own")
    refused(run, 'the hub refuses the model card: "license" must be one of')
    assert not hub.repositories


@pytest.mark.parametrize("name", ["name", "a/b/c", "org/-name", "org/a..b", "org/a b", "org/x.git"])
def test_a_name_that_the_hub_takes_from_nobody_is_wrong_usage(name, config):
    run = cli("merge", config, config.parent / "out", "--push-to-hub", name)
    refused(run, "expected ORG/NAME", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("c.yml", "--public"), "`--public` goes with `--push-to-hub`"),
        (
            ("c.yml", "--push-to-hub", "org/name", "--no-write-model-card"),
            "`--push-to-hub` and `--no-write-model-card` exclude each other",
        ),
        (
            ("--push-to-hub", "org/name", "--many", "subsets.csv"),
            "`--push-to-hub` and `--many` exclude each other",
        ),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(words, message, config):
    refused(cli("merge", "out", *words, cwd=config.parent), message, 2)


def test_an_upload_that_fails_for_a_moment_is_tried_again(hub, mit):
    hub.faults, hub.times = {"PUT /lfs/": None}, {"PUT /lfs/": 1}
    run = push(hub, mit)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("\n") == 2, run.stderr  # the warnings of these models alone


def test_a_model_of_the_hub_brings_its_licence(hub, mit):
    """Whoever fetched it before, and is offline now, merges without its card."""
    base = {path.name: path.read_bytes() for path in (mit.parent / "base").iterdir()}
    hub.repositories["org/base"] = Repository(False, base)
    mit.write_text(mit.read_text().replace(f"{mit.parent}/base", "org/base"))
    assert push(hub, mit).returncode == 0
    head = yaml.safe_load(hub.repositories["org/name"].files["README.md"].split(b"---\n")[1])
    assert (head["license"], head["base_model"]) == ("mit", ["org/base"])
    assert head["base_model_relation"] == "merge"
    cache = mit.parent / "hf"
    (card,) = cache.rglob("README.md")
    card.unlink()
    run = cli("merge", mit, mit.parent / "offline", "--transformers-cache", cache / "hub")
    assert run.returncode == 0, run.stderr
    assert "| `org/base` | none stated |" in (mit.parent / "offline" / "README.md").read_text()
