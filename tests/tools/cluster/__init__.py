"""More than one machine: `merge --ray` and `calibrate --ray` on real nodes, and what follows.

    python -m tests.tools.cluster traffic FOLDER     # what crosses the network, what a task costs
    python -m tests.tools.cluster losses FOLDER      # nodes are lost in the middle of both
    python -m tests.tools.cluster simulate           # computed: 16 and 64 nodes

The first two need root: each of three nodes is a set of namespaces of this machine, FOLDER (which
is made, and removed at the end) is what they share. See `tests.support.nodes`.
"""
