"""A calibration's workers on a cluster that loses some: a cluster is played here."""

from types import SimpleNamespace

import pytest

from mergeplan.calibration import cluster_executor
from mergeplan.calibration.cluster_executor import ClusterExecutor
from mergeplan.calibration.setup import Setup
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.evaluation.options import EvaluationOptions


class Lost(Exception):
    """Ray's word for a worker that is gone."""


class Cluster:
    """Ray, as far as the executor knows it: calls end in turn, each on one of some nodes.

    Attributes:
        dies: Whether a merge loses its worker; asked for each call.
        silent: Nodes that owe all answers and are off the list.
    """

    exceptions = SimpleNamespace(RayActorError=Lost, RayTaskError=InputError, RayError=Lost)

    def __init__(self, nodes: int, dies=lambda number: False) -> None:
        self.free = [f"n{i}" for i in range(nodes)]
        self.nodes, self.silent, self.dies = list(self.free), set(), dies
        self.answers: dict[object, object] = {}
        self.measured: list[int] = []
        self.killed = 0

    def cluster_resources(self):
        return {"CPU": len(self.nodes)}

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=lambda: Actor(self))

    def put(self, value):
        return value

    def wait(self, calls, timeout):
        ready = [call for call in calls if call.node() and call.node() not in self.silent]
        return ready[:1], []

    def get(self, call):
        if call.number is None:
            return call.node()
        if self.dies(call.number):
            self.free.append(call.node())
            call.actor.node = None
            raise Lost
        self.measured.append(call.number)
        return call.number

    def kill(self, actor):
        self.killed += 1


class Actor:
    def __init__(self, cluster) -> None:
        self.node = cluster.free.pop() if cluster.free else None
        self.begin = SimpleNamespace(remote=lambda *_: Call(self, None))
        self.measure = SimpleNamespace(remote=lambda _, number, *__: Call(self, number))


class Call:
    def __init__(self, actor, number) -> None:
        self.actor, self.number = actor, number

    def node(self):
        return self.actor.node


@pytest.fixture
def make(monkeypatch):
    def made(cluster) -> ClusterExecutor:
        def alive(_):
            return {node: 1 for node in cluster.nodes if node not in cluster.silent}

        monkeypatch.setattr(cluster_executor, "cpus_of_nodes", alive)
        return ClusterExecutor(cluster, None, 0, Setup(EvaluationOptions(), threads=1))

    return made


def test_the_merges_of_a_silent_node_go_to_the_others(make):
    """The worker that is started in its place finds no CPU, and holds nothing up."""
    cluster = Cluster(3)
    found = make(cluster).measure(range(9), range(9))
    first = next(found)
    cluster.silent.add("n1")
    assert sorted([first, *found]) == [*range(9)]


def test_a_merge_whose_worker_is_lost_is_measured_again(make):
    left = {3: 2, 5: 1}

    def dies(number):
        left[number] = left.get(number, 0) - 1
        return left[number] >= 0

    cluster = Cluster(2, dies)
    executor = make(cluster)
    assert sorted(executor.measure(range(7), range(7))) == [*range(7)]
    assert cluster.killed == 3
    # The same workers measure the next round; what nobody waits for any more is passed over.
    some = executor.measure(range(7), [1, 2, 4])
    next(some)
    some.close()
    assert sorted(executor.measure(range(7), [0, 6])) == [0, 6]


def test_workers_that_are_lost_for_ever_are_told(make):
    executor = make(Cluster(2, dies=lambda number: number == 4))
    with pytest.raises(SurroundingsError, match="workers were lost .* nothing measured between"):
        list(executor.measure(range(5), range(5)))


def test_a_cluster_without_nodes_is_told(make):
    cluster = Cluster(2)
    found = make(cluster).measure(range(9), range(9))
    next(found)
    cluster.silent |= {"n0", "n1"}
    with pytest.raises(SurroundingsError, match="a worker needs 1 CPUs, and no node is left"):
        list(found)
