"""Ray: a cluster, or one on this machine. It schedules, restarts and repeats; we do not."""

import atexit
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mergeplan.errors import InputError, MissingInputError, SurroundingsError

LOCAL = "local"
# Ray starts a worker within seconds, and finds within half a minute that a node is lost.
_ANSWER_SECONDS = 60.0
# Ray ends a process, with a stack trace, that has been without its head for 60 seconds.
_HEAD_SECONDS = 45.0


class HeadLostError(SurroundingsError):
    """The head of a cluster is gone, and with it the cluster."""


def connect(address: str) -> Any:
    """Ray, connected to a cluster, or to one that is started on this machine.

    Args:
        address: `local`, `auto` or the address of a cluster's head.

    Raises:
        MissingInputError: Ray is not installed.
        InputError: There is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingInputError(
            "running on Ray needs the package `ray`", "install it: `pip install 'mergeplan[ray]'`"
        ) from error
    if not ray.is_initialized():
        place: dict[str, Any] = {"address": address}
        if address == LOCAL:
            place = {"address": LOCAL, "include_dashboard": False}
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
            # Ray's own handler of SIGTERM aborts the process, with a stack trace.
            if before is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"cannot reach a Ray cluster at `{address}`: {_first_line(error)}",
                "start one with `ray start --head`, or say `--ray local`",
            ) from error
    return ray


def on_every_node(ray: Any, function: Any, *arguments: Any) -> dict[str, Any]:
    """Call a function once on each node that is alive; results by the node's address.

    Raises:
        SurroundingsError: A node does not answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=2)(function)
    calls = {
        node["NodeManagerAddress"]: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*arguments)
        for node in _alive(ray)
    }
    found = {}
    for address, call in calls.items():
        try:
            found[address] = ray.get(call, timeout=_ANSWER_SECONDS)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:
            raise SurroundingsError(
                f"node `{address}` of the cluster does not answer",
                "`ray status` lists the nodes; wait until a lost one is off the list",
            ) from error
    return found


def cpus_of_nodes(ray: Any) -> dict[str, int]:
    """How many CPUs each node has that is alive and has any, by its id."""
    counts = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in _alive(ray)}
    return {node: count for node, count in counts.items() if count}


def check_large_enough(nodes: dict[str, int], threads: int, what: str) -> None:
    """Refuse to go on where no node is left that is large enough.

    Args:
        nodes: As `cpus_of_nodes` has them.
        what: What needs so many threads.

    Raises:
        SurroundingsError: There is none.
    """
    most = max(nodes.values(), default=0)
    if most < threads:
        raise SurroundingsError(
            f"nodes were lost: {what} needs {threads} CPUs, and no node is left with more than"
            f" {most}",
            "start nodes again, or give fewer `--threads`",
        )


def _alive(ray: Any) -> list[dict[str, Any]]:
    """The nodes on the cluster's list.

    Raises:
        HeadLostError: Its head does not answer.
    """
    found: list[list[dict[str, Any]]] = []

    def ask() -> None:
        with suppress(Exception):  # or the thread would print it, with its stack
            found.append(ray.nodes())

    # In a thread, since Ray waits for its head longer than it lets this process live without it.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_HEAD_SECONDS)
    if not found:
        atexit.unregister(ray.shutdown)  # it would wait for the head once more, for minutes
        raise HeadLostError(
            "the head of the Ray cluster does not answer",
            "start a cluster again; `--resume` goes on from what is done",
        )
    return [node for node in found[0] if node["Alive"]]


@contextmanager
def telling_of_ray(ray: Any) -> Iterator[None]:
    """Raise what a task raised, and say of what Ray itself could not do.

    Raises:
        SurroundingsError: Ray has lost a task or what it needs.
    """
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, Exception) else error from None
    except ray.exceptions.RayError as error:
        raise SurroundingsError(
            f"Ray gave up: {_first_line(error)}",
            "look at `ray status`, and whether the nodes have memory enough; `--resume` goes on",
        ) from error


def _first_line(error: BaseException) -> str:
    """Ray's messages go on for pages, with stack traces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
