"""A cluster of Ray nodes on one machine, each as alone as on a machine of its own.

A node is a set of namespaces: a network card (one end of a veth pair, the other in a bridge), a
host name, processes, shared memory and `/tmp/ray` of its own. What all of them see alike is the
file system. The bridge stands in a network namespace too, so that the machine's own network is not
touched. All of it is held by processes that end with this one: whatever happens, nothing stays.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TOOLS = ("ip", "nsenter", "setpriv", "unshare")
_ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--net")
_NODE = (*_ALONE, "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
_BEGIN = """
hostname "$0" && mount -t tmpfs none /dev/shm && ip link set lo up &&
mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && echo ready && exec sleep infinity
"""
_PORT = 6379
# What a small node takes of the machine: no dashboard, few workers that wait, and no report to its
# makers.
# Nobody else is on this network; a token that its user may have for other clusters stays out of it.
_SETTINGS = ("RAY_AUTH_MODE=disabled",)
_RAY_START = ("--object-store-memory=78643200", "--disable-usage-stats")


def why_not() -> str | None:
    """Why no such cluster can be had here; `None` where it can."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)}"
    tried = subprocess.run([*_NODE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"namespaces are forbidden: {tried.stderr.strip()}"
    try:
        import ray  # noqa: F401
    except ImportError:
        return "needs ray"
    return None


class Node:
    """One node; `name` is its host name."""

    def __init__(self, number: int) -> None:
        self.name, self.address = f"node{number}", f"10.77.0.{number}"
        self._holder = subprocess.Popen(
            [*_NODE, "sh", "-c", _BEGIN, self.name], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        """Of the process outside whose death ends the node."""
        return self._holder.pid

    def command(self, words: Sequence[object], cwd: Path) -> list[str]:
        """The command that runs another one on this node."""
        spaces = [f"--{kind}=/proc/{self.pid}/ns/{kind}" for kind in ("net", "mnt", "uts", "ipc")]
        spaces[1] = spaces[1].replace("--mnt", "--mount")
        spaces.append(f"--pid=/proc/{self.pid}/ns/pid_for_children")
        there = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", 'cd "$0" && exec "$@"', str(cwd)]
        return ["nsenter", *spaces, "env", *_SETTINGS, *there, *map(str, words)]

    def run(self, *words: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command on this node to its end."""
        done = self.command(words, cwd or Path.cwd())
        return subprocess.run(done, capture_output=True, text=True, check=False, timeout=120)

    def begin(self, *words: object, cwd: Path | None = None) -> "subprocess.Popen[str]":
        """Begin a command on this node."""
        words = tuple(self.command(words, cwd or Path.cwd()))
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([str(word) for word in words], text=True, **pipes)

    def kill(self) -> None:
        """End every process of it at once."""
        if self._holder.poll() is not None:
            return
        self._holder.kill()
        self._holder.communicate()


class Nodes:
    """The nodes and the switch between them; see `nodes`.

    Attributes:
        address: Of the head, for `--ray`.
    """

    def __init__(self) -> None:
        self._switch = subprocess.Popen(
            [*_ALONE, "sh", "-c", "echo ready && exec sleep infinity"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._switch.stdout is not None
        assert self._switch.stdout.readline() == "ready\n"
        self.nodes: list[Node] = []
        self.address = f"10.77.0.1:{_PORT}"
        self._ip("link", "add", "bridge", "type", "bridge")
        self._ip("link", "set", "bridge", "up")

    def add(self, cpus: int = 1) -> Node:
        """Another node, with Ray running on it; the first is the head."""
        node = Node(len(self.nodes) + 1)
        self.nodes.append(node)
        port = f"port{len(self.nodes)}"
        there = ("peer", "name", "eth0", "netns", node.pid)
        self._ip("link", "add", port, "type", "veth", *there)
        self._ip("link", "set", port, "master", "bridge", "up")
        node.run("ip", "addr", "add", f"{node.address}/24", "dev", "eth0")
        node.run("ip", "link", "set", "eth0", "up")
        where = (
            ["--head", f"--port={_PORT}", "--include-dashboard=false"]
            if len(self.nodes) == 1
            else [f"--address={self.address}"]
        )
        ray = Path(sys.executable).with_name("ray")
        started = node.run(
            ray,
            "start",
            *where,
            f"--node-ip-address={node.address}",
            f"--num-cpus={cpus}",
            *_RAY_START,
        )
        assert started.returncode == 0, started.stdout + started.stderr
        return node

    def bytes_sent(self) -> list[int]:
        """Bytes that each node has put on the wire so far, headers of frames included."""
        shown = json.loads(self._ip("-s", "-j", "link"))
        received = {link["ifname"]: link["stats64"]["rx"]["bytes"] for link in shown}
        return [received.get(f"port{number}", 0) for number in range(1, len(self.nodes) + 1)]

    def unplug(self, node: Node) -> None:
        """Take a node off the network: it goes on, and nobody hears of it."""
        self._ip("link", "set", f"port{self.nodes.index(node) + 1}", "down")

    def end(self) -> None:
        for node in self.nodes:
            node.kill()
        self._switch.kill()
        self._switch.communicate()

    def _ip(self, *words: object) -> str:
        command = ["nsenter", f"--net=/proc/{self._switch.pid}/ns/net", "ip", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def nodes(count: int, cpus: int = 1) -> Iterator[Nodes]:
    """So many nodes of one cluster, which end with the block."""
    cluster = Nodes()
    try:
        for _ in range(count):
            cluster.add(cpus)
        yield cluster
    finally:
        cluster.end()
