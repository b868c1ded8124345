"""The hub's token goes to the hub, and nowhere else: no message, log, manifest or card has it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product

import numpy as np
import pytest

from tests.support.commands import cli_process
from tests.support.merges import config_text
from tests.support.runs import save_bfloat16
from tests.support.shares import spread

TOKEN = "hf_TheTokenThatNobodyMaySee12345"


@pytest.fixture
def hub():
    """A hub that refuses everything, and says the token that it got wherever it can."""
    seen = []

    class Refuses(BaseHTTPRequestHandler):
        code = 403

        def do_GET(self):
            given = self.headers.get("Authorization", "")
            seen.append(given)
            body = f"no: {given}".encode()
            self.send_response(self.code)
            self.send_header("X-Error-Message", f"refused {given}")
            self.send_header("X-Request-Id", given)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.seen, server.handler = seen, Refuses
    yield server
    server.shutdown()
    server.server_close()


def surroundings(kind, tmp_path, **more):
    """The token in one of the two places where huggingface_hub looks for it."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    env = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "MERGEPLAN_TRACEBACK": "1", **more}
    if kind == "variable":
        return {**env, "HF_TOKEN": TOKEN}
    (home / "token").write_text(TOKEN)
    return env


def merge_of_a_hub_model(tmp_path, env):
    text = config_text("linear", ["someone/model"], parameters={"weight": 1})
    (tmp_path / "c.yml").write_text(text)
    return cli_process("merge", "c.yml", "out", cwd=tmp_path, env=env)


def check_nowhere(tmp_path, done) -> None:
    assert TOKEN not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != tmp_path / "home" / "token":
            assert TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("code", "kind"), spread(list(product((401, 403, 404, 500), ("variable", "file"))), 2)
)
def test_a_hub_that_refuses_and_repeats_the_token(code, kind, hub, tmp_path):
    hub.handler.code = code
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    done = merge_of_a_hub_model(tmp_path, surroundings(kind, tmp_path, HF_ENDPOINT=endpoint))
    assert done.returncode == 1
    assert "`someone/model`" in done.stderr
    assert f"Bearer {TOKEN}" in hub.seen
    check_nowhere(tmp_path, done)
    assert not (tmp_path / "out").exists()


def test_a_merge_of_a_cached_model_keeps_no_trace_of_the_token(tmp_path):
    commit = "0" * 40
    env = surroundings("variable", tmp_path, HF_HUB_OFFLINE="1")
    repository = tmp_path / "home" / "hub" / "models--someone--model"
    save_bfloat16(repository / "snapshots" / commit, {"x": np.ones((2, 2), np.float32)})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    done = merge_of_a_hub_model(tmp_path, env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "README.md").exists()
    check_nowhere(tmp_path, done)
