"""Ray: a cluster, or one on this machine. It schedules, restarts and repeats; we do not."""

import logging
import signal
import threading
from typing import Any

from mergeplan.errors import InputError, MissingInputError

LOCAL = "local"


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
                f"cannot reach a Ray cluster at `{address}`: {error}",
                "start one with `ray start --head`, or say `--ray local`",
            ) from error
    return ray


def on_every_node(ray: Any, function: Any, *arguments: Any) -> dict[str, Any]:
    """Call a function once on each node that is alive; results by the node's address."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    remote = ray.remote(num_cpus=0, max_retries=2)(function)
    calls = {
        node["NodeManagerAddress"]: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*arguments)
        for node in nodes
    }
    return {address: ray.get(call) for address, call in calls.items()}
