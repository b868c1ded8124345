"""Computed, not measured: how long a merge takes on many nodes, on paper and simulated.

On paper: a node merges a shard in `max(compute, disk, its share of the network)` and a task's
overhead; all of S shards take ceil(S / n) such turns, and before and after comes what one machine
does. The simulation gives the shards their own sizes, lets each task read and write through the
rates that the tasks of that moment share, and hands the next shard to whoever is free.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """Rates in bytes a second, times in seconds.

    Attributes:
        compute: Of one node, over all bytes read and written, were they in memory.
        card: Of one node's network card or disk, whichever is slower.
        store: Of what all nodes share, together; infinite where each has a copy.
        begin: Planning, connecting, and looking at every node.
        end: Companions, manifest and publishing.
        task: Of each shard, beside its bytes.
    """

    compute: float
    card: float
    store: float
    begin: float
    end: float
    task: float


def on_paper(cluster: Cluster, shards: Sequence[float], nodes: int) -> float:
    """Seconds, as if all shards (bytes read and written) were alike."""
    at_once = min(nodes, len(shards))
    rate = min(cluster.compute, cluster.card, cluster.store / at_once)
    turns = math.ceil(len(shards) / nodes)
    one = sum(shards) / len(shards) / rate + cluster.task
    return cluster.begin + turns * one + cluster.end


def simulated(cluster: Cluster, shards: Sequence[float], nodes: int) -> float:
    """Seconds, event by event; shards are handed out in their order."""
    waiting = list(reversed(shards))
    now = cluster.begin
    # Nodes that prepare their next shard, by when they are ready; and bytes left of those at work.
    ready = [(now + cluster.task, node) for node in range(min(nodes, len(shards)))]
    left: dict[int, float] = {}
    heapq.heapify(ready)
    while ready or left:
        rate = min(cluster.compute, cluster.card, cluster.store / max(len(left), 1))
        ends = min(left.values(), default=math.inf) / rate
        begins = ready[0][0] - now if ready else math.inf
        step = min(ends, begins)
        now += step
        left = {node: n_bytes - step * rate for node, n_bytes in left.items()}
        if begins <= ends:
            _, node = heapq.heappop(ready)
            left[node] = waiting.pop()
        else:
            node = min(left, key=lambda one: left[one])
            del left[node]
            if len(waiting) > len(ready):
                heapq.heappush(ready, (now + cluster.task, node))
    return now + cluster.end


def table(clusters: dict[str, Cluster], shards: Sequence[float], counts: Sequence[int]) -> str:
    """Speed-ups over one node, on paper and simulated."""
    lines = [
        f"computed, not measured: {sum(shards) / 1e9:.0f} GB read and written, {len(shards)} shards"
    ]
    for name, cluster in clusters.items():
        lines.append(name)
        alone = [times(cluster, shards, 1) for times in (on_paper, simulated)]
        for count in counts:
            found = [times(cluster, shards, count) for times in (on_paper, simulated)]
            ups = [one / many for one, many in zip(alone, found, strict=True)]
            lines.append(
                f"  {count:3} nodes: on paper {found[0]:7.1f} s, {ups[0]:4.1f} x;"
                f" simulated {found[1]:7.1f} s, {ups[1]:4.1f} x"
            )
    return "\n".join(lines)


# 140 GB in bfloat16 (70 B parameters), three experts by linear (all read once) in shards of 5 GB.
_SHARDS = [25e9] * 28
_MEASURED = {"begin": 3.0, "end": 0.5, "task": 0.1}
_GB = 1e9


def examples() -> str:
    """What the docs show."""
    rates = {
        "a copy on each node's disk of 2 GB/s": Cluster(3 * _GB, 2 * _GB, math.inf, **_MEASURED),
        "10 Gbit/s each, a store of 5 GB/s": Cluster(3 * _GB, 1.25 * _GB, 5 * _GB, **_MEASURED),
        "25 Gbit/s each, a store of 40 GB/s": Cluster(3 * _GB, 3.1 * _GB, 40 * _GB, **_MEASURED),
    }
    small = [one / 5 for one in _SHARDS for _ in range(5)]
    return table(rates, _SHARDS, (16, 64)) + "\n\n" + table(rates, small, (16, 64))
