"""From a plan to a whole output: checked first, merged by a runner, published by one rename.

`runner` has the core; `torch` and `cluster_runner` stand in for it. May import planning and below.
"""
