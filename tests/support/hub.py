"""A stand-in of the hub's HTTP API on this machine: what huggingface_hub asks of it to make a
repository, look into it and commit to it, by the LFS protocol, and nothing else.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_standInToken"
_REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    """One of the hub."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.bin\n"})
    commits: list[str] = field(default_factory=lambda: ["first"])

    @property
    def sha(self) -> str:
        text = "\n".join([*self.commits, *sorted(self.files)])
        return hashlib.sha1(text.encode()).hexdigest()


@dataclass
class Hub:
    """What it has, what it was asked, and what goes wrong.

    Attributes:
        faults: Of requests whose method and path match a pattern: a status and a message, or
            `None` for a connection that is cut.
        times: How often each fault comes; for ever where it is not named.
        token: What its users have.
        meanwhile: Done to a repository before it takes a commit.
    """

    endpoint: str = ""
    token: str = TOKEN
    role: str = "write"
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    faults: dict[str, tuple[int, str] | None] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    meanwhile: Callable[[Repository], object] = id

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is to meet this hub."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # its servers have a protocol of their own
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def fault_of(self, asked: str) -> str | None:
        for pattern in self.faults:
            if re.match(pattern, asked) and self.times.get(pattern, 1) > 0:
                if pattern in self.times:
                    self.times[pattern] -= 1
                return pattern
        return None


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "", **more: object) -> None:
        self.status, self.message, self.code = status, message, code
        self.answer = {"error": message, **more}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path, _, _ = self.path.partition("?")
        asked = f"{self.command} {path}"
        self.hub.asked.append(asked)
        body = self._body()
        try:
            if (pattern := self.hub.fault_of(asked)) is not None:
                fault = self.hub.faults[pattern]
                if fault is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                raise Refusal(*fault)
            if not path.startswith("/lfs/") and path != "/api/validate-yaml":
                self._check_token()
            for route, answer in _ROUTES.items():
                if found := re.fullmatch(route, asked):
                    self._send(200, answer(self.hub, body, **found.groupdict()))
                    return
            raise Refusal(404, f"no route {asked}")
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self._send(refusal.status, refusal.answer, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _check_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "Invalid credentials in Authorization header")

    def _send(self, status: int, answer: Any, more: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        if "/resolve/" in self.path and status == 200:
            self.send_header("ETag", f'"{_oid(content)}"')
            self.send_header("X-Repo-Commit", self.path.split("/resolve/")[1].split("/")[0])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _whoami(hub: Hub, body: bytes) -> Any:
    role = {"role": hub.role, "displayName": "test"}
    return {"type": "user", "name": "me", "orgs": [], "auth": {"accessToken": role}}


def _there(hub: Hub, repository: str) -> Repository:
    if repository not in hub.repositories:
        raise Refusal(404, "Repository not found", "RepoNotFound")
    return hub.repositories[repository]


def _info(hub: Hub, body: bytes, repository: str) -> Any:
    found = _there(hub, repository)
    files = [{"rfilename": name} for name in sorted(found.files)]
    return {"id": repository, "private": found.private, "sha": found.sha, "siblings": files}


def _tree(hub: Hub, body: bytes, repository: str) -> Any:
    return [
        {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
        for name, content in _there(hub, repository).files.items()
    ]


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _may_write(hub: Hub, body: bytes, repository: str) -> Any:
    _there(hub, repository)
    return {}


def _create(hub: Hub, body: bytes) -> Any:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if asked["organization"] not in ("me", "org"):
        raise Refusal(403, "You don't have the rights to create a model under this namespace")
    if name in hub.repositories:
        raise Refusal(409, "You already created this model repo")
    private = asked.get("visibility") == "private" or asked.get("private") is True
    hub.repositories[name] = Repository(private)
    return {"url": f"{hub.endpoint}/{name}"}


def _validate(hub: Hub, body: bytes) -> Any:
    front = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
    if front.get("license") not in (None, "mit", "apache-2.0", "cc-by-nc-4.0", "other"):
        raise Refusal(400, "", errors=[{"message": '"license" must be one of [mit, ...]'}])
    return {"errors": [], "warnings": []}


def _preupload(hub: Hub, body: bytes, repository: str) -> Any:
    _there(hub, repository)
    return {
        "files": [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
    }


def _batch(hub: Hub, body: bytes, repository: str) -> Any:
    objects = []
    for one in json.loads(body)["objects"]:
        place = f"{hub.endpoint}/lfs/{one['oid']}?X-Amz-Signature=secret"
        actions = {} if one["oid"] in hub.uploads else {"actions": {"upload": {"href": place}}}
        objects.append({**one, **actions})
    return {"transfer": "basic", "objects": objects}


def _upload(hub: Hub, body: bytes, oid: str) -> Any:
    if hashlib.sha256(body).hexdigest() != oid:
        raise Refusal(400, "the content has another hash")
    hub.uploads[oid] = body
    return {}


def _commit(hub: Hub, body: bytes, repository: str) -> Any:
    found = _there(hub, repository)
    lines = [json.loads(line) for line in body.splitlines()]
    header = lines[0]["value"]
    hub.meanwhile(found)
    if header.get("parentCommit") not in (None, found.sha):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    for line in lines[1:]:
        file = line["value"]
        if line["key"] == "lfsFile":
            found.files[file["path"]] = hub.uploads[file["oid"]]
        else:
            found.files[file["path"]] = base64.b64decode(file["content"])
    found.commits.append(header["summary"])
    return {"commitUrl": f"{hub.endpoint}/{repository}/commit/{found.sha}", "commitOid": found.sha}


def _resolve(hub: Hub, body: bytes, repository: str, file: str) -> Any:
    found = _there(hub, repository)
    if file not in found.files:
        raise Refusal(404, "Entry not found", "EntryNotFound")
    return found.files[file]


_ROUTES = {
    "GET /api/whoami-v2": _whoami,
    rf"GET /api/models/{_REPOSITORY}(?:/revision/\w+)?": _info,
    rf"GET /api/models/{_REPOSITORY}/tree/\w+": _tree,
    f"GET /api/models/{_REPOSITORY}/auth-check/write": _may_write,
    "POST /api/repos/create": _create,
    "POST /api/validate-yaml": _validate,
    f"POST /api/models/{_REPOSITORY}/preupload/main": _preupload,
    rf"POST /{_REPOSITORY}\.git/info/lfs/objects/batch": _batch,
    r"PUT /lfs/(?P<oid>\w+)": _upload,
    f"POST /api/models/{_REPOSITORY}/commit/main": _commit,
    rf"(?:GET|HEAD) /{_REPOSITORY}/resolve/\w+/(?P<file>.+)": _resolve,
}


@contextmanager
def hub_on_this_machine() -> Iterator[Hub]:
    """Run one until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
