"""Workers on a cluster that loses some: a cluster is played here."""

from types import SimpleNamespace

import pytest

from mergeplan.calibration import crew
from mergeplan.calibration.crew import Crew
from mergeplan.errors import InputError, SurroundingsError


class Lost(Exception):
    """Ray's word for a worker that is gone."""


class Cluster:
    """Ray, as far as a crew knows it: calls end in turn, each on one of some nodes.

    Attributes:
        dies: Whether a call loses its worker; asked for each.
        silent: Nodes that owe all answers and are off the list.
        small: Nodes whose worker makes no heavy calls.
    """

    exceptions = SimpleNamespace(RayActorError=Lost, RayTaskError=InputError, RayError=Lost)

    def __init__(self, nodes: int, dies=lambda number: False) -> None:
        self.free = [f"n{i}" for i in range(nodes)]
        self.nodes, self.silent, self.dies = list(self.free), set(), dies
        self.small: set[str] = set()
        self.made_by: dict[int, str] = {}
        self.answers: dict[object, object] = {}
        self.killed = 0

    def cluster_resources(self):
        return {"CPU": len(self.nodes)}

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=lambda: Actor(self))

    def wait(self, calls, timeout):
        ready = [call for call in calls if call.node() and call.node() not in self.silent]
        return ready[:1], []

    def get(self, call):
        if call.number is None:
            small = call.node() in self.small
            return call.node(), SurroundingsError("too large") if small else None
        if self.dies(call.number):
            self.free.append(call.node())
            call.actor.node = None
            raise Lost
        self.made_by[call.number] = call.node()
        return call.number

    def kill(self, actor):
        self.killed += 1


class Actor:
    def __init__(self, cluster) -> None:
        self.node = cluster.free.pop() if cluster.free else None
        self.begin = SimpleNamespace(remote=lambda *_: Call(self, None))
        self.do = SimpleNamespace(remote=lambda number: Call(self, number))


class Call:
    def __init__(self, actor, number) -> None:
        self.actor, self.number = actor, number

    def node(self):
        return self.actor.node


@pytest.fixture
def make(monkeypatch):
    def made(cluster):
        def alive(_):
            return {node: 1 for node in cluster.nodes if node not in cluster.silent}

        monkeypatch.setattr(crew, "cpus_of_nodes", alive)
        return Crew(cluster, None, (), threads=1)

    return made


def calls(numbers):
    return [(number,) for number in numbers]


def given(found):
    """The numbers of the calls, and what they gave, which is their arguments here."""
    return sorted(value for _, value in found)


def test_the_calls_of_a_silent_node_go_to_the_others(make):
    """The worker that is started in its place finds no CPU, and holds nothing up."""
    cluster = Cluster(3)
    found = make(cluster).each(calls(range(9)))
    first = next(found)
    cluster.silent.add("n1")
    assert given([first, *found]) == [*range(9)]


def test_a_call_whose_worker_is_lost_is_made_again(make):
    left = {3: 2, 5: 1}

    def dies(number):
        left[number] = left.get(number, 0) - 1
        return left[number] >= 0

    cluster = Cluster(2, dies)
    made = make(cluster)
    assert given(made.each(calls(range(7)))) == [*range(7)]
    assert cluster.killed == 3
    # The same workers make the next ones; what nobody waits for any more is passed over.
    some = made.each(calls([1, 2, 4]))
    next(some)
    some.close()
    assert given(made.each(calls([0, 6]))) == [0, 6]


def test_heavy_calls_go_to_those_that_can_make_them(make):
    cluster = Cluster(3)
    cluster.small = {"n0", "n2"}
    made = make(cluster)
    assert given(made.each(calls(range(6)), heavy=[0, 1, 4])) == [*range(6)]
    assert {cluster.made_by[number] for number in (0, 1, 4)} == {"n1"}
    assert cluster.made_by.keys() == {*range(6)}


def test_what_is_too_heavy_for_everyone_is_told(make):
    cluster = Cluster(2)
    cluster.small = {"n0", "n1"}
    with pytest.raises(SurroundingsError, match="too large"):
        list(make(cluster).each(calls(range(3)), heavy=[2]))


def test_workers_that_are_lost_for_ever_are_told(make):
    made = make(Cluster(2, dies=lambda number: number == 4))
    with pytest.raises(SurroundingsError, match="workers were lost .* nothing measured between"):
        list(made.each(calls(range(5))))


def test_a_cluster_without_nodes_is_told(make):
    cluster = Cluster(2)
    found = make(cluster).each(calls(range(9)))
    next(found)
    cluster.silent |= {"n0", "n1"}
    with pytest.raises(SurroundingsError, match="a worker needs 1 CPUs, and no node is left"):
        list(found)
