"""Code and further files that come with a model: what is copied, what is named, what stays."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mergeplan.checkpoints.code import code_of
from mergeplan.inspection.verify import verify
from mergeplan.merging.publishing import move_into
from mergeplan.merging.replacing import seen_in
from tests.support.checkpoints import save_checkpoint
from tests.support.commands import cli
from tests.support.merges import config_text, run_mergeplan

CODE = {
    "configuration_tiny.py": """
from transformers import PretrainedConfig

class TinyConfig(PretrainedConfig):
    model_type = "tiny_of_this_test"

    def __init__(self, width=4, vocab_size=8, **more):
        self.width, self.vocab_size = width, vocab_size
        super().__init__(**more)
""",
    "modeling_tiny.py": """
import torch
from transformers import PreTrainedModel
from .configuration_tiny import TinyConfig
from .layers_tiny import Head

class TinyForCausalLM(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = torch.nn.Embedding(config.vocab_size, config.width)
        self.head = Head(config.width, config.vocab_size)
        self.post_init()

    def forward(self, input_ids, **_):
        return self.head(self.embed(input_ids))
""",
    "layers_tiny.py": """
import torch

class Head(torch.nn.Linear):
    pass
""",
}
AUTO_MAP = {
    "AutoConfig": "configuration_tiny.TinyConfig",
    "AutoModelForCausalLM": "modeling_tiny.TinyForCausalLM",
}


def write(folder: Path, files: dict[str, object]) -> Path:
    """Files by name: texts, or data as JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture
def custom(tmp_path) -> Path:
    """A model with code of its own, `base` and `a`."""
    import torch

    config = {
        "architectures": ["TinyForCausalLM"],
        "auto_map": AUTO_MAP,
        "model_type": "tiny_of_this_test",
        "tie_word_embeddings": False,
        "vocab_size": 8,
        "width": 4,
    }
    for number, name in enumerate(("base", "a")):
        tensors = {
            "embed.weight": torch.full((8, 4), 1.0 + number),
            "head.weight": torch.full((8, 4), 3.0 + number),
            "head.bias": torch.full((8,), 5.0 + number),
        }
        folder = save_checkpoint(tmp_path / name, tensors, config)
        for file, text in CODE.items():
            (folder / file).write_text(text)
    return tmp_path


def linear(folder: Path, **top: object) -> str:
    return config_text("linear", [folder / "base", folder / "a"], parameters={"weight": 1}, **top)


def test_an_output_with_code_of_its_own_loads_by_transformers(custom, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM, dynamic_module_utils

    run_mergeplan(linear(custom), custom / "out")
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(custom / "modules"))
    model = AutoModelForCausalLM.from_pretrained(custom / "out", trust_remote_code=True)
    assert type(model).__name__ == "TinyForCausalLM"
    assert torch.equal(model.head.bias.detach(), torch.full((8,), 5.5))
    assert verify(custom / "out").matches
    bare = run_mergeplan(linear(custom), custom / "bare", copy_tokenizer=False)
    assert {path.name for path in Path(bare.out).glob("*.py")} == set(CODE)


def test_imports_are_followed_and_nothing_is_run(tmp_path):
    files = {
        "config.json": {"auto_map": {"AutoModel": "m.Model", "AutoX": ["m.Slow", None]}},
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["t.Slow", "f.Fast"]}},
        "m.py": "raise SystemExit\nfrom .a import x\nif 1:\n    from . import b, name\nimport os",
        "a.py": "try:\n    from .sub.c import y\nexcept ImportError:\n    from .gone import y",
        "b.py": "from .a import x\nfrom ..outside import z",
        "sub/__init__.py": "from .e import w",
        "sub/c.py": "from ..d import v",
        "sub/e.py": "",
        "d.py": "def broken(",
        "t.py": "from .lost import *",
        "f.py": "",
        "unused.py": "",
    }
    found = code_of(write(tmp_path, files), ("config.json", "tokenizer_config.json"))
    expected = "a.py b.py d.py f.py m.py sub/__init__.py sub/c.py sub/e.py t.py"
    assert found.files == tuple(expected.split())
    assert found.missing == {"gone.py": "a.py", "lost.py": "t.py"}


def test_nothing_outside_the_folder_is_copied(tmp_path):
    write(tmp_path, {"secret.py": "", "deep/secret.py": ""})
    auto_map = {
        "AutoModel": "linked.Model",
        "AutoConfig": "../secret.Config",
        "AutoX": f"{tmp_path}/secret.X",
        "AutoY": "other/repo--code.Y",
        "AutoZ": 3,
        "AutoW": "nodot",
        "AutoV": "deep.secret.V",
    }
    folder = write(tmp_path / "model", {"config.json": {"auto_map": auto_map}})
    (folder / "linked.py").symlink_to(tmp_path / "secret.py")
    (folder / "deep").symlink_to(tmp_path / "deep")
    found = code_of(folder, ("config.json",))
    assert found.files == ()
    assert {"linked.py", "deep/secret.py"} <= set(found.missing)
    assert found.elsewhere == ("other/repo",)


def test_links_of_the_hubs_cache_are_followed(tmp_path):
    blobs = write(tmp_path / "models--x" / "blobs", {"blob": ""})
    config = {"auto_map": {"A": "m.M"}}
    folder = write(tmp_path / "models--x" / "snapshots" / "1", {"config.json": config})
    (folder / "m.py").symlink_to(Path("../../blobs") / "blob")
    assert (blobs / "blob").exists()
    assert code_of(folder, ("config.json",)).files == ("m.py",)


def test_code_in_another_repository_and_code_that_is_not_there_are_said(custom):
    config = json.loads((custom / "base" / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "other/repo--configuration.C", "AutoModel": "gone.Model"}
    (custom / "base" / "config.json").write_text(json.dumps(config))
    (custom / "c.yml").write_text(linear(custom))
    done = cli("merge", custom / "c.yml", custom / "out", "--dry-run")
    base = custom / "base"
    assert f"the code of `{base}` is in the repository `other/repo`, and is not" in done.stderr
    assert f"`{base}` has no file `gone.py`, which its `config.json` names" in done.stderr
    assert "gone.py" in cli("inspect", custom / "c.yml").stderr


def test_tokenizers_of_other_kinds_and_modules_of_sentence_transformers_are_copied(custom):
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "own_st.Dense"},
        {"idx": 3, "name": "3", "path": "../a", "type": "sentence_transformers.models.Normalize"},
        {"idx": 4, "name": "4", "path": "4_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    files = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 8},
        "config_sentence_transformers.json": {},
        "1_Pooling/config.json": {"word_embedding_dimension": 4},
        "2_Dense/config.json": {},
        "2_Dense/model.safetensors": "weights",
        "4_Dense/config.json": {},
        "own_st.py": "",
        "additional_chat_templates/tool.jinja": "{{ x }}",
        "qwen.tiktoken": "IQ== 0\n",
        "vocab.bpe": "",
    }
    of_no_use = ("README.md", "LICENSE.txt", ".gitattributes", "onnx/model.onnx")
    left = ("notes.xyz", "tools/run.py")
    write(custom / "base", files | dict.fromkeys((*of_no_use, *left), ""))
    report = run_mergeplan(linear(custom), custom / "out")
    made = ("config.json", "model.safetensors", "README.md", "mergekit_config.yml")
    every = {p.relative_to(report.out).as_posix() for p in report.out.rglob("*") if p.is_file()}
    assert every == {
        *(*made, "mergeplan_manifest.json", *CODE),
        *(name for name in files if name != "2_Dense/model.safetensors"),
    }
    base = custom / "base"
    said = "\n".join(report.warnings)
    # Of the last the weights were not fetched.
    for name in ("2_Dense", "4_Dense"):
        assert f"the weights of the module `{base / name}` are not merged, and stay behind" in said
    assert "1_Pooling" not in said
    assert f"`{base}`: `notes.xyz`, `tools/` stay behind: nothing says what they are for" in said
    assert "no tokenizer" not in said
    assert verify(custom / "out").matches
    (custom / "out" / "1_Pooling" / "config.json").write_text("{}")
    (difference,) = verify(custom / "out").differences
    assert difference.file == "1_Pooling/config.json"
    again = run_mergeplan(linear(custom), custom / "out", overwrite=True)
    assert verify(again.out).matches


def test_onto_a_mount_point_a_folder_replaces_the_one_that_is_there(tmp_path):
    write(tmp_path, {"data/1_Pooling/config.json": "new", "out/1_Pooling/old.json": "old"})
    out = tmp_path / "out"
    move_into(tmp_path / "data", out, ["1_Pooling"], seen_in(out))
    assert [path.name for path in (tmp_path / "out" / "1_Pooling").iterdir()] == ["config.json"]


# What is downloaded.

HELD = (
    *("config.json", "tokenizer.json", "model.safetensors", "modeling.py", "vocab.bpe"),
    *("q.tiktoken", "1_Pooling/config.json", "additional_chat_templates/tool.jinja"),
)
NOT_HELD = ("original/consolidated.00.pth", "onnx/model.onnx", "model.gguf", "pytorch_model.bin")
COMMIT = "0123456789" * 4


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for: the list of a model's files, and each."""

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/tiny/model/tree"):
            rows = [
                {"type": "file", "path": name, "size": len(name), "oid": name}
                for name in (*HELD, *NOT_HELD)
            ]
            body = json.dumps(rows).encode()
        elif path.startswith("/api/"):
            files = [{"rfilename": name} for name in (*HELD, *NOT_HELD)]
            body = json.dumps({"id": "tiny/model", "sha": COMMIT, "siblings": files}).encode()
        else:
            body = path.rpartition(f"{COMMIT}/")[2].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{path[-60:].replace("/", "-")}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


def run_python(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_download_brings_code_and_sub_folders_and_no_other_weights(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = (
        "from mergeplan.checkpoints.hub import find_model\n"
        f"print(find_model('tiny/model', cache={str(tmp_path)!r}, download=True))"
    )
    try:
        done = run_python(
            program,
            HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            HF_HUB_OFFLINE="0",
            HF_HUB_DISABLE_XET="1",
        )
    finally:
        server.shutdown()
        server.server_close()
    folder = Path(done.stdout.strip())
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(HELD), done.stderr
    for name in HELD:
        assert (folder / name).read_text() == name
